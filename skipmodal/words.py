"""When each word of speech sounds, and the files that say so: WebVTT, SubRip, and Praat's TextGrid."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skipmodal.sentences import is_abbreviation

if TYPE_CHECKING:
    from torch import Tensor

MAX_CUE = 84  # characters of a subtitle: two lines


@dataclass(frozen=True)
class Word:
    """A word as it is written, its punctuation included, and the seconds in which its letters sound."""

    text: str
    begin: float
    end: float


def word_times(sentence: str, alignment: "Tensor", seconds: float) -> list[Word]:
    """Words of a sentence from alignment (steps, characters): how much of each decoder step is a character's.

    `seconds` is the length of a step.
    """
    ends = [0.0, *(alignment.sum(0).cumsum(0) * seconds).tolist()]
    words = []
    for match in re.finditer(r"\S+", sentence):
        letters = re.search(r"\w(?:.*\w)?", match.group()) or re.search(r".+", match.group())
        assert letters
        first, last = match.start() + letters.start(), match.start() + letters.end()
        if ends[last] > ends[first]:  # what was cut at the cap has no time
            words.append(Word(match.group(), round(ends[first], 3), round(ends[last], 3)))
    return words


def to_vtt(words: Sequence[Word], seconds: float) -> str:
    """WebVTT, a cue a sentence or less."""
    cues = (f"{_clock(cue[0].begin, '.')} --> {_clock(cue[-1].end, '.')}\n{_line(cue)}\n" for cue in _cues(words))
    return "\n".join(["WEBVTT\n", *cues])


def to_srt(words: Sequence[Word], seconds: float) -> str:
    """SubRip, a cue a sentence or less."""
    return "\n".join(
        f"{number}\n{_clock(cue[0].begin, ',')} --> {_clock(cue[-1].end, ',')}\n{_line(cue)}\n"
        for number, cue in enumerate(_cues(words), 1)
    )


def to_textgrid(words: Sequence[Word], seconds: float) -> str:
    """Praat's long text format: one tier of words without their punctuation, pauses empty, up to `seconds`."""
    intervals, at = [], 0.0
    for word in words:
        begin = max(word.begin, at)  # intervals must touch
        if word.end <= begin:
            continue
        if begin > at:
            intervals.append((at, begin, ""))
        intervals.append((begin, word.end, word.text.strip("!'(),-.:;?")))
        at = word.end
    seconds = max(seconds, at)
    if seconds > at or not intervals:
        intervals.append((at, seconds, ""))
    rows = [
        f"        intervals [{i}]:\n            xmin = {a:.3f}\n            xmax = {b:.3f}\n"
        f'            text = "{text}"\n'
        for i, (a, b, text) in enumerate(intervals, 1)
    ]
    return (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
        f"xmin = 0\nxmax = {seconds:.3f}\ntiers? <exists>\nsize = 1\nitem []:\n    item [1]:\n"
        f'        class = "IntervalTier"\n        name = "words"\n        xmin = 0\n        xmax = {seconds:.3f}\n'
        f"        intervals: size = {len(intervals)}\n" + "".join(rows)
    )


TIMED_FORMATS: dict[str, Callable[[Sequence[Word], float], str]] = {
    ".vtt": to_vtt,
    ".srt": to_srt,
    ".TextGrid": to_textgrid,
}


def _cues(words: Sequence[Word]) -> list[list[Word]]:
    """Words that are read at once: up to the end of a sentence, and no more than two lines."""
    cues: list[list[Word]] = []
    for word in words:
        last = cues[-1][-1].text if cues else "."
        ended = last.endswith((".", "!", "?")) and not is_abbreviation(last)
        if cues and not ended and len(_line([*cues[-1], word])) <= MAX_CUE:
            cues[-1].append(word)
        else:
            cues.append([word])
    return cues


def _line(cue: Sequence[Word]) -> str:
    return " ".join(word.text for word in cue)


def _clock(seconds: float, point: str) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
