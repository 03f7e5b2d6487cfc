"""Calibrated confidence: fitted on half of a split, checked on the other half."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skipmodal.checkpoint import Confidence
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.evaluation.tasks import encode_items
from skipmodal.metrics.captions import tokenise
from skipmodal.translate import Translator

BINS = 10
_FUNCTION_WORDS = frozenset(tokenise(
    "a an the this that these those some another other one his her their its he she they it who which is are was were "
    "be being been has have had do does of in on at by with to from for into onto out up down over under through and "
    "or as while there near next behind front off around against along across after before very each all not"
))  # fmt: skip


@dataclass(frozen=True)
class Reliability:
    """Of the half that was not fitted: expected and found shares in bins of equally many items."""

    confidence: Confidence
    expected: list[float]
    found: list[float]
    items: int

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance between the two (Naeini et al., AAAI 2015)."""
        return float(np.abs(np.subtract(self.expected, self.found)).mean())


def agreement(sentence: str, references: list[str]) -> float:
    """The share of a sentence's content words that some reference has; 0 of a sentence without any."""
    words = [word for word in tokenise(sentence) if word not in _FUNCTION_WORDS]
    known = {word for reference in references for word in tokenise(reference)}
    return sum(word in known for word in words) / len(words) if words else 0.0


def fit(scores: np.ndarray, shares: np.ndarray) -> Confidence:
    """The curve of least cross-entropy: scores (N,), shares (N,) in [0, 1]."""
    x = np.stack([scores, np.ones_like(scores)], 1)
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method; a little weight decay keeps it finite where all shares are equal
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -50, 50)))
        gradient = x.T @ (p - shares) + 1e-3 * weights
        weights = weights - np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(2), gradient)
    return Confidence(slope=float(weights[0]), intercept=float(weights[1]))


def calibrate(
    translator: Translator, dataset: PreparedDataset, *, split: str = "val", limit: int | None = None,
    batch_size: int = 32, advance: Callable[[int], None] = lambda items: None,
) -> Reliability:  # fmt: skip
    """Describes the pictures of a split, fits on its even items and measures on its odd ones.

    Raises UserError for data of another kind, or fewer than 40 items.
    """
    if dataset.meta.kind != "image-text":
        raise UserError(f"{dataset.path}: is a {dataset.meta.kind} dataset; confidence is fitted on pictures")
    items = dataset.indices(split)[:limit]
    if len(items) < 4 * BINS:
        raise UserError(f"{dataset.path}: {len(items)} items in its {split} split, at least {4 * BINS} are needed")
    scores, shares = [], []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        for i, result in zip(
            batch, translator.decode(encode_items(translator, dataset, batch, "image"), "text"), strict=True
        ):
            scores.append(result.score)
            shares.append(agreement(result.text or "", dataset.texts(i)))
        advance(len(batch))
    x, y = np.array(scores, dtype=float), np.array(shares)
    confidence = fit(x[::2], y[::2])
    order = np.argsort(x[1::2], kind="stable")
    expected = np.array([confidence(score) for score in x[1::2]])[order]
    found = y[1::2][order]
    return Reliability(
        confidence,
        [float(part.mean()) for part in np.array_split(expected, BINS)],
        [float(part.mean()) for part in np.array_split(found, BINS)],
        len(found),
    )
