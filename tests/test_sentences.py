"""Splitting texts to be spoken."""

import pytest

from skipmodal.sentences import LONGEST, sentences


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One dog. Two cats!", ["One dog.", "Two cats!"]),
        ("Mr. Smith paid 3.50 to J. Doe. He left", ["Mr. Smith paid 3.50 to J. Doe.", "He left"]),
        ('"Stop!" he said... "No." (Never.) Then', ['"Stop!" he said...', '"No."', "(Never.)", "Then"]),
        ("no capital. here", ["no capital. here"]),
        ("A title\n\nA line\nthat goes on", ["A title", "A line that goes on"]),
        ("One.\n\n* * *\n\nTwo.", ["One.", "Two."]),
        ("", []),
        ("\u72ac", ["\u72ac"]),
    ],
)
def test_parts(text, parts):
    assert sentences(text) == parts


def test_long_sentences_are_parted_at_pauses_and_lose_nothing():
    text = "a man and a woman walk, " * 20 + "and " * 60 + "x" * 200 + " end"
    parts = sentences(text)
    assert " ".join(parts) == text
    assert all(len(part) <= LONGEST for part in parts if "xx" not in part)
    assert parts[0].endswith(",")
