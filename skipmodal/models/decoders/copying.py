"""Writing a word that the image encoder's classifier suggests: a pointer-generator (See et al., ACL 2017).

Not in the paper. So D_txt can name things that no caption of the training data names, the task of nocaps (Agrawal et
al., ICCV 2019).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.models.latent import Latent
from skipmodal.text import PAD

HIDDEN = 0.5  # part of a picture's suggestions that the vocabulary can't write in training: copying has to be learned
BOOST = 2.0  # nats by which a suggestion that is sure is written more readily than in the captions of the training
NEVER = -1e4  # finite: the gradient of logaddexp has none for infinity


class Copies(NamedTuple):
    """What may be copied: each suggestion in the singular and the plural."""

    keys: Tensor  # (B, 2 * kinds, width)
    tokens: Tensor  # (B, 2 * kinds), PAD where a word has no other plural
    likely: Tensor  # (B, 2 * kinds) probabilities

    def rows(self, index: Tensor) -> "Copies":
        """Those of items (R,), which may repeat."""
        return Copies(*(part[index] for part in self))

    def written(self, tokens: Tensor) -> Tensor:
        """Which suggestions (B, 2 * kinds) the tokens (B, 1) write, both forms of a word together."""
        same = (self.tokens == tokens) & (self.tokens != PAD)
        return same.unflatten(1, (-1, 2)).any(2).repeat_interleave(2, 1)

    def repeat(self, times: int) -> "Copies":
        """Each item `times` times in a row."""
        return Copies(*(part.repeat_interleave(times, 0) for part in self))


class Copying(nn.Module):
    """Two ways to write a word: the vocabulary's logit, and how well D_txt's state goes with u of a suggestion."""

    def __init__(self, width: int, d_k: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(d_k, width)
        self.forms = nn.Parameter(torch.empty(2, width))
        nn.init.normal_(self.forms, std=width**-0.5)
        self.hide = nn.Dropout(HIDDEN)

    def remember(self, latent: Latent) -> Copies | None:
        """What D_txt may copy of a latent; None where nothing is suggested, as in texts."""
        if latent.suggested is None:
            return None
        tokens, likely = latent.suggested
        keys = self.key(latent.u[:, -likely.shape[1] :])[:, :, None] + self.forms
        return Copies(keys.flatten(1, 2), tokens.flatten(1), likely.repeat_interleave(2, 1))

    def scores(self, states: Tensor, copies: Copies, boost: float = 0.0) -> Tensor:
        """states (B, S, width) -> logits of copying (B, S, 2 * kinds), raised by `boost` times the probabilities."""
        scores = self.query(states) @ copies.keys.transpose(1, 2) * states.shape[2] ** -0.5
        scores = scores + boost * copies.likely[:, None]
        return scores.masked_fill((copies.tokens == PAD)[:, None], -torch.inf)

    def hidden(self, copies: Copies) -> Tensor:
        """(B, 2 * kinds) bool: what the vocabulary can't write this time; in training alone."""
        kept: Tensor = self.hide(copies.keys.new_ones(len(copies.tokens), copies.tokens.shape[1] // 2))
        return (kept == 0).repeat_interleave(2, 1)


def merge(logits: Tensor, scores: Tensor, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
    """The vocabulary's logits (N, V) with those of copying, (N, C), at their tokens (N, C): the sum of both ways.

    `hidden` (N, C) bool are those that can only be copied.
    """
    same = tokens[:, :, None] == tokens[:, None]  # "books" is a suggestion and the plural of another
    scores = scores[:, None].masked_fill(~same, NEVER).logsumexp(2)
    written = logits.gather(1, tokens)
    if hidden is not None:
        written = written.masked_fill((hidden[:, None] & same).any(2), NEVER)
    # A token is written to once; its repeats, and padding, go to a column that is cut off.
    spare = (tokens == PAD) | same.tril(-1).any(2)
    both = torch.logaddexp(written, scores.to(written.dtype))
    return F.pad(logits, (0, 1)).scatter(1, tokens.masked_fill(spare, logits.shape[1]), both)[:, :-1]
