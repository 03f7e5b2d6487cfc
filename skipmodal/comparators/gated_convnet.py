"""Gated convolutions: speech to letters without recurrence (Liptchinsky, Synnaeve and Collobert, 2017; table 3).

"Letter-based speech recognition with gated ConvNets", arXiv 1712.09444. As there, one-dimensional
convolutions with weight normalisation, gated linear units and dropout, wider and with more channels the higher they
are, read the mel spectrogram; `criterion: asg` is its auto segmentation criterion. Left out: the language model of its
beam search, and most of its layers and width.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from skipmodal.audio import AudioConfig
from skipmodal.comparators._asg import asg_loss, best_paths
from skipmodal.config import AnyModel, Dropout, Losses, Positive, Recipe, Size, loss_term
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.base import Outputs, System
from skipmodal.models.ctc import ctc_loss, greedy, sentences
from skipmodal.models.latent import Latent
from skipmodal.models.layers import length_mask
from skipmodal.models.search import Sentences
from skipmodal.text import SYMBOLS
from skipmodal.tokenizer import Tokenizer


class GatedConvNetModel(AnyModel):
    """Its sizes; those of a pair are of the first and of the last layer, with the others between them."""

    kind: Literal["gated_convnet"] = "gated_convnet"
    layers: Annotated[int, Field(ge=1, le=64)] = 8
    channels: tuple[Size, Size] = (96, 192)
    kernels: tuple[Size, Size] = Field(default=(7, 15), description="frames that a convolution sees")
    stride: Positive = Field(default=2, description="of the first layer: frames of mel to one of letters")
    dropout: Dropout = 0.2
    criterion: Literal["ctc", "asg"] = Field(default="ctc", description="asg: no blanks, but learned transitions")


class GatedConvNetLoss(Losses):
    """Its loss."""

    transcript: float = loss_term(1.0, "model.criterion, CTC or ASG, a character", "text-speech")


class GatedConvNetRecipe(Recipe):
    """A training of it."""

    model: GatedConvNetModel = GatedConvNetModel()
    loss: GatedConvNetLoss = GatedConvNetLoss()


class GatedConv(nn.Module):
    """Conv1D with same padding -> gated linear unit -> dropout, over (B, T, C)."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride, self.padding = stride, ((kernel - 1) // 2, kernel // 2)
        conv = nn.Conv1d(width_in, 2 * width_out, kernel, stride)
        nn.init.normal_(conv.weight, std=2 * (width_in * kernel) ** -0.5)  # a gate lets half of its input through
        self.conv = weight_norm(conv)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, width_in), lengths (B,) -> (B, T / stride, width_out), lengths; the padding is undefined."""
        x = (x * length_mask(lengths, x.shape[1])[:, :, None]).transpose(1, 2)
        x = self.conv(F.pad(x, self.padding)).transpose(1, 2)
        return self.dropout(F.glu(x, 2)), (lengths + self.stride - 1) // self.stride


class GatedConvNet(System):
    """Mel -> `layers` gated convolutions, the first with a stride -> letters."""

    reads, writes = frozenset({"speech"}), frozenset({"text"})

    def __init__(self, config: GatedConvNetModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        last = max(config.layers - 1, 1)
        width, layers = audio.n_mels, []
        for number in range(config.layers):
            channels, kernel = (
                first + round((end - first) * number / last) for first, end in (config.channels, config.kernels)
            )
            layers.append(GatedConv(width, channels, kernel, config.stride if number == 0 else 1, config.dropout))
            width = channels
        self.layers = nn.ModuleList(layers)
        self.output = nn.Linear(width, len(SYMBOLS))
        self.transitions = nn.Embedding(len(SYMBOLS), len(SYMBOLS)) if config.criterion == "asg" else None
        if self.transitions is not None:
            nn.init.zeros_(self.transitions.weight)

    def encode_speech(self, mel: Tensor, lengths: Tensor) -> Latent:
        """mel (B, frames, n_mels), lengths (B,) -> states (B, frames / stride, width)."""
        for layer in self.layers:
            mel, lengths = layer(mel, lengths)
        states = mel * length_mask(lengths, mel.shape[1])[:, :, None]
        return Latent(states, states, lengths)

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        outputs = Outputs()
        if "transcript" in wanted and len(batch.mel):
            latent = self.encode_speech(batch.mel, batch.mel_lengths)
            scores, texts = self.output(latent.u), (latent.lengths, *batch.spoken)
            outputs.own["transcript"] = (
                ctc_loss(scores, *texts) if self.transitions is None
                else asg_loss(scores, self.transitions.weight, *texts)
            )  # fmt: skip
        return outputs

    def generate_text(self, latent: Latent, max_length: int, beam: int = 1) -> Sentences:
        """The letters of the likeliest path; it has no beam."""
        scores = self.output(latent.u)
        if self.transitions is None:
            return greedy(scores, latent.lengths, max_length)
        letters, log_probability = best_paths(scores, self.transitions.weight, latent.lengths)
        rows = [torch.tensor(row, dtype=torch.long, device=scores.device) for row in letters]
        return sentences(rows, log_probability, max_length)


RECIPE, SYSTEM = GatedConvNetRecipe, GatedConvNet
