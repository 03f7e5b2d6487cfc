"""The 66 symbols: text -> ids -> text, and the normalisation before it (paper section 3.1, text encoder)."""

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

PAD, BOS, EOS = 0, 1, 2
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz !'(),-.:;?"
SYMBOLS = ("<pad>", "<s>", "</s>", *CHARACTERS)  # 66
_ID = {symbol: i for i, symbol in enumerate(SYMBOLS)}

# Typographic forms that Unicode decomposition leaves as they are.
_ASCII = str.maketrans({"’": "'", "‘": "'", "“": "", "”": "", "–": "-", "—": "-", "…": ".", "ß": "ss"})
_WORDS = {"&": " and ", "%": " percent ", "$": " dollars ", "#": " number ", "=": " equals ", "+": " plus "}
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?(?:st|nd|rd|th)?")


def normalise(text: str) -> str:
    """Rewrites text in the 66 symbols: digits become words, accents are dropped, spacing is tidied.

    Characters without a counterpart are removed, so the result may be empty (a CJK sentence, say).
    """
    text = unicodedata.normalize("NFKD", text.translate(_ASCII)).encode("ascii", "ignore").decode()
    for sign, word in _WORDS.items():
        text = text.replace(sign, word)
    text = _NUMBER.sub(_spell_number, text)
    text = "".join(c if c in _ID else " " if c.isspace() or c in "/\\_|" else "" for c in text)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r" +([!),.:;?])", r"\1", text)  # "a dog ." in tokenised captions


def encode(text: str) -> list[int]:
    """Ids of normalised text, with the end-of-sentence id last; unknown characters raise KeyError."""
    return [*(_ID[c] for c in text), EOS]


def decode(ids: list[int]) -> str:
    """Text up to the first end-of-sentence id; padding and start symbols are skipped."""
    if EOS in ids:
        ids = ids[: ids.index(EOS)]
    return "".join(SYMBOLS[i] for i in ids if i > EOS)


@cache
def _engine() -> "inflect.engine":
    import inflect  # only texts with digits pay for it

    return inflect.engine()


def _spell_number(match: re.Match[str]) -> str:
    number = match.group().replace(",", "")
    # A very long digit string is an identifier: spell it digit by digit.
    parts = [d for d in number if d.isdigit()] if len(number) > 15 else [number]
    words = " ".join(str(_engine().number_to_words(part)) for part in parts)
    return f" {words.replace(',', '')} "
