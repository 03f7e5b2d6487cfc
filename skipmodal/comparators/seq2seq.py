"""Listen, attend and spell with multi-head attention: speech to text (Chiu et al., ICASSP 2018; table 3).

"State-of-the-art speech recognition with sequence-to-sequence models". As in LAS, bidirectional recurrent layers halve
the time as they go up, and an LSTM that is fed what it attended to before writes, as there, several heads attending,
units that are longer than letters: of our tokens. Unlike there, attention also knows where a character of average
length lies, as ours does (see `Attention`). Left out: scheduled sampling, label smoothing, training by word errors, the
language model of its beam search, and most of its width. The encoder has GRUs for LSTMs.
"""

from collections.abc import Callable, Collection
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.config import Dropout, Losses, Recipe, Size, WordModel, loss_term
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.attention import Attention, AttentionMemory
from skipmodal.models.base import Outputs, System
from skipmodal.models.decoders.attending import AttendingDecoder, remember
from skipmodal.models.latent import Latent
from skipmodal.models.layers import BiGRU, length_mask
from skipmodal.models.search import Sentences, State
from skipmodal.tokenizer import Tokenizer


class Seq2SeqModel(WordModel):
    """Its sizes."""

    kind: Literal["seq2seq"] = "seq2seq"
    width: Size = Field(default=256, description="units of each direction of the encoder's layers")
    layers: Annotated[int, Field(ge=1, le=64)] = Field(default=3, description="of the encoder")
    halvings: Annotated[int, Field(ge=0, le=64)] = Field(
        default=2, description="how many of them, the lowest, read two steps as one"
    )
    decoder: Size = Field(default=256, description="units of the decoder's two LSTMs")
    heads: Size = Field(default=4, description="of its attention")
    characters_per_second: Annotated[float, Field(gt=0)] = Field(
        default=17.0, description="of the voice: where attention starts from"
    )
    dropout: Dropout = 0.2

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Seq2SeqModel":
        if self.decoder % self.heads:
            raise ValueError(f"decoder ({self.decoder}) must be a multiple of heads ({self.heads})")
        if self.halvings > self.layers:
            raise ValueError(f"halvings ({self.halvings}) can't be more than layers ({self.layers})")
        return self


class Seq2SeqLoss(Losses):
    """Its loss."""

    text_from_speech: float = loss_term(1.0, "cross-entropy of the written tokens, a character", "text-speech")


class Seq2SeqRecipe(Recipe):
    """A training of it."""

    model: Seq2SeqModel = Seq2SeqModel()
    loss: Seq2SeqLoss = Seq2SeqLoss()


class Listener(nn.Module):
    """A pyramid of bidirectional GRUs: (B, T, n_mels) -> (B, T / 2 ** halvings, 2 * width)."""

    def __init__(self, config: Seq2SeqModel, n_mels: int) -> None:
        super().__init__()
        self.halvings, widths = config.halvings, [n_mels] + [2 * config.width] * (config.layers - 1)
        self.rnns = nn.ModuleList(
            BiGRU(2 * width if number < self.halvings else width, config.width) for number, width in enumerate(widths)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, n_mels), lengths (B,) -> states, zeros in the padding, and their lengths."""
        x = x * length_mask(lengths, x.shape[1])[:, :, None]
        for number, rnn in enumerate(self.rnns):
            if number < self.halvings:
                x, lengths = F.pad(x, (0, 0, 0, x.shape[1] % 2)).unflatten(1, (-1, 2)).flatten(2), (lengths + 1) // 2
            x = rnn(self.dropout(x) if number else x, lengths) * length_mask(lengths, x.shape[1])[:, :, None]
        return x, lengths


class Speller(AttendingDecoder):
    """[Embedding, context before] -> 2 LSTMs -> multi-head attention -> [state, context] -> tokens."""

    def __init__(self, config: Seq2SeqModel, tokenizer: Tokenizer) -> None:
        width, memory = config.decoder, 2 * config.width
        super().__init__(tokenizer, width, config.dropout)
        self.cells = nn.ModuleList([nn.LSTMCell(2 * width, width), nn.LSTMCell(width, width)])
        self.attention = Attention(width, memory, width, config.heads)
        self.mix = nn.Linear(2 * width, width)

    def states(self, latent: Latent, history: Tensor, starts: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor]:
        memory, embedded = remember(self.attention, latent), self.embedded(history)
        memory = memory if owners is None else memory.rows(owners)
        state, states, attended = self._first(latent, len(history)), [], []
        for step in range(history.shape[1]):
            written, weights, state = self._step(embedded[:, step], starts[:, step, None], memory, state)
            states.append(written)
            attended.append(weights)
        return torch.cat(states, 1), torch.cat(attended, 2)

    def begin(self, latent: Latent, beam: int = 1) -> tuple[Callable[..., tuple[Tensor, State]], State]:
        memory = remember(self.attention, latent).repeat(beam)

        def advance(tokens: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
            written, _, state = self._step(self.embedded(tokens)[:, 0], start, memory, state)
            return written, state

        return advance, self._first(latent, len(latent.u))

    def _first(self, latent: Latent, rows: int) -> State:
        """h and c of the cells (2, rows, width) and the context (1, rows, width)."""
        return tuple(latent.u.new_zeros(layers, rows, self.width) for layers in (2, 2, 1))

    def _step(
        self, embedded: Tensor, start: Tensor, memory: AttentionMemory, state: State
    ) -> tuple[Tensor, Tensor, State]:
        """One token (R, width) from character start (R, 1) on -> (R, 1, width), weights (R, heads, 1, N), state."""
        x = torch.cat([embedded, state[2][0]], 1)
        after = []
        for cell, h, c in zip(self.cells, state[0], state[1], strict=True):
            after.append(cell(self.dropout(x), (h, c)))
            x = after[-1][0]
        context, weights = self.attention(x[:, None], start, memory)
        written = torch.tanh(self.mix(torch.cat([x[:, None], context], 2)))
        h, c = (torch.stack(part) for part in zip(*after, strict=True))
        return written, weights, (h, c, context[:, 0][None])


class Seq2Seq(System):
    """Mel -> listener -> speller."""

    reads, writes = frozenset({"speech"}), frozenset({"text"})
    attends = True

    def __init__(self, config: Seq2SeqModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.rate = config.characters_per_second * audio.hop_length / audio.sample_rate * 2**config.halvings
        self.listener, self.text_decoder = Listener(config, audio.n_mels), Speller(config, tokenizer)

    def encode_speech(self, mel: Tensor, lengths: Tensor) -> Latent:
        """mel (B, frames, n_mels), lengths (B,) -> states (B, frames / 2 ** halvings, 2 * width)."""
        states, lengths = self.listener(mel, lengths)
        return Latent(states, states, lengths, self.rate)

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        outputs = Outputs()
        if "text_from_speech" in wanted and len(batch.mel):
            outputs.speech = self.encode_speech(batch.mel, batch.mel_lengths)
            written = self.text_decoder(outputs.speech, batch.tokens[len(batch.owners) :])
            outputs.written["text_from_speech"] = [written]
        return outputs

    def generate_text(self, latent: Latent, max_length: int, beam: int = 1) -> Sentences:
        """The most likely sentence of each item, in characters (B, L)."""
        return self.text_decoder.generate(latent, max_length, beam)

    def attention(self, latent: Latent, ids: Tensor) -> Tensor:
        """What it attended to at each character of sentences ids (B, L): the mean of its heads (B, L, N)."""
        written = self.text_decoder(latent, self.tokenize(ids))
        return self.text_decoder.spelling.spread(written.attention.mean(1), written.target, ids.shape[1])


RECIPE, SYSTEM = Seq2SeqRecipe, Seq2Seq
