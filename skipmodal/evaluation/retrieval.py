"""Retrieval between modalities by the cosine of u (paper, figure 8): recall at 1, 5, 10 and median rank."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.evaluation.tasks import Report, encode_items
from skipmodal.translate import Translator

CHUNK = 1024  # queries compared at once: memory grows with it, not with the number of queries
RECALLS = (1, 5, 10)


def vectors(latent: Any) -> Tensor:
    """What a model's encoders give -> unit vectors (B, d_k): u, or the mean of its tokens."""
    return F.normalize(latent if isinstance(latent, Tensor) else latent.mean, dim=1)


def ranks(queries: Tensor, items: Tensor, query_of: Tensor, item_of: Tensor) -> Tensor:
    """The rank (Q,), from 1, of the best item that belongs with each query.

    queries (Q, d) and items (N, d) are unit vectors; they belong together where query_of (Q,) equals item_of (N,).
    """
    found = []
    for chunk, owner in zip(queries.split(CHUNK), query_of.split(CHUNK), strict=True):
        scores = chunk @ items.T
        best = scores.masked_fill(owner[:, None] != item_of, -torch.inf).amax(1, keepdim=True)
        found.append(1 + (scores > best).sum(1))
    return torch.cat(found)


def evaluate_retrieval(
    translator: Translator, dataset: PreparedDataset, *, split: str = "test", limit: int | None = None,
    batch_size: int = 32, advance: Callable[[int], None] = lambda items: None,
) -> Report:  # fmt: skip
    """Both directions between the texts and the other modality of a split.

    A picture's texts are all right for it. Raises UserError for data that don't fit the model.
    """
    items = dataset.indices(split)[:limit]
    if len(items) < 2:
        raise UserError(f"{dataset.path}: has fewer than two items in its {split} split")
    other = "image" if dataset.meta.image else "speech"
    media, texts, owners = [], [], []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        media.append(vectors(encode_items(translator, dataset, batch, other)))
        sentences = [(number, text) for number, i in enumerate(batch, start) for text in dataset.texts(i)]
        read = [translator.read(text, "text") for _, text in sentences]
        texts.append(vectors(translator.encode(read, "text")))
        owners += [number for number, _ in sentences]
        advance(len(batch))
    found, written = torch.cat(media), torch.cat(texts)
    of_media, of_texts = torch.arange(len(found), device=found.device), torch.tensor(owners, device=found.device)
    figures: dict[str, float] = {}
    for name, places in (
        (f"{other} -> text", ranks(found, written, of_media, of_texts)),
        (f"text -> {other}", ranks(written, found, of_texts, of_media)),
    ):
        values = places.cpu().numpy()
        figures |= {f"{name} R@{k}": 100 * float((values <= k).mean()) for k in RECALLS}
        figures[f"{name} median rank"] = float(np.median(values))
    return Report("retrieval", f"{dataset.path.name} ({dataset.meta.source})", split, len(items), figures)
