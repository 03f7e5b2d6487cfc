"""Retrieval: within a dataset and across two, and a model for which the answer is known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skipmodal.errors import UserError
from skipmodal.evaluation import recall as retrieval
from skipmodal.evaluation.recall import evaluate_retrieval
from skipmodal.metrics.wer import normalise_transcript
from tests.evaluation.test_tasks import parts  # noqa: F401


@pytest.fixture
def knowing(monkeypatch):
    """Vectors that are the texts: what has the same first text is the same."""
    names: dict[str, int] = {}

    def known(translator, dataset, items, modality):
        several = slice(None) if modality == "text" else slice(1)
        named = [(int(i), text) for i in items for text in dataset.texts(i)[several]]
        numbers = [names.setdefault(normalise_transcript(text), len(names)) for _, text in named]
        return F.one_hot(torch.tensor(numbers), 128).float(), named

    monkeypatch.setattr(retrieval, "embed_items", known)


@pytest.mark.parametrize("kind", [0, 1])
def test_both_directions_are_reported(parts, kind):  # noqa: F811
    *datasets, translator = parts
    advanced = []
    report = evaluate_retrieval(
        translator, datasets[kind], split="train", limit=12, batch_size=5, advance=advanced.append
    )
    other = ("image", "speech")[kind]
    assert {f"{other} -> text R@1", f"text -> {other} R@10", f"text -> {other} median rank"} <= report.figures.keys()
    assert report.items == 12
    assert advanced == [5, 5, 2]
    assert 1 <= report.figures[f"{other} -> text median rank"] <= 12


def test_vectors_are_those_of_brute_force(parts):  # noqa: F811
    """Recall of an untrained model, computed one by one and without blocks."""
    a, _, translator = parts
    items = a.indices("train")[:20]
    report = evaluate_retrieval(translator, a, split="train", limit=20, batch_size=3)
    u = [translator.encode([translator.read(a.image(i), "image")], "image").mean for i in items]
    w = [translator.encode([translator.read(text, "text")], "text").mean for i in items for text in a.texts(i)]
    owners = np.array([n for n, i in enumerate(items) for _ in a.texts(i)])
    cosines = F.cosine_similarity(torch.cat(u)[:, None], torch.cat(w)[None], dim=2).double().numpy()
    places = []
    for n, row in enumerate(cosines):
        best = row[owners == n].max()
        places.append(1 + (row > best + 1e-6).sum() + ((abs(row - best) <= 1e-6) & (owners != n)).sum() / 2)
    assert report.figures["image -> text median rank"] == pytest.approx(np.median(places))
    assert report.figures["image -> text R@5"] == pytest.approx(100 * np.mean(np.array(places) <= 5))


def test_a_model_that_knows_finds_everything(parts, knowing):  # noqa: F811
    _, b, translator = parts
    texts = [b.texts(i)[0] for i in b.indices("train")[:8]]
    assert len(set(texts)) == 8  # the same sentence twice would be a tie
    figures = evaluate_retrieval(translator, b, split="train", limit=8, batch_size=7).figures
    assert figures["speech -> text R@1"] == figures["text -> speech R@1"] == 100
    assert figures["speech -> text median rank"] == 1


def test_across_two_datasets_what_shares_a_text_is_right(parts, knowing):  # noqa: F811
    a, b, translator = parts
    texts = [
        [{normalise_transcript(t) for t in each.texts(i)} for i in each.indices("test")] for each in (a, b)
    ]  # the held-out combinations are in both
    linked = [[bool(own & set().union(*other)) for own in side] for side, other in (texts, texts[::-1])]
    report = evaluate_retrieval(translator, a, b, split="test")
    swapped = evaluate_retrieval(translator, b, a, split="test")
    assert report.figures == swapped.figures
    assert report.items == len(texts[0]) + len(texts[1])
    assert report.figures["image -> speech queries"] == sum(linked[0])
    assert report.figures["speech -> image queries"] == sum(linked[1])
    assert report.figures["speech -> image candidates"] == len(texts[0])
    assert report.figures["image -> speech R@1"] == report.figures["speech -> image R@1"] == 100
    assert "image-text" in report.data and "text-speech" in report.data


def test_spelling_does_not_part_what_is_the_same(parts, knowing, monkeypatch):  # noqa: F811
    a, b, translator = parts
    figures = evaluate_retrieval(translator, a, b).figures
    spelt = {i: [text.upper().replace(" ", ", ") + "!" for text in b.texts(i)] for i in range(len(b))}
    monkeypatch.setattr(b, "texts", spelt.__getitem__)
    assert evaluate_retrieval(translator, a, b).figures == figures
    monkeypatch.setattr(b, "texts", lambda i: ["?"])  # no word: not the same as another without one
    monkeypatch.setattr(a, "texts", lambda i: ["!"])
    with pytest.raises(UserError, match="share a text"):
        evaluate_retrieval(translator, a, b)


def test_what_cannot_be_scored_is_refused_before_anything_is_encoded(parts, monkeypatch):  # noqa: F811
    a, b, translator = parts
    monkeypatch.setattr(retrieval, "embed_items", None)
    with pytest.raises(UserError, match="fewer than two items of their train splits share a text"):
        evaluate_retrieval(translator, a, b, split="train")
    with pytest.raises(UserError, match="give one of the other kind"):
        evaluate_retrieval(translator, a, a)
    with pytest.raises(UserError, match="fewer than two items in its test split"):
        evaluate_retrieval(translator, a, limit=1)
