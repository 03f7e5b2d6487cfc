"""Tacotron: text to speech by a CBHG, an attention RNN and residual GRUs (Wang et al., Interspeech 2017; table 3).

As there, the attention RNN sees the last frame of the step before through a pre-net and attends to the text encoder's
states, and two residual GRUs make r frames of mel a step, which a CBHG post-net turns into linear magnitudes. Left
out: most of its width, and half of the text encoder's bank, K = 8 for 16; r is 5 for 2. Ours: the stop output, without
which it would speak up to the cap, the post-net's start from the interpolated mel spectrogram, and a guide of the
attention that a recipe may ask for.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.comparators._speaking import AttentionRNN, Speaker, SpeakingLoss, Steps
from skipmodal.config import Dropout, Recipe, Size, SpokenModel
from skipmodal.image import ImageConfig
from skipmodal.models.latent import Latent
from skipmodal.models.layers import CBHG, Prenet
from skipmodal.text import PAD, SYMBOLS
from skipmodal.tokenizer import Tokenizer


class TacotronSizes(SpokenModel):
    """Its sizes, also in systems built on it."""

    text_channels: Size = Field(default=128, description="character embedding and the text encoder's CBHG")
    text_banks: Size = Field(default=8, description="K of the text encoder's CBHG")
    prenet: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = (256, 128)
    prenet_dropout: Dropout = Field(default=0.5, description="in the pre-nets of text and frames")
    attention: Size = Field(default=128, description="width in which queries and keys are compared")
    decoder: Size = Field(default=256, description="units of the attention RNN and of both GRUs")


class TacotronModel(TacotronSizes):
    """Its sizes."""

    kind: Literal["tacotron"] = "tacotron"


class TacotronRecipe(Recipe):
    """A training of it."""

    model: TacotronModel = TacotronModel()
    loss: SpeakingLoss = SpeakingLoss()


class Tacotron(Speaker):
    """Characters -> prenet -> CBHG; prenet -> attention RNN (GRU) -> 2 residual GRUs -> r frames and a stop logit."""

    def __init__(self, config: TacotronSizes, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, audio, tokenizer)
        text, width, memory = config.text_channels, config.decoder, 2 * config.text_channels
        self.embed = nn.Embedding(len(SYMBOLS), text, padding_idx=PAD)
        self.text_prenet = Prenet(text, (2 * text, text), config.prenet_dropout)
        self.cbhg = CBHG(text, config.text_banks, text, projection=text)
        self.prenet = Prenet(audio.n_mels, config.prenet, config.prenet_dropout)
        cell = nn.GRUCell(config.prenet[-1] + memory, width)
        self.attention_rnn = AttentionRNN(cell, memory, config.attention)
        self.project = nn.Linear(width + memory, width)
        self.rnns = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(2))
        self.output = nn.Linear(width, config.frames_per_step * audio.n_mels)
        self.stop = nn.Linear(width, 1)

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Latent:
        """ids (B, L), lengths (B,) -> states (B, L, 2 * text_channels)."""
        states = self.cbhg(self.text_prenet(self.embed(ids)), lengths)
        return Latent(states, states, lengths, rate=1.0).with_source(ids=ids)

    def begin(self, latent: Latent, generating: bool) -> Any:
        zeros = latent.u.new_zeros(1, len(latent.u), self.project.out_features)
        return self.attention_rnn.start(latent), [zeros] * len(self.rnns)

    def steps(self, frames: Tensor, state: Any) -> Steps:
        """Only the attention RNN needs a loop: each GRU runs over all steps in one call."""
        attending, hidden = state
        known, weights, attending = self.attention_rnn(self.prenet(frames[:, :, -1]), attending)
        x, ends = self.project(known), []
        for rnn, before in zip(self.rnns, hidden, strict=True):
            y, end = rnn(x, before)
            x = x + y
            ends.append(end)
        mel = self.output(x).unflatten(2, (self.frames_a_step, self.n_mels))
        return Steps(mel, self.stop(x)[..., 0], weights, (attending, ends))


RECIPE, SYSTEM = TacotronRecipe, Tacotron
