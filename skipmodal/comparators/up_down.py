"""Bottom-up and top-down attention: image to text by two LSTMs (Anderson et al., CVPR 2018; table 2).

The regions of its detector come from a file (`prep image-text --regions`); over the grid of a frozen network
(`--encoder`) it is the paper's baseline. Not as there: features go through one FC layer first, and frequent words and
characters are the tokens. Its last stage, rewarded by CIDEr, is off: `loss.self_critical` turns it on.
"""

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
from skipmodal.config import Recipe
from skipmodal.image import ImageConfig
from skipmodal.models.latent import Latent
from skipmodal.models.layers import lstm_step
from skipmodal.models.search import State
from skipmodal.tokenizer import Tokenizer


class UpDownModel(PlacesModel):
    """Its sizes."""

    kind: Literal["up_down"] = "up_down"


class UpDownRecipe(Recipe):
    """A training of it."""

    model: UpDownModel = UpDownModel()
    loss: CaptioningLoss = CaptioningLoss()


class UpDownDecoder(RecurrentDecoder):
    """Attention LSTM of the language LSTM's last state, the mean of the places and the token -> attention over the
    places -> language LSTM, whose state the next token is read from (section 3.2).
    """

    def __init__(self, config: UpDownModel, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer, config.width, config.dropout)
        self.attention_rnn = nn.LSTM(3 * self.width, self.width, batch_first=True)
        self.attention = AdditiveAttention(self.width, self.width, config.attention_width)
        self.language_rnn = nn.LSTM(2 * self.width, self.width, batch_first=True)

    def remember(self, latent: Latent) -> Memory:
        return latent.mean, *self.attention.remember(latent.u, latent.mask)

    def first(self, latent: Latent) -> State:
        return (latent.u.new_zeros(1, len(latent.u), self.width),) * 4

    def step(self, x: Tensor, memory: Memory, state: State) -> tuple[Tensor, Tensor, State]:
        mean, *places = memory
        h1, c1, h2, c2 = state
        query, (h1, c1) = lstm_step(self.attention_rnn, torch.cat([h2[0], mean, x], 1)[:, None], (h1, c1))
        seen, weights = self.attention(query[:, 0], tuple(places))
        h, (h2, c2) = lstm_step(self.language_rnn, torch.cat([seen, query[:, 0]], 1)[:, None], (h2, c2))
        return h[:, 0], weights, (h1, c1, h2, c2)


class UpDown(Captioner):
    """Regions, or a grid -> two LSTMs -> caption."""

    def __init__(self, config: UpDownModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.image_encoder = PlaceEncoder(image, config.image_channels, config.width, config.dropout)
        self.text_decoder = UpDownDecoder(config, tokenizer)


RECIPE, SYSTEM = UpDownRecipe, UpDown
