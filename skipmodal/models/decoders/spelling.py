"""What is known of the letters of a token: its characters, and weights that all words with these letters share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.models.layers import length_mask
from skipmodal.models.search import Sentences
from skipmodal.text import PAD, SYMBOLS
from skipmodal.tokenizer import LONGEST, Tokenizer


class Spelling(nn.Module):
    """The tokenizer's table on the model's device."""

    table: Tensor  # (tokens, LONGEST) characters of each token, then padding

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(tokenizer.spelling.copy()), persistent=False)
        self.names = len(tokenizer.names)  # the last tokens, which can only be copied
        self.whole = len(tokenizer) - self.names

    @property
    def lengths(self) -> Tensor:
        """(tokens,) characters of each; none for those that can't be written: padding and the start."""
        return (self.table != PAD).sum(1)

    @property
    def begins(self) -> Tensor:
        """(tokens,) 1 for what begins a word, for signs and for the end: a spelled word begins with its space."""
        letters = torch.tensor([symbol.isalpha() or symbol == "'" for symbol in SYMBOLS], device=self.table.device)
        return ((self.lengths > 0) & ~letters[self.table[:, 0].long()]).long()

    def characters(self, tokens: Tensor) -> Tensor:
        """Tokens (B, S) -> characters (B, L)."""
        spelled = self.table[tokens].flatten(1).long()
        valid = spelled != PAD
        lengths = valid.sum(1)
        ids = tokens.new_zeros(len(tokens), int(lengths.max()))
        return ids.masked_scatter(length_mask(lengths, ids.shape[1]), spelled[valid])

    def spelled(self, found: Sentences, max_length: int) -> Sentences:
        """What a search found in tokens, in at most `max_length` characters."""
        ids = self.characters(found.ids)  # one that is longer than the cap in characters may not be in tokens
        return found._replace(ids=ids[:, :max_length], capped=found.capped | ((ids != PAD).sum(1) > max_length))

    def spread(self, states: Tensor, tokens: Tensor, characters: int) -> Tensor:
        """Values (B, S, W) of tokens (B, S) -> those of the token that each character is of (B, characters, W)."""
        places = torch.arange(characters, device=tokens.device).expand(len(tokens), -1).contiguous()
        ends = self.lengths[tokens].cumsum(1)
        token = torch.searchsorted(ends, places, right=True).clamp(max=tokens.shape[1] - 1)
        return states.gather(1, token[:, :, None].expand(-1, -1, states.shape[2]))


class SpelledLogits(nn.Linear):
    """Each token's logit has weights of its own and, summed, those of its letters at their places, which all words that
    have them share: to read a word from its letters need not be learned for every word anew.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__(width, tokens)
        self.letters = _letters(width)

    def forward(self, states: Tensor, vectors: Tensor) -> Tensor:  # type: ignore[override]
        """(..., width) -> (..., tokens)."""
        return F.linear(states, vectors, self.bias)

    def vectors(self, table: Tensor) -> Tensor:
        """The table of `Spelling` -> (tokens, width), the same for every step of a sentence."""
        return _compose(self.weight, self.letters, table)


class SpelledEmbedding(nn.Embedding):
    """Tokens that are embedded as `SpelledLogits` reads them: by a vector of their own and their letters."""

    def __init__(self, tokens: int, width: int, padding_idx: int) -> None:
        super().__init__(tokens, width, padding_idx)
        self.letters = _letters(width)

    def spelled(self, own: Tensor, table: Tensor) -> Tensor:
        """own (N, width), table (N, LONGEST) the characters of each -> (N, width)."""
        return _compose(own, self.letters, table)


def _letters(width: int) -> nn.Parameter:
    letters = nn.Parameter(torch.empty(LONGEST * len(SYMBOLS), width))
    nn.init.normal_(letters, std=0.02)
    return letters


def _compose(own: Tensor, letters: Tensor, table: Tensor) -> Tensor:
    """own (N, width) and the sum of the vectors of each one's letters at their places; table (N, LONGEST)."""
    row, place = table.nonzero(as_tuple=True)
    # index_select, because the gradient of plain indexing is summed in another order each time on several threads.
    letter = place * len(SYMBOLS) + table[row, place]
    return own.index_add(0, row, letters.index_select(0, letter))
