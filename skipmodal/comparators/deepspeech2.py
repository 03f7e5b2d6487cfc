"""Deep Speech 2: speech to text by convolutions, recurrent layers and CTC (Amodei et al., ICML 2016; table 3).

Left out: the language model of its beam search, sequence-wise batch norm between the recurrent layers, the ceiling of
its clipped ReLU, SortaGrad, and most of its width. As there, frames go through two-dimensional convolutions and
bidirectional GRUs to a distribution over letters. Not as there: three recurrent layers for up to seven, kernels of
11x11 for 41x11 and 21x11, and a mel for a linear spectrogram.
"""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.config import AnyModel, Dropout, Losses, Recipe, Size, loss_term
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.base import Outputs, System
from skipmodal.models.ctc import ctc_loss, greedy
from skipmodal.models.encoders.speech import Convolutions
from skipmodal.models.latent import Latent
from skipmodal.models.layers import BiGRU, length_mask
from skipmodal.models.search import Sentences
from skipmodal.text import SYMBOLS
from skipmodal.tokenizer import Tokenizer


class DeepSpeech2Model(AnyModel):
    """Its sizes."""

    kind: Literal["deepspeech2"] = "deepspeech2"
    channels: Size = 32
    width: Size = 256
    layers: Annotated[int, Field(ge=1, le=64)] = 3
    dropout: Dropout = 0.1


class DeepSpeech2Loss(Losses):
    """Its loss."""

    ctc: float = loss_term(1.0, "connectionist temporal classification, a character", "text-speech")


class DeepSpeech2Recipe(Recipe):
    """A training of it."""

    model: DeepSpeech2Model = DeepSpeech2Model()
    loss: DeepSpeech2Loss = DeepSpeech2Loss()


class DeepSpeech2(System):
    """Mel as an image -> 2 x [Conv2D 11x11 -> BN -> ReLU], a quarter of its bands -> bidirectional GRUs -> letters."""

    reads, writes = frozenset({"speech"}), frozenset({"text"})

    def __init__(self, config: DeepSpeech2Model, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.convolve = Convolutions((config.channels, config.channels), audio.n_mels, 11, (2, 1))
        widths = [self.convolve.width] + [2 * config.width] * (config.layers - 1)
        self.rnns = nn.ModuleList(BiGRU(width, config.width) for width in widths)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(2 * config.width, len(SYMBOLS))

    def encode_speech(self, mel: Tensor, lengths: Tensor) -> Latent:
        """mel (B, frames, n_mels), lengths (B,) -> states (B, frames / 2, width)."""
        states, lengths = self.convolve(mel, lengths)
        for rnn in self.rnns:
            states = rnn(self.dropout(states), lengths) * length_mask(lengths, states.shape[1])[:, :, None]
        return Latent(states, states, lengths)

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        outputs = Outputs()
        if "ctc" in wanted and len(batch.mel):
            latent = self.encode_speech(batch.mel, batch.mel_lengths)
            outputs.own["ctc"] = ctc_loss(self._logits(latent), latent.lengths, *batch.spoken)
        return outputs

    def generate_text(self, latent: Latent, max_length: int, beam: int = 1) -> Sentences:
        """The likeliest letter at each moment; it has no beam."""
        return greedy(self._logits(latent), latent.lengths, max_length)

    def _logits(self, latent: Latent) -> Tensor:
        logits: Tensor = self.output(self.dropout(latent.u))
        return logits


RECIPE, SYSTEM = DeepSpeech2Recipe, DeepSpeech2
