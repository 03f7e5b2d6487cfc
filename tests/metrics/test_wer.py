"""Error rates: one normaliser for both sides."""

import pytest

from skipmodal.metrics.wer import error_rates, normalise_transcript


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        ("Two children's toys, 3 of them!", "two childrens toys three of them"),
        ("It isn't a grey T-shirt.", "it is not a gray t shirt"),
        ("They won't, we've, can't.", "they will not we have can not"),
        ("21st", "twenty first"),
        ("...", ""),
    ],
)
def test_normaliser(written, heard):
    assert normalise_transcript(written) == heard
    assert normalise_transcript(heard) == heard


def test_rates_are_of_the_corpus():
    rates = error_rates(["a dog runs", "two men", "..."], ["A dog run.", "", "invented words"])
    assert rates.wer == pytest.approx((1 + 2) / 5)
    same = error_rates(["a b"], ["a b"])
    assert same is not None and same.cer == 0
    assert error_rates(["?"], ["a"]) is None


@pytest.mark.parametrize(
    ("reference", "hypothesis", "wrong"),
    [
        ("on his cellphone", "on his cell phone", 0 / 3),
        ("a hard wood counter by a guard rail", "a hardwood counter by a guardrail", 0 / 6),
        ("a way out of it", "away out ofit", 4 / 5),  # two words, each run together with the next
        ("a cell phone and a cellphone", "a cell phone and a cell phone", 2 / 6),  # written both ways: as it stands
        ("a man in an apron smiling", "a man in an aprons miling", 2 / 6),  # shifted boundaries are two errors
    ],
)
def test_compounds_are_one_word_apart_and_together(reference, hypothesis, wrong):
    rates = error_rates([reference], [hypothesis])
    assert rates is not None and rates.wer == pytest.approx(wrong)
