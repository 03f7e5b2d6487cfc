"""Show, Attend and Tell, with soft attention: image to text (Xu et al., ICML 2015; table 2).

As there: an LSTM that looks at the grid by additive attention, a gate on what it sees, the deep output layer, and the
doubly stochastic penalty. Not as there: the convolutional network is a newer one, frozen, and its features go through
one FC layer first; frequent words and characters are the tokens.
"""

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.comparators._captioning import (
    AdditiveAttention,
    Captioner,
    CaptioningLoss,
    Memory,
    PlaceEncoder,
    PlacesModel,
    RecurrentDecoder,
)
from skipmodal.config import Recipe, loss_term
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.decoders.written import Written
from skipmodal.models.latent import Latent
from skipmodal.models.layers import lstm_step, ratio
from skipmodal.models.search import State
from skipmodal.text import PAD
from skipmodal.tokenizer import Tokenizer


class SatModel(PlacesModel):
    """Its sizes."""

    kind: Literal["sat"] = "sat"


class SatLoss(CaptioningLoss):
    """Its losses."""

    coverage: float = loss_term(
        1.0, "(14) sum over places of (1 - sum over steps of alpha)^2, a character", "image-text", False
    )


class SatRecipe(Recipe):
    """A training of it."""

    model: SatModel = SatModel()
    loss: SatLoss = SatLoss()


class SatDecoder(RecurrentDecoder):
    """Attention from the LSTM's last state; the next token is read from state, token and what is seen (7, 8, 13)."""

    def __init__(self, config: SatModel, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer, config.width, config.dropout)
        width = config.width
        self.start = nn.Linear(width, 2 * width)  # h and c, from the mean of the places
        self.attention = AdditiveAttention(width, width, config.attention_width)
        self.gate = nn.Linear(width, 1)  # beta
        self.rnn = nn.LSTM(2 * width, width, batch_first=True)
        self.from_state, self.from_seen = nn.Linear(width, width), nn.Linear(width, width)

    def remember(self, latent: Latent) -> Memory:
        return self.attention.remember(latent.u, latent.mask)

    def first(self, latent: Latent) -> State:
        return tuple(part[None].contiguous() for part in torch.tanh(self.start(latent.mean)).chunk(2, 1))

    def step(self, x: Tensor, memory: Memory, state: State) -> tuple[Tensor, Tensor, State]:
        last = state[0][0]
        seen, weights = self.attention(last, memory)
        seen = torch.sigmoid(self.gate(last)) * seen
        h, (hidden, cell) = lstm_step(self.rnn, torch.cat([x, seen], 1)[:, None], (state[0], state[1]))
        return torch.tanh(x + self.from_state(h[:, 0]) + self.from_seen(seen)), weights, (hidden, cell)


class ShowAttendTell(Captioner):
    """Grid -> attention LSTM -> caption."""

    def __init__(self, config: SatModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.image_encoder = PlaceEncoder(image, config.image_channels, config.width, config.dropout)
        self.text_decoder = SatDecoder(config, tokenizer)

    def own_losses(
        self, image: Latent, more: tuple[Tensor, ...], written: Written, batch: Batch, wanted: Collection[str]
    ) -> dict[str, Tensor]:
        """Each place is to be looked at as much as any other over a sentence."""
        if "coverage" not in wanted or written.attention is None:
            return {}
        valid = (written.target != PAD)[:, :, None]
        over_steps = (written.attention[:, 0] * valid).sum(1)
        missing = (1 - over_steps).square() * image.mask[batch.owners]
        return {"coverage": ratio(missing.sum(), written.spans.sum())}


RECIPE, SYSTEM = SatRecipe, ShowAttendTell
