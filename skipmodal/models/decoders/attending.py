"""What a D_txt that attends to the tokens of a latent has, whatever makes its states."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.models.attention import Attention, AttentionMemory
from skipmodal.models.decoders.copying import BOOST, NEVER, Copies, Copying, merge
from skipmodal.models.decoders.spelling import SpelledEmbedding, SpelledLogits, Spelling
from skipmodal.models.decoders.written import Choices, Copied, Written
from skipmodal.models.latent import Latent
from skipmodal.models.layers import Packing
from skipmodal.models.search import Sentences, State, Step, beam_search, sample
from skipmodal.text import BOS, PAD
from skipmodal.tokenizer import Tokenizer


class AttendingDecoder(nn.Module):
    """What a D_txt that attends to the tokens of a latent has, whatever makes its states.

    Tokens of text lie where their first character does.
    """

    def __init__(self, tokenizer: Tokenizer, width: int, dropout: float, copied: int | None = None) -> None:
        """`width` of its states and embeddings; `copied` is that of u of suggested words, where it may copy them."""
        super().__init__()
        self.width = width
        self.spelling = Spelling(tokenizer)
        # A name that is copied may never have been written in training: its letters alone say what it is.
        kind = SpelledEmbedding if copied else nn.Embedding
        self.embed: nn.Embedding = kind(self.spelling.whole, self.width, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.output = SpelledLogits(self.width, self.spelling.whole)
        self.copying = Copying(self.width, copied) if copied else None

    def forward(self, latent: Latent, target: Tensor, owners: Tensor | None = None) -> Written:
        """Teacher forcing on target (B, S), of the item with the same number, or of item `owners` (B,).

        What a latent gives is computed once an item.
        """
        written, before = self._forced(latent, target, owners)
        packing = Packing(target != PAD)
        vocabulary = self.output(packing.pack(before), self._vectors())
        copies, copied = self._copies(latent), None
        if self.copying is not None and copies is not None:
            copies = copies if owners is None else copies.rows(owners)
            row = packing.places // target.shape[1]  # the sentence of each valid place
            scores = packing.pack(self.copying.scores(before, copies))
            copied = Copied(scores, copies.tokens[row], self.copying.hidden(copies)[row])
        return written._replace(choices=Choices(packing, vocabulary, self.spelling.names, copied))

    def follow(self, latent: Latent, target: Tensor) -> Written:
        """As `forward`, without the choices, which cost the most: for sentences that are only spoken or shown."""
        return self._forced(latent, target, None)[0]

    def _forced(self, latent: Latent, target: Tensor, owners: Tensor | None) -> tuple[Written, Tensor]:
        """All but the choices, and the states (B, S, width) from which these are made."""
        history = F.pad(target, (1, 0), value=BOS)
        starts = self.spelling.lengths[history].cumsum(1)
        states, weights = self.states(latent, history, starts, owners)
        states = self.dropout(states)
        written = Written(target, self.spelling.lengths[target], None, states[:, 1:], weights[:, :, :-1])
        return written, states[:, :-1]

    def states(self, latent: Latent, history: Tensor, starts: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, S), each written from character `starts` (B, S) on -> states (B, S, width), attention."""
        raise NotImplementedError

    def begin(self, latent: Latent, beam: int = 1) -> tuple[Callable[..., tuple[Tensor, State]], State]:
        """What `step` of a search needs of a latent, whose items are repeated `beam` times, and the first state."""
        raise NotImplementedError

    def embedded(self, tokens: Tensor) -> Tensor:
        """Tokens (B, S) -> (B, S, width)."""
        if not isinstance(self.embed, SpelledEmbedding):
            return self.embed(tokens)  # type: ignore[no-any-return]
        whole = tokens < self.spelling.whole
        own = self.embed(tokens.masked_fill(~whole, PAD)) * whole[:, :, None]
        return self.embed.spelled(own.flatten(0, 1), self.spelling.table[tokens.flatten()]).view_as(own)

    def _vectors(self) -> Tensor:
        return self.output.vectors(self.spelling.table[: self.spelling.whole])

    def _copies(self, latent: Latent) -> Copies | None:
        return None if self.copying is None else self.copying.remember(latent)

    @torch.no_grad()
    def generate(self, latent: Latent, max_length: int, beam: int = 1, every: bool = False) -> Sentences:
        """Free-running, in characters; see `beam_search`."""
        step, state = self._stepper(latent, beam, BOOST)
        found = beam_search(step, state, max_length, beam, self.spelling.begins, every)
        return self.spelling.spelled(found, max_length)

    @torch.no_grad()
    def sample(self, latent: Latent, max_length: int) -> Tensor:
        """One sentence an item, drawn token by token: (B, S), padding after the end."""
        step, state = self._stepper(latent)
        return sample(step, state, max_length)

    def _stepper(self, latent: Latent, beam: int = 1, boost: float = 0.0) -> tuple[Step, State]:
        """The search's step, and its first state, whose first parts are how many characters are written and what has
        been copied: each suggestion once at most. `boost` is of copying.
        """
        lengths, vectors = self.spelling.lengths, self._vectors()
        advance, first = self.begin(latent, beam)
        copies = self._copies(latent)
        copies = None if copies is None else copies.repeat(beam)

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            start, copied = state[0] + lengths[tokens], state[1]
            states, state = advance(tokens, start[0], state[2:])
            logits = F.pad(self.output(states[:, 0], vectors), (0, self.spelling.names), value=NEVER)
            if self.copying is not None and copies is not None:
                copied = copied | copies.written(tokens)
                scores = self.copying.scores(states, copies, boost)[:, 0].masked_fill(copied[0], NEVER)
                logits = merge(logits, scores, copies.tokens)
            return logits.masked_fill(lengths == 0, -torch.inf), (start, copied, *state)

        of_one = 0 if copies is None else copies.tokens.shape[1]
        nothing = torch.zeros(1, len(latent.u), of_one, dtype=torch.bool, device=latent.u.device)
        return step, (latent.lengths.new_zeros(1, len(latent.u), 1), nothing, *first)


def remember(attention: Attention, latent: Latent) -> AttentionMemory:
    """Keys and values of the tokens of a latent."""
    return attention.remember(latent.u, latent.positions, latent.mask)
