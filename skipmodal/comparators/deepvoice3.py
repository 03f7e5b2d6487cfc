"""Deep Voice 3: text to speech by convolutions and attention with positions (Ping et al., ICLR 2018; table 3).

As there, gated convolutions read the characters, and causal gated convolutions, each followed by attention whose
queries and keys carry where they lie, write r frames of mel a step; in synthesis the first of them may only look from
where it last looked to a few characters ahead: six, where the paper has three, which a fast voice outran. Left out:
phonemes, speakers, weight normalisation, keys of their own (the values are compared), most of its width, and its
converter, in whose place our CBHG post-net gives the linear magnitudes of all these systems from the mel alone. Its
initial rate is told as the characters per second of the voice. Ours: a guide of the attention that a recipe may ask
for.
"""

from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.comparators._speaking import Speaker, SpeakingLoss, Steps
from skipmodal.config import Dropout, Positive, Recipe, Size, SpokenModel
from skipmodal.image import ImageConfig
from skipmodal.models.attention import Attention, AttentionMemory
from skipmodal.models.latent import Latent
from skipmodal.models.layers import Prenet, length_mask
from skipmodal.text import PAD, SYMBOLS
from skipmodal.tokenizer import Tokenizer

HALF = 0.5**0.5  # keeps the variance of a sum of two
KERNEL = 5


class DeepVoice3Model(SpokenModel):
    """Its sizes."""

    kind: Literal["deepvoice3"] = "deepvoice3"
    frames_per_step: Size = Field(default=4, description="r")
    text_channels: Size = Field(default=128, description="character embedding and the encoder's convolutions")
    text_layers: Positive = Field(default=5, le=64, description="convolutions of the encoder")
    prenet: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = (128, 256)
    decoder: Size = Field(default=256, description="width of the causal convolutions")
    layers: Positive = Field(default=4, le=64, description="causal convolutions, each with attention")
    attention: Size = 128
    characters_per_second: Annotated[float, Field(gt=0)] = Field(
        default=17.0, description="of the voice: where attention starts from"
    )
    window: Annotated[int, Field(ge=0)] = Field(
        default=6, description="characters that the first attention may look at in synthesis, from its last; 0: all"
    )
    dropout: Dropout = Field(default=0.05, description="before each convolution, and in the pre-net")


class DeepVoice3Recipe(Recipe):
    """A training of it."""

    model: DeepVoice3Model = DeepVoice3Model()
    loss: SpeakingLoss = SpeakingLoss()


class GatedConv(nn.Module):
    """Dropout -> Conv1D 5 -> gated linear unit -> residual."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.conv = nn.Dropout(dropout), nn.Conv1d(width, 2 * width, KERNEL)
        nn.init.normal_(self.conv.weight, std=(4 * (1 - dropout) / (KERNEL * width)) ** 0.5)

    def forward(self, x: Tensor, around: Tensor) -> Tensor:
        """x (B, T, C), and with what lies around it (B, T + 4, C) -> (B, T, C)."""
        made = self.conv(self.dropout(around).transpose(1, 2)).transpose(1, 2)
        return (x + F.glu(made, 2)) * HALF


class State(NamedTuple):
    """Where the decoder is."""

    step: int
    past: list[Tensor]  # (B, 4, C) what came before, of each layer
    memories: list[AttentionMemory]
    last: Tensor | None  # (B,) the character that the first layer looked at most, where it must not turn back


class DeepVoice3(Speaker):
    """Characters -> gated convolutions; prenet -> [causal gated convolution -> attention] x n -> r frames, a stop."""

    def __init__(self, config: DeepVoice3Model, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, audio, tokenizer)
        text, width, r, dropout = config.text_channels, config.decoder, config.frames_per_step, config.dropout
        self.rate = config.characters_per_second * r * audio.hop_length / audio.sample_rate  # characters a step
        self.window = config.window
        self.embed = nn.Embedding(len(SYMBOLS), text, padding_idx=PAD)
        self.enter, self.leave = nn.Linear(text, text), nn.Linear(text, text)
        self.text_convs = nn.ModuleList(GatedConv(text, dropout) for _ in range(config.text_layers))
        self.prenet = Prenet(r * audio.n_mels, (*config.prenet, width), dropout)
        self.convs = nn.ModuleList(GatedConv(width, dropout) for _ in range(config.layers))
        self.attentions = nn.ModuleList(Attention(width, text, config.attention, 1) for _ in range(config.layers))
        self.projects = nn.ModuleList(nn.Linear(config.attention, width) for _ in range(config.layers))
        self.output = nn.Linear(width, r * audio.n_mels)
        self.stop = nn.Linear(width, 1)

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Latent:
        """ids (B, L), lengths (B,) -> values (B, L, text_channels)."""
        embedded = self.embed(ids)
        mask = length_mask(lengths, ids.shape[1])[:, :, None]
        x = self.enter(embedded)
        for conv in self.text_convs:
            x = x * mask
            x = conv(x, F.pad(x, (0, 0, KERNEL // 2, KERNEL // 2)))
        values = (self.leave(x) + embedded) * HALF * mask
        return Latent(values, values, lengths, rate=1.0).with_source(ids=ids)

    def begin(self, latent: Latent, generating: bool) -> State:
        items, width = len(latent.u), self.output.in_features
        past = [latent.u.new_zeros(items, KERNEL - 1, width) for _ in self.convs]
        heard = latent.u, latent.positions, latent.mask
        memories = [attention.remember(*heard) for attention in self.attentions]  # type: ignore[operator]
        last = torch.zeros_like(latent.lengths) if generating and self.window else None
        return State(0, past, memories, last)

    def steps(self, frames: Tensor, state: Any) -> Steps:
        """Any number at once, unless attention must not turn back: then one."""
        x = self.prenet(frames.flatten(2))
        at = ((state.step + torch.arange(x.shape[1], device=x.device)) * self.rate).expand(len(x), -1)
        past, every, last = [], [], state.last
        for number, (conv, attention, project) in enumerate(
            zip(self.convs, self.attentions, self.projects, strict=True)
        ):
            around = torch.cat([state.past[number], x], 1)
            past.append(around[:, 1 - KERNEL :])
            x = conv(x, around)
            memory = state.memories[number]
            if number == 0 and last is not None:
                memory = memory._replace(mask=memory.mask & self._ahead(last, memory.mask.shape[1]))
            context, weights = attention(x, at, memory)
            x = (x + project(context)) * HALF
            every.append(weights[:, 0])
        mel = self.output(x).unflatten(2, (self.frames_a_step, self.n_mels))
        last = None if last is None else every[0][:, -1].argmax(1)
        state = State(state.step + frames.shape[1], past, state.memories, last)
        return Steps(mel, self.stop(x)[..., 0], torch.stack(every).mean(0), state)

    def _ahead(self, last: Tensor, characters: int) -> Tensor:
        """(B, N) bool: the characters from the last one on."""
        off = torch.arange(characters, device=last.device) - last[:, None]
        return (off >= 0) & (off < self.window)


RECIPE, SYSTEM = DeepVoice3Recipe, DeepVoice3
