"""E_spch: the mel spectrogram through convolutions and GRUs, to one vector a recording or a token for four frames."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.config import MediaModel, TokensModel
from skipmodal.models.latent import Encoded
from skipmodal.models.layers import BiGRU, MaskedBatchNorm, length_mask

FRAMES_A_TOKEN = 4


class _Convolutions(nn.Module):
    """Mel as a 1-channel image -> 2 x [Conv2D 3x3 stride 2 -> BN -> ReLU]."""

    def __init__(self, config: MediaModel, n_mels: int) -> None:
        super().__init__()
        first, second = config.speech_channels
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in ((1, first), (first, second)))
        self.norms = nn.ModuleList(MaskedBatchNorm(channels) for channels in (first, second))
        self.width = second * ((n_mels + 3) // 4)

    def convolve(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """mel (B, frames, n_mels), lengths (B,) -> (B, frames / 4, width), zeros in the padding; lengths."""
        x = (mel * length_mask(lengths, mel.shape[1])[:, :, None])[:, None]  # (B, 1, T, F)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            lengths = (lengths + 1) // 2
            mask = length_mask(lengths, x.shape[2])
            x = F.relu(norm(x.transpose(1, 2), mask)).transpose(1, 2)  # the norm leaves zeros in the padding
        return x.transpose(1, 2).flatten(2), lengths


class SpeechEncoder(_Convolutions):
    """Convolutions -> GRU -> last valid state -> FC -> tanh -> e.

    Section 3.1 has a GRU of 512 units over 5 x 80 chunks, the appendix one of 256: the appendix.
    """

    def __init__(self, config: MediaModel, n_mels: int) -> None:
        super().__init__(config, n_mels)
        self.gru = nn.GRU(self.width, config.speech_gru, batch_first=True)
        self.project = nn.Linear(config.speech_gru, config.embedding)

    def forward(self, mel: Tensor, lengths: Tensor) -> Encoded:
        """mel (B, frames, n_mels), lengths (B,) -> e (B, 1, embedding)."""
        x, lengths = self.convolve(mel, lengths)
        states, _ = self.gru(x)
        last = states[torch.arange(len(states), device=states.device), lengths - 1]
        return Encoded(torch.tanh(self.project(last))[:, None], torch.ones_like(lengths))


class SpeechTokenEncoder(_Convolutions):
    """Convolutions -> two bidirectional GRUs, the second residual -> FC -> tanh -> norm: a token for four
    frames.

    Two, because D_txt writes a word from few tokens, so each has to gather what lies around it.
    """

    def __init__(self, config: TokensModel, n_mels: int, characters_per_frame: float) -> None:
        super().__init__(config, n_mels)
        self.rate = FRAMES_A_TOKEN * characters_per_frame
        self.gru = BiGRU(self.width, config.speech_gru)
        self.dropout = nn.Dropout(config.dropout)
        self.gather = BiGRU(2 * config.speech_gru, config.speech_gru)
        self.project = nn.Linear(2 * config.speech_gru, config.embedding)
        # Not in the paper: at first all tokens of an encoder are nearly alike, and M would give one u for all.
        self.norm = MaskedBatchNorm(config.embedding)

    def forward(self, mel: Tensor, lengths: Tensor) -> Encoded:
        """mel (B, frames, n_mels), lengths (B,) -> e (B, frames / 4, embedding)."""
        x, lengths = self.convolve(mel, lengths)
        states = self.gru(x, lengths)
        e = torch.tanh(self.project(states + self.gather(self.dropout(states), lengths)))
        return Encoded(self.norm(e, length_mask(lengths, e.shape[1])), lengths, self.rate)
