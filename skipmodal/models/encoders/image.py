"""E_img: the paper's convolutions to one vector, and a grid of tokens from them or from a frozen network."""

import torch
from torch import Tensor, nn

from skipmodal.config import MediaModel, TokensModel
from skipmodal.errors import UserError
from skipmodal.features import efficientnet
from skipmodal.image import ALL_LITES, LITES, ImageConfig
from skipmodal.models.encoders.kinds import KindTokens
from skipmodal.models.latent import Encoded
from skipmodal.models.layers import ImageNorm, MaskedBatchNorm, length_mask
from skipmodal.tokenizer import Tokenizer


def convolutions(widths: tuple[int, ...]) -> nn.Sequential:
    """[Conv2D 4x4 stride 2 -> BN -> ReLU] for each of the widths, `image_channels`.

    Section 3.1 says three layers, the appendix lists four: four.
    """
    layers: list[nn.Module] = []
    previous = 3
    for channels in widths:
        # No bias: the batch norm that follows has one.
        layers += [nn.Conv2d(previous, channels, 4, 2, 1, bias=False), ImageNorm(channels), nn.ReLU()]
        previous = channels
    return nn.Sequential(*layers)


class ImageEncoder(nn.Module):
    """Convolutions -> global max pool -> e."""

    def __init__(self, config: MediaModel) -> None:
        super().__init__()
        self.layers = convolutions(config.image_channels)
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


class ImageFeatures(nn.Module):
    """Grid features of a frozen EfficientNet-Lite, or of three, one after the other, or of the paper's convolutions
    without their max pool; or regions, which can only be read as features.
    """

    def __init__(self, image: ImageConfig, channels: tuple[int, ...]) -> None:
        """`channels` of the convolutions, where `image` names no frozen network."""
        super().__init__()
        self.regions, self.networks = image.encoder == "regions", len(LITES) if image.encoder == ALL_LITES else 1
        self.count, self.width = image.cached or ((image.size >> len(channels)) ** 2, channels[-1])
        self.backbone: nn.Module
        if self.regions:
            self.backbone = nn.Identity()
        elif image.encoder != "none":
            self.backbone = efficientnet.build(image.encoder)
        else:
            self.backbone = convolutions(channels)

    def load_published(self, classifier: nn.Linear | None = None) -> None:
        """Gives a frozen network its published weights, and `classifier` those of its last layer.

        Raises UserError where they are not installed.
        """
        if isinstance(self.backbone, efficientnet.EfficientNetLite | efficientnet.EfficientNetLites):
            self.backbone.load_published(classifier)

    def lengths(self, features: Tensor) -> Tensor:
        """How many of the places (B, N, width) of each picture are valid, of regions those before the zeros: (B,)."""
        if self.regions:
            return (features != 0).any(2).sum(1).clamp(min=1)
        return torch.full((len(features),), features.shape[1], device=features.device)

    def named(self, features: Tensor) -> Tensor:
        """The places (B, N, width) of the network whose classifier names things: of several the last."""
        return features[:, -(features.shape[1] // self.networks) :]

    def mean(self, features: Tensor) -> Tensor:
        """(B, N, width) -> (B, width), of the valid places."""
        return features.sum(1) / self.lengths(features)[:, None] if self.regions else features.mean(1)

    def features(self, pictures: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] -> (B, count, width), which prep caches where the network is frozen; what are
        features already stay as they are. Raises UserError for pixels where the model takes regions.
        """
        if pictures.dim() == 3:
            return pictures
        if self.regions:
            raise UserError("this model sees regions that a detector found, and can't find them in a picture")
        found = self.backbone(pictures)
        return found.flatten(2).transpose(1, 2) if found.dim() == 4 else found  # type: ignore[no-any-return]


class ImageTokenEncoder(ImageFeatures):
    """Features, each with its learned place (regions have none) -> FC -> tanh -> norm -> e. With `kinds`, what the
    network takes the picture for is tokens, too.

    Raises UserError for `kinds` without a frozen network.
    """

    def __init__(self, config: TokensModel, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(image, config.image_channels)
        if config.kinds and image.encoder in ("none", "regions"):
            raise UserError("model.kinds: the pictures' features are of no network that names things; prep --encoder")
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(self.width, config.embedding)
        self.places = None
        if not self.regions:
            self.places = nn.Parameter(torch.empty(self.count, config.embedding))
            nn.init.normal_(self.places, std=0.1)
        self.kinds = KindTokens(config.kinds, config.embedding, tokenizer) if config.kinds else None
        # Not in the paper: at first all tokens of an encoder are nearly alike, and M would give one u for all.
        self.norm = MaskedBatchNorm(config.embedding)

    def load_published(self, classifier: nn.Linear | None = None) -> None:
        super().load_published(self.kinds.classifier if self.kinds is not None else classifier)

    def forward(self, pictures: Tensor) -> Encoded:
        """Pixels, or what `features` gave of them -> e (B, N, embedding)."""
        features, suggested = self.features(pictures), None
        e = self.dropout(self.project(features))
        e = torch.tanh(e if self.places is None else e + self.places)
        if self.kinds is not None:
            kinds, suggested = self.kinds(self.named(features))
            e = torch.cat([e, kinds], 1)
        if self.regions:
            lengths = self.lengths(features)
            return Encoded(self.norm(e, length_mask(lengths, e.shape[1])), lengths)
        e = self.norm(e.flatten(0, 1)).view_as(e)
        return Encoded(e, torch.full((len(e),), e.shape[1], device=e.device), suggested=suggested)
