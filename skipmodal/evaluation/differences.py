"""Word by word, what is missing and what was added."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from skipmodal.metrics.wer import normalise_transcript


class Part(NamedTuple):
    """Some words in a row that are in both texts, or in one of them."""

    kind: Literal["same", "missing", "added"]
    words: str


class Comparison(NamedTuple):
    """One text against another; `errors` as a word error rate counts them, for the alignment that is shown."""

    parts: list[Part]
    errors: int
    words: int  # of the reference

    @property
    def rate(self) -> float:
        return self.errors / max(self.words, 1)


def compare(references: Sequence[str], hypothesis: str) -> Comparison:
    """A hypothesis against the reference that is nearest to it, both as word error rates normalise them."""
    return min((_compare(reference, hypothesis) for reference in references), key=lambda found: found.rate)


def _compare(reference: str, hypothesis: str) -> Comparison:
    expected, found = normalise_transcript(reference).split(), normalise_transcript(hypothesis).split()
    parts: list[Part] = []
    errors = 0
    for _, a, b, c, d in SequenceMatcher(None, expected, found, autojunk=False).get_opcodes():
        if expected[a:b] == found[c:d]:
            parts.append(Part("same", " ".join(expected[a:b])))
            continue
        errors += max(b - a, d - c)
        parts += [Part("missing", " ".join(expected[a:b]))] if a < b else []
        parts += [Part("added", " ".join(found[c:d]))] if c < d else []
    return Comparison(parts, errors, len(expected))
