"""D_spch: what the paper's recurrent decoder and ours share, and the paper's, from one vector."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.audio import AudioConfig, mel_to_linear
from skipmodal.config import SpokenModel, StepwiseModel
from skipmodal.models.alignment import Timing
from skipmodal.models.latent import Latent
from skipmodal.models.layers import CBHG, Prenet, length_mask, mean

STOP_WEIGHT = 5.0  # of the one step that stops, beside some fifty others
Part = tuple[Tensor, Tensor, int]  # first frames (B,), valid frames (B,), the most of them


class Transcript(NamedTuple):
    """A sentence as D_txt gives it to D_spch."""

    states: Tensor  # (B, L, text_decoder): hidden states of D_txt, of a word at each of its characters
    ids: Tensor  # (B, L): the characters
    lengths: Tensor  # (B,)
    letters: Tensor  # (B, L, symbols): their probabilities, as they are read from the states


class Matching(NamedTuple):
    """What the refiner learns from: see `refiner`."""

    velocity: Tensor  # (B, T, n_mels), as it is estimated
    target: Tensor  # (B, T, n_mels)
    lengths: Tensor  # (B,) valid frames


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
    matching: Matching | None = None


class Imitation(NamedTuple):
    """What D_spch says from some states, and what it says from others of the same sentences, without gradients."""

    mel: Tensor  # (B, T, n_mels)
    target: Tensor  # (B, T, n_mels)
    lengths: Tensor  # (B,) valid frames
    durations: Tensor  # (B, L), logarithms of frames
    target_durations: Tensor  # (B, L)
    characters: Tensor  # (B,) valid


def cut(frames: Tensor, lengths: Tensor, part: Part | None) -> tuple[Tensor, Tensor]:
    """frames (B, T, n), lengths (B,): of `part` alone where one is given."""
    if part is None:
        return frames, lengths
    first, lengths, longest = part
    index = (first[:, None] + torch.arange(longest, device=frames.device)).clamp(max=frames.shape[1] - 1)
    return frames.gather(1, index[:, :, None].expand(-1, -1, frames.shape[2])), lengths


def stop_loss(logits: Tensor, steps: Tensor) -> Tensor:
    """Binary cross-entropy a step: logits (B, S), valid steps (B,), the last of which is the one that stops."""
    target = F.one_hot(steps - 1, logits.shape[1]).to(logits.dtype)
    mask = length_mask(steps, logits.shape[1])
    # Not in the paper, as the stop output itself: one stop against some fifty others would be ignored.
    weight = logits.new_tensor(STOP_WEIGHT)
    return mean(F.binary_cross_entropy_with_logits(logits[mask], target[mask], pos_weight=weight, reduction="none"))


class PostNet(nn.Module):
    """CBHG post-net: mel -> linear magnitudes.

    With `envelope`, not in the paper, it learns what the mel spectrogram, interpolated between its bands, lacks: that
    alone can be understood, while a CBHG from nothing needs tens of thousands of steps.
    """

    envelope: Tensor | None  # (n_mels, n_linear)

    def __init__(self, config: SpokenModel, audio: AudioConfig, envelope: bool = False) -> None:
        super().__init__()
        n_mels, n_linear = audio.n_mels, audio.n_linear
        channels = config.postnet_channels
        self.cbhg = CBHG(n_mels, config.postnet_banks, channels, projection=2 * channels)
        self.linear = nn.Linear(2 * channels, n_linear)
        self.register_buffer("envelope", None, persistent=False)
        if envelope:
            weights, offset = mel_to_linear(audio)
            self.envelope = torch.from_numpy(weights)
            nn.init.zeros_(self.linear.weight)
            nn.init.constant_(self.linear.bias, offset)

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """mel (B, T, n_mels), lengths (B,) -> linear (B, T, n_linear)."""
        linear: Tensor = self.linear(self.cbhg(mel, lengths))
        return linear if self.envelope is None else linear + mel @ self.envelope


class SpeechDecoder(nn.Module):
    """Prenet -> attention RNN (GRU) -> decoder RNN (2 x LSTM, dropout .3) -> r frames of mel and a stop logit a step
    -> CBHG post-net -> linear magnitudes.

    Section 3.3 has a two-layer GRU and one more, the appendix a GRU and two LSTMs: the appendix. The prenet is
    Tacotron's. Both RNNs start from u. The attention RNN's context is u itself (attention over a single vector), so no
    recurrence depends on an alignment, and teacher forcing runs each RNN over the whole sequence in one fused call. The
    stop output is ours: the paper is silent, and without one a decoder never stops. With `history_dropout`, not in the
    paper, random frames of its past are hidden in training, so that it has to read u.
    """

    def __init__(self, config: StepwiseModel, audio: AudioConfig) -> None:
        super().__init__()
        n_mels = audio.n_mels
        self.n_mels, self.r, self.width = n_mels, config.frames_per_step, config.speech_decoder
        self.history_dropout = config.history_dropout
        self.prenet = Prenet(n_mels, config.prenet, config.prenet_dropout)
        self.state = nn.Linear(config.d_k, 5 * self.width)  # GRU h, then h and c of both LSTM layers
        self.attention_rnn = nn.GRU(config.prenet[-1] + config.d_k, self.width, batch_first=True)
        width_in = self.width + config.d_k
        self.decoder_rnn = nn.LSTM(width_in, self.width, 2, batch_first=True, dropout=config.speech_dropout)
        self.dropout = nn.Dropout(config.speech_dropout)
        self.output = nn.Linear(self.width, self.r * n_mels)
        self.stop = nn.Linear(self.width, 1)
        self.postnet = PostNet(config, audio)

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

    def forward(self, latent: Latent, mel: Tensor, lengths: Tensor, part: Part | None = None) -> Speech:
        """Teacher forcing on mel (B, T, n_mels), lengths (B,), from u alone; linear of `part` alone."""
        u, frames = latent.mean, mel.shape[1]
        steps = -(-frames // self.r)
        # Each step sees the last frame of the step before; the first sees zeros.
        inputs = F.pad(mel[:, self.r - 1 :: self.r][:, : steps - 1], (0, 0, 1, 0))
        if self.training and self.history_dropout:
            shown = torch.rand(inputs.shape[:2], device=u.device) >= self.history_dropout
            inputs = inputs * shown[:, :, None]
        predicted, stop, _, _ = self._steps(inputs, u, *self._initial_state(u))
        predicted = predicted[:, :frames]
        linear = self.postnet(*cut(predicted, lengths, part))
        return Speech(predicted, linear, lengths, -(-lengths // self.r), torch.zeros_like(lengths).bool(), stop)

    @torch.no_grad()
    def generate(self, latent: Latent, max_frames: int) -> Speech:
        """Free-running from u alone until the stop output fires, or `max_frames`."""
        u = latent.mean
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
        return Speech(mel, self.postnet(mel, lengths), lengths, lengths // self.r, ~done, torch.cat(stops, 1))
