"""What the bottleneck gives: tokens u of some items of one modality. A vector is a latent of one token."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from skipmodal.models.layers import length_mask


class Suggested(NamedTuple):
    """Words that the last tokens of a picture stand for."""

    tokens: Tensor  # (B, kinds, 2): singular and plural, PAD where that is the same
    likely: Tensor  # (B, kinds) probabilities

    def rows(self, index: Tensor) -> "Suggested":
        """Those of items (R,), which may repeat."""
        return Suggested(self.tokens[index], self.likely[index])


class Encoded(NamedTuple):
    """What an encoder gives."""

    e: Tensor  # (B, N, embedding)
    lengths: Tensor  # (B,) valid tokens
    rate: float = 0.0  # characters a token, where tokens lie in the order of the text; 0 where they have none
    suggested: Suggested | None = None
    states: Tensor | None = None  # (B, N, width) of a recording, what e is made from


@dataclass(frozen=True)
class Latent:
    """z and u of B items, N tokens each, zeros in the padding."""

    z: Tensor  # (B, N, d_k), before M
    u: Tensor  # (B, N, d_k)
    lengths: Tensor  # (B,) valid tokens
    rate: float = 0.0  # as in Encoded
    ids: Tensor | None = None  # (B, L) characters of a text: what is given needn't be decoded
    heard: bool = False  # of recordings
    suggested: Suggested | None = None
    seen: Tensor | None = None  # (B, width), the mean of a picture's features
    unfamiliar: Tensor | None = None  # (B,) bool: pictures unlike those of the training, where it is known

    @property
    def mask(self) -> Tensor:
        """(B, N) bool, true where valid."""
        return length_mask(self.lengths, self.u.shape[1])

    @property
    def mean(self) -> Tensor:
        """u as one vector an item: (B, d_k)."""
        return self.u.sum(1) / self.lengths[:, None]

    @property
    def mean_z(self) -> Tensor:
        """z as one vector an item: (B, d_k)."""
        return self.z.sum(1) / self.lengths[:, None]

    @property
    def positions(self) -> Tensor:
        """(B, N) where each token lies, in characters."""
        return (torch.arange(self.u.shape[1], device=self.u.device) * self.rate).expand(len(self.u), -1)

    def rows(self, index: Tensor) -> "Latent":
        """The latent of items (R,), which may repeat; without what they were made from."""
        suggested = None if self.suggested is None else self.suggested.rows(index)
        return Latent(self.z[index], self.u[index], self.lengths[index], self.rate, suggested=suggested)

    def with_source(self, ids: Tensor | None = None, heard: bool = False, seen: Tensor | None = None) -> "Latent":
        """The same, with what is known of the text, the recording or the picture that it was made from."""
        return replace(self, ids=ids, heard=heard, seen=seen)
