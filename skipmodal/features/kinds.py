"""The 1,000 kinds of things that the published image encoders were trained to tell apart (ImageNet), as words.

`kinds.txt` has a line for each, in ImageNet's order: the last word of its name, then what people call it every day, as
in `beagle dog`.
"""

from functools import cache
from pathlib import Path

COUNT = 1000
_IRREGULAR = {"mouse": "mice", "goose": "geese", "ox": "oxen", "wolf": "wolves", "scarf": "scarves", "shelf": "shelves"}
_SAME = frozenset({"fish", "sheep", "deer", "buffalo", "bison", "salmon"})
_UNCOUNTED = frozenset({
    "armor", "beer", "bread", "broccoli", "cabbage", "cauliflower", "chocolate", "coffee", "coral", "corn", "dough",
    "eggnog", "espresso", "food", "fruit", "guacamole", "hay", "ice", "icecream", "lipstick", "lotion", "meat",
    "meatloaf", "pasta", "perfume", "powder", "sand", "soup", "sunscreen", "tea", "velvet", "water", "wheat", "wine",
    "wool", "yarn",
})  # fmt: skip
_SINGULAR = frozenset({"malinois", "mantis", "triceratops"})


@cache
def kinds() -> tuple[tuple[str, ...], ...]:
    """The words of each kind."""
    lines = Path(__file__).with_name("kinds.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return tuple(tuple(line.split()) for line in lines)


def forms(word: str) -> tuple[str, str]:
    """Singular and plural as the tokenizer has them, with the space before."""
    return f" {word}", f" {plural(word)}"


@cache
def names() -> tuple[str, ...]:
    """Every word of a kind in both forms, once, as the tokenizer has them."""
    return tuple(dict.fromkeys(form for word in words() for form in forms(word)))


@cache
def words() -> tuple[str, ...]:
    """Every word of a kind, once."""
    return tuple(dict.fromkeys(word for of_one in kinds() for word in of_one))


def plural(word: str) -> str:
    """`dogs` of `dog`; the word itself where it has no other, or is a plural already."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _SAME or word.endswith("fish") or (word.endswith("s") and not word.endswith(("us", "ss"))):
        return word
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def one(word: str) -> str:
    """`a hen`, `an owl`; `bread` and `boots` as they are."""
    several = plural(word) == word and word not in _SAME | _SINGULAR and not word.endswith("fish")
    if word in _UNCOUNTED or several:
        return word
    vowel = word[0] in "aeiou" and not word.startswith("uni")
    return f"an {word}" if vowel or word == "hourglass" else f"a {word}"
