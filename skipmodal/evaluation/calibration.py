"""Calibrated confidence: fitted on half of a split, checked on the other half, of pictures as they are and altered."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from skipmodal.checkpoint import Confidence
from skipmodal.confidence import distances
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError, require
from skipmodal.items import encode_items
from skipmodal.metrics.captions import tokenise
from skipmodal.models.latent import Latent
from skipmodal.translate import Translator

BINS = 10
PROTOTYPES, SEEN = 64, 1500  # clusters, of so many pictures of the train split
FAR = 0.99  # of pictures like the training's, the part that counts as familiar
_FUNCTION_WORDS = frozenset(tokenise(
    "a an the this that these those some another other one his her their its he she they it who which is are was were "
    "be being been has have had do does of in on at by with to from for into onto out up down over under through and "
    "or as while there near next behind front off around against along across after before very each all not"
))  # fmt: skip


@dataclass(frozen=True)
class Reliability:
    """Of pictures that were not fitted: expected and found shares in bins of equally many items."""

    expected: list[float]
    found: list[float]
    items: int

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance between the two (Naeini et al., AAAI 2015)."""
        return float(np.abs(np.subtract(self.expected, self.found)).mean())


@dataclass(frozen=True)
class Calibration:
    """A confidence, what it needs to know of the pictures that were trained on, and how well it holds."""

    confidence: Confidence
    prototypes: Tensor  # (P, width)
    plain: Reliability
    altered: Reliability


def precision(sentence: str, references: list[str]) -> float:
    """The share of a sentence's content words that some reference has; 0 of a sentence without any."""
    words = [word for word in tokenise(sentence) if word not in _FUNCTION_WORDS]
    known = {word for reference in references for word in tokenise(reference)}
    return sum(word in known for word in words) / len(words) if words else 0.0


def alter(picture: np.ndarray, number: int) -> Image.Image:
    """RGB uint8 (S, S, 3) as the training has none, in one of seven ways that take turns; as coarse as it is stored."""
    image = Image.fromarray(picture)
    side = image.width // 4
    noise = np.random.default_rng(number).integers(0, 256, picture.shape, dtype=np.uint8)
    ways: tuple[Callable[[], Image.Image], ...] = (
        lambda: image.point(lambda value: value // 6),  # by night
        lambda: image.crop((side, side, 3 * side, 3 * side)),
        lambda: image.rotate(180),
        lambda: image.filter(ImageFilter.GaussianBlur(image.width / 25)),
        lambda: ImageOps.invert(image),
        lambda: ImageOps.posterize(image, 1),  # as a drawing
        lambda: Image.blend(image, Image.fromarray(noise), 0.8),  # a texture
    )
    return ways[number % len(ways)]()


def prototypes(translator: Translator, dataset: PreparedDataset, batch_size: int) -> Tensor:
    """Centres (P, width) of clusters of pictures that were trained on, by the direction of their mean features.

    Raises UserError where there is none.
    """
    require("calibrate", sklearn="scikit-learn")
    from sklearn.cluster import KMeans

    items = np.random.default_rng(0).permutation(dataset.indices("train"))[:SEEN]
    if not len(items):
        raise UserError(f"{dataset.path}: has no train split, and confidence compares with its pictures")
    seen = np.concatenate([
        _unit(encode_items(translator, dataset, items[start : start + batch_size], "image"))
        for start in range(0, len(items), batch_size)
    ])  # fmt: skip
    clusters = KMeans(min(PROTOTYPES, len(seen)), n_init=1, random_state=0).fit(seen)
    return torch.from_numpy(clusters.cluster_centers_.astype(np.float32))


def _unit(latent: Latent) -> np.ndarray:
    if latent.seen is None:
        raise UserError("confidence is for captions of pictures, which this kind of model does not write")
    if not latent.seen.isfinite().all():
        raise UserError("the image encoder gives what is not finite: its weights are damaged")
    return torch.nn.functional.normalize(latent.seen.float(), dim=1).cpu().numpy()


def fit(x: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weights (F + 1,), the intercept last, of the logistic curve of least cross-entropy: x (N, F), shares (N,)."""
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    weights = np.zeros(x.shape[1])
    for _ in range(50):  # Newton's method; a little weight decay keeps it finite where all shares are equal
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -50, 50)))
        gradient = x.T @ (p - shares) + 1e-3 * weights
        weights = weights - np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(x.shape[1]), gradient)
    return weights


def calibrate(
    translator: Translator, dataset: PreparedDataset, *, split: str = "val", limit: int | None = None,
    batch_size: int = 32, advance: Callable[[int], None] = lambda items: None,
) -> Calibration:  # fmt: skip
    """Describes the pictures of a split, as they are and altered, fits on the even ones and measures on the odd.

    `advance` hears how many are done. Raises UserError for data of another kind, or fewer than 40 items.
    """
    if dataset.meta.kind != "image-text":
        raise UserError(f"{dataset.path}: is a {dataset.meta.kind} dataset; confidence is fitted on pictures")
    items = dataset.indices(split)[:limit]
    if len(items) < 4 * BINS:
        raise UserError(f"{dataset.path}: {len(items)} items in its {split} split, at least {4 * BINS} are needed")
    translator = copy(translator)
    translator.confidence = None  # or of unfamiliar pictures only the thing would be named
    known = prototypes(translator, dataset, batch_size)
    kinds: tuple[list[tuple[float, float, float]], ...] = ([], [])
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        strange = [translator.read(alter(dataset.image(i), start + n), "image") for n, i in enumerate(batch)]
        latents = encode_items(translator, dataset, batch, "image"), translator.encode(strange, "image")
        for rows, latent in zip(kinds, latents, strict=True):
            assert latent.seen is not None
            far = distances(latent.seen, known).tolist()
            for i, result, distance in zip(batch, translator.decode(latent, "text"), far, strict=True):
                assert result.score is not None and result.text is not None
                rows.append((result.score, distance, precision(result.text, dataset.texts(i))))
        advance(len(batch))
    plain, altered = map(np.array, kinds)
    fitted = np.concatenate([plain[::2], altered[::2]])
    slope, distance, intercept = fit(fitted[:, :2], fitted[:, 2]).tolist()
    limit_of_familiar = float(np.quantile(plain[::2, 1], FAR))
    confidence = Confidence(slope=slope, distance=distance, intercept=intercept, far=limit_of_familiar)
    return Calibration(
        confidence, known, _reliability(confidence, plain[1::2]), _reliability(confidence, altered[1::2])
    )


def _reliability(confidence: Confidence, rows: np.ndarray) -> Reliability:
    """rows (N, 3): score, distance, share found."""
    expected = np.array([confidence(score, distance) for score, distance, _ in rows])
    order = np.argsort(expected, kind="stable")
    means = [[float(part.mean()) for part in np.array_split(values[order], BINS)] for values in (expected, rows[:, 2])]
    return Reliability(means[0], means[1], len(rows))
