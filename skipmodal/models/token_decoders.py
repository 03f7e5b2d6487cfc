"""Decoders that attend: text over the tokens u, speech over what the text decoder knows at each character.

Between a picture and its sound lies a sentence that the picture commits to: fed by the picture alone, a speech
decoder averages over all that could be said. Nothing is discretised but the characters and words that are fed back.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import ModelConfig
from skipmodal.models.attention import Attention, AttentionMemory
from skipmodal.models.decoders import Part, Speech, cut_frames
from skipmodal.models.layers import CBHG, BiGRU, Prenet, length_mask, lstm_step
from skipmodal.models.search import Sentences, State, Step, beam_search, sample
from skipmodal.models.units import Units
from skipmodal.text import BOS, PAD, SYMBOLS

AHEAD = 4
# How likely a frame fed back in training is one the decoder has predicted itself; in synthesis all are its own.
OWN_FRAMES = 0.5


class Latent(NamedTuple):
    """Tokens u of some items of one modality."""

    u: Tensor  # (B, N, d_k)
    lengths: Tensor  # (B,) valid tokens
    rate: float  # characters a token: 1 of text, 0 of a picture, which has no order
    ids: Tensor | None = None  # (B, N) of text: what is given needn't be decoded

    @property
    def mask(self) -> Tensor:
        return length_mask(self.lengths, self.u.shape[1])

    @property
    def mean(self) -> Tensor:
        """(B, d_k): one vector an item."""
        return (self.u * self.mask[:, :, None]).sum(1) / self.lengths[:, None]

    def repeat(self, times: int) -> "Latent":
        """Each item `times` times in a row."""
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
        self.attention = Attention(self.width, config.d_k, self.width, config.heads)
        self.decoder_rnn = nn.LSTM(2 * self.width, self.width, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.width, len(self.units))

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
        return self.output(states), states, weights

    @torch.no_grad()
    def generate(self, latent: Latent, max_length: int, beam: int = 1) -> Sentences:
        """Free-running, in characters; see `beam_search`."""
        step = self._stepper(self._remember(latent).repeat(beam))
        found = beam_search(step, self._start(latent), max_length, beam, self.units.begins)
        ids = self.units.spell(found.ids)  # one that is longer than the cap in characters hasn't reached it in units
        return Sentences(ids[:, :max_length], found.capped | ((ids != PAD).sum(1) > max_length), found.log_probability)

    @torch.no_grad()
    def sample(self, latent: Latent, max_length: int) -> Tensor:
        """One sentence an item, drawn unit by unit: (B, S), padding after the end."""
        return sample(self._stepper(self._remember(latent)), self._start(latent), max_length)

    def _stepper(self, memory: AttentionMemory) -> Step:
        lengths = self.units.lengths

        def step(units: Tensor, state: State) -> tuple[Tensor, State]:
            h1, c1, h2, c2, start = state
            start = start + lengths[units]
            query, (h1, c1) = lstm_step(self.attention_rnn, self.embed(units), (h1, c1))
            context, _ = self.attention(query, start[0], memory)
            states, (h2, c2) = lstm_step(self.decoder_rnn, torch.cat([query, context], 2), (h2, c2))
            return self.output(states[:, 0]).masked_fill(lengths == 0, -torch.inf), (h1, c1, h2, c2, start)

        return step

    def _remember(self, latent: Latent) -> AttentionMemory:
        return self.attention.remember(latent.u, latent.positions(), latent.mask)

    def _initial_state(self, latent: Latent) -> State:
        return torch.tanh(self.state(latent.mean)).unflatten(1, (4, 1, -1)).permute(1, 2, 0, 3).contiguous().unbind()

    def _start(self, latent: Latent) -> State:
        """The state, and how many characters are written."""
        return *self._initial_state(latent), latent.lengths.new_zeros(1, len(latent.u), 1)


class AttentionSpeechDecoder(nn.Module):
    """What the text decoder knows -> bidirectional GRU; prenet -> attention GRU -> attention over that -> 2 x LSTM
    -> r frames of mel and a stop logit a step -> CBHG post-net -> linear magnitudes.
    """

    def __init__(self, config: ModelConfig, n_mels: int, n_linear: int, characters_per_frame: float) -> None:
        super().__init__()
        self.n_mels, self.r, self.width = n_mels, config.frames_per_step, config.speech_decoder
        self.characters_per_step = characters_per_frame * self.r
        # Characters by which the attention may move in one free-running step: some times the mean.
        self.ahead, self.behind = math.ceil(AHEAD * max(1.0, self.characters_per_step)), 1
        self.state_dropout = config.dropout
        self.embed = nn.Embedding(len(SYMBOLS), config.text_channels, padding_idx=PAD)
        self.reader = BiGRU(config.text_decoder + config.text_channels, self.width // 2)
        self.prenet = Prenet(n_mels, config.prenet, config.prenet_dropout)
        self.attention_rnn = nn.GRU(config.prenet[-1], self.width, batch_first=True)
        self.attention = Attention(self.width, self.width // 2 * 2, self.width, heads=1)
        self.decoder_rnn = nn.LSTM(2 * self.width, self.width, 2, batch_first=True, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.width, self.r * n_mels)
        self.stop = nn.Linear(self.width, 1)
        channels = config.postnet_channels
        self.postnet = CBHG(n_mels, config.postnet_banks, channels, projection=2 * channels)
        self.linear = nn.Linear(2 * channels, n_linear)

    def forward(self, transcript: Transcript, mel: Tensor, lengths: Tensor, part: Part | None = None) -> Speech:
        """Teacher forcing on mel (B, T, n_mels), lengths (B,); linear of `part` alone.

        In training in two passes, the second also fed with frames of the first (Duckworth et al., Parallel Scheduled
        Sampling, arXiv 1906.04331).
        """
        frames = mel.shape[1]
        steps = -(-frames // self.r)
        inputs = self._fed_back(mel, steps)
        memory = self._read(transcript)
        if self.training:
            # Not by no_grad, under which some versions of torch cache weights for autocast that have no gradient.
            own = self._fed_back(self._decode(inputs, memory)[0].detach(), steps)
            inputs = torch.where(torch.rand(len(mel), steps, 1, device=mel.device) < OWN_FRAMES, own, inputs)
        predicted, stop, weights = self._decode(inputs, memory)
        predicted = predicted[:, :frames]
        linear = self.linear(self.postnet(*cut_frames(predicted, lengths, part)))
        return Speech(
            predicted, linear, stop, lengths, -(-lengths // self.r), torch.zeros_like(lengths).bool(), weights[:, 0]
        )

    @torch.no_grad()
    def generate(self, transcript: Transcript, max_frames: int) -> Speech:
        """Free-running until the stop output fires, or `max_frames`; attention moves along the text and never jumps."""
        memory = self._read(transcript)
        batch, device = len(transcript.states), transcript.states.device
        frame = transcript.states.new_zeros(batch, 1, self.n_mels)
        gru: Tensor | None = None
        zeros = frame.new_zeros(self.decoder_rnn.num_layers, batch, self.width)
        lstm = (zeros, zeros)
        at = torch.zeros(batch, 1, dtype=torch.long, device=device)
        characters = torch.arange(memory.mask.shape[1], device=device)
        max_steps = max(max_frames // self.r, 1)
        lengths = torch.full((batch,), max_steps * self.r, device=device)
        done = torch.zeros(batch, dtype=torch.bool, device=device)
        mels, stops, alignment = [], [], []
        for step in range(max_steps):
            query, gru = self.attention_rnn(self.prenet(frame), gru)
            near = (characters >= at - self.behind) & (characters <= at + self.ahead)
            where = torch.full((batch, 1), step * self.characters_per_step, device=device)
            context, weights = self.attention(query, where, memory._replace(mask=memory.mask & near))
            at = weights[:, 0, 0].argmax(1, keepdim=True)
            hidden, lstm = lstm_step(self.decoder_rnn, torch.cat([query, context], 2), lstm)
            mel, stop = self._frames(hidden)
            mels.append(mel)
            stops.append(stop)
            alignment.append(weights[:, 0])
            frame = mel[:, -1:]
            now = (stop[:, 0] > 0) & ~done
            lengths[now] = (step + 1) * self.r
            done |= now
            if done.all():
                break
        mel = torch.cat(mels, 1)
        linear = self.linear(self.postnet(mel, lengths))
        return Speech(mel, linear, torch.cat(stops, 1), lengths, lengths // self.r, ~done, torch.cat(alignment, 1))

    def _read(self, transcript: Transcript) -> AttentionMemory:
        states = transcript.states
        if self.training:
            # So that sound also follows from the characters alone: the states of a picture's sentence are new to it.
            keep = torch.rand(len(states), 1, 1, device=states.device) >= self.state_dropout
            states = states * keep
        read = self.reader(torch.cat([states, self.embed(transcript.ids)], 2), transcript.lengths)
        positions = torch.arange(read.shape[1], device=read.device).expand(len(read), -1)
        return self.attention.remember(read, positions, length_mask(transcript.lengths, read.shape[1]))

    def _fed_back(self, mel: Tensor, steps: int) -> Tensor:
        """(B, T, n_mels) -> (B, steps, n_mels): a blank, then the last frame of each step but the last."""
        return F.pad(mel[:, self.r - 1 :: self.r][:, : steps - 1], (0, 0, 1, 0))

    def _decode(self, inputs: Tensor, memory: AttentionMemory) -> tuple[Tensor, Tensor, Tensor]:
        """Frames fed back (B, steps, n_mels) -> mel, stop logits and the weights of the attention."""
        positions = self.characters_per_step * torch.arange(inputs.shape[1], device=inputs.device)
        queries, _ = self.attention_rnn(self.prenet(inputs))
        context, weights = self.attention(queries, positions.expand(len(inputs), -1), memory)
        hidden, _ = self.decoder_rnn(torch.cat([queries, context], 2))
        return *self._frames(hidden), weights

    def _frames(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.dropout(hidden)
        return self.output(hidden).view(len(hidden), -1, self.n_mels), self.stop(hidden)[..., 0]
