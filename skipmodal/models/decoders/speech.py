"""D_spch: the paper's recurrent decoder from one vector, and one that gives each character of a sentence its time."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.audio import AudioConfig, mel_to_linear
from skipmodal.config import ModelConfig, TokensModel, VectorModel
from skipmodal.models.alignment import Aligner, Timing, align, spread
from skipmodal.models.latent import Latent
from skipmodal.models.layers import CBHG, BiGRU, Prenet, length_mask
from skipmodal.text import PAD, SYMBOLS

MAX_LOG_DURATION = 5.0  # of one character, in frames: a pause of two seconds
PROSODY = 4  # numbers a character, as in AdaSpeech
Part = tuple[Tensor, Tensor, int]  # first frames (B,), valid frames (B,), the most of them


class Transcript(NamedTuple):
    """A sentence as D_txt gives it to D_spch."""

    states: Tensor  # (B, L, text_decoder): hidden states of D_txt, of a word at each of its characters
    ids: Tensor  # (B, L): the characters
    lengths: Tensor  # (B,)
    letters: Tensor  # (B, L, symbols): their probabilities, as they are read from the states


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


class Imitation(NamedTuple):
    """What D_spch says from some states, and what it says from others of the same sentences, without gradients."""

    mel: Tensor  # (B, T, n_mels)
    target: Tensor  # (B, T, n_mels)
    lengths: Tensor  # (B,) valid frames
    durations: Tensor  # (B, L), logarithms of frames
    target_durations: Tensor  # (B, L)
    characters: Tensor  # (B,) valid


class PostNet(nn.Module):
    """CBHG post-net: mel -> linear magnitudes.

    With `envelope`, not in the paper, it learns what the mel spectrogram, interpolated between its bands, lacks: that
    alone can be understood, while a CBHG from nothing needs tens of thousands of steps.
    """

    envelope: Tensor | None  # (n_mels, n_linear)

    def __init__(self, config: ModelConfig, audio: AudioConfig, envelope: bool = False) -> None:
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

    def forward(self, mel: Tensor, lengths: Tensor, part: Part | None = None) -> Tensor:
        """mel (B, T, n_mels), lengths (B,) -> linear (B, T, n_linear), of `part` alone where one is given."""
        if part is not None:
            first, lengths, longest = part
            index = (first[:, None] + torch.arange(longest, device=mel.device)).clamp(max=mel.shape[1] - 1)
            mel = mel.gather(1, index[:, :, None].expand(-1, -1, mel.shape[2]))
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

    def __init__(self, config: VectorModel, audio: AudioConfig) -> None:
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
        linear = self.postnet(predicted, lengths, part)
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


class Prosody(nn.Module):
    """What a recording says of each character beyond its letter: mel -> convolutions -> the mean over its frames -> FC
    -> tanh.
    """

    def __init__(self, n_mels: int, width: int) -> None:
        super().__init__()
        first, second = nn.Conv1d(n_mels, width, 3, padding=1), nn.Conv1d(width, width, 1)
        self.convs = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.project = nn.Linear(width, PROSODY)

    def forward(self, mel: Tensor, lengths: Tensor, durations: Tensor) -> Tensor:
        """mel (B, T, n_mels), lengths (B,), durations in frames (B, L) -> (B, L, PROSODY)."""
        x = self.convs((mel * length_mask(lengths, mel.shape[1])[:, :, None]).transpose(1, 2)).transpose(1, 2)
        weights, _ = spread(durations, 1, mel.shape[1])
        means = weights.transpose(1, 2) @ x / durations.clamp(min=1)[:, :, None]
        return torch.tanh(self.project(means))


class TimedSpeechDecoder(nn.Module):
    """What the text decoder knows -> bidirectional GRU -> each character for as long as it lasts -> 2 x bidirectional
    GRU -> r frames of mel a step -> CBHG post-net -> linear magnitudes.

    Nothing that it made is fed back: durations are learned from alignments (see `alignment`), and with them where each
    frame lies is known before any is made. How each character sounds beyond its letter, its pitch above all, is told by
    a few numbers: of the recording in training, predicted in synthesis (Chen et al., AdaSpeech, ICLR 2021). Without
    them the decoder would average over all pitches.
    """

    def __init__(self, config: TokensModel, audio: AudioConfig) -> None:
        super().__init__()
        n_mels = audio.n_mels
        self.n_mels, self.r, self.width = n_mels, config.frames_per_step, config.speech_decoder
        self.state_dropout = config.dropout
        self.embed = nn.Embedding(len(SYMBOLS), config.text_channels, padding_idx=PAD)
        self.reader = BiGRU(config.text_decoder + config.text_channels, self.width // 2)
        read = self.width // 2 * 2
        self.aligner = Aligner(n_mels, config.text_channels)
        self.duration = nn.Sequential(nn.Linear(read, self.width), nn.ReLU(), nn.Linear(self.width, 1))
        self.place = nn.Linear(2, read)
        self.prosody = Prosody(n_mels, config.text_channels)
        self.prosody_predictor = nn.Sequential(nn.Linear(read, self.width), nn.ReLU(), nn.Linear(self.width, PROSODY))
        self.prosody_project = nn.Linear(PROSODY, read)
        self.rnns = nn.ModuleList(BiGRU(width, self.width) for width in (read, 2 * self.width))
        self.dropout = nn.Dropout(config.speech_dropout)
        self.output = nn.Linear(2 * self.width, self.r * n_mels)
        self.postnet = PostNet(config, audio, envelope=True)

    def forward(self, transcript: Transcript, mel: Tensor, lengths: Tensor, part: Part | None = None) -> Speech:
        """With the durations of mel (B, T, n_mels), lengths (B,); linear of `part` alone."""
        predicted, alignment, timing = self._follow(transcript, mel, lengths)
        linear = self.postnet(predicted, lengths, part)
        capped = torch.zeros_like(lengths).bool()
        return Speech(predicted, linear, lengths, -(-lengths // self.r), capped, alignment=alignment, timing=timing)

    def distance(self, transcript: Transcript, mel: Tensor, lengths: Tensor) -> Tensor:
        """How far mel (B, T, n_mels) is from the transcripts spoken in its rhythm: (B,), L1 summed over its frames.

        Characters that it has no frame for are not judged.
        """
        predicted, _, _ = self._follow(transcript, mel, lengths)
        return ((predicted - mel).abs().mean(2) * length_mask(lengths, mel.shape[1])).sum(1)

    def imitate(self, transcript: Transcript, model: Transcript) -> Imitation:
        """Speaks a transcript in the rhythm in which it speaks the model, another of the same sentences."""
        with torch.no_grad():
            read, target = self._read(model)
            durations = self._durations(target, model.lengths)
            lengths = durations.sum(1).round().long().clamp(min=1)
            frames = int(lengths.max())
            mel, _ = self._decode(self._intoned(read), durations, lengths, frames)
        read, predicted = self._read(transcript)
        spoken, _ = self._decode(self._intoned(read), durations, lengths, frames)
        return Imitation(spoken, mel, lengths, predicted, target, model.lengths)

    def _durations(self, predicted: Tensor, lengths: Tensor) -> Tensor:
        return predicted.clamp(max=MAX_LOG_DURATION).exp() * length_mask(lengths, predicted.shape[1])

    @torch.no_grad()
    def generate(self, transcript: Transcript, max_frames: int) -> Speech:
        """With durations of its own, at most `max_frames` in sum."""
        read, predicted = self._read(transcript)
        durations = self._durations(predicted, transcript.lengths)
        wanted = durations.sum(1).round().long()
        lengths = wanted.clamp(max=max_frames).clamp(min=1)
        mel, alignment = self._decode(self._intoned(read), durations, lengths, int(lengths.max()))
        linear = self.postnet(mel, lengths)
        return Speech(mel, linear, lengths, -(-lengths // self.r), wanted > max_frames, alignment=alignment)

    def _follow(self, transcript: Transcript, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Timing]:
        """Mel (B, T, n_mels) with the durations that mel has, and how it was aligned."""
        read, predicted = self._read(transcript)
        scores = self.aligner(transcript.ids, transcript.lengths, mel, lengths)
        durations = align(scores, transcript.lengths, lengths)
        heard = self.prosody(mel, lengths, durations)
        decoded, alignment = self._decode(read + self.prosody_project(heard), durations, lengths, mel.shape[1])
        prosody = (self.prosody_predictor(read), heard.detach())
        return decoded, alignment, Timing(predicted, durations, scores, transcript.lengths, prosody)

    def _intoned(self, read: Tensor) -> Tensor:
        """read (B, L, width) with the prosody that it predicts."""
        return read + self.prosody_project(self.prosody_predictor(read))  # type: ignore[no-any-return]

    def _read(self, transcript: Transcript) -> tuple[Tensor, Tensor]:
        """What sounds at each character (B, L, width), and the logarithm of its duration (B, L)."""
        states = transcript.states
        if self.training:
            # So that sound also follows from the characters alone: the states of a picture's sentence are new to it.
            keep = torch.rand(len(states), 1, 1, device=states.device) >= self.state_dropout
            states = states * keep
        read = self.reader(torch.cat([states, transcript.letters @ self.embed.weight], 2), transcript.lengths)
        return read, self.duration(read)[..., 0]

    def _decode(self, read: Tensor, durations: Tensor, lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Durations (B, L) in frames, lengths (B,) -> mel (B, frames, n_mels), alignment (B, steps, L)."""
        weights, place = spread(durations, self.r, -(-frames // self.r))
        x = weights @ read + self.place(place)
        for rnn in self.rnns:
            x = rnn(self.dropout(x), -(-lengths // self.r))
        return self.output(self.dropout(x)).view(len(x), -1, self.n_mels)[:, :frames], weights
