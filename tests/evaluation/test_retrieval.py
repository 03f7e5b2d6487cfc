"""Retrieval: ranks by hand, and a model for which the answer is known."""

import pytest
import torch
import torch.nn.functional as F

from skipmodal.evaluation import retrieval
from skipmodal.evaluation.retrieval import evaluate_retrieval, ranks
from tests.evaluation.test_tasks import parts  # noqa: F401


def test_ranks_by_hand(monkeypatch):
    items = F.normalize(torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 0]]), dim=1)
    queries = F.normalize(torch.tensor([[1.0, 0.1], [0.1, 1], [-1, 0.2]]), dim=1)
    owners = torch.tensor([0, 1, 0, 2])  # the first query has two items
    for chunk in (1, 2, 100):
        monkeypatch.setattr(retrieval, "CHUNK", chunk)
        assert ranks(queries, items, torch.tensor([0, 1, 2]), owners).tolist() == [1, 1, 1]
        assert ranks(queries, items, torch.tensor([2, 0, 1]), owners).tolist() == [4, 2, 2]


@pytest.mark.parametrize("kind", [0, 1])
def test_both_directions_are_reported(parts, kind):  # noqa: F811
    *datasets, translator = parts
    report = evaluate_retrieval(translator, datasets[kind], split="train", limit=12, batch_size=5)
    other = ("image", "speech")[kind]
    assert {f"{other} -> text R@1", f"text -> {other} R@10", f"text -> {other} median rank"} <= report.figures.keys()
    assert report.items == 12
    assert 1 <= report.figures[f"{other} -> text median rank"] <= 12


def test_a_model_that_knows_finds_everything(parts, monkeypatch):  # noqa: F811
    _, b, translator = parts
    names: dict[str, int] = {}

    def known(latent):
        return F.one_hot(torch.tensor([names.setdefault(text, len(names)) for text in latent]), 64).float()

    monkeypatch.setattr(retrieval, "vectors", known)
    monkeypatch.setattr(
        retrieval, "encode_items", lambda _, dataset, items, source: [dataset.texts(i)[0] for i in items]
    )
    monkeypatch.setattr(translator, "read", lambda text, kind: text)
    monkeypatch.setattr(translator, "encode", lambda texts, kind: texts)
    figures = evaluate_retrieval(translator, b, split="train", batch_size=7).figures
    assert figures["speech -> text R@1"] == figures["text -> speech R@1"] == 100
    assert figures["speech -> text median rank"] == 1
