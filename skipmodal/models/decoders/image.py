"""D_img: one vector u -> a picture."""

import math
from itertools import pairwise

from torch import Tensor, nn

from skipmodal.config import MediaModel
from skipmodal.models.latent import Latent
from skipmodal.models.layers import ImageNorm


class ImageDecoder(nn.Module):
    """FC -> 4 x 4 x 64 -> transposed Conv2D 4x4 stride 2 with BN and ReLU, doubling up to `size` -> tanh.

    From 4 to 128 takes five doublings; the appendix lists four, the last with 8 channels: one stage to RGB is added.
    """

    def __init__(self, config: MediaModel, size: int) -> None:
        super().__init__()
        self.input = nn.Linear(config.d_k, 4 * 4 * 64)
        stages = int(math.log2(size)) - 2
        widths = [64, *([32, 16, 8] + [8] * stages)[: stages - 1]]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), ImageNorm(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1), nn.Tanh())

    def forward(self, latent: Latent) -> Tensor:
        """The mean of u -> RGB (B, 3, size, size) in [-1, 1]."""
        return self.layers(self.input(latent.mean).view(-1, 64, 4, 4))  # type: ignore[no-any-return]
