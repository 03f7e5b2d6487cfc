"""Ranks and the nearest k against brute force, whatever the blocks."""

import itertools
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skipmodal.errors import UserError
from skipmodal.models.latent import Latent
from skipmodal.retrieval import nearest
from skipmodal.retrieval.nearest import ranks, top_k
from skipmodal.translate import unit_vectors


@pytest.fixture(params=[(1, 1), (3, 7), (1000, 1000)])
def blocks(request, monkeypatch):
    monkeypatch.setattr(nearest, "CHUNK", request.param[0])
    monkeypatch.setattr(nearest, "BLOCK", request.param[1])


def brute_force(queries, items, query_of, item_of):
    """The mean place of the first right one over all orders of what is tied with it."""
    places = []
    for query, labels in zip(queries, query_of, strict=True):
        scores = items @ query
        right = np.array([bool({x for x in labels if x >= 0} & {x for x in own if x >= 0}) for own in item_of])
        best = scores[right].max()
        tied = right[np.isclose(scores, best, atol=1e-6)]
        orders = set(itertools.permutations(tied)) if len(tied) < 8 else {tuple(tied)}
        places.append(1 + (scores > best + 1e-6).sum() + np.mean([order.index(True) for order in orders]))
    return places


def unit(values):
    return F.normalize(torch.tensor(np.array(values), dtype=torch.float32), dim=1)


def test_ranks_by_hand(blocks):
    items = unit([[1, 0], [0, 1], [1, 1], [-1, 0]])
    queries = unit([[1, 0.1], [0.1, 1], [-1, 0.2]])
    owners = torch.tensor([[0], [1], [0], [2]])  # the first query has two items
    assert ranks(queries, items, torch.tensor([[0], [1], [2]]), owners).tolist() == [1, 1, 1]
    assert ranks(queries, items, torch.tensor([[2], [0], [1]]), owners).tolist() == [4, 2, 2]
    assert ranks(queries, items, torch.tensor([[7], [-1], [0]]), owners).tolist() == [5, 5, 3]  # nothing: after all
    assert ranks(queries[:1], items, torch.tensor([[-1, 2]]), torch.tensor([[-1], [1], [-1], [2]])).tolist() == [4]


def test_ranks_are_those_of_brute_force(blocks):
    rng = np.random.default_rng(0)
    queries, items = unit(rng.normal(size=(11, 4))), unit(rng.normal(size=(23, 4)))
    query_of = rng.integers(-1, 20, (11, 3))
    query_of[:, 0] = rng.integers(0, 3, 11)
    item_of = rng.integers(-1, 20, (23, 2))
    item_of[:3, 0] = range(3)  # something belongs with every query
    found = ranks(queries, items, torch.tensor(query_of), torch.tensor(item_of))
    assert found.tolist() == pytest.approx(brute_force(queries.numpy(), items.numpy(), query_of, item_of))
    assert len(set(found.tolist())) > 3


def test_a_tie_counts_as_if_broken_at_random(blocks):
    """Vectors of few kinds, so that most cosines are tied; one that rounds differently is still tied."""
    rng = np.random.default_rng(1)
    kinds = np.eye(3)[rng.integers(0, 3, 12)]
    items, queries = unit(kinds * rng.uniform(0.1, 9, (12, 1))), unit(np.eye(3))
    item_of = np.arange(12)[:, None] % 3
    found = ranks(queries, items, torch.arange(3)[:, None], torch.tensor(item_of)).tolist()
    assert found == pytest.approx(brute_force(queries.numpy(), items.numpy(), np.arange(3)[:, None], item_of))
    same = torch.ones(10, 2) / 2**0.5
    owners = torch.arange(10)[:, None]
    assert ranks(same, same, owners, owners).tolist() == [5.5] * 10  # a model that tells nothing apart is at chance


def exact(queries, items, k):
    scores = queries @ items.T
    places = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, places, 1), places


def vectors(count, seed):
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 3, 50, 99])
def test_the_nearest_are_those_of_brute_force(blocks, monkeypatch, tmp_path, k):
    monkeypatch.setitem(sys.modules, "faiss", None)
    np.save(tmp_path / "items.npy", vectors(50, 0))
    items = np.load(tmp_path / "items.npy", mmap_mode="r")
    for queries in (vectors(9, 1), vectors(1, 2)):
        scores, places = top_k(queries, items, k)
        assert scores.shape == places.shape == (len(queries), min(k, 50))
        expected, where = exact(queries, items, k)
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        np.testing.assert_array_equal(places, where)


def test_nothing_is_near_in_nothing(monkeypatch):
    scores, places = top_k(vectors(2, 0), vectors(0, 0), 3)
    assert scores.shape == places.shape == (2, 0)


def test_faiss_finds_the_same(blocks, monkeypatch):
    pytest.importorskip("faiss")
    queries, items = vectors(30, 1), vectors(50, 0)
    scores, places = top_k(queries, items, 5)
    monkeypatch.setitem(sys.modules, "faiss", None)
    without, there = top_k(queries, items, 5)
    np.testing.assert_allclose(scores, without, atol=1e-6)
    np.testing.assert_array_equal(places, there)


def test_vectors_without_numbers_are_refused():
    bad = torch.full((3, 1, 4), torch.nan)
    with pytest.raises(UserError, match="not finite numbers"):
        unit_vectors(Latent(bad, bad, torch.ones(3, dtype=torch.long)))
