"""D_txt: the paper's LSTM from one vector, and what attends over the tokens of a latent: an LSTM, or a transformer."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import TokensModel, VectorModel
from skipmodal.models.attention import Attention, AttentionMemory
from skipmodal.models.decoders.copying import BOOST, NEVER, Copies, Copying, merge
from skipmodal.models.latent import Latent
from skipmodal.models.layers import Packing, length_mask, lstm_step
from skipmodal.models.search import Sentences, State, Step, beam_search, sample
from skipmodal.text import BOS, PAD, SYMBOLS
from skipmodal.tokenizer import LONGEST, Tokenizer


class Written(NamedTuple):
    """What D_txt gives under teacher forcing."""

    logits: Tensor  # (B, S, tokens), undefined in the padding
    target: Tensor  # (B, S), padded: what it should have written
    spans: Tensor  # (B, S) characters of each token of the target
    states: Tensor  # (B, S, width), its hidden states before each
    taken: Tensor | None = None  # (B, S, width), its hidden states once it has taken each, where it attends
    attention: Tensor | None = None  # (B, heads, S, N) weights over the latent

    def rows(self, index: Tensor) -> "Written":
        """Those of sentences (R,)."""
        attention = None if self.attention is None else self.attention[index]
        taken = None if self.taken is None else self.taken[index]
        return Written(self.logits[index], self.target[index], self.spans[index], self.states[index], taken, attention)


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
        """States (B, S, W) at tokens (B, S) -> those of the token that each character is of (B, characters, W)."""
        places = torch.arange(characters, device=tokens.device).expand(len(tokens), -1).contiguous()
        ends = self.lengths[tokens].cumsum(1)
        token = torch.searchsorted(ends, places, right=True).clamp(max=tokens.shape[1] - 1)
        return states.gather(1, token[:, :, None].expand(-1, -1, states.shape[2]))


class TextDecoder(nn.Module):
    """2-layer LSTM whose state comes from u, characters until end-of-sentence, 66-way softmax.

    Not in the paper: with `text_context` u is also an input at every character, as the speech decoder has it; with
    `history_dropout` random characters of its past are hidden in training, so that it has to read u.
    """

    def __init__(self, config: VectorModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.width, self.context, self.history_dropout = (
            config.text_decoder,
            config.text_context,
            config.history_dropout,
        )
        self.spelling = Spelling(tokenizer)
        self.embed = nn.Embedding(len(tokenizer), self.width, padding_idx=PAD)
        self.state = nn.Linear(config.d_k, 4 * self.width)  # h and c of both layers
        width_in = self.width + (config.d_k if self.context else 0)
        self.lstm = nn.LSTM(width_in, self.width, 2, batch_first=True, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.width, len(tokenizer))

    def initial_state(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u (B, d_k) -> (h, c), each (2, B, width)."""
        h, c = torch.tanh(self.state(u)).view(len(u), 2, 2, self.width).permute(1, 2, 0, 3).contiguous()
        return h, c

    def forward(self, latent: Latent, target: Tensor, owners: Tensor | None = None) -> Written:
        """Teacher forcing on target (B, S), of the item with the same number, or of item `owners` (B,)."""
        u = latent.mean if owners is None else latent.mean[owners]
        history = F.pad(target[:, :-1], (1, 0), value=BOS)
        if self.training and self.history_dropout:
            history = history.masked_fill(torch.rand(history.shape, device=u.device) < self.history_dropout, BOS)
        states, _ = self.lstm(self._inputs(u, history), self.initial_state(u))
        states = self.dropout(states)
        return Written(self.output(states), target, self.spelling.lengths[target], states)

    def _inputs(self, u: Tensor, ids: Tensor) -> Tensor:
        embedded = self.embed(ids)
        return torch.cat([embedded, u[:, None].expand(-1, ids.shape[1], -1)], 2) if self.context else embedded

    @torch.no_grad()
    def generate(self, latent: Latent, max_length: int, beam: int = 1, every: bool = False) -> Sentences:
        """Free-running, in characters; see `beam_search`."""
        step = self._stepper(latent.mean.repeat_interleave(beam, 0))
        found = beam_search(step, self.initial_state(latent.mean), max_length, beam, self.spelling.begins, every)
        return self.spelling.spelled(found, max_length)

    @torch.no_grad()
    def sample(self, latent: Latent, max_length: int) -> Tensor:
        """One sentence an item, drawn token by token: (B, S), padding after the end."""
        return sample(self._stepper(latent.mean), self.initial_state(latent.mean), max_length)

    def _stepper(self, u: Tensor) -> Step:
        def step(ids: Tensor, state: State) -> tuple[Tensor, State]:
            hidden, state = self.lstm(self._inputs(u, ids), state)
            return self.output(hidden[:, 0]).masked_fill(self.spelling.lengths == 0, -torch.inf), state

        return step


class AttendingDecoder(nn.Module):
    """What a D_txt that attends to the tokens of a latent has, whatever makes its states.

    Tokens of text lie where their first character does.
    """

    def __init__(self, config: TokensModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.width = config.text_decoder
        self.spelling = Spelling(tokenizer)
        # A name that is copied may never have been written in training: its letters alone say what it is.
        kind = SpelledEmbedding if config.kinds else nn.Embedding
        self.embed: nn.Embedding = kind(self.spelling.whole, self.width, padding_idx=PAD)
        self.dropout = nn.Dropout(config.dropout)
        self.output = SpelledLogits(self.width, self.spelling.whole)
        self.copying = Copying(self.width, config.d_k) if config.kinds else None

    def forward(self, latent: Latent, target: Tensor, owners: Tensor | None = None) -> Written:
        """Teacher forcing on target (B, S), of the item with the same number, or of item `owners` (B,).

        What a latent gives is computed once an item.
        """
        history = F.pad(target, (1, 0), value=BOS)
        starts = self.spelling.lengths[history].cumsum(1)
        states, weights = self.states(latent, history, starts, owners)
        states = self.dropout(states)
        packing = Packing(target != PAD)
        logits = self._written(packing.pack(states[:, :-1]), self._vectors())
        copies = self._copies(latent)
        if self.copying is not None and copies is not None:
            copies = copies if owners is None else copies.rows(owners)
            row = packing.places // target.shape[1]  # the sentence of each valid place
            scores = packing.pack(self.copying.scores(states[:, :-1], copies))
            logits = merge(logits, scores, copies.tokens[row], self.copying.hidden(copies)[row])
        spans = self.spelling.lengths[target]
        return Written(packing.pad(logits), target, spans, states[:, :-1], states[:, 1:], weights[:, :, :-1])

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

    def _written(self, states: Tensor, vectors: Tensor) -> Tensor:
        """The vocabulary's logits (N, tokens) of states (N, width); names can only be copied."""
        return F.pad(self.output(states, vectors), (0, self.spelling.names), value=NEVER)

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
            logits = self._written(states[:, 0], vectors)
            if self.copying is not None and copies is not None:
                copied = copied | copies.written(tokens)
                scores = self.copying.scores(states, copies, boost)[:, 0].masked_fill(copied[0], NEVER)
                logits = merge(logits, scores, copies.tokens)
            return logits.masked_fill(lengths == 0, -torch.inf), (start, copied, *state)

        of_one = 0 if copies is None else copies.tokens.shape[1]
        nothing = torch.zeros(1, len(latent.u), of_one, dtype=torch.bool, device=latent.u.device)
        return step, (latent.lengths.new_zeros(1, len(latent.u), 1), nothing, *first)


class AttentionTextDecoder(AttendingDecoder):
    """Attention LSTM over the tokens (characters and words) -> attention over u -> LSTM -> softmax over the tokens.

    Both LSTMs start from the mean of u.
    """

    def __init__(self, config: TokensModel, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.state = nn.Linear(config.d_k, 4 * self.width)  # h and c of both
        self.attention_rnn = nn.LSTM(self.width, self.width, batch_first=True)
        self.attention = Attention(self.width, config.d_k, self.width, config.text_heads)
        self.decoder_rnn = nn.LSTM(2 * self.width, self.width, batch_first=True)

    def states(self, latent: Latent, history: Tensor, starts: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor]:
        memory, state = remember(self.attention, latent), self._initial_state(latent)
        if owners is not None:
            memory, state = memory.rows(owners), tuple(part[:, owners] for part in state)
        queries, _ = self.attention_rnn(self.dropout(self.embedded(history)), state[:2])
        context, weights = self.attention(queries, starts, memory)
        states, _ = self.decoder_rnn(self.dropout(torch.cat([queries, context], 2)), state[2:])
        return states, weights

    def begin(self, latent: Latent, beam: int = 1) -> tuple[Callable[..., tuple[Tensor, State]], State]:
        memory = remember(self.attention, latent).repeat(beam)

        def advance(tokens: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
            h1, c1, h2, c2 = state
            query, (h1, c1) = lstm_step(self.attention_rnn, self.embedded(tokens), (h1, c1))
            context, _ = self.attention(query, start, memory)
            states, (h2, c2) = lstm_step(self.decoder_rnn, torch.cat([query, context], 2), (h2, c2))
            return states, (h1, c1, h2, c2)

        return advance, self._initial_state(latent)

    def _initial_state(self, latent: Latent) -> State:
        return torch.tanh(self.state(latent.mean)).unflatten(1, (4, 1, -1)).permute(1, 2, 0, 3).contiguous().unbind()


def remember(attention: Attention, latent: Latent) -> AttentionMemory:
    """Keys and values of the tokens of a latent."""
    return attention.remember(latent.u, latent.positions, latent.mask)


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
