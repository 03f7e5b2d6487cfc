"""Decoders of tokens: text that attends over u, speech that follows what the text decoder knows at each character.

Between a picture and its sound lies a sentence that the picture commits to: fed by the picture alone, a speech
decoder averages over all that could be said. Nothing is discretised but the characters and words that are fed back.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import ModelConfig
from skipmodal.models.attention import Attention, AttentionMemory
from skipmodal.models.decoders import Part, Speech, cut_frames
from skipmodal.models.durations import Aligner, Timing, align, spread
from skipmodal.models.layers import CBHG, BiGRU, length_mask, lstm_step
from skipmodal.models.search import Sentences, State, Step, beam_search, sample
from skipmodal.models.units import UnitLogits, Units
from skipmodal.text import BOS, PAD, SYMBOLS

MAX_LOG_DURATION = 5.0  # of one character, in frames: a pause of two seconds


class Latent(NamedTuple):
    """Tokens u of some items of one modality."""

    u: Tensor  # (B, N, d_k)
    lengths: Tensor  # (B,) valid tokens
    rate: float  # characters a token: 1 of text, 0 of a picture, which has no order
    ids: Tensor | None = None  # (B, N) of text: what is given needn't be decoded
    recording: tuple[Tensor, Tensor] | None = None  # mel (B, frames, n_mels) and valid frames (B,) of speech

    @property
    def mask(self) -> Tensor:
        return length_mask(self.lengths, self.u.shape[1])

    @property
    def mean(self) -> Tensor:
        """(B, d_k): one vector an item."""
        return (self.u * self.mask[:, :, None]).sum(1) / self.lengths[:, None]

    def repeat(self, times: int) -> "Latent":
        """The tokens of each item `times` times in a row."""
        return Latent(self.u.repeat_interleave(times, 0), self.lengths.repeat_interleave(times, 0), self.rate)

    def positions(self) -> Tensor:
        return (torch.arange(self.u.shape[1], device=self.u.device) * self.rate).expand(len(self.u), -1)


class Transcript(NamedTuple):
    """What the text decoder knows at each character, for the speech decoder."""

    states: Tensor  # (B, L, text_decoder): hidden states of D_txt, of a word at each of its characters
    ids: Tensor  # (B, L): the characters
    lengths: Tensor  # (B,)


class AttentionTextDecoder(nn.Module):
    """Attention LSTM over the units (characters and words) -> attention over u -> LSTM -> softmax over the units.

    Both LSTMs start from the mean of u. Units lie where their first character does.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width = config.text_decoder
        self.units = Units(config.words)
        self.embed = nn.Embedding(len(self.units), self.width, padding_idx=PAD)
        self.state = nn.Linear(config.d_k, 4 * self.width)  # h and c of both
        self.attention_rnn = nn.LSTM(self.width, self.width, batch_first=True)
        self.attention = Attention(self.width, config.d_k, self.width, config.text_heads)
        self.decoder_rnn = nn.LSTM(2 * self.width, self.width, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.output = UnitLogits(self.width, self.units)

    def forward(self, latent: Latent, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher forcing on units (B, S).

        Returns logits (B, S, units), states (B, S, width) and the weights of the attention (B, heads, S, N).
        """
        embedded = self.embed(F.pad(units[:, :-1], (1, 0), value=BOS))
        state = self._initial_state(latent)
        queries, _ = self.attention_rnn(self.dropout(embedded), state[:2])
        context, weights = self.attention(queries, self.units.starts(units), self._remember(latent))
        states, _ = self.decoder_rnn(self.dropout(torch.cat([queries, context], 2)), state[2:])
        states = self.dropout(states)
        return self.output(states, self.output.vectors(self.units.spelling)), states, weights

    @torch.no_grad()
    def generate(self, latent: Latent, max_length: int, beam: int = 1, every: bool = False) -> Sentences:
        """Free-running, in characters; see `beam_search`."""
        step = self._stepper(self._remember(latent).repeat(beam))
        found = beam_search(step, self._start(latent), max_length, beam, self.units.begins, every)
        ids = self.units.spell(found.ids)  # one that is longer than the cap in characters hasn't reached it in units
        return found._replace(ids=ids[:, :max_length], capped=found.capped | ((ids != PAD).sum(1) > max_length))

    @torch.no_grad()
    def sample(self, latent: Latent, max_length: int) -> Tensor:
        """One sentence an item, drawn unit by unit: (B, S), padding after the end."""
        return sample(self._stepper(self._remember(latent)), self._start(latent), max_length)

    def _stepper(self, memory: AttentionMemory) -> Step:
        lengths, vectors = self.units.lengths, self.output.vectors(self.units.spelling)

        def step(units: Tensor, state: State) -> tuple[Tensor, State]:
            h1, c1, h2, c2, start = state
            start = start + lengths[units]
            query, (h1, c1) = lstm_step(self.attention_rnn, self.embed(units), (h1, c1))
            context, _ = self.attention(query, start[0], memory)
            states, (h2, c2) = lstm_step(self.decoder_rnn, torch.cat([query, context], 2), (h2, c2))
            return self.output(states[:, 0], vectors).masked_fill(lengths == 0, -torch.inf), (h1, c1, h2, c2, start)

        return step

    def _remember(self, latent: Latent) -> AttentionMemory:
        return self.attention.remember(latent.u, latent.positions(), latent.mask)

    def _initial_state(self, latent: Latent) -> State:
        return torch.tanh(self.state(latent.mean)).unflatten(1, (4, 1, -1)).permute(1, 2, 0, 3).contiguous().unbind()

    def _start(self, latent: Latent) -> State:
        """The state, and how many characters are written."""
        return *self._initial_state(latent), latent.lengths.new_zeros(1, len(latent.u), 1)


class TimedSpeechDecoder(nn.Module):
    """What the text decoder knows -> bidirectional GRU -> each character for as long as it lasts -> 2 x bidirectional
    GRU -> r frames of mel a step -> CBHG post-net -> linear magnitudes.

    Nothing it has said is fed back: durations are learned from alignments (see `durations`), and with them where each
    frame lies is known before any is made.
    """

    def __init__(self, config: ModelConfig, n_mels: int, n_linear: int) -> None:
        super().__init__()
        self.n_mels, self.r, self.width = n_mels, config.frames_per_step, config.speech_decoder
        self.state_dropout = config.dropout
        self.embed = nn.Embedding(len(SYMBOLS), config.text_channels, padding_idx=PAD)
        self.reader = BiGRU(config.text_decoder + config.text_channels, self.width // 2)
        read = self.width // 2 * 2
        self.aligner = Aligner(n_mels, config.text_channels)
        self.duration = nn.Sequential(nn.Linear(read, self.width), nn.ReLU(), nn.Linear(self.width, 1))
        self.place = nn.Linear(2, read)
        self.rnns = nn.ModuleList(BiGRU(width, self.width) for width in (read, 2 * self.width))
        self.dropout = nn.Dropout(config.speech_dropout)
        self.output = nn.Linear(2 * self.width, self.r * n_mels)
        channels = config.postnet_channels
        self.postnet = CBHG(n_mels, config.postnet_banks, channels, projection=2 * channels)
        self.linear = nn.Linear(2 * channels, n_linear)

    def forward(self, transcript: Transcript, mel: Tensor, lengths: Tensor, part: Part | None = None) -> Speech:
        """With the durations of mel (B, T, n_mels), lengths (B,); linear of `part` alone."""
        said, alignment, timing = self._follow(transcript, mel, lengths)
        linear = self.linear(self.postnet(*cut_frames(said, lengths, part)))
        capped = torch.zeros_like(lengths).bool()
        return Speech(said, linear, lengths, -(-lengths // self.r), capped, alignment=alignment, timing=timing)

    def misfit(self, transcript: Transcript, mel: Tensor, lengths: Tensor) -> Tensor:
        """How unlike mel (B, T, n_mels) the transcripts sound, said in its rhythm: (B,), summed over its frames.

        Characters that it has no frame for are not judged.
        """
        said, _, _ = self._follow(transcript, mel, lengths)
        return ((said - mel).abs().mean(2) * length_mask(lengths, mel.shape[1])).sum(1)

    @torch.no_grad()
    def generate(self, transcript: Transcript, max_frames: int) -> Speech:
        """With durations of its own, at most `max_frames` in sum."""
        read, predicted = self._read(transcript)
        durations = predicted.clamp(max=MAX_LOG_DURATION).exp() * length_mask(transcript.lengths, predicted.shape[1])
        wanted = durations.sum(1).round().long()
        lengths = wanted.clamp(max=max_frames).clamp(min=1)
        mel, alignment = self._say(read, durations, lengths, int(lengths.max()))
        linear = self.linear(self.postnet(mel, lengths))
        return Speech(mel, linear, lengths, -(-lengths // self.r), wanted > max_frames, alignment=alignment)

    def _follow(self, transcript: Transcript, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Timing]:
        """Mel (B, T, n_mels) with the durations that mel has, and how it was aligned."""
        read, predicted = self._read(transcript)
        scores = self.aligner(transcript.ids, transcript.lengths, mel, lengths)
        durations = align(scores, transcript.lengths, lengths)
        said, alignment = self._say(read, durations, lengths, mel.shape[1])
        return said, alignment, Timing(predicted, durations, scores, transcript.lengths)

    def _read(self, transcript: Transcript) -> tuple[Tensor, Tensor]:
        """What is to be said at each character (B, L, width), and the logarithm of its duration (B, L)."""
        states = transcript.states
        if self.training:
            # So that sound also follows from the characters alone: the states of a picture's sentence are new to it.
            keep = torch.rand(len(states), 1, 1, device=states.device) >= self.state_dropout
            states = states * keep
        read = self.reader(torch.cat([states, self.embed(transcript.ids)], 2), transcript.lengths)
        return read, self.duration(read)[..., 0]

    def _say(self, read: Tensor, durations: Tensor, lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Durations (B, L) in frames, lengths (B,) -> mel (B, frames, n_mels), alignment (B, steps, L)."""
        weights, place = spread(durations, self.r, -(-frames // self.r))
        x = weights @ read + self.place(place)
        for rnn in self.rnns:
            x = rnn(self.dropout(x), -(-lengths // self.r))
        return self.output(self.dropout(x)).view(len(x), -1, self.n_mels)[:, :frames], weights
