"""Whether a spectrogram is a recording's: a critic that D_spch learns to satisfy. Not in the paper.

Of all spectrograms that a text allows, the one with the least absolute error is a blur of them, and sounds muffled.
The critic's loss is least squares (Mao et al., LSGAN, ICCV 2017); its layers' outputs are compared, too (Larsen et al.,
ICML 2016; as in Kong et al., HiFi-GAN, NeurIPS 2020).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from skipmodal.models.layers import length_mask, mean

CHANNELS = (3, 16, 32, 64)
NEAR = 31  # bands around each: what differs from their mean is the voice's harmonics, which a blur lacks
GAINS = (10.0, 5.0)  # of the difference and of the magnitudes themselves, about as large as the band's place then
SLOPE = 0.2  # of its leaky ReLUs
MATCHING = 2.0  # weight of the layers' outputs beside the critic's verdict, as in HiFi-GAN


class SpectrogramCritic(nn.Module):
    """Linear magnitudes, how they differ from their neighbours, the place of the band -> 3 x [Conv2D 3x5 stride 2 ->
    leaky ReLU] -> a verdict for each patch; used in training only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, (3, 5), 2, (1, 2)) for a, b in pairwise(CHANNELS))
        self.verdict = nn.Conv2d(CHANNELS[-1], 1, 3, 1, 1)

    def forward(self, linear: Tensor) -> list[Tensor]:
        """linear (B, T, n_linear) -> what each layer gives, the last (B, 1, T', F'): 1 for a recording, 0 for speech
        that was made.
        """
        bands = torch.linspace(-1, 1, linear.shape[2], device=linear.device).expand_as(linear)
        detail = linear - F.avg_pool1d(linear, NEAR, 1, NEAR // 2, count_include_pad=False)
        found = [torch.stack([GAINS[0] * detail, GAINS[1] * (linear - 0.5), bands], 1)]
        for conv in self.convs:
            found.append(F.leaky_relu(conv(found[-1]), SLOPE))
        return [*found[1:], self.verdict(found[-1])]

    def game(self, made: Tensor, recorded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's loss, and what D_spch loses by not satisfying it; each has a gradient for its own side alone.

        made and recorded (B, T, n_linear), lengths (B,) valid frames.
        """
        mask = length_mask(lengths, made.shape[1])[:, :, None]
        made, recorded = made * mask, recorded * mask
        real = self(recorded)
        critic = mean((real[-1] - 1).square()) + mean(self(made.detach())[-1].square())
        frozen = {name: p.detach() for name, p in self.named_parameters()}
        *layers, verdict = functional_call(self, frozen, (made,))
        matching = [mean((ours - theirs.detach()).abs()) for ours, theirs in zip(layers, real, strict=False)]
        return critic, mean((verdict - 1).square()) + MATCHING * torch.stack(matching).sum()
