"""The words a model says."""

from types import SimpleNamespace

from skipmodal.evaluation.tasks import Report
from skipmodal.evaluation.vocabulary import vocabulary_report


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
