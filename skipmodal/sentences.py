"""Texts of any length -> the sentences that are spoken one by one."""

import re

LONGEST = 140  # characters that are spoken in one go; what is longer is parted at a pause, else at a space
_ABBREVIATIONS = {"mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "jr", "sr"}
_END = re.compile(r"[.!?…]+[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z0-9])")  # noqa: RUF001
_PAUSES = re.compile(r"[,;:)](?= )|(?= [-–—] )")  # noqa: RUF001


def sentences(text: str) -> list[str]:
    """The sentences of a text, those of more than LONGEST characters in parts; a blank line ends one too.

    Nothing but what has no letter or digit (rows of stars, say) is left out.
    """
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph, start = " ".join(paragraph.split()), 0
        for match in _END.finditer(paragraph):
            if is_abbreviation(paragraph[start : match.end()].split()[-1]):
                continue
            parts += _shorten(paragraph[start : match.end()].strip())
            start = match.end()
        parts += _shorten(paragraph[start:].strip())
    return [part for part in parts if any(map(str.isalnum, part))]


def is_abbreviation(word: str) -> bool:
    """Whether a word's full stop ends no sentence: of Mr. Smith, and of J. Smith."""
    stem = word.lower().lstrip("(\"'")[:-1]
    return word.endswith(".") and (stem in _ABBREVIATIONS or re.fullmatch("[a-z]", stem) is not None)


def _shorten(sentence: str) -> list[str]:
    """Parts of at most LONGEST characters; a word that is longer stays whole."""
    parts = []
    while len(sentence) > LONGEST:
        pauses = [match.end() for match in _PAUSES.finditer(sentence, LONGEST // 4, LONGEST)]
        space = sentence.rfind(" ", 0, LONGEST + 1)
        cut = pauses[-1] if pauses else space if space > 0 else sentence.find(" ")
        if cut <= 0:
            break
        parts.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [*parts, sentence]
