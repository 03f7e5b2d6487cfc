"""The words a model says."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from skipmodal.errors import UserError
from skipmodal.evaluation.tasks import Report
from skipmodal.evaluation.vocabulary import check_recordings, vocabulary_report


def dataset(*texts):
    items = {"train": range(len(texts)), "test": []}
    return SimpleNamespace(indices=items.__getitem__, texts=texts.__getitem__)


def test_words_are_counted_once_and_misheard_ones_are_told_apart():
    details = [
        {"heard": "A zebra runs, a zebra!", "text": "A zebra runs.", "references": ["Zebras run."]},
        {"heard": "2 gray kings", "text": "Two grey things", "references": ["Two things", "Things"]},
        {"heard": "", "text": None, "references": ["A horse"]},
    ]
    spoken = Report("img2speech", "photos", "test", 3, {}, details)
    report = vocabulary_report(spoken, dataset(["A zebra", "two dogs"], ["Dogs"]), dataset(["two gray dogs run"]))
    assert report.task == "vocabulary"
    assert report.figures == {
        "words heard": 8,
        "unique words heard": 6,  # a zebra runs two gray kings
        "unique words meant": 6,
        "unique words meant and heard": 5,
        "unique words of the references": 6,  # zebras run two things a horse
        "unique words of the pictures' training texts": 4,
        "unique words of the recordings' training texts": 4,
        "in both": 2,
        "meant and heard, never in a recording": 3,  # a zebra runs
    }
    assert len(vocabulary_report(spoken, dataset()).figures) == 5


def test_models_without_a_latent_sentence_mean_nothing_that_could_be_counted():
    details = [{"heard": "a dog", "text": None, "references": ["A dog"]}]
    spoken = Report("img2speech", "photos", "test", 1, {}, details, notes=["METEOR: no Java"])
    report = vocabulary_report(spoken, dataset(["a dog"]), dataset(["a cat"]))
    assert not any("meant" in name for name in report.figures)
    assert report.figures["in both"] == 1
    assert report.notes == []


def test_recordings_are_asked_for():
    meta = SimpleNamespace(kind="image-text")
    with pytest.raises(UserError, match="--against takes recordings"):
        check_recordings(SimpleNamespace(meta=meta, path=Path("photos")))
