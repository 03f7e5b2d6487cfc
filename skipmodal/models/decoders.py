"""The three decoders, each from one vector u (paper, section 3.3 and appendix 6.3).

Since u is one vector, attention over it is the vector itself and no recurrence depends on an alignment:
teacher forcing runs each RNN over the whole sequence in one fused call.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import ModelConfig
from skipmodal.models.durations import Timing
from skipmodal.models.layers import CBHG, Prenet
from skipmodal.models.search import Sentences, State, beam_search
from skipmodal.text import BOS, PAD, SYMBOLS


class ImageDecoder(nn.Module):
    """FC -> 4 x 4 x 64 -> transposed Conv2D 4x4 stride 2 with BN and ReLU, doubling up to `size` -> tanh.

    From 4 to 128 takes five doublings; the appendix lists four, the last with 8 channels: one stage to RGB is added.
    """

    def __init__(self, config: ModelConfig, size: int) -> None:
        super().__init__()
        self.input = nn.Linear(config.d_k, 4 * 4 * 64)
        stages = int(math.log2(size)) - 2
        widths = [64, *([32, 16, 8] + [8] * stages)[: stages - 1]]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1), nn.Tanh())

    def forward(self, u: Tensor) -> Tensor:
        """u (B, d_k) -> RGB (B, 3, size, size) in [-1, 1]."""
        return self.layers(self.input(u).view(-1, 64, 4, 4))  # type: ignore[no-any-return]


class TextDecoder(nn.Module):
    """2-layer LSTM whose state comes from u, characters until end-of-sentence, 66-way softmax.

    With `text_context` u is also an input at every character, as the speech decoder has it; not in the paper.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width = config.text_decoder
        self.embed = nn.Embedding(len(SYMBOLS), self.width, padding_idx=PAD)
        self.state = nn.Linear(config.d_k, 4 * self.width)  # h and c of both layers
        self.context = config.text_context
        width_in = self.width + (config.d_k if self.context else 0)
        self.lstm = nn.LSTM(width_in, self.width, 2, batch_first=True, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.width, len(SYMBOLS))

    def initial_state(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u (B, d_k) -> (h, c), each (2, B, width)."""
        h, c = torch.tanh(self.state(u)).view(len(u), 2, 2, self.width).permute(1, 2, 0, 3).contiguous()
        return h, c

    def forward(self, u: Tensor, ids: Tensor) -> Tensor:
        """Teacher forcing: u (B, d_k), target ids (B, L) -> logits (B, L, 66)."""
        states, _ = self.lstm(self._inputs(u, F.pad(ids[:, :-1], (1, 0), value=BOS)), self.initial_state(u))
        return self.output(self.dropout(states))  # type: ignore[no-any-return]

    def _inputs(self, u: Tensor, ids: Tensor) -> Tensor:
        embedded = self.embed(ids)
        return torch.cat([embedded, u[:, None].expand(-1, ids.shape[1], -1)], 2) if self.context else embedded

    @torch.no_grad()
    def generate(self, u: Tensor, max_length: int, beam: int = 1) -> Sentences:
        """Free-running from u (B, d_k); see `beam_search`."""
        u = u.repeat_interleave(beam, 0)

        def step(ids: Tensor, state: State) -> tuple[Tensor, State]:
            hidden, state = self.lstm(self._inputs(u, ids), state)
            return self.output(hidden[:, 0]), state

        sizes = (torch.arange(len(SYMBOLS), device=u.device) != PAD).long()
        return beam_search(step, self.initial_state(u[::beam]), max_length, beam, sizes)


@dataclass
class Speech:
    """What the speech decoder gives: mel (B, T, n_mels), linear (B, T, n_linear)."""

    mel: Tensor
    linear: Tensor
    lengths: Tensor  # (B,) valid frames
    steps: Tensor  # (B,) valid decoder steps
    capped: Tensor  # (B,) bool: cut at the cap
    stop: Tensor | None = None  # (B, steps) logits, of a decoder that stops
    alignment: Tensor | None = None  # (B, steps, characters), of one that knows how long each character lasts
    timing: Timing | None = None


Part = tuple[Tensor, Tensor, int]  # first frames (B,), valid frames (B,), the most of them


def cut_frames(mel: Tensor, lengths: Tensor, part: Part | None) -> tuple[Tensor, Tensor]:
    """The part of each item that the post-net works on: mel (B, T, n_mels), lengths (B,) -> the same of the part."""
    if part is None:
        return mel, lengths
    first, lengths, longest = part
    index = (first[:, None] + torch.arange(longest, device=mel.device)).clamp(max=mel.shape[1] - 1)
    return mel.gather(1, index[:, :, None].expand(-1, -1, mel.shape[2])), lengths


class SpeechDecoder(nn.Module):
    """Prenet -> attention RNN (GRU) -> decoder RNN (2 x LSTM, dropout .3) -> r frames of mel and a stop logit a step
    -> CBHG post-net -> linear magnitudes.

    Section 3.3 has a two-layer GRU and one more, the appendix a GRU and two LSTMs: the appendix. The prenet is
    Tacotron's.
    Both RNNs start from u. The attention RNN's context is u itself (attention over a single vector). The stop
    output is ours: the paper is silent, and without one a decoder never stops.
    """

    def __init__(self, config: ModelConfig, n_mels: int, n_linear: int) -> None:
        super().__init__()
        self.n_mels, self.r, self.width = n_mels, config.frames_per_step, config.speech_decoder
        self.prenet = Prenet(n_mels, config.prenet, config.prenet_dropout)
        self.state = nn.Linear(config.d_k, 5 * self.width)  # GRU h, then h and c of both LSTM layers
        self.attention_rnn = nn.GRU(config.prenet[-1] + config.d_k, self.width, batch_first=True)
        width_in = self.width + config.d_k
        self.decoder_rnn = nn.LSTM(width_in, self.width, 2, batch_first=True, dropout=config.speech_dropout)
        self.dropout = nn.Dropout(config.speech_dropout)
        self.output = nn.Linear(self.width, self.r * n_mels)
        self.stop = nn.Linear(self.width, 1)
        channels = config.postnet_channels
        self.postnet = CBHG(n_mels, config.postnet_banks, channels, projection=2 * channels)
        self.linear = nn.Linear(2 * channels, n_linear)

    def _initial_state(self, u: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        states = torch.tanh(self.state(u)).view(len(u), 5, self.width).transpose(0, 1).contiguous()
        return states[:1], (states[1:3], states[3:])

    def _steps(
        self, frames: Tensor, u: Tensor, gru: Tensor, lstm: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Runs any number of steps: input frames (B, S, n_mels) -> mel (B, S * r, n_mels), stop (B, S), states."""
        context = u[:, None].expand(-1, frames.shape[1], -1)
        query, gru = self.attention_rnn(torch.cat([self.prenet(frames), context], 2), gru)
        hidden, lstm = self.decoder_rnn(torch.cat([query, context], 2), lstm)
        hidden = self.dropout(hidden)
        mel = self.output(hidden).view(len(u), -1, self.n_mels)
        return mel, self.stop(hidden)[..., 0], gru, lstm

    def forward(self, u: Tensor, mel: Tensor, lengths: Tensor, part: Part | None = None) -> Speech:
        """Teacher forcing: u (B, d_k), target mel (B, T, n_mels), lengths (B,); linear of `part` alone."""
        frames = mel.shape[1]
        steps = -(-frames // self.r)
        # Each step sees the last frame of the step before; the first sees zeros.
        inputs = F.pad(mel[:, self.r - 1 :: self.r][:, : steps - 1], (0, 0, 1, 0))
        predicted, stop, _, _ = self._steps(inputs, u, *self._initial_state(u))
        predicted = predicted[:, :frames]
        linear = self._postnet(*cut_frames(predicted, lengths, part))
        return Speech(predicted, linear, lengths, -(-lengths // self.r), torch.zeros_like(lengths).bool(), stop)

    @torch.no_grad()
    def generate(self, u: Tensor, max_frames: int) -> Speech:
        """Free-running from u (B, d_k) until the stop output fires, or `max_frames`."""
        gru, lstm = self._initial_state(u)
        frame = u.new_zeros(len(u), 1, self.n_mels)
        max_steps = max(max_frames // self.r, 1)
        lengths = torch.full((len(u),), max_steps * self.r, device=u.device)
        done = torch.zeros(len(u), dtype=torch.bool, device=u.device)
        mels, stops = [], []
        for step in range(1, max_steps + 1):
            mel, stop, gru, lstm = self._steps(frame, u, gru, lstm)
            mels.append(mel)
            stops.append(stop)
            frame = mel[:, -1:]
            lengths[(stop[:, 0] > 0) & ~done] = step * self.r
            done |= stop[:, 0] > 0
            if done.all():
                break
        mel = torch.cat(mels, 1)
        return Speech(mel, self._postnet(mel, lengths), lengths, lengths // self.r, ~done, torch.cat(stops, 1))

    def _postnet(self, mel: Tensor, lengths: Tensor) -> Tensor:
        return self.linear(self.postnet(mel, lengths))  # type: ignore[no-any-return]
