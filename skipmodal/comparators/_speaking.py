"""What the text-to-speech comparators share: settings, losses, the two ways to run a decoder, attention in a loop."""

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.config import Losses, SpokenModel, loss_term
from skipmodal.data.batches import Batch
from skipmodal.models.alignment import guided_attention
from skipmodal.models.base import Outputs, System
from skipmodal.models.decoders.speech import Part, PostNet, Speech, cut
from skipmodal.models.latent import Latent
from skipmodal.models.layers import length_mask, mean, ratio
from skipmodal.models.search import Sentences
from skipmodal.tokenizer import Tokenizer


class SpeakingLoss(Losses):
    """Losses that all of them have."""

    mel: float = loss_term(1.0, "|mel - its own|", "text-speech")
    linear: float = loss_term(1.0, "the same of the post-net's linear magnitudes", "text-speech")
    stop: float = loss_term(1.0, "binary cross-entropy of the stop output", "text-speech")
    guided_attention: float = loss_term(
        0.0, "attention far off the diagonal (Tachibana et al.); in none of their papers", "text-speech", False
    )


class Steps(NamedTuple):
    """What some steps of a decoder give."""

    mel: Tensor  # (B, S, r, n_mels)
    stop: Tensor  # (B, S) logits
    alignment: Tensor  # (B, S, N)
    state: Any  # for the steps that follow


class Speaker(System):
    """A decoder that makes r frames a step from those before, by teacher forcing or free-running -> CBHG post-net.

    The post-net starts from the interpolated mel spectrogram, as that of `base` does: from nothing a CBHG needs tens
    of thousands of steps, in every one of these systems alike.
    """

    reads, writes = frozenset({"text"}), frozenset({"speech"})

    def __init__(self, config: SpokenModel, audio: AudioConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.n_mels, self.frames_a_step = audio.n_mels, config.frames_per_step
        self.postnet = PostNet(config, audio, envelope=True)

    def begin(self, latent: Latent, generating: bool) -> Any:
        """What the decoder carries from step to step, before the first."""
        raise NotImplementedError

    def steps(self, frames: Tensor, state: Any) -> Steps:
        """Any number of steps: frames (B, S, r, n_mels) that came before each of them."""
        raise NotImplementedError

    def refine(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """The decoder's mel (B, T, n_mels), lengths (B,) -> the mel that is compared and spoken."""
        return mel

    def follow(self, latent: Latent, mel: Tensor, lengths: Tensor, part: Part | None) -> tuple[Speech, Tensor]:
        """Teacher forcing on mel (B, T, n_mels), lengths (B,) -> speech, linear of `part` alone; mel not refined."""
        frames, r = mel.shape[1], self.frames_a_step
        groups = F.pad(mel, (0, 0, 0, -frames % r)).unflatten(1, (-1, r))
        made = self.steps(F.pad(groups[:, :-1], (0, 0, 0, 0, 1, 0)), self.begin(latent, generating=False))
        coarse = made.mel.flatten(1, 2)[:, :frames]
        refined = self.refine(coarse, lengths)
        capped = torch.zeros_like(lengths).bool()
        linear = self.postnet(*cut(refined, lengths, part))
        return Speech(refined, linear, lengths, -(-lengths // r), capped, made.stop, made.alignment), coarse

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        outputs = Outputs()
        if not len(batch.mel):
            return outputs
        ids, lengths = batch.spoken
        latent = self.encode_text(ids[:, : int(lengths.max())], lengths)
        spoken, coarse = self.follow(latent, batch.mel, batch.mel_lengths, batch.linear_part)
        outputs.spoken = spoken
        if "coarse" in wanted:
            valid = length_mask(batch.mel_lengths, batch.mel.shape[1])
            outputs.own["coarse"] = mean((coarse - batch.mel).abs()[valid])
        if "guided_attention" in wanted and spoken.alignment is not None:
            along = torch.arange(spoken.alignment.shape[1], device=lengths.device) / spoken.steps[:, None]
            far = guided_attention(spoken.alignment, along, spoken.steps, latent.lengths)
            outputs.own["guided_attention"] = ratio(far, spoken.steps.sum())
        return outputs

    @torch.no_grad()
    def generate_speech(
        self, latent: Latent, max_frames: int, max_length: int, beam: int = 1
    ) -> tuple[Speech, Sentences | None]:
        """Free-running until the stop output fires, or `max_frames`; it has no beam."""
        state, r, items = self.begin(latent, generating=True), self.frames_a_step, len(latent.u)
        frames = latent.u.new_zeros(items, 1, r, self.n_mels)
        max_steps = max(max_frames // r, 1)
        steps = torch.full((items,), max_steps, device=latent.u.device)
        done = torch.zeros(items, dtype=torch.bool, device=latent.u.device)
        every: list[Steps] = []
        for step in range(1, max_steps + 1):
            made = self.steps(frames, state)
            every.append(made._replace(state=None))
            frames, state = made.mel, made.state
            stops = made.stop[:, 0] > 0
            steps[stops & ~done] = step
            done |= stops
            if done.all():
                break
        mel, stop, alignment, _ = zip(*every, strict=True)
        refined = self.refine(torch.cat(mel, 1).flatten(1, 2), steps * r)
        linear = self.postnet(refined, steps * r)
        return Speech(refined, linear, steps * r, steps, ~done, torch.cat(stop, 1), torch.cat(alignment, 1)), None


class Attending(NamedTuple):
    """Where an attention RNN is."""

    states: tuple[Tensor, ...]  # (B, units): h of a GRU, h and c of an LSTM
    context: Tensor  # (B, memory)
    weights: Tensor  # (B, 2, N): those of the step before, and the sum of all before
    keys: Tensor  # (B, N, width)
    memory: Latent


class AttentionRNN(nn.Module):
    """A recurrent cell that is given what it attended to a step before; additive attention (Bahdanau et al., 2015).

    With `filters` it also sees where it attended before, through a convolution (Chorowski et al., 2015).
    """

    def __init__(
        self, cell: nn.GRUCell | nn.LSTMCell, memory: int, width: int, filters: int = 0, kernel: int = 31
    ) -> None:
        super().__init__()
        self.cell = cell
        self.query = nn.Linear(cell.hidden_size, width)
        self.key = nn.Linear(memory, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        self.locate = nn.Conv1d(2, filters, kernel, padding=kernel // 2, bias=False) if filters else None
        self.location = nn.Linear(filters, width, bias=False) if filters else None

    def start(self, memory: Latent) -> Attending:
        """Before the first step, with nothing attended to."""
        u, units = memory.u, self.cell.hidden_size
        states = tuple(u.new_zeros(len(u), units) for _ in range(2 if isinstance(self.cell, nn.LSTMCell) else 1))
        weights = u.new_zeros(len(u), 2, u.shape[1])
        return Attending(states, u.new_zeros(len(u), u.shape[2]), weights, self.key(u), memory)

    def forward(self, x: Tensor, state: Attending) -> tuple[Tensor, Tensor, Attending]:
        """x (B, S, W) -> what it hears and knows (B, S, units + memory), weights (B, S, N), state."""
        known, weights = [], []
        for step in x.unbind(1):
            state = self._step(step, state)
            known.append(torch.cat([state.states[0], state.context], 1))
            weights.append(state.weights[:, 0])
        return torch.stack(known, 1), torch.stack(weights, 1), state

    def _step(self, x: Tensor, state: Attending) -> Attending:
        x = torch.cat([x, state.context], 1)
        if isinstance(self.cell, nn.LSTMCell):
            states: tuple[Tensor, ...] = self.cell(x, (state.states[0], state.states[1]))
        else:
            states = (self.cell(x, state.states[0]),)
        near = state.keys + self.query(states[0])[:, None]
        if self.locate is not None and self.location is not None:
            near = near + self.location(self.locate(state.weights).transpose(1, 2))
        scores = self.score(torch.tanh(near))[..., 0]
        weights = scores.masked_fill(~state.memory.mask, -torch.inf).softmax(1)
        context = (weights[:, None] @ state.memory.u)[:, 0]
        seen = torch.stack([weights, state.weights[:, 1] + weights], 1)
        return Attending(states, context, seen, state.keys, state.memory)
