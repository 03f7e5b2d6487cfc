"""Encoders that keep their time or grid axis: tokens e instead of one embedding, for T, C and M to act on each."""

import torch
from torch import Tensor, nn

from skipmodal.config import ModelConfig
from skipmodal.image import ImageConfig
from skipmodal.models import efficientnet
from skipmodal.models.encoders import ImageEncoder, SpeechEncoder, TextEncoder
from skipmodal.models.layers import BiGRU


class ImageTokens(nn.Module):
    """Grid features of a frozen EfficientNet-Lite, or of the paper's convolutions without their max-pool, each with
    its learned place -> FC -> tanh -> e.
    """

    def __init__(self, config: ModelConfig, image: ImageConfig) -> None:
        super().__init__()
        self.backbone: nn.Module
        if image.encoder != "none":
            self.backbone, width = efficientnet.EfficientNetLite(image.encoder), efficientnet.WIDTH
            tokens = efficientnet.tokens(image.input_size)
        else:
            self.backbone = ImageEncoder(config).layers
            width, tokens = config.image_channels[-1], (image.size >> len(config.image_channels)) ** 2
        self.tokens = tokens
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(width, config.embedding)
        self.places = nn.Parameter(torch.empty(tokens, config.embedding))
        nn.init.normal_(self.places, std=0.1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1], or features (B, N, width) that prep has cached -> e (B, N, embedding)."""
        if pictures.dim() == 4:
            pictures = self.backbone(pictures)
            pictures = pictures.flatten(2).transpose(1, 2) if pictures.dim() == 4 else pictures
        return torch.tanh(self.dropout(self.project(pictures)) + self.places)


class TextTokens(TextEncoder):
    """The paper's text encoder without its mean over time: one token a character."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (B, L), lengths (B,) -> e (B, L, embedding)."""
        return torch.tanh(self.project(self.states(ids, lengths)))


class SpeechTokens(SpeechEncoder):
    """The paper's speech encoder with two bidirectional GRUs, the second residual, and every state a token: one for
    four frames, in which what lies around it has to be gathered for D_txt to write a word from.
    """

    def __init__(self, config: ModelConfig, n_mels: int) -> None:
        super().__init__(config, n_mels)
        self.gru = BiGRU(self.gru.input_size, config.speech_gru)  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.dropout)
        self.gather = BiGRU(2 * config.speech_gru, config.speech_gru)
        self.project = nn.Linear(2 * config.speech_gru, config.embedding)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """mel (B, frames, n_mels), lengths (B,) -> e (B, N, embedding) and valid tokens (B,)."""
        x, lengths = self.convolve(mel, lengths)
        states = self.gru(x, lengths)
        return torch.tanh(self.project(states + self.gather(self.dropout(states), lengths))), lengths
