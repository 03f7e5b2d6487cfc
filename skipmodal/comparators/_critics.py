"""What a game between generators and critics needs, beside the generators: critics, what they are shown, and norms that
made items leave alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.models.decoders.speech import cut
from skipmodal.models.layers import ImageNorm, MaskedBatchNorm, length_mask

POOL = 50  # made pictures and sounds that the critics are shown again (Shrivastava et al., CVPR 2017)
WINDOW = 64  # frames of a recording that its critic sees


class Critic(nn.Sequential):
    """3 x [Conv2D 4x4 stride 2 -> instance norm -> leaky ReLU] -> a verdict for each patch (PatchGAN)."""

    def __init__(self, channels: int, width: int) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise((channels, width, 2 * width, 4 * width)):
            norm = [nn.InstanceNorm2d(b)] if layers else []
            layers += [nn.Conv2d(a, b, 4, 2, 1), *norm, nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(4 * width, 1, 3, 1, 1))


class Pool(nn.Module):
    """Gives what was made back as it is, or half of the time something that was made before in its place."""

    items: Tensor
    filled: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("items", torch.zeros(POOL, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def forward(self, made: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        shown = made.clone()
        for row, item in enumerate(made):
            if self.filled < POOL:
                self.items[self.filled] = item
                self.filled += 1
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(POOL, ()))
                shown[row], self.items[place] = self.items[place].clone(), item
        return shown


@contextmanager
def running_statistics_kept(*parts: nn.Module) -> Iterator[None]:
    """The running statistics of the batch norms in `parts` stay as they are: those of real items."""
    norms = [each for part in parts for each in part.modules() if isinstance(each, (ImageNorm, MaskedBatchNorm))]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def windows(mel: Tensor, lengths: Tensor) -> Tensor:
    """A random part of WINDOW frames of each mel (B, T, n_mels), lengths (B,) -> (B, 1, WINDOW, n_mels)."""
    mel = F.pad(mel * length_mask(lengths, mel.shape[1])[:, :, None], (0, 0, 0, WINDOW))
    room = (lengths - WINDOW).clamp(min=0) + 1
    first = (torch.rand(len(mel), device=mel.device) * room).long()
    part, _ = cut(mel, lengths, (first, lengths.clamp(max=WINDOW), WINDOW))
    return part[:, None]
