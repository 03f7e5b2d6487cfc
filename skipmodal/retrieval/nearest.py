"""Nearest vectors by cosine, a block at a time: ranks for the evaluation, the top k for the index.

Memory grows with neither the number of queries nor that of items, beyond the vectors themselves.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

CHUNK = 1024  # queries compared at once ...
BLOCK = 16384  # ... with so many items
TIE = 1e-6  # cosines that differ by less differ by rounding
Found = tuple[np.ndarray, np.ndarray]  # scores and places
Nearest = Callable[[np.ndarray, np.ndarray, int], Found]


def ranks(queries: Tensor, items: Tensor, query_of: Tensor, item_of: Tensor) -> Tensor:
    """The rank, from 1, of the best item that belongs with each query: float (Q,), N + 1 where nothing does.

    queries (Q, d) and items (N, d) are unit vectors. query_of (Q, A) and item_of (N, B) are labels, negative ones
    padding: what shares a label belongs together. A tie counts as if it were broken at random: of w wrong and r right
    items that are as close as the best right one, w / (r + 1) are expected before the first right one.
    """
    found = [
        _ranks(chunk, items, labels, item_of)
        for chunk, labels in zip(queries.split(CHUNK), query_of.split(CHUNK), strict=True)
    ]
    return torch.cat(found)


def _ranks(queries: Tensor, items: Tensor, query_of: Tensor, item_of: Tensor) -> Tensor:
    blocks = list(zip(items.split(BLOCK), item_of.split(BLOCK), strict=True))
    best = queries.new_full((len(queries),), -torch.inf)
    for block, labels in blocks:
        rows, columns = _right(query_of, labels)
        if len(rows):
            best.scatter_reduce_(0, rows, (queries @ block.T)[rows, columns], "amax")
    closer, near, near_right = torch.zeros(3, len(queries), dtype=torch.int64, device=queries.device)
    above, below = best[:, None] + TIE, best[:, None] - TIE
    for block, labels in blocks:
        scores = queries @ block.T
        closer += (scores > above).sum(1)
        near += (scores >= below).sum(1)
        rows, columns = _right(query_of, labels)
        near_right += torch.bincount(rows[scores[rows, columns] >= below[rows, 0]], minlength=len(queries))
    return 1 + closer + (near - closer - near_right) / (near_right + 1)


def _right(query_of: Tensor, item_of: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (Q, A) and (N, B) -> the rows and columns of the pairs that share one, each pair once."""
    labels, order = item_of.flatten().sort()
    wanted = query_of.flatten()
    first = torch.searchsorted(labels, wanted)
    counts = (torch.searchsorted(labels, wanted, right=True) - first) * (wanted >= 0)
    ends = counts.cumsum(0)
    places = torch.arange(int(counts.sum()), device=labels.device) + (first - ends + counts).repeat_interleave(counts)
    rows = torch.arange(len(wanted), device=labels.device).repeat_interleave(counts) // query_of.shape[1]
    columns = order[places] // item_of.shape[1]
    pairs = torch.unique(rows * len(item_of) + columns)
    return pairs // len(item_of), pairs % len(item_of)


def top_k(queries: np.ndarray, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 (Q, k) and places int64 (Q, k) of the k items of the highest dot products, best first.

    queries (Q, d) and items (N, d) are float32; items may be a memory map, of which one block after the other is
    searched, by FAISS where it is installed. k is cut to N. Which of equal scores comes first is not said.
    """
    try:
        from faiss import METRIC_INNER_PRODUCT, knn  # what IndexFlatIP does, on a block where it lies
    except ImportError:
        nearest: Nearest = _nearest
    else:
        nearest = partial(knn, metric=METRIC_INNER_PRODUCT)
    k = min(k, len(items))
    scores, places = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), CHUNK):
        chunk = slice(start, start + CHUNK)
        scores[chunk], places[chunk] = _top_k(queries[chunk], items, k, nearest)
    return scores, places


def _top_k(queries: np.ndarray, items: np.ndarray, k: int, nearest: Nearest) -> Found:
    scores, places = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(items), BLOCK):
        block = items[start : start + BLOCK]
        more, where = nearest(queries, block, min(k, len(block)))
        scores, places = np.hstack([scores, more]), np.hstack([places, where + start])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
    return scores, places


def _nearest(queries: np.ndarray, block: np.ndarray, k: int) -> Found:
    scores = queries @ block.T
    places = np.argpartition(scores, -k, axis=1)[:, -k:]
    return np.take_along_axis(scores, places, 1), places
