"""The multimodal information bottleneck: T and M (paper section 3.2, appendix 6.2).

Both act on single vectors, whatever modality they came from: (N, width) in, (N, width) out.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import ModelConfig
from skipmodal.models.latent import Encoded, Latent
from skipmodal.models.layers import MaskedBatchNorm, Packing, RunningNorm, length_mask

KEY_GAIN = 4.0  # of M's keys at first
WIDE_GAIN = 2.0  # the same where every head has values of its own, for one head


class ModalityTransformer(nn.Module):
    """T: FC -> ReLU -> residual(Conv1D 1x1 -> ReLU -> BN, twice) -> tanh -> z.

    A 1x1 convolution over single vectors is a linear layer. Tokens are normalised by running statistics: see
    `RunningNorm`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input = nn.Linear(config.embedding, config.d_k)
        norm = RunningNorm if config.kind == "tokens" else MaskedBatchNorm
        self.residual = nn.Sequential(
            nn.Linear(config.d_k, config.d_k), nn.ReLU(), norm(config.d_k),
            nn.Linear(config.d_k, config.d_k), nn.ReLU(), norm(config.d_k),
        ) if config.transformer else None  # fmt: skip

    def forward(self, e: Tensor) -> Tensor:
        """e (N, embedding) -> z (N, d_k)."""
        x = self.input(e)
        if self.residual is not None:
            x = F.relu(x)
            x = x + self.residual(x)
        return torch.tanh(x)


class Memory(nn.Module):
    """M: u = softmax(q k^T / sqrt(d_k)) v in each head, heads concatenated (equation 2, appendix 6.2).

    One memory of n_k basis vectors for all modalities: value = tanh(M), key = Conv1D 1x1 of it. As the appendix writes,
    M is n_k x d_k / heads and its values are the same for all heads, whose keys differ. `wide` is not in the paper: a
    memory of n_k x d_k, split, so that every head has values of its own.
    The scale is the paper's sqrt(d_k), the width before the heads are split.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.wide = config.heads, config.memory == "wide"
        width = config.d_k if self.wide else config.d_k // config.heads
        self.memory = nn.Parameter(torch.empty(config.n_k, width))
        nn.init.normal_(self.memory)
        self.key = nn.Linear(width, config.d_k)
        # Not in the paper: with the usual initialisation every weight starts near 1 / n_k and u hardly depends on z.
        if self.wide:
            nn.init.orthogonal_(self.key.weight, gain=WIDE_GAIN * math.sqrt(config.heads))
        else:
            heads = self.key.weight.data.zero_().view(config.heads, width, width)
            heads.diagonal(dim1=1, dim2=2).fill_(KEY_GAIN)  # a query finds the values that it is like
            nn.init.zeros_(self.key.bias)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1)).transpose(0, 1)  # (heads, N, d_k / heads)

    def forward(self, z: Tensor) -> Tensor:
        """z (N, d_k) -> u (N, d_k)."""
        value = torch.tanh(self.memory)
        if self.wide:
            query, key = self._split(z), self._split(self.key(value))
            u = F.scaled_dot_product_attention(query, key, self._split(value), scale=1 / math.sqrt(z.shape[1]))
        else:
            u = self.weights(z) @ value
        return u.transpose(0, 1).flatten(1)

    def weights(self, z: Tensor) -> Tensor:
        """The weights of the basis vectors: z (N, d_k) -> (heads, N, n_k)."""
        key = self._split(self.key(torch.tanh(self.memory)))
        return torch.softmax(self._split(z) @ key.transpose(1, 2) / math.sqrt(z.shape[1]), dim=-1)


def build_memory(config: ModelConfig) -> nn.Module:
    """M, or what replaces it in the ablations of table 4: two FC layers of as many parameters, or nothing."""
    if config.memory in ("attention", "wide"):
        return Memory(config)
    if config.memory == "none":
        return nn.Identity()
    width = config.d_k if config.memory == "wide_fc" else config.d_k // config.heads
    parameters = config.n_k * width + config.d_k * (width + 1)
    hidden = max(round((parameters - config.d_k) / (2 * config.d_k + 1)), 1)
    return nn.Sequential(nn.Linear(config.d_k, hidden), nn.ReLU(), nn.Linear(hidden, config.d_k))


class Bottleneck(nn.Module):
    """e of any modalities -> z and u, through the one T and the one M that all share."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.transformer = ModalityTransformer(config)
        self.memory = build_memory(config)

    def forward(self, encoded: Sequence[Encoded]) -> list[Latent]:
        """All valid tokens go through T together, so its norm has one statistic for all modalities."""
        packings = [Packing(length_mask(part.lengths, part.e.shape[1])) for part in encoded]
        z = self.transformer(torch.cat([packing.pack(part.e) for part, packing in zip(encoded, packings, strict=True)]))
        counts = [len(packing.places) for packing in packings]
        parts = zip(encoded, packings, z.split(counts), self.memory(z).split(counts), strict=True)
        return [
            Latent(packing.pad(z), packing.pad(u), part.lengths, part.rate, suggested=part.suggested)
            for part, packing, z, u in parts
        ]
