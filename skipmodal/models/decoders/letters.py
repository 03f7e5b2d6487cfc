"""The letters of a sentence, read from the hidden states of D_txt, for a D_spch that is given no characters."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.models.layers import Packing, length_mask
from skipmodal.text import PAD, SYMBOLS
from skipmodal.tokenizer import LONGEST


class Letters(NamedTuple):
    """What is read of the tokens of some sentences, and what should have been."""

    logits: Tensor  # (B, S, LONGEST, symbols)
    spelled: Tensor  # (B, S, LONGEST), PAD after the last letter
    spans: Tensor  # (B, S) letters


class LetterReader(nn.Module):
    """From the state that has taken a token, a character or a word: how many letters it has, and which.

    Not in the paper, whose D_spch has one vector to speak from. A state is that of the sentence so far, so letters may
    only come through it: of the token, or of another that the state stands for as well.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.letters = nn.Linear(width, LONGEST * len(SYMBOLS))

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """states (B, S, width), valid (B, S) -> logits (B, S, LONGEST, symbols) of the letter at each place, PAD after
        the last.
        """
        packing = Packing(valid)
        return packing.pad(self.letters(F.gelu(self.hidden(packing.pack(states)))).unflatten(1, (LONGEST, -1)))


def counts(logits: Tensor) -> Tensor:
    """How many letters are read of each token, at least one: logits (B, S, LONGEST, symbols) -> (B, S)."""
    ended = logits.argmax(3) == PAD
    ended[:, :, 0] = False
    return torch.where(ended.any(2), ended.int().argmax(2), LONGEST)


def lay_out(values: Tensor, counts: Tensor) -> Tensor:
    """What each token has at each place, one after the other: values (B, S, LONGEST, W), counts (B, S) -> (B, L, W)."""
    places = length_mask(counts.flatten(), LONGEST).view(len(values), -1)
    lengths = counts.sum(1)
    rows = Packing(places).pack(values.flatten(1, 2))
    return Packing(length_mask(lengths, int(lengths.max()))).pad(rows)


def letter_loss(letters: Letters) -> Tensor:
    """Cross-entropy of the letters and of the end after them, summed."""
    valid = length_mask((letters.spans + 1).flatten(), LONGEST).view_as(letters.spelled)
    valid &= (letters.spans > 0)[:, :, None]
    return F.cross_entropy(letters.logits[valid], letters.spelled[valid].long(), reduction="sum")


def regroup(alignment: Tensor, read: Tensor, spans: Tensor) -> Tensor:
    """Weights over the letters that were read -> weights over the characters of the sentence.

    alignment (B, steps, L), read (B, S) letters and spans (B, S) characters of each token -> (B, steps, characters). A
    token of which another number of letters was read shares its time equally among its characters.
    """
    batch, steps, _ = alignment.shape
    places = length_mask(read.flatten(), LONGEST).view(batch, -1)
    grid = alignment.new_zeros(batch, places.shape[1], steps)
    laid = length_mask(read.sum(1), alignment.shape[2])
    grid[places] = alignment.transpose(1, 2)[laid]
    grid = grid.unflatten(1, (-1, LONGEST))
    equal = grid.sum(2, keepdim=True) / spans.clamp(min=1)[:, :, None, None]
    same = (read == spans)[:, :, None, None]
    return lay_out(torch.where(same, grid, equal), spans).transpose(1, 2)
