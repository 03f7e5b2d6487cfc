"""The three encoders, each to one embedding e a picture, sentence or utterance (paper, appendix 6.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import ModelConfig
from skipmodal.models.layers import CBHG, MaskedBatchNorm, Prenet, length_mask
from skipmodal.text import PAD, SYMBOLS


class ImageEncoder(nn.Module):
    """4 x [Conv2D 4x4 stride 2 -> BN -> ReLU] -> global max pool -> e.

    Section 3.1 says three layers, the appendix lists four: four.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 3
        for channels in config.image_channels:
            # No bias: the batch norm that follows has one.
            layers += [nn.Conv2d(previous, channels, 4, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            previous = channels
        self.layers = nn.Sequential(*layers)
        # The paper's last layer has the width of e; other widths need one more step.
        self.project = nn.Linear(previous, config.embedding) if previous != config.embedding else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> e (B, embedding)."""
        return self.project(self.layers(images).amax(dim=(2, 3)))  # type: ignore[no-any-return]


class TextEncoder(nn.Module):
    """Look-up -> 2 x [FC -> ReLU -> dropout .5] -> CBHG -> mean over valid time -> FC -> tanh -> e."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_channels
        self.embed = nn.Embedding(len(SYMBOLS), width, padding_idx=PAD)
        self.prenet = Prenet(width, (2 * width, width), config.prenet_dropout)
        # "128-D embeddings" in section 3.1 are the CBHG's inputs; Tacotron's bidirectional GRU gives 2 x 128.
        self.cbhg = CBHG(width, config.text_banks, width, projection=width)
        self.project = nn.Linear(2 * width, config.embedding)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (B, L), lengths (B,) -> e (B, embedding)."""
        return torch.tanh(self.project(self.states(ids, lengths).sum(1) / lengths[:, None]))

    def states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The same, (B, L, 2 * text_channels) before the mean; zeros in the padding."""
        return self.cbhg(self.prenet(self.embed(ids)), lengths)  # type: ignore[no-any-return]


class SpeechEncoder(nn.Module):
    """Mel as a 1-channel image -> 2 x [Conv2D 3x3 stride 2 -> BN -> ReLU] -> GRU -> last valid state -> FC -> tanh.

    Section 3.1 has a GRU of 512 units over 5 x 80 chunks, the appendix one of 256: the appendix.
    """

    def __init__(self, config: ModelConfig, n_mels: int) -> None:
        super().__init__()
        first, second = config.speech_channels
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in ((1, first), (first, second)))
        self.norms = nn.ModuleList(MaskedBatchNorm(channels) for channels in (first, second))
        bands = (n_mels + 3) // 4
        self.gru = nn.GRU(second * bands, config.speech_gru, batch_first=True)
        self.project = nn.Linear(config.speech_gru, config.embedding)

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """mel (B, frames, n_mels), lengths (B,) -> e (B, embedding)."""
        x, lengths = self.convolve(mel, lengths)
        states, _ = self.gru(x)
        last = states[torch.arange(len(states), device=states.device), lengths - 1]
        return torch.tanh(self.project(last))

    def convolve(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """mel (B, frames, n_mels), lengths (B,) -> (B, frames / 4, channels * bands), zeros in the padding; lengths."""
        x = (mel * length_mask(lengths, mel.shape[1])[:, :, None])[:, None]  # (B, 1, T, F)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            lengths = (lengths + 1) // 2
            mask = length_mask(lengths, x.shape[2])
            x = F.relu(norm(x.transpose(1, 2), mask)).transpose(1, 2)  # the norm leaves zeros in the padding
        return x.transpose(1, 2).flatten(2), lengths
