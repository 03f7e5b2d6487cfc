"""Dot-product attention with sinusoidal positions.

Where no context is fed back into what makes the queries, teacher forcing attends from all steps in one call.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

POSITION_GAIN = 4.0  # of the positions at first: about two nats for a character


class AttentionMemory(NamedTuple):
    """What queries are compared with, computed once a sequence."""

    keys: Tensor  # (B, heads, N, width / heads)
    values: Tensor  # (B, heads, N, width / heads)
    mask: Tensor  # (B, N) bool, true where valid

    def repeat(self, times: int) -> "AttentionMemory":
        """Each item `times` times in a row."""
        return AttentionMemory(*(tensor.repeat_interleave(times, 0) for tensor in self))

    def rows(self, index: Tensor) -> "AttentionMemory":
        """Those of items (R,), which may repeat."""
        return AttentionMemory(*(tensor[index] for tensor in self))


class Attention(nn.Module):
    """Multi-head attention; queries and keys also carry where they lie (Ping et al., Deep Voice 3, ICLR 2018).

    Positions are in characters on both sides, so equal rates put the weight on the diagonal from the start: of the
    first head; each other looks one character further ahead, so together they see a word letter by letter. Tokens
    without an order all lie at zero, which leaves the weights to the content.
    """

    def __init__(self, query: int, memory: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(query, width), nn.Linear(memory, width), nn.Linear(memory, width)
        self.position_gain = nn.Parameter(torch.full((heads, 1, 1), POSITION_GAIN))
        # In characters. On the meta device, on which checkpoints are loaded, arange imports torch's compiler: a second.
        self.ahead = nn.Parameter(torch.tensor([[float(head)] for head in range(heads)]))

    def remember(self, memory: Tensor, positions: Tensor, mask: Tensor) -> AttentionMemory:
        """memory (B, N, W), positions (B, N) in characters, mask (B, N) -> keys and values."""
        keys = self._split(self.key(memory))
        return AttentionMemory(keys + self._where(positions[:, None], keys), self._split(self.value(memory)), mask)

    def forward(self, x: Tensor, positions: Tensor, memory: AttentionMemory) -> tuple[Tensor, Tensor]:
        """x (B, S, query), positions (B, S) in characters -> context (B, S, width), weights (B, heads, S, N)."""
        queries = self._split(self.query(x))
        queries = queries + self._where(positions[:, None] + self.ahead, queries)
        scores = queries @ memory.keys.transpose(2, 3) * queries.shape[-1] ** -0.5
        weights = scores.masked_fill(~memory.mask[:, None, None], -torch.inf).softmax(-1)
        return (weights @ memory.values).transpose(1, 2).flatten(2), weights

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _where(self, positions: Tensor, like: Tensor) -> Tensor:
        return self.position_gain * sinusoids(positions, like.shape[-1]).to(like.dtype)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """(...,) positions -> (..., width): sines, then cosines, of periods 2 pi to 20000 pi."""
    half = width // 2
    rates = 10000.0 ** -(torch.arange(half, device=positions.device) / half)
    angles = positions.float()[..., None] * rates
    return torch.cat([angles.sin(), angles.cos(), angles.new_zeros(*angles.shape[:-1], width - 2 * half)], -1)
