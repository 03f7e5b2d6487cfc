"""Word and character error rates through jiwer, with one normaliser for both sides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from skipmodal.errors import require
from skipmodal.text import normalise

_SPELLINGS = {
    "grey": "gray",
    "colour": "color",
    "coloured": "colored",
    "blonde": "blond",
    "okay": "ok",
    "tshirt": "t shirt",
}
_CONTRACTIONS = (
    ("won't", "will not"), ("can't", "can not"), ("cannot", "can not"), ("n't", " not"), ("'re", " are"),
    ("'ve", " have"), ("'ll", " will"), ("'m", " am"),
)  # fmt: skip


@dataclass(frozen=True)
class ErrorRates:
    """Of a corpus: words (or characters) wrong, missing or added, by those of the reference."""

    wer: float
    cer: float


def normalise_transcript(text: str) -> str:
    """What both sides of a comparison go through.

    Numbers become words, lower case, contractions are written out (but 's, which is two things), hyphens part
    words, other punctuation goes, and a few spellings are made one.
    """
    text = normalise(text).lower()
    for short, long in _CONTRACTIONS:
        text = text.replace(short, long)
    text = re.sub(r"[^a-z ]", "", text.replace("-", " "))
    return " ".join(" ".join(_SPELLINGS.get(word, word) for word in text.split()).split())


def error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRates | None:
    """Corpus rates after `normalise_transcript`; none where no reference has a word.

    A compound counts as the same word apart and together, "cell phone" and "cellphone", but not in characters. Items
    whose reference is empty are left out.
    """
    require("word error rates", jiwer="jiwer")
    import jiwer

    pairs = [(normalise_transcript(r), normalise_transcript(h)) for r, h in zip(references, hypotheses, strict=True)]
    pairs = [pair for pair in pairs if pair[0]]
    if not pairs:
        return None
    expected, heard = (list(side) for side in zip(*pairs, strict=True))
    wer = jiwer.wer([_join(*pair) for pair in pairs], [_join(h, r) for r, h in pairs])
    return ErrorRates(wer, jiwer.cer(expected, heard))


def _join(text: str, other: str) -> str:
    """Two words of three letters or more that are one in the other text, which alone has it, become one."""
    words = text.split()
    compounds = set(other.split()) - set(words)
    joined: list[str] = []
    for word in words:
        if joined and min(len(joined[-1]), len(word)) > 2 and joined[-1] + word in compounds:
            joined[-1] += word
        else:
            joined.append(word)
    return " ".join(joined)
