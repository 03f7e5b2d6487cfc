"""E_img: the paper's convolutions to one vector, and a grid of tokens from them or from a frozen network."""

import torch
from torch import Tensor, nn

from skipmodal.config import ModelConfig, TokensModel
from skipmodal.errors import UserError
from skipmodal.features import efficientnet
from skipmodal.image import ImageConfig
from skipmodal.models.encoders.kinds import KindTokens
from skipmodal.models.latent import Encoded
from skipmodal.models.layers import ImageNorm, MaskedBatchNorm
from skipmodal.tokenizer import Tokenizer


def convolutions(config: ModelConfig) -> nn.Sequential:
    """[Conv2D 4x4 stride 2 -> BN -> ReLU] for each width in `image_channels`.

    Section 3.1 says three layers, the appendix lists four: four.
    """
    layers: list[nn.Module] = []
    previous = 3
    for channels in config.image_channels:
        # No bias: the batch norm that follows has one.
        layers += [nn.Conv2d(previous, channels, 4, 2, 1, bias=False), ImageNorm(channels), nn.ReLU()]
        previous = channels
    return nn.Sequential(*layers)


class ImageEncoder(nn.Module):
    """Convolutions -> global max pool -> e."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = convolutions(config)
        # The paper's last layer has the width of e; other widths need one more step.
        self.width = config.image_channels[-1]
        self.project = nn.Linear(self.width, config.embedding) if self.width != config.embedding else nn.Identity()

    def features(self, pictures: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] -> (B, places, width); what are features already stay as they are."""
        return pictures if pictures.dim() == 3 else self.layers(pictures).flatten(2).transpose(1, 2)

    def forward(self, pictures: Tensor) -> Encoded:
        """Pixels, or what `features` gave of them -> e (B, 1, embedding)."""
        e = self.project(self.features(pictures).amax(1))
        return Encoded(e[:, None], torch.ones(len(e), dtype=torch.long, device=e.device))


class ImageTokenEncoder(nn.Module):
    """Grid features of a frozen EfficientNet-Lite, or of the paper's convolutions without their max pool, each with
    its learned place -> FC -> tanh -> norm -> e. With `kinds`, what the network takes the picture for is tokens, too.

    Raises UserError for `kinds` without a frozen network.
    """

    def __init__(self, config: TokensModel, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        if config.kinds and image.encoder == "none":
            raise UserError("model.kinds: the pictures' features are of no network that names things; prep --encoder")
        self.backbone: nn.Module
        if image.encoder != "none":
            self.backbone, self.width = efficientnet.EfficientNetLite(image.encoder), efficientnet.WIDTH
            tokens = efficientnet.tokens(image.input_size)
        else:
            self.backbone = convolutions(config)
            self.width, tokens = config.image_channels[-1], (image.size >> len(config.image_channels)) ** 2
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(self.width, config.embedding)
        self.places = nn.Parameter(torch.empty(tokens, config.embedding))
        nn.init.normal_(self.places, std=0.1)
        self.kinds = KindTokens(config.kinds, config.embedding, tokenizer) if config.kinds else None
        # Not in the paper: at first all tokens of an encoder are nearly alike, and M would give one u for all.
        self.norm = MaskedBatchNorm(config.embedding)

    def load_published(self) -> None:
        """Gives a frozen network its published weights. Raises UserError where they are not installed."""
        if isinstance(self.backbone, efficientnet.EfficientNetLite):
            self.backbone.load_published(self.kinds.classifier if self.kinds is not None else None)

    def features(self, pictures: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] -> (B, N, width), which prep caches where the network is frozen; what are
        features already stay as they are.
        """
        if pictures.dim() == 3:
            return pictures
        found = self.backbone(pictures)
        return found.flatten(2).transpose(1, 2) if found.dim() == 4 else found  # type: ignore[no-any-return]

    def forward(self, pictures: Tensor) -> Encoded:
        """Pixels, or what `features` gave of them -> e (B, N, embedding)."""
        features, suggested = self.features(pictures), None
        e = torch.tanh(self.dropout(self.project(features)) + self.places)
        if self.kinds is not None:
            kinds, suggested = self.kinds(features)
            e = torch.cat([e, kinds], 1)
        e = self.norm(e.flatten(0, 1)).view_as(e)
        return Encoded(e, torch.full((len(e),), e.shape[1], device=e.device), suggested=suggested)
