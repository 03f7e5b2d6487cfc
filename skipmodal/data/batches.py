"""Training batches from two prepared datasets: `mix` (half A, half B) or `alternate` (A, B, A, ...).

Every batch is a function of the seed and its number alone, so a resumed run continues with the very next one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal import image, text
from skipmodal.audio import AudioConfig, linear_spectrogram
from skipmodal.config import DataConfig
from skipmodal.data.prepared import PreparedDataset

BUCKET_BATCHES = 32  # batches' worth of items that are sorted by length together


@dataclass
class Batch:
    """A padded batch; either half may be empty (zero items).

    A has images (Na, 3, S, S) in [-1, 1]; B has mel (Nb, T, n_mels) in [0, 1] and its waveforms. ids
    (Na + Nb, L) and lengths (Na + Nb,) are A's texts, then B's.
    """

    names: list[str]  # item ids, for messages
    ids: Tensor
    lengths: Tensor
    images: Tensor
    mel: Tensor
    mel_lengths: Tensor  # (Nb,) frames
    wav: Tensor  # (Nb, samples) in [-1, 1]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "names"}
        return replace(self, **moved)

    def linear(self, config: AudioConfig) -> Tensor:
        """The post-net's targets (Nb, T, n_linear): a fifth of the storage when computed where they are used."""
        return linear_spectrogram(self.wav, config)


def collate(
    a: PreparedDataset, b: PreparedDataset, items_a: np.ndarray, items_b: np.ndarray, rng: np.random.Generator | None
) -> Batch:
    """Pads items of both datasets into one batch; `rng` picks among an item's texts (without it: the first)."""
    names, ids = [], []
    for dataset, items in ((a, items_a), (b, items_b)):
        for i in items:
            item = dataset.item(i)
            texts = item["texts"]
            names.append(item["id"])
            ids.append(torch.tensor(text.encode(texts[rng.integers(len(texts)) if rng else 0])))
    images = image.to_tensor(np.stack([a.image(i) for i in items_a])) if len(items_a) else torch.zeros(0)
    mels = [torch.from_numpy(b.mel(i).astype(np.float32)) for i in items_b]
    wavs = [torch.from_numpy(b.wav(i).astype(np.float32) / 32768) for i in items_b]
    return Batch(
        names=names,
        ids=pad_sequence(ids, batch_first=True, padding_value=text.PAD),
        lengths=torch.tensor([len(i) for i in ids]),
        images=images,
        mel=pad_sequence(mels, batch_first=True) if mels else torch.zeros(0),
        mel_lengths=torch.tensor([len(m) for m in mels], dtype=torch.long),
        wav=pad_sequence(wavs, batch_first=True) if wavs else torch.zeros(0),
    )


class TrainingBatches(torch.utils.data.Dataset[Batch]):
    """Batch number k of an endless stream; indexable, so that a loader can start anywhere."""

    def __init__(self, a: PreparedDataset, b: PreparedDataset, config: DataConfig, seed: int) -> None:
        self.a, self.b, self.seed, self.alternate = a, b, seed, config.sampling == "alternate"
        size_a = size_b = config.batch_size
        if not self.alternate:
            size_a, size_b = config.batch_size // 2, config.batch_size - config.batch_size // 2
        items_b = b.indices("train")
        self._plans = (
            _Plan(a.indices("train"), None, size_a, (seed, 0)),
            _Plan(items_b, b.frames[items_b], size_b, (seed, 1)),
        )

    @property
    def per_epoch(self) -> int:
        """Batches in a pass over the larger dataset."""
        longest = max(plan.per_epoch for plan in self._plans)
        return 2 * longest if self.alternate else longest

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng((self.seed, 2, number))
        none = np.empty(0, dtype=np.int64)
        if not self.alternate:
            items_a, items_b = (plan.batch(number) for plan in self._plans)
        elif number % 2 == 0:
            items_a, items_b = self._plans[0].batch(number // 2), none
        else:
            items_a, items_b = none, self._plans[1].batch(number // 2)
        return collate(self.a, self.b, items_a, items_b, rng)


def validation_batches(a: PreparedDataset, b: PreparedDataset, items: int, batch_size: int) -> Iterator[Batch]:
    """The first `items` validation items of each dataset, always the same, half and half."""
    items_a, items_b = a.indices("val")[:items], b.indices("val")[:items]
    items_b = items_b[np.argsort(b.frames[items_b], kind="stable")]
    half = max(batch_size // 2, 1)
    for start in range(0, max(len(items_a), len(items_b)), half):
        yield collate(a, b, items_a[start : start + half], items_b[start : start + half], None)


class _Plan:
    """The order in which one dataset's items come: shuffled every epoch, batches of about equal length."""

    def __init__(self, items: np.ndarray, lengths: np.ndarray | None, size: int, seed: tuple[int, int]) -> None:
        self.items, self.lengths, self.size, self.seed = items, lengths, min(size, len(items)), seed
        self.per_epoch = len(items) // self.size
        self._epoch, self._order = -1, np.empty((0, 0), dtype=np.int64)

    def batch(self, number: int) -> np.ndarray:
        epoch, position = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffle(epoch)
        return self._order[position]

    def _shuffle(self, epoch: int) -> np.ndarray:
        """(per_epoch, size) item numbers; the few left over by whole batches differ every epoch."""
        rng = np.random.default_rng((*self.seed, epoch))
        order = rng.permutation(len(self.items))[: self.per_epoch * self.size]
        if self.lengths is not None:
            pool = BUCKET_BATCHES * self.size
            pools = [order[i : i + pool] for i in range(0, len(order), pool)]
            order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in pools])
        return rng.permutation(self.items[order].reshape(self.per_epoch, self.size))
