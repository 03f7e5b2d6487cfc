"""The 66 symbols: text -> ids -> text, and the normalisation before it (paper section 3.1, text encoder)."""

import re
import unicodedata
from functools import lru_cache

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
})  # fmt: skip
_WORDS = {
    "&": " and ", "%": " percent ", "#": " number ", "=": " equals ", "+": " plus ", "@": " at ",
    "°": " degrees ", "⁄": " over ",  # noqa: RUF001
    "$": " dollars ", "£": " pounds ", "€": " euros ",
}  # fmt: skip
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_PRICE = re.compile(rf"([$£€]) ?({_WHOLE}(?:\.\d+)?)", re.ASCII)
_NUMBER = re.compile(rf"{_WHOLE}(?:\.\d+|st|nd|rd|th)?", re.ASCII | re.IGNORECASE)
_DIGITS = str.maketrans({
    "0": "zero ", "1": "one ", "2": "two ", "3": "three ", "4": "four ", "5": "five ", "6": "six ",
    "7": "seven ", "8": "eight ", "9": "nine ", ".": "point ", **dict.fromkeys("stndrh"),
})  # fmt: skip


def normalise(text: str) -> str:
    """Rewrites text in the 66 symbols: digits become words, accents are dropped, spacing is tidied.

    Characters without a counterpart are removed, so the result may be empty (a CJK sentence, say).
    """
    text = unicodedata.normalize("NFKD", " ".join(text.split()).translate(_ASCII))
    text = _PRICE.sub(r"\2\1", text)  # "$5" is read "five dollars"
    for sign, word in _WORDS.items():
        text = text.replace(sign, word)
    text = _NUMBER.sub(_spell_number, text.encode("ascii", "ignore").decode())
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


def _spell_number(match: re.Match[str]) -> str:
    number = match.group().replace(",", "").lower()
    # A very long number or one that starts with zeros is an identifier: spell it digit by digit.
    if len(number) > 15 or re.match(r"0\d", number):
        return f" {number.translate(_DIGITS)}"
    return f" {_words(number)} "


@lru_cache(maxsize=4096)
def _words(number: str) -> str:
    """ "21st" -> "twenty-first"; the cache because a conversion is slow next to everything else here."""
    from num2words import num2words  # only texts with digits pay for it

    whole, point, decimals = number.partition(".")
    digits = whole.rstrip("stndrh")
    words = str(num2words(int(digits), to="cardinal" if digits == whole else "ordinal")).replace(",", "")
    return f"{words} {(point + decimals).translate(_DIGITS)}".rstrip()
