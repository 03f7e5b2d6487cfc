"""The 66 symbols: text -> ids -> text, and the normalisation before it (paper section 3.1, text encoder)."""

import re
import unicodedata

from skipmodal.spoken import spoken

PAD, BOS, EOS = 0, 1, 2
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz !'(),-.:;?"
SYMBOLS = ("<pad>", "<s>", "</s>", *CHARACTERS)  # 66
_ID = {symbol: i for i, symbol in enumerate(SYMBOLS)}
_KNOWN = frozenset(CHARACTERS)

# Typographic forms that Unicode decomposition leaves as they are, or would take apart.
_ASCII = str.maketrans({
    "’": "'", "‘": "'", "ʼ": "'", "´": "'", "“": "", "”": "", "…": ".",  # noqa: RUF001
    "‐": "-", "‑": "-", "–": "-", "—": "-", "−": "-",  # noqa: RUF001
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
    "²": " squared", "³": " cubed",
})  # fmt: skip
_VULGAR = re.compile("(?<=[0-9])(?=[¼-¾⅐-⅞])")  # "1½" must not decompose to eleven


def normalise(text: str) -> str:
    """Rewrites text in the 66 symbols: numbers and signs become words, accents are dropped, spacing is tidied.

    Characters without a counterpart are removed, so the result may be empty (a CJK sentence, say).
    """
    text = _VULGAR.sub(" ", " ".join(text.split()).translate(_ASCII))
    text = unicodedata.normalize("NFKD", text)
    text = spoken(text).encode("ascii", "ignore").decode()
    text = "".join(c if c in _ID else " " if c.isspace() or c in "/\\_|" else "" for c in text)
    text = re.sub(r"\s+", " ", text.replace("''", "")).strip()
    # Tokenised captions: "a dog ( running ) ." and "a dog 's toy".
    text = re.sub(r" +([!),.:;?])|(\() +", r"\1\2", text)
    return re.sub(r"(?<=[A-Za-z]) (n't|'(?:s|re|ve|ll|d|m))(?![A-Za-z'])", r"\1", text)


def known(text: str) -> bool:
    """Whether text is of the 66 symbols alone, and not empty: what `normalise` gives and `encode` takes."""
    return bool(text) and _KNOWN.issuperset(text)


def encode(text: str) -> list[int]:
    """Ids of normalised text, with the end-of-sentence id last; unknown characters raise KeyError."""
    return [*(_ID[c] for c in text), EOS]


def decode(ids: list[int]) -> str:
    """Text up to the first end-of-sentence id; padding and start symbols are skipped."""
    if EOS in ids:
        ids = ids[: ids.index(EOS)]
    return "".join(SYMBOLS[i] for i in ids if i > EOS)
