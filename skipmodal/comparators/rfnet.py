"""Recurrent Fusion Network: image to text from several convolutional networks (Jiang et al., ECCV 2018; table 2).

As there: in stage I each network has an LSTM that looks at its grid while it hears of the others, in stage II one LSTM
looks at what these have thought, and the decoder attends to what that one thinks; all thoughts are to name the words of
the captions. Not as there: the networks are the three EfficientNet-Lites, frozen (`prep --encoder efficientnet_lites`),
and an LSTM's weights are the same in all its steps. Its last stage, rewarded by CIDEr, is off: `loss.self_critical`
turns it on.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.comparators._captioning import (
    AdditiveAttention,
    Captioner,
    CaptioningLoss,
    CaptioningModel,
    Memory,
    RecurrentDecoder,
)
from skipmodal.config import Recipe, Size, loss_term
from skipmodal.data.batches import Batch
from skipmodal.errors import UserError
from skipmodal.image import ALL_LITES, ImageConfig
from skipmodal.models.decoders.written import Written
from skipmodal.models.encoders.image import ImageFeatures
from skipmodal.models.latent import Latent
from skipmodal.models.layers import lstm_step, mean
from skipmodal.models.search import State
from skipmodal.text import SYMBOLS
from skipmodal.tokenizer import Tokenizer

Steps = Annotated[int, Field(ge=1, le=64)]


class RfnetModel(CaptioningModel):
    """Its sizes."""

    kind: Literal["rfnet"] = "rfnet"
    attention_width: Size = Field(default=256, description="of the layers that score a place or a thought")
    steps_1: Steps = Field(default=6, description="thoughts of each network, stage I")
    steps_2: Steps = Field(default=6, description="thoughts of all together, stage II")


class RfnetLoss(CaptioningLoss):
    """Its losses."""

    discriminative: float = loss_term(
        0.2, "(16) margin of the words of a picture's captions over others, as each stage scores them", "image-text",
        False,
    )  # fmt: skip


class RfnetRecipe(Recipe):
    """A training of it."""

    model: RfnetModel = RfnetModel()
    loss: RfnetLoss = RfnetLoss()


class Fusion(ImageFeatures):
    """The grids of several networks -> thoughts.

    Raises UserError where the features are of one network alone.
    """

    def __init__(self, config: RfnetModel, image: ImageConfig) -> None:
        if image.encoder != ALL_LITES:
            raise UserError(f"model.kind rfnet: fuses several networks; prep --encoder {ALL_LITES}")
        super().__init__(image, ())
        width, count, score = config.width, self.networks, config.attention_width
        self.steps = config.steps_1, config.steps_2
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.ModuleList(nn.Linear(self.width, width) for _ in range(count))
        self.start = nn.ModuleList(nn.Linear(self.width, 2 * width) for _ in range(count))
        self.look = nn.ModuleList(AdditiveAttention(count * width, width, score) for _ in range(count))
        self.rnns = nn.ModuleList(nn.LSTM((count + 1) * width, width, batch_first=True) for _ in range(count))
        self.review = nn.ModuleList(AdditiveAttention(width, width, score) for _ in range(count))
        self.rnn = nn.LSTM(count * width, width, batch_first=True)

    def forward(self, features: Tensor) -> tuple[Latent, list[Tensor]]:
        """(B, networks * places, its width) -> a latent of the last stage's thoughts (B, steps_2, width), whose z are
        the LSTM's cells; and the thoughts of all LSTMs, (B, steps, width) each.
        """
        grids = features.unflatten(1, (self.networks, -1)).unbind(1)
        projected = [self.dropout(F.relu(project(grid))) for project, grid in zip(self.project, grids, strict=True)]
        places = [self._memory(look, each) for look, each in zip(self.look, projected, strict=True)]
        states = []
        for start, grid in zip(self.start, grids, strict=True):
            h, c = torch.tanh(start(grid.mean(1)))[None].chunk(2, 2)
            states.append((h.contiguous(), c.contiguous()))
        thoughts: list[list[Tensor]] = [[] for _ in grids]
        for _ in range(self.steps[0]):
            heard = torch.cat([h[0] for h, _ in states], 1)  # what all thought last
            for m, rnn in enumerate(self.rnns):
                seen, _ = self.look[m](heard, places[m])
                assert isinstance(rnn, nn.LSTM)
                y, states[m] = lstm_step(rnn, torch.cat([heard, seen], 1)[:, None], states[m])
                thoughts[m].append(y[:, 0])
        parts = [torch.stack(each, 1) for each in thoughts]
        memories = [self._memory(review, part) for review, part in zip(self.review, parts, strict=True)]
        state = torch.stack([h for h, _ in states]).mean(0), torch.stack([c for _, c in states]).mean(0)
        fused, cells = [], []
        for _ in range(self.steps[1]):
            seen = torch.cat([self.review[m](state[0][0], memory)[0] for m, memory in enumerate(memories)], 1)
            _, state = lstm_step(self.rnn, seen[:, None], state)
            fused.append(state[0][0])
            cells.append(state[1][0])
        u, z = torch.stack(fused, 1), torch.stack(cells, 1)
        lengths = torch.full((len(u),), u.shape[1], device=u.device)
        return Latent(z, u, lengths, seen=self.mean(features)), [*parts, u]

    def _memory(self, attention: nn.Module, values: Tensor) -> Memory:
        assert isinstance(attention, AdditiveAttention)
        return attention.remember(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))


class RfnetDecoder(RecurrentDecoder):
    """An LSTM that goes on from the last thought and attends to all of the last stage."""

    def __init__(self, config: RfnetModel, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer, config.width, config.dropout)
        self.attention = AdditiveAttention(self.width, self.width, config.attention_width)
        self.rnn = nn.LSTM(2 * self.width, self.width, batch_first=True)

    def remember(self, latent: Latent) -> Memory:
        return self.attention.remember(latent.u, latent.mask)

    def first(self, latent: Latent) -> State:
        return latent.u[None, :, -1], latent.z[None, :, -1]

    def step(self, x: Tensor, memory: Memory, state: State) -> tuple[Tensor, Tensor, State]:
        seen, weights = self.attention(state[0][0], memory)
        h, after = lstm_step(self.rnn, torch.cat([x, seen], 1)[:, None], (state[0], state[1]))
        return h[:, 0], weights, after


class RecurrentFusion(Captioner):
    """Grids of three networks -> two stages of fusion -> attention LSTM -> caption."""

    def __init__(self, config: RfnetModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.image_encoder = Fusion(config, image)
        self.text_decoder = RfnetDecoder(config, tokenizer)
        self.words = nn.ModuleList(
            nn.Linear(config.width, len(tokenizer)) for _ in range(self.image_encoder.networks + 1)
        )

    def look(self, pictures: Tensor) -> tuple[Latent, tuple[Tensor, ...]]:
        latent, thoughts = self.image_encoder(self.image_encoder.features(pictures))
        return latent, tuple(thoughts)

    def own_losses(
        self, image: Latent, more: tuple[Tensor, ...], written: Written, batch: Batch, wanted: Collection[str]
    ) -> dict[str, Tensor]:
        """A word's score in a stage is the highest that one of its thoughts gives it."""
        if "discriminative" not in wanted:
            return {}
        written_words = torch.zeros(len(image.u), len(self.tokenizer), dtype=torch.bool, device=image.u.device)
        owners = batch.owners[:, None].expand_as(written.target)
        written_words[owners, written.target] = True
        written_words[:, : len(SYMBOLS)] = False
        numbers = torch.arange(written_words.shape[1], device=written_words.device)
        named = torch.where(written_words, numbers, -1).sort(1, descending=True)[0]  # -1 ends a list
        losses = [
            F.multilabel_margin_loss(score(thoughts).amax(1).float(), named, reduction="none")
            for score, thoughts in zip(self.words, more, strict=True)
        ]
        return {"discriminative": mean(torch.stack(losses))}


RECIPE, SYSTEM = RfnetRecipe, RecurrentFusion
