"""Training batches from two prepared datasets: `mix` (some of both), `alternate` (A, B, A, ...), or one of them.

Every batch is a function of the seed and its number alone, so a resumed run continues with the very next one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal import image, text
from skipmodal.audio import AudioConfig, linear_spectrogram
from skipmodal.config import DataConfig
from skipmodal.data.prepared import PreparedDataset
from skipmodal.errors import UserError
from skipmodal.tokenizer import Tokenizer

BUCKET_BATCHES = 32  # batches' worth of items that are sorted by length together


@dataclass
class Batch:
    """A padded batch; either half may be empty (zero items).

    A has images (Na, 3, S, S) in [-1, 1] and Nt texts of them; B has mel (Nb, T, n_mels) in [0, 1], its waveforms, and
    a text of each recording.
    """

    names: list[str]  # item ids, for messages
    ids: Tensor  # (Nt + Nb, L) characters of A's texts, then of B's
    lengths: Tensor  # (Nt + Nb,)
    tokens: Tensor  # (Nt + Nb, S) the same texts as D_txt writes them
    owners: Tensor  # (Nt,) the picture that each text of A is of, ascending
    images: Tensor
    mel: Tensor
    mel_lengths: Tensor  # (Nb,) frames
    wav: Tensor  # (Nb, samples) in [-1, 1], of `linear_part` with a margin
    linear_part: tuple[Tensor, Tensor, int] | None = None  # first frames (Nb,), valid frames (Nb,), the most of them
    references: tuple[list[str], ...] = ()  # every text of each image
    features: Tensor | None = None  # (Na, N, width) of a frozen image encoder, where prep has cached them

    @property
    def firsts(self) -> Tensor:
        """(Na,) the number of the first text of each picture."""
        return torch.searchsorted(self.owners, torch.arange(len(self.images), device=self.owners.device))

    @property
    def spoken(self) -> tuple[Tensor, Tensor]:
        """The texts of B's recordings: characters (Nb, L) and lengths (Nb,)."""
        first = len(self.owners)
        return self.ids[first:], self.lengths[first:]

    @property
    def pictures(self) -> Tensor:
        """What the image encoder takes."""
        return self.images if self.features is None else self.features

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        if self.linear_part is not None:
            first, lengths, longest = self.linear_part
            moved["linear_part"] = (first.to(device), lengths.to(device), longest)
        return replace(self, **moved)

    def linear(self, config: AudioConfig) -> Tensor:
        """The post-net's targets (Nb, T, n_linear): a fifth of the storage when computed where they are used."""
        margin = _margin(config) if self.linear_part is not None else 0
        linear = linear_spectrogram(self.wav, config)
        return linear[:, margin : linear.shape[1] - margin]


def _margin(config: AudioConfig) -> int:
    """Frames beyond either end of a part whose windows reach into it."""
    return -(-config.win_length // (2 * config.hop_length))


def collate(
    a: PreparedDataset,
    b: PreparedDataset,
    captions: Sequence[tuple[int, Sequence[int]]],
    items_b: np.ndarray,
    tokenizer: Tokenizer,
    config: DataConfig | None = None,
    seeds: Sequence[int] = (),
    views: Sequence[int] = (),
) -> Batch:
    """Pads pictures of A, each with the numbers of some of its texts, and items of B into one batch.

    With the training's `config`, where the seed of each item of B says, the waveforms, and so the post-net's targets,
    are of a part of the recording, and some words are spelled. `views` says by which of its views each picture is seen.
    """
    names: list[str] = []
    texts: list[str] = []
    owners: list[int] = []
    for owner, (i, choices) in enumerate(captions):
        item = a.item(i)
        names.append(item["id"])
        texts += [item["texts"][choice] for choice in choices]
        owners += [owner] * len(choices)
    of_a = len(texts)
    for i in items_b:
        item = b.item(i)
        names.append(item["id"])
        texts.append(item["texts"][0])
    rngs = [np.random.default_rng(seed) for seed in seeds]
    spelled = config.spelled if config else 0.0
    ids = [torch.tensor(text.encode(each)) for each in texts]
    tokens = [torch.tensor(tokenizer.encode(each)) for each in texts[:of_a]]
    for number, each in enumerate(texts[of_a:]):
        tokens.append(torch.tensor(tokenizer.encode(each, spelled, rngs[number] if rngs else None)))
    items_a = [i for i, _ in captions]
    cached = bool(items_a) and a.meta.image is not None and a.meta.image.encoder != "none"
    seen = zip(items_a, views or [0] * len(items_a), strict=True)
    features = [torch.from_numpy(a.features(i, view).astype(np.float32)) for i, view in seen] if cached else None
    mels = [torch.from_numpy(b.mel(i).astype(np.float32)) for i in items_b]
    wavs = [torch.from_numpy(b.wav(i).astype(np.float32) / 32768) for i in items_b]
    part = None
    if config is not None and config.linear_frames is not None and mels:
        wavs, part = _cut(wavs, [len(mel) for mel in mels], config.linear_frames, b.meta.audio, rngs)
    return Batch(
        names=names,
        ids=pad_sequence(ids, batch_first=True, padding_value=text.PAD),
        lengths=torch.tensor([len(i) for i in ids]),
        tokens=pad_sequence(tokens, batch_first=True, padding_value=text.PAD),
        owners=torch.tensor(owners, dtype=torch.long),
        images=image.to_tensor(np.stack([a.image(i) for i in items_a])) if items_a else torch.zeros(0),
        mel=pad_sequence(mels, batch_first=True) if mels else torch.zeros(0),
        mel_lengths=torch.tensor([len(m) for m in mels], dtype=torch.long),
        wav=pad_sequence(wavs, batch_first=True) if wavs else torch.zeros(0),
        linear_part=part,
        references=tuple(a.texts(i) for i in items_a),
        features=torch.stack(features) if features else None,
    )


def _cut(
    wavs: list[Tensor], frames: list[int], size: int, config: AudioConfig | None, rngs: Sequence[np.random.Generator]
) -> tuple[list[Tensor], tuple[Tensor, Tensor, int]]:
    """A part of `size` frames of each recording, and a margin around it, zeros beyond the ends."""
    assert config is not None
    firsts = [int(rng.integers(max(n - size, 0) + 1)) for n, rng in zip(frames, rngs, strict=True)]
    hop, margin = config.hop_length, _margin(config)
    parts = []
    for wav, first in zip(wavs, firsts, strict=True):
        start = (first - margin) * hop
        end = start + (size + 2 * margin - 1) * hop + 1
        piece = wav[max(start, 0) : max(end, 0)]
        parts.append(F.pad(piece, (max(-start, 0), end - start - max(-start, 0) - len(piece))))
    return parts, (torch.tensor(firsts), torch.tensor([min(n, size) for n in frames]), size)


class TrainingBatches(torch.utils.data.Dataset[Batch]):
    """Batch number k of an endless stream; indexable, so that a loader can start anywhere.

    Of `count` processes that train together, each takes its share of every batch.
    """

    def __init__(
        self,
        a: PreparedDataset,
        b: PreparedDataset,
        config: DataConfig,
        tokenizer: Tokenizer,
        seed: int,
        rank: int = 0,
        count: int = 1,
    ) -> None:
        self.a, self.b, self.config, self.tokenizer, self.seed = a, b, config, tokenizer, seed
        self.sampling, self.share = config.sampling, slice(rank, None, count)
        size_a = size_b = config.batch_size
        if self.sampling == "mix":
            size_a, size_b = mixed_sizes(config)
        pairs, characters = _captions(a, config.max_characters)
        if config.captions > 1:  # a picture is drawn, and some of its texts with it
            pictures, firsts = np.unique(pairs[:, 0], return_index=True)  # their pairs lie together
            self._choices = dict(zip(pictures.tolist(), np.split(pairs[:, 1], firsts[1:]), strict=True))
            pairs = np.array([(i, choices[0]) for i, choices in self._choices.items()])
            characters = np.zeros(len(pairs))
        items_b = b.indices("train")
        for i in items_b:
            b.item(i)  # a damaged line is found now, as those of A are, and not in a loader's process in epoch 3
        self._plans = (
            _Plan(pairs, characters, size_a, (seed, 0)),
            _Plan(items_b, b.frames[items_b], size_b, (seed, 1)),
        )
        wanted = {"image-text": (a,), "text-speech": (b,)}.get(self.sampling, (a, b))
        for dataset, plan in zip((a, b), self._plans, strict=True):
            if dataset in wanted and plan.size % count:
                few = f"{len(plan.items)} texts or recordings to train on, so batches have {plan.size}"
                raise UserError(f"{dataset.path}: has {few}, which {count} processes cannot share equally")

    @property
    def per_epoch(self) -> int:
        """Batches in a pass over the larger dataset: all captions of A (or all its pictures, where each has several
        captions in a batch), or all recordings of B."""
        of_a, of_b = (plan.per_epoch for plan in self._plans)
        longest = max(of_a, of_b)
        return {"mix": longest, "alternate": 2 * longest, "image-text": of_a, "text-speech": of_b}[self.sampling]

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng((self.seed, 2, number))
        pairs, items_b = np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.int64)
        turns = 2 if self.sampling == "alternate" else 1
        if self.sampling in ("mix", "image-text") or (turns == 2 and number % 2 == 0):
            pairs = self._plans[0].batch(number // turns)
        if self.sampling in ("mix", "text-speech") or (turns == 2 and number % 2 == 1):
            items_b = self._plans[1].batch(number // turns)
        captions = [(int(i), self._drawn(int(i), int(choice), rng)) for i, choice in pairs]
        # Drawn before they are shared: what a process does with an item does not depend on how many there are.
        seeds = rng.integers(2**32, size=len(items_b)).tolist()
        views = rng.integers(1 + (self.a.meta.views or 0), size=len(captions)).tolist()
        share = self.share
        return collate(
            self.a, self.b, captions[share], items_b[share], self.tokenizer, self.config, seeds[share], views[share]
        )

    def _drawn(self, i: int, choice: int, rng: np.random.Generator) -> list[int]:
        """Numbers of the texts of picture i that are learned from together."""
        if self.config.captions == 1:
            return [choice]
        return [int(each) for each in rng.permutation(self._choices[i])[: self.config.captions]]


def mixed_sizes(config: DataConfig) -> tuple[int, int]:
    """Items of A and of B in a mixed batch, at least one of each."""
    size_a = min(max(round(config.batch_size * config.image_share), 1), config.batch_size - 1)
    return size_a, config.batch_size - size_a


def _captions(a: PreparedDataset, max_characters: int) -> tuple[np.ndarray, np.ndarray]:
    """Training pairs (item, number of its text), (P, 2), and the texts' lengths (P,).

    Captions beyond `max_characters` are left out, but for the first of a picture that has no shorter one.
    """
    pairs, lengths = [], []
    for i in a.indices("train"):
        found = [(choice, len(caption)) for choice, caption in enumerate(a.texts(i))]
        for choice, length in [each for each in found if each[1] <= max_characters] or found[:1]:
            pairs.append((i, choice))
            lengths.append(length)
    return np.array(pairs, dtype=np.int64), np.array(lengths)


def validation_batches(
    a: PreparedDataset, b: PreparedDataset, tokenizer: Tokenizer, items: int, batch_size: int, sampling: str = "mix"
) -> Iterator[Batch]:
    """The first `items` validation items of each dataset that is trained on, always the same, half and half."""
    items_a = a.indices("val")[: 0 if sampling == "text-speech" else items]
    items_b = b.indices("val")[: 0 if sampling == "image-text" else items]
    items_b = items_b[np.argsort(b.frames[items_b], kind="stable")]
    half = max(batch_size // 2, 1)
    for start in range(0, max(len(items_a), len(items_b)), half):
        part = items_a[start : start + half]
        yield collate(a, b, [(int(i), [0]) for i in part], items_b[start : start + half], tokenizer)


class _Plan:
    """The order in which one dataset's items come: shuffled every epoch, batches of about equal length."""

    def __init__(self, items: np.ndarray, lengths: np.ndarray, size: int, seed: tuple[int, int]) -> None:
        self.items, self.lengths, self.size, self.seed = items, lengths, min(size, len(items)), seed
        self.per_epoch = len(items) // self.size
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def batch(self, number: int) -> np.ndarray:
        epoch, position = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffle(epoch)
        return self.items[self._order[position]]

    def _shuffle(self, epoch: int) -> np.ndarray:
        """(per_epoch, size) places in `items`; the few left over by whole batches differ every epoch."""
        rng = np.random.default_rng((*self.seed, epoch))
        order = rng.permutation(len(self.items))[: self.per_epoch * self.size]
        pool = BUCKET_BATCHES * self.size
        pools = [order[i : i + pool] for i in range(0, len(order), pool)]
        order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in pools])
        return rng.permutation(order.reshape(self.per_epoch, self.size))
