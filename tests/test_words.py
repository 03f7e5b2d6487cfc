"""Word times from alignments, and the files that hold them."""

import re

import pytest
import torch

from skipmodal.models.alignment import spread
from skipmodal.words import Word, to_srt, to_textgrid, to_vtt, word_times

WORDS = [Word("A", 0.0, 0.1), Word("dog.", 0.1, 0.5), Word("Mr.", 1.0, 1.2), Word("Cat", 1.3, 3661.5)]


def test_times_are_sums_of_the_durations_that_were_spread():
    durations = torch.tensor([[2.0, 1.0, 3.5, 2.5, 4.0, 6.0, 1.0]])  # "a dog." and the end
    weights, _ = spread(durations, 3, 7)
    found = word_times("a dog.", weights[0], 3 * 0.01)
    assert found == [Word("a", 0.0, 0.02), Word("dog.", 0.03, pytest.approx(0.13, abs=1e-3))]  # without its full stop


def test_what_was_cut_has_no_time():
    weights, _ = spread(torch.full((1, 5), 2.0), 2, 2)
    assert [word.text for word in word_times("a dog", weights[0], 1.0)] == ["a"]


def test_subtitles_end_with_the_sentence():
    assert to_vtt(WORDS, 4000).splitlines() == [
        "WEBVTT", "", "00:00:00.000 --> 00:00:00.500", "A dog.", "", "00:00:01.000 --> 01:01:01.500", "Mr. Cat",
    ]  # fmt: skip
    assert to_srt(WORDS, 4000).startswith("1\n00:00:00,000 --> 00:00:00,500\nA dog.\n\n2\n")
    long = [Word("word", float(i), i + 1.0) for i in range(100)]
    lines = [line for line in to_vtt(long, 100).splitlines() if line.startswith("word")]
    assert max(map(len, lines)) <= 84 and sum(line.count("word") for line in lines) == 100


def test_textgrid_intervals_touch_from_start_to_end():
    text = to_textgrid([Word("A", 0.1, 0.2), Word('"dog."'[1:-1], 0.2, 0.5)], 0.8)
    values = re.findall(r"xmin = ([\d.]+)\n +xmax = ([\d.]+)\n +text = \"(.*)\"", text)
    assert values == [
        ("0.000", "0.100", ""), ("0.100", "0.200", "A"), ("0.200", "0.500", "dog"), ("0.500", "0.800", ""),
    ]  # fmt: skip
    assert "intervals: size = 4" in text
    assert "intervals: size = 1" in to_textgrid([], 1.0)
