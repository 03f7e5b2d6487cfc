"""What D_txt gives under teacher forcing, and what it costs in nats.

The logits of all tokens at all places are the largest tensors of a training step, so they are kept for valid places
alone, and those of copying apart from those of the vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from skipmodal.models.decoders.copying import NEVER, merge
from skipmodal.models.layers import Packing
from skipmodal.text import PAD


class Copied(NamedTuple):
    """What could have been copied at each of N places."""

    scores: Tensor  # (N, C) logits, -inf where there is none
    tokens: Tensor  # (N, C), PAD where there is none
    hidden: Tensor  # (N, C) bool: the vocabulary can't write these


class Choices(NamedTuple):
    """What could have been written at each valid place of some sentences."""

    packing: Packing
    vocabulary: Tensor  # (N, whole) logits
    names: int = 0  # tokens after those of the vocabulary, which can only be copied
    copied: Copied | None = None

    def logits(self) -> Tensor:
        """(B, S, whole + names), zeros in the padding."""
        logits = F.pad(self.vocabulary, (0, self.names), value=NEVER)
        if self.copied is not None:
            logits = merge(logits, *self.copied)
        return self.packing.pad(logits)

    def spent(self, target: Tensor) -> Tensor:
        """-log p of target (B, S), at the valid places: (N,). The same as of `logits`, without making them."""
        number, logits = self.packing.pack(target), self.vocabulary.float()
        whole = logits.shape[1]
        if self.copied is None:
            total, copied = logits.logsumexp(1), None
        else:
            scores, tokens, hidden = self.copied.scores.float(), self.copied.tokens, self.copied.hidden
            barred = hidden & (tokens != PAD) & (tokens < whole)
            logits = logits.scatter_add(1, tokens * barred, barred * logits.new_tensor(NEVER))
            total = torch.logaddexp(logits.logsumexp(1), scores.logsumexp(1))
            copied = scores.masked_fill(tokens != number[:, None], NEVER).logsumexp(1)
        written = logits.gather(1, number.clamp(max=whole - 1)[:, None])[:, 0].masked_fill(number >= whole, NEVER)
        return total - (written if copied is None else torch.logaddexp(written, copied))


class Written(NamedTuple):
    """What D_txt gives under teacher forcing."""

    target: Tensor  # (B, S), padded: what it should have written
    spans: Tensor  # (B, S) characters of each token of the target
    choices: Choices | None  # None where they were not wanted, and of `rows`
    taken: Tensor | None = None  # (B, S, width), its hidden states once it has taken each, where it attends
    attention: Tensor | None = None  # (B, heads, S, N) weights over the latent

    @property
    def logits(self) -> Tensor:
        """(B, S, tokens), zeros in the padding."""
        assert self.choices is not None
        return self.choices.logits()

    def spent(self) -> Tensor:
        """Nats of each sentence: (B,)."""
        assert self.choices is not None
        return self.choices.packing.pad(self.choices.spent(self.target)).sum(1)

    def rows(self, index: Tensor) -> "Written":
        """Of sentences (R,) all but the choices."""
        attention = None if self.attention is None else self.attention[index]
        taken = None if self.taken is None else self.taken[index]
        return Written(self.target[index], self.spans[index], None, taken, attention)
