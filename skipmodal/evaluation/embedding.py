"""Does the adversary work? Whether a modality can be told from z, where T should hide it, and from u.

A linear probe is trained on half of the items and asked about the other half. Of models with tokens, z and u are the
means over an item's tokens, which makes the probe's task easier than that of C, who is asked token by token.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.evaluation.tasks import Report
from skipmodal.items import encode_items
from skipmodal.modality import MODALITIES
from skipmodal.translate import Translator, unit_vectors

MIN_ITEMS = 4  # of a modality: two to train the probe on, two to ask about
Rows = dict[str, np.ndarray]  # modality -> one row an item, as many of each


@dataclass
class Embeddings:
    """Row i of each modality is of item i, so that an item and its text are on the same side of the probe's split."""

    z: Rows  # (n, d_k)
    u: Rows  # (n, d_k)
    named: Rows  # (n,) share of an item's tokens, or its one vector, that C names right among these modalities

    @property
    def modalities(self) -> list[str]:
        """Of each row, where the rows of all modalities lie one after the other."""
        return [name for name, rows in self.z.items() for _ in rows]


def evaluate_embedding(
    translator: Translator, dataset: PreparedDataset, against: PreparedDataset | None = None, *, split: str = "test",
    limit: int | None = None, batch_size: int = 32, adversary: bool = True,
    advance: Callable[[int], None] = lambda items: None,
) -> Report:  # fmt: skip
    """Accuracies in percent; with a second dataset, of the other kind, all three modalities are told apart.

    Without an `adversary` C was never trained and is not asked. Raises UserError for data that don't fit.
    """
    found = embed(translator, dataset, against, split=split, limit=limit, batch_size=batch_size, advance=advance)
    figures = {"modality from z": 100 * probe(found.z), "modality from u": 100 * probe(found.u)}
    if adversary:
        figures["modality from z, by C"] = 100 * float(np.mean([rows.mean() for rows in found.named.values()]))
    figures["chance"] = 100 / len(found.z)
    data = " and ".join(f"{each.path.name} ({each.meta.source})" for each in (dataset, against) if each)
    return Report("embedding", data, split, len(found.modalities), figures)


def embed(
    translator: Translator, dataset: PreparedDataset, against: PreparedDataset | None = None, *, split: str = "test",
    limit: int | None = None, batch_size: int = 32, advance: Callable[[int], None] = lambda items: None,
) -> Embeddings:  # fmt: skip
    """z and u of as many items of each modality; of two datasets, each gives half of the texts.

    Raises UserError for data that don't fit, or fewer than MIN_ITEMS.
    """
    if against is not None and against.meta.kind == dataset.meta.kind:
        raise UserError(f"{against.path}: is {against.meta.kind} as {dataset.path} is; give one of the other kind")
    if translator.model.d_k is None:
        raise UserError(f"a model of kind {translator.model.kind} has no space that all modalities share")
    datasets = [dataset] if against is None else [dataset, against]
    smallest = min(datasets, key=lambda each: len(each.indices(split)))
    count = len(smallest.indices(split)[:limit])
    if count < MIN_ITEMS:
        raise UserError(f"{smallest.path}: {count} items of its {split} split are too few; {MIN_ITEMS} are needed")
    media = ["image" if each.meta.image else "speech" for each in datasets]
    present = [number for number, name in enumerate(MODALITIES) if name in ("text", *media)]
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {MODALITIES[number]: [] for number in present}
    for number, (each, medium) in enumerate(zip(datasets, media, strict=True)):
        items = each.indices(split)[:count]
        half = np.array_split(items, len(datasets))[number]  # rows of the texts as of the pictures and recordings
        for name, chosen in ((medium, items), ("text", half)):
            for start in range(0, len(chosen), batch_size):
                batch = chosen[start : start + batch_size]
                parts[name].append(_encode(translator, each, batch, name, present))
                advance(len(batch) if name == medium else 0)
    z, u, named = (
        {name: np.concatenate([part[k] for part in found]) for name, found in parts.items()} for k in range(3)
    )
    return Embeddings(z, u, named)


@torch.inference_mode()
def _encode(
    translator: Translator, dataset: PreparedDataset, items: np.ndarray, modality: str, present: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z (n, d_k), u (n, d_k) and what C names right (n,), each a mean over an item's tokens."""
    latent = encode_items(translator, dataset, items, modality)
    unit_vectors(latent)  # or it says that they are not finite
    z = latent.z[latent.mask]
    owners = torch.repeat_interleave(torch.arange(len(items), device=z.device), latent.lengths)
    named = translator.model.adversary(z)[:, present].argmax(1) == present.index(MODALITIES.index(modality))
    shares = torch.zeros(len(items), device=z.device).index_add(0, owners, named.float()) / latent.lengths
    return latent.mean_z.cpu().numpy(), latent.mean.cpu().numpy(), shares.cpu().numpy()


def probe(rows: Rows, seed: int = 0) -> float:
    """Accuracy in [0, 1] of logistic regression on the half of the items that it was not trained on."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = list(rows)
    order = np.random.default_rng(seed).permutation(len(rows[names[0]]))
    known, asked = order[: len(order) // 2], order[len(order) // 2 :]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(np.concatenate([rows[name][known] for name in names]), np.repeat(names, len(known)))
    return float(classifier.score(np.concatenate([rows[name][asked] for name in names]), np.repeat(names, len(asked))))


def project(rows: Rows, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, JMLR 2008) of all rows, one modality after the other: (N, 2)."""
    from sklearn.manifold import TSNE

    points = np.concatenate(list(rows.values()))
    return np.asarray(
        TSNE(perplexity=min(30.0, (len(points) - 1) / 3), init="pca", random_state=seed).fit_transform(points)
    )
