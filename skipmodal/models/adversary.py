"""C and the game of equation (1): C tells the modality from z; encoders and T make pictures and speech look like text.

The two losses are apart, so that C learns at its full rate whatever weight alpha T's side has, and each loss says in
the logs which of the two is ahead.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from skipmodal.config import ModelConfig
from skipmodal.modality import MODALITIES, Modality
from skipmodal.models.latent import Latent
from skipmodal.models.layers import mean

TEXT = MODALITIES.index("text")


class Adversary(nn.Module):
    """C: two FC layers and a 3-way softmax layer over (image, text, speech); used in training only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_k
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
        )

    def forward(self, z: Tensor) -> Tensor:
        """z (N, d_k) -> logits (N, 3)."""
        return self.layers(z)  # type: ignore[no-any-return]

    def game(self, latents: Mapping[Modality, Sequence[Latent | None]]) -> tuple[Tensor, Tensor]:
        """L_C and L_T of equation (1), each a sum of means: over image, text of A, text of B and speech; over image and
        speech. C gets no gradient of L_T, and nothing but C one of L_C.
        """
        frozen = {name: p.detach() for name, p in self.layers.named_parameters()}
        told, fooled = [], []
        for modality, parts in latents.items():
            for part in filter(None, parts):
                z = part.z[part.mask]
                told.append(_cross_entropy(self(z.detach()), MODALITIES.index(modality)))
                if modality != "text":
                    fooled.append(_cross_entropy(functional_call(self.layers, frozen, (z,)), TEXT))
        zero = told[0].new_zeros(())
        return torch.stack(told).sum(), torch.stack(fooled).sum() if fooled else zero


def _cross_entropy(logits: Tensor, modality: int) -> Tensor:
    return mean(F.cross_entropy(logits, logits.new_full((len(logits),), modality, dtype=torch.long), reduction="none"))
