"""E_spch: the mel spectrogram through convolutions and GRUs, to one vector a recording or a token for a few frames."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import MediaModel, TokensModel
from skipmodal.models.latent import Encoded
from skipmodal.models.layers import BiGRU, MaskedBatchNorm, length_mask
from skipmodal.text import SYMBOLS


class Convolutions(nn.Module):
    """Mel as a 1-channel image -> [Conv2D -> BN -> ReLU] for each of `channels`, of stride 2 over its bands."""

    def __init__(self, channels: tuple[int, ...], n_mels: int, kernel: int, strides: tuple[int, ...]) -> None:
        """`strides` over time, of each convolution."""
        super().__init__()
        self.strides = strides
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel, (stride, 2), kernel // 2, bias=False)
            for (a, b), stride in zip(pairwise((1, *channels)), strides, strict=True)
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(each) for each in channels)
        halved = 2 ** len(channels)
        self.width = channels[-1] * ((n_mels + halved - 1) // halved)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """mel (B, frames, n_mels), lengths (B,) -> (B, frames / strides, width), zeros in the padding; lengths."""
        x = (mel * length_mask(lengths, mel.shape[1])[:, :, None])[:, None]  # (B, 1, T, F)
        for conv, norm, stride in zip(self.convs, self.norms, self.strides, strict=True):
            x = conv(x)
            lengths = (lengths + stride - 1) // stride
            mask = length_mask(lengths, x.shape[2])
            x = F.relu(norm(x.transpose(1, 2), mask)).transpose(1, 2)  # the norm leaves zeros in the padding
        return x.transpose(1, 2).flatten(2), lengths


class SpeechEncoder(nn.Module):
    """Convolutions 3x3 of stride 2 -> GRU -> last valid state -> FC -> tanh -> e.

    Section 3.1 has a GRU of 512 units over 5 x 80 chunks, the appendix one of 256: the appendix.
    """

    def __init__(self, config: MediaModel, n_mels: int) -> None:
        super().__init__()
        self.convolve = Convolutions(config.speech_channels, n_mels, 3, (2, 2))
        self.gru = nn.GRU(self.convolve.width, config.speech_gru, batch_first=True)
        self.project = nn.Linear(config.speech_gru, config.embedding)

    def forward(self, mel: Tensor, lengths: Tensor) -> Encoded:
        """mel (B, frames, n_mels), lengths (B,) -> e (B, 1, embedding)."""
        x, lengths = self.convolve(mel, lengths)
        states, _ = self.gru(x)
        last = states[torch.arange(len(states), device=states.device), lengths - 1]
        return Encoded(torch.tanh(self.project(last))[:, None], torch.ones_like(lengths))


class SpeechTokenEncoder(nn.Module):
    """Convolutions 11x11 -> three bidirectional GRUs, all but the first residual -> FC -> tanh -> norm: tokens.

    Deep Speech 2's (Amodei et al., ICML 2016), but smaller: D_txt writes a word from few tokens, so each has to gather
    what lies around it. CTC needs more tokens than letters; `letters` reads them from the last GRU, for training alone.
    """

    def __init__(self, config: TokensModel, n_mels: int, characters_per_frame: float) -> None:
        super().__init__()
        self.rate, self.warp = config.frames_per_token * characters_per_frame, config.speech_warp
        self.convolve = Convolutions(config.speech_channels, n_mels, 11, (config.frames_per_token, 1))
        width = 2 * config.speech_gru
        self.grus = nn.ModuleList(BiGRU(each, config.speech_gru) for each in (self.convolve.width, width, width))
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(width, config.embedding)
        # Not in the paper: at first all tokens of an encoder are nearly alike, and M would give one u for all.
        self.norm = MaskedBatchNorm(config.embedding)
        self.letters = nn.Linear(width, len(SYMBOLS))

    def forward(self, mel: Tensor, lengths: Tensor) -> Encoded:
        """mel (B, frames, n_mels), lengths (B,) -> e (B, frames / frames_per_token, embedding)."""
        if self.training and self.warp:  # the rate stays: people differ in it as much
            mel, lengths = warp(mel, lengths, self.warp)
        x, lengths = self.convolve(mel, lengths)
        first, *others = self.grus
        x = first(x, lengths)
        for gru in others:
            x = x + gru(self.dropout(x), lengths)
        e = torch.tanh(self.project(x))
        return Encoded(self.norm(e, length_mask(lengths, e.shape[1])), lengths, self.rate, states=x)


def warp(mel: Tensor, lengths: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Recordings by up to `most` slower or faster, lower or higher, each its own.

    mel (B, frames, n_mels), lengths (B,) -> the same, of other lengths.

    Other voices from one: vocal tract length perturbation (Jaitly and Hinton, 2013), here of the mel's bands, and of
    the speed (Ko et al., Interspeech 2015).
    """
    count, frames, bands = mel.shape
    slower, higher = (1 + most * (2 * torch.rand(2, count, device=mel.device) - 1)).unbind()
    warped = (lengths * slower).round().long().clamp(min=1)
    times = torch.arange(int(warped.max()), device=mel.device) * (lengths / warped)[:, None]
    heights = torch.arange(bands, device=mel.device) / higher[:, None]
    # As grid_sample has it: -1 is the first frame or band, 1 the last.
    y = (2 * torch.minimum(times, lengths[:, None] - 1.0) / max(frames - 1, 1) - 1)[:, :, None]
    x = (2 * heights.clamp(max=bands - 1) / (bands - 1) - 1)[:, None, :]
    grid = torch.stack(torch.broadcast_tensors(x, y), 3)
    return F.grid_sample(mel[:, None], grid, align_corners=True)[:, 0], warped
