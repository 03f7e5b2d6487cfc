"""Tacotron 2: text to speech by LSTMs with location-sensitive attention (Shen et al., ICASSP 2018; table 3).

As there, characters go through convolutions and a bidirectional LSTM, two LSTMs write mel frames while attending to
them, a residual convolutional post-net corrects the mel, and the loss is of the mel before and after it. The pre-net's
dropout stays on in synthesis. Left out: WaveNet, in whose place our CBHG post-net gives the linear magnitudes of all
these systems; zoneout, which is dropout here; most of its width; and its one frame a step, which costs as many steps.
Its losses are squared errors, ours absolute ones. The first LSTM alone asks the attention, so that the second runs over
all steps at once. Ours: a guide of the attention that a recipe may ask for. Not torchaudio's, whose batch norms count
padding.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.comparators._speaking import AttentionRNN, Speaker, SpeakingLoss, Steps
from skipmodal.config import Dropout, Recipe, Size, SpokenModel, loss_term
from skipmodal.image import ImageConfig
from skipmodal.models.latent import Latent
from skipmodal.models.layers import BiGRU, MaskedBatchNorm, length_mask, lstm_step
from skipmodal.text import PAD, SYMBOLS
from skipmodal.tokenizer import Tokenizer


class Tacotron2Model(SpokenModel):
    """Its sizes."""

    kind: Literal["tacotron2"] = "tacotron2"
    frames_per_step: Size = Field(default=4, description="r")
    text_channels: Size = Field(
        default=256, ge=2, description="character embedding, convolutions and both LSTM directions"
    )
    text_dropout: Dropout = Field(default=0.5, description="after each convolution of the text encoder")
    prenet: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = (128, 128)
    prenet_dropout: Dropout = Field(default=0.5, description="in the pre-net, in synthesis too")
    attention: Size = Field(default=128, description="width in which queries and keys are compared")
    filters: Size = Field(default=32, description="of the convolution over past attention")
    decoder: Size = Field(default=256, description="units of each LSTM")
    dropout: Dropout = Field(default=0.1, description="after each LSTM")
    refine_channels: Size = Field(default=128, description="of the residual post-net on mel")
    refine_dropout: Dropout = Field(default=0.5, description="in it, but for its last convolution")


class Tacotron2Loss(SpeakingLoss):
    """Its losses."""

    coarse: float = loss_term(1.0, "|mel - its own|, before the residual post-net", "text-speech")


class Tacotron2Recipe(Recipe):
    """A training of it."""

    model: Tacotron2Model = Tacotron2Model()
    loss: Tacotron2Loss = Tacotron2Loss()


class Convolution(nn.Module):
    """Conv1D 5, same padding -> batch norm -> an activation -> dropout, over (B, T, C); zeros in the padding."""

    def __init__(self, width_in: int, width_out: int, activation: nn.Module, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width_in, width_out, 5, padding=2, bias=False)
        self.norm = MaskedBatchNorm(width_out)
        self.after = nn.Sequential(activation, nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.conv((x * mask[:, :, None]).transpose(1, 2)).transpose(1, 2)
        return self.after(self.norm(x, mask))  # type: ignore[no-any-return]


class BiLSTM(BiGRU):
    """The same of LSTMs."""

    def __init__(self, width_in: int, units: int) -> None:
        super().__init__(width_in, units)
        self.ahead = nn.LSTM(width_in, units, batch_first=True)  # type: ignore[assignment]
        self.back = nn.LSTM(width_in, units, batch_first=True)  # type: ignore[assignment]


class NoisyPrenet(nn.Module):
    """FC -> ReLU -> dropout, once per width, with dropout in synthesis too.

    There what is dropped depends on the number of the step alone: a sentence sounds alike each time, whatever else is
    in its batch.
    """

    def __init__(self, width_in: int, widths: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((width_in, *widths)))
        self.widths, self.dropout = list(widths), dropout

    def forward(self, x: Tensor, first: int) -> Tensor:
        """x (B, S, n_mels), whose first step is number `first` -> (B, S, width)."""
        if self.training:
            for layer in self.layers:
                x = F.dropout(F.relu(layer(x)), self.dropout)
            return x
        for layer, keep in zip(self.layers, self._masks(first, x.shape[1]), strict=True):
            x = F.relu(layer(x)) * keep.to(x) / (1 - self.dropout)
        return x

    def _masks(self, first: int, steps: int) -> tuple[Tensor, ...]:
        """What each layer keeps at each step: (S, width)."""
        numbers = (torch.Generator().manual_seed(step) for step in range(first, first + steps))
        drawn = torch.stack([torch.rand(sum(self.widths), generator=number) for number in numbers])
        return (drawn >= self.dropout).split(self.widths, 1)


class Tacotron2(Speaker):
    """Characters -> 3 convolutions -> bidirectional LSTM; prenet -> LSTM that attends -> LSTM -> r frames, a stop."""

    def __init__(self, config: Tacotron2Model, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, audio, tokenizer)
        text, width, n_mels = config.text_channels, config.decoder, audio.n_mels
        memory = text // 2 * 2
        self.embed = nn.Embedding(len(SYMBOLS), text, padding_idx=PAD)
        self.convs = nn.ModuleList(Convolution(text, text, nn.ReLU(), config.text_dropout) for _ in range(3))
        self.reader = BiLSTM(text, text // 2)
        self.prenet = NoisyPrenet(n_mels, config.prenet, config.prenet_dropout)
        cell = nn.LSTMCell(config.prenet[-1] + memory, width)
        self.attention_rnn = AttentionRNN(cell, memory, config.attention, config.filters)
        self.rnn = nn.LSTM(width + memory, width, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width + memory, config.frames_per_step * n_mels)
        self.stop = nn.Linear(width + memory, 1)
        widths = [n_mels] + [config.refine_channels] * 4
        self.refiner = nn.ModuleList(Convolution(a, b, nn.Tanh(), config.refine_dropout) for a, b in pairwise(widths))
        # The correction starts at zero: batch norm gives it a variance of one, and mels lie in [0, 1].
        self.refiner.append(last := Convolution(config.refine_channels, n_mels, nn.Identity(), dropout=0.0))
        nn.init.zeros_(last.norm.weight)

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Latent:
        """ids (B, L), lengths (B,) -> states (B, L, text_channels)."""
        mask = length_mask(lengths, ids.shape[1])
        x = self.embed(ids)
        for conv in self.convs:
            x = conv(x, mask)
        states = self.reader(x, lengths) * mask[:, :, None]
        return Latent(states, states, lengths, rate=1.0).with_source(ids=ids)

    def begin(self, latent: Latent, generating: bool) -> Any:
        zeros = latent.u.new_zeros(1, len(latent.u), self.rnn.hidden_size)
        return 0, self.attention_rnn.start(latent), (zeros, zeros)

    def steps(self, frames: Tensor, state: Any) -> Steps:
        """Only the first LSTM needs a loop."""
        number, attending, hidden = state
        known, weights, attending = self.attention_rnn(self.prenet(frames[:, :, -1], number), attending)
        width = self.rnn.hidden_size
        known = torch.cat([self.dropout(known[:, :, :width]), known[:, :, width:]], 2)
        x, hidden = lstm_step(self.rnn, known, hidden) if frames.shape[1] == 1 else self.rnn(known, hidden)
        x = torch.cat([self.dropout(x), known[:, :, width:]], 2)
        mel = self.output(x).unflatten(2, (self.frames_a_step, self.n_mels))
        return Steps(mel, self.stop(x)[..., 0], weights, (number + frames.shape[1], attending, hidden))

    def refine(self, mel: Tensor, lengths: Tensor) -> Tensor:
        mask = length_mask(lengths, mel.shape[1])
        x = mel
        for conv in self.refiner:
            x = conv(x, mask)
        return mel + x


RECIPE, SYSTEM = Tacotron2Recipe, Tacotron2
