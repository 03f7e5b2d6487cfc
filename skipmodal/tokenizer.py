"""Text as tokens: the 66 characters, and frequent words as one token each.

A sentence of characters is five times as long, and a decoder of characters has to learn to spell before it learns
what to say. Words that the vocabulary lacks are spelled, so every text can be written. No torch modules here: the data
loader tokenises, and the model keeps the table.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from skipmodal import text
from skipmodal.errors import UserError
from skipmodal.text import BOS, EOS, PAD, SYMBOLS

LONGEST = 16  # characters of a word, its space included; longer ones are spelled
MAX_WORDS = 8192
_PARTS = re.compile(r" ?[A-Za-z']+|.")  # a word brings the space before it
_WORD = re.compile(rf" ?[A-Za-z']{{1,{LONGEST}}}")


class Tokenizer:
    """Token i < 66 is a symbol, token 66 + k the k-th word. Without words it is the characters alone.

    `names` are words that are tokens too, but that texts are spelled with: D_txt can only copy them.
    """

    def __init__(self, words: Sequence[str] = (), names: Sequence[str] = ()) -> None:
        """`words` as in a text, with the space before them; names that are words, too, are left out.

        Raises UserError for bad or repeated words.
        """
        known = set(words)
        names = [name for name in names if name not in known]
        bad = [word for word in (*words, *names) if not _WORD.fullmatch(word) or len(word) > LONGEST or len(word) < 2]
        if bad:
            raise UserError(f"vocabulary: {bad[0][:40]!r} is not a word of at most {LONGEST} letters")
        if len(known) < len(words) or len(words) > MAX_WORDS:
            raise UserError(f"vocabulary: a word is given twice, or there are more than {MAX_WORDS}")
        self.words, self.names = tuple(words), tuple(names)
        self._numbers = {word: number for number, word in enumerate(words, len(SYMBOLS))}
        self._copied = {name: number for number, name in enumerate(names, len(SYMBOLS) + len(words))}

    @classmethod
    def learn(cls, texts: Iterable[str], words: int, names: Sequence[str] = ()) -> "Tokenizer":
        """The most frequent words of normalised texts, at most `words`."""
        parts = Counter(part for each in texts for part in _PARTS.findall(each))
        frequent = [word for word, _ in parts.most_common() if 1 < len(word) <= LONGEST]
        return cls(frequent[:words], names)

    def __len__(self) -> int:
        return len(SYMBOLS) + len(self.words) + len(self.names)

    @cached_property
    def spelling(self) -> np.ndarray:
        """(tokens, LONGEST) uint8: the characters of each token, then padding; none of padding and the start."""
        table = np.zeros((len(self), LONGEST), dtype=np.uint8)
        table[: len(SYMBOLS), 0] = np.arange(len(SYMBOLS))
        table[BOS, 0] = PAD  # never written
        for row, word in zip(table[len(SYMBOLS) :], self.words + self.names, strict=True):
            row[: len(word)] = text.encode(word)[:-1]
        return table

    def number(self, word: str) -> int:
        """The token of a word or a name. Raises KeyError for another."""
        return self._numbers[word] if word in self._numbers else self._copied[word]

    def encode(self, sentence: str, spelled: float = 0.0, rng: np.random.Generator | None = None) -> list[int]:
        """Tokens of normalised text, the end last; of the words a random part, `spelled`, is in characters.

        Raises KeyError for characters that aren't among the 66.
        """
        parts = _PARTS.findall(sentence)
        whole = [True] * len(parts) if rng is None or not spelled else (rng.random(len(parts)) >= spelled).tolist()
        tokens: list[int] = []
        for part, keep in zip(parts, whole, strict=True):
            tokens += [self._numbers[part]] if keep and part in self._numbers else text.encode(part)[:-1]
        return [*tokens, EOS]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text up to the first end."""
        ids = [int(i) for token in tokens for i in self.spelling[token] if i != PAD]
        return text.decode(ids)
