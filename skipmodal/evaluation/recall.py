"""Retrieval between modalities by the cosine of u (paper, figure 8): recall at 1, 5, 10 and median rank."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.evaluation.tasks import Advance, Report
from skipmodal.items import embed_items
from skipmodal.metrics.wer import normalise_transcript
from skipmodal.retrieval.nearest import ranks
from skipmodal.translate import Translator

RECALLS = (1, 5, 10)


def evaluate_retrieval(
    translator: Translator, dataset: PreparedDataset, against: PreparedDataset | None = None, *, split: str = "test",
    limit: int | None = None, batch_size: int = 32, advance: Advance = lambda items: None,
) -> Report:  # fmt: skip
    """Both directions between the texts and the other modality of a split; all texts of a picture are right for it.

    With a second dataset, of the other kind, both directions between pictures and recordings: right is what shares a
    text, after `normalise_transcript`. Queries are those that share one, candidates are all of the split.

    A query's rank is that of the best candidate that is right, ties as in `ranks`.
    Raises UserError for data that don't fit the model, or fewer than two items, or fewer than two that share a text.
    """
    datasets = [dataset] if against is None else [dataset, against]
    chosen = [each.indices(split)[:limit] for each in datasets]
    for each, items in zip(datasets, chosen, strict=True):
        if len(items) < 2:
            raise UserError(f"{each.path}: has fewer than two items in its {split} split")
    media = ["image" if each.meta.image else "speech" for each in datasets]
    if against is None:
        names = [media[0], "text"]
        found = _encode(translator, dataset, chosen[0], names, batch_size, advance)
        labels = [[[item] for item in owners] for _, owners in found]
    else:
        names = media
        labels = _shared_texts(datasets, chosen, split)
        found = [
            _encode(translator, each, items, [name], batch_size, advance)[0]
            for each, items, name in zip(datasets, chosen, media, strict=True)
        ]
    a, b = (
        _Side(name, rows, _padded(own, rows.device)) for name, (rows, _), own in zip(names, found, labels, strict=True)
    )
    data = " and ".join(f"{each.path.name} ({each.meta.source})" for each in datasets)
    return Report("retrieval", data, split, sum(map(len, chosen)), _figures(a, b) | _figures(b, a))


@dataclass
class _Side:
    """One modality of a split: what is looked for, and what is looked in."""

    name: str
    vectors: Tensor  # (N, d_k)
    labels: Tensor  # (N, A), see `ranks`


def _encode(
    translator: Translator, dataset: PreparedDataset, items: np.ndarray, modalities: list[str], batch_size: int,
    advance: Advance,
) -> list[tuple[Tensor, list[int]]]:  # fmt: skip
    """Of each modality all vectors (N, d_k), and the item that each is of."""
    rows: dict[str, list[Tensor]] = {name: [] for name in modalities}
    owners: dict[str, list[int]] = {name: [] for name in modalities}
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        for name in modalities:
            found, named = embed_items(translator, dataset, batch, name)
            rows[name].append(found)
            owners[name] += [item for item, _ in named]
        advance(len(batch))
    return [(torch.cat(rows[name]), owners[name]) for name in modalities]


def _shared_texts(datasets: list[PreparedDataset], chosen: list[np.ndarray], split: str) -> list[list[list[int]]]:
    """Of each item of two datasets, the numbers of those of its texts that both datasets have."""
    first, second = datasets
    if first.meta.kind == second.meta.kind:
        raise UserError(f"{second.path}: is {second.meta.kind} as {first.path} is; give one of the other kind")
    texts = [
        [set(map(normalise_transcript, each.texts(i))) - {""} for i in items]
        for each, items in zip(datasets, chosen, strict=True)
    ]
    shared = {text: number for number, text in enumerate(set().union(*texts[0]) & set().union(*texts[1]))}
    labels = [[[shared[text] for text in own if text in shared] for own in side] for side in texts]
    if any(sum(map(bool, side)) < 2 for side in labels):
        pair = f"{first.path} and {second.path}"
        raise UserError(f"{pair}: fewer than two items of their {split} splits share a text; use spoken captions")
    return labels


def _padded(labels: list[list[int]], device: torch.device) -> Tensor:
    width = max(map(len, labels))
    return torch.tensor([own + [-1] * (width - len(own)) for own in labels], device=device)


def _figures(queries: _Side, items: _Side) -> dict[str, float]:
    """Of the queries that something belongs with."""
    linked = (queries.labels >= 0).any(1)
    places = ranks(queries.vectors[linked], items.vectors, queries.labels[linked], items.labels).cpu().numpy()
    name = f"{queries.name} -> {items.name}"
    figures: dict[str, float] = {f"{name} queries": len(places), f"{name} candidates": len(items.vectors)}
    figures |= {f"{name} R@{k}": 100 * float((places <= k).mean()) for k in RECALLS}
    return figures | {f"{name} median rank": float(np.median(places))}
