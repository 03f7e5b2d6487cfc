"""What D_txt writes: the 66 characters, and frequent words whole.

A sentence of characters is five times as long, and a decoder of characters has to learn to spell before it learns
what to say. Words that the vocabulary lacks are spelled, so nothing that can be read can't be written.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal import text
from skipmodal.models.layers import length_mask
from skipmodal.text import BOS, EOS, PAD, SYMBOLS

LONGEST = 16  # characters of a word, its space included; longer ones are spelled
_PARTS = re.compile(r" ?[A-Za-z']+|.")  # a word brings the space before it


class Units(nn.Module):
    """The characters, then `words` words, the most frequent first; the table travels with the weights."""

    spelling: Tensor  # (66 + words, LONGEST) uint8 characters of each unit, then padding

    def __init__(self, words: int) -> None:
        super().__init__()
        self.register_buffer("spelling", torch.zeros(len(SYMBOLS) + words, LONGEST, dtype=torch.uint8))
        self._numbers: dict[str, int] | None = None
        if not self.spelling.is_meta:  # about to be loaded; to write there would import torch's compiler
            self._begin()

    def __len__(self) -> int:
        return len(self.spelling)

    def learn(self, texts: Iterable[str]) -> None:
        """Takes the most frequent words of normalised texts; places that are left over stay empty."""
        parts = Counter(part for each in texts for part in _PARTS.findall(each))
        words = [word for word, _ in parts.most_common() if 1 < len(word) <= LONGEST]
        self.spelling[len(SYMBOLS) :] = 0
        for row, word in zip(self.spelling[len(SYMBOLS) :], words, strict=False):
            row[: len(word)] = torch.tensor(text.encode(word)[:-1])
        self._numbers = None

    @property
    def lengths(self) -> Tensor:
        """(units,) characters of each; none for those that can't be written: padding, the start, empty places."""
        return (self.spelling != PAD).sum(1)

    @property
    def begins(self) -> Tensor:
        """(units,) 1 for what begins a word, for signs and for the end: a spelled word begins with its space."""
        letters = torch.tensor([symbol.isalpha() or symbol == "'" for symbol in SYMBOLS], device=self.spelling.device)
        return ((self.lengths > 0) & ~letters[self.spelling[:, 0].long()]).long()

    def segment(self, ids: Tensor, spelled: float = 0.0) -> Tensor:
        """Characters (B, L) -> units (B, S), both padded; the end is one where there is one.

        Of the words that are units a random part, `spelled`, is in characters all the same.
        """
        rows = []
        for row in ids.tolist():
            units = self._split(text.decode(row), spelled)
            rows.append(torch.tensor([*units, EOS] if EOS in row else units, dtype=torch.long))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD).to(ids.device)

    def count(self, sentence: str) -> int:
        """Units of a sentence, its end not counted."""
        return len(self._split(sentence, spelled=0.0))

    def spell(self, units: Tensor) -> Tensor:
        """Units (B, S) -> characters (B, L)."""
        spelled = self.spelling[units].flatten(1).long()
        valid = spelled != PAD
        lengths = valid.sum(1)
        ids = units.new_zeros(len(units), int(lengths.max()))
        return ids.masked_scatter(length_mask(lengths, ids.shape[1]), spelled[valid])

    def starts(self, units: Tensor) -> Tensor:
        """Units (B, S) -> where each starts (B, S), in characters."""
        lengths = self.lengths[units]
        return lengths.cumsum(1) - lengths

    def to_characters(self, states: Tensor, units: Tensor, characters: int) -> Tensor:
        """States (B, S, W) at units (B, S) -> those of the unit that each character is of (B, characters, W)."""
        places = torch.arange(characters, device=units.device).expand(len(units), -1).contiguous()
        ends = self.lengths[units].cumsum(1)
        unit = torch.searchsorted(ends, places, right=True).clamp(max=units.shape[1] - 1)
        return states.gather(1, unit[:, :, None].expand(-1, -1, states.shape[2]))

    def _split(self, sentence: str, spelled: float) -> list[int]:
        numbers, parts = self._look_up(), _PARTS.findall(sentence)
        whole = (torch.rand(len(parts)) >= spelled).tolist() if spelled and numbers else [True] * len(parts)
        units: list[int] = []
        for part, keep in zip(parts, whole, strict=True):
            units += [numbers[part]] if keep and part in numbers else text.encode(part)[:-1]
        return units

    def _look_up(self) -> dict[str, int]:
        if self._numbers is None:
            words = [text.decode(row) for row in self.spelling[len(SYMBOLS) :].tolist()]
            self._numbers = {word: i for i, word in reversed(list(enumerate(words, len(SYMBOLS)))) if word}
        return self._numbers

    def _begin(self) -> None:
        """Writes the characters' own rows."""
        self.spelling[: len(SYMBOLS)] = 0
        self.spelling[: len(SYMBOLS), 0] = torch.arange(len(SYMBOLS), dtype=torch.uint8)
        self.spelling[BOS, 0] = PAD  # never written

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        # The table comes from outside: no word may hold an end, or a character that there isn't.
        forged = (self.spelling >= len(SYMBOLS)) | (self.spelling == BOS) | (self.spelling == EOS)
        self.spelling.masked_fill_(forged.any(1, keepdim=True), PAD)
        self._begin()
        self._numbers = None


class UnitLogits(nn.Linear):
    """Each unit's logit has weights of its own and, summed, those of its letters at their places, which all words that
    have them share: to read a word from its letters need not be learned for every word anew.
    """

    def __init__(self, width: int, units: Units) -> None:
        super().__init__(width, len(units))
        self.letters = nn.Parameter(torch.empty(LONGEST * len(SYMBOLS), width))
        nn.init.normal_(self.letters, std=0.02)

    def forward(self, states: Tensor, vectors: Tensor) -> Tensor:  # type: ignore[override]
        """(..., width) -> (..., units)."""
        return F.linear(states, vectors, self.bias)

    def vectors(self, spelling: Tensor) -> Tensor:
        """The table `Units.spelling` -> (units, width), the same for every step of a sentence."""
        unit, place = spelling.nonzero(as_tuple=True)
        # index_select, because the gradient of plain indexing is summed in another order each time on several threads.
        letter = place * len(SYMBOLS) + spelling[unit, place]
        return self.weight.index_add(0, unit, self.letters.index_select(0, letter))
