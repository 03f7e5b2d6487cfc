"""What systems that describe pictures share: places of a picture as vectors, and a recurrent decoder over them."""

from collections.abc import Callable, Collection
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from skipmodal.config import Dropout, Losses, Size, WordModel, loss_term
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.base import Outputs, System
from skipmodal.models.decoders.attending import AttendingDecoder
from skipmodal.models.decoders.written import Written
from skipmodal.models.encoders.image import ImageFeatures
from skipmodal.models.latent import Latent
from skipmodal.models.layers import length_mask, trim
from skipmodal.models.search import Sentences, State

Memory = tuple[Tensor, ...]  # what each step of a decoder attends to, a row an item


class CaptioningModel(WordModel):
    """Sizes that all of them have."""

    features: ClassVar[bool] = True

    width: Size = Field(default=512, description="of the LSTMs and of the embeddings")
    dropout: Dropout = 0.3


class PlacesModel(CaptioningModel):
    """Sizes of those that attend to the places of a picture, and can learn them from its pixels."""

    attention_width: Size = Field(default=256, description="of the layer that scores a place")
    image_channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=4)] = Field(
        default=(64, 128, 256, 512), description="of trained convolutions, where prep cached no features"
    )


class CaptioningLoss(Losses):
    """Losses that all of them have."""

    text_from_image: float = loss_term(1.0, "cross-entropy of the caption, a character", "image-text")
    self_critical: float = loss_term(
        0.0, "CIDEr-D of captions that the model draws (Rennie et al.)", "image-text", False
    )


class PlaceEncoder(ImageFeatures):
    """Features of each place -> FC -> ReLU."""

    def __init__(self, image: ImageConfig, channels: tuple[int, ...], width: int, dropout: float) -> None:
        super().__init__(image, channels)
        self.project = nn.Sequential(nn.Linear(self.width, width), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, features: Tensor) -> Latent:
        """What `features` gave, (B, N, its width) -> vectors of the places (B, N, width), zeros in the padding."""
        lengths = self.lengths(features)
        u = self.project(features) * length_mask(lengths, features.shape[1])[:, :, None]
        return Latent(u, u, lengths).with_source(seen=self.mean(features))


class AdditiveAttention(nn.Module):
    """Scores of places by a layer of tanh (Bahdanau et al., ICLR 2015)."""

    def __init__(self, query: int, memory: int, width: int) -> None:
        super().__init__()
        self.query, self.key, self.score = nn.Linear(query, width), nn.Linear(memory, width), nn.Linear(width, 1)

    def remember(self, values: Tensor, mask: Tensor) -> Memory:
        """values (B, N, memory), mask (B, N), true where valid -> what `forward` takes."""
        return values, self.key(values), mask

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """query (B, width of it) -> weighted mean (B, memory), weights (B, N)."""
        values, keys, mask = memory
        scores = self.score(torch.tanh(keys + self.query(query)[:, None]))[:, :, 0]
        weights = scores.masked_fill(~mask, -torch.inf).softmax(1)
        return (weights[:, None] @ values)[:, 0], weights


class RecurrentDecoder(AttendingDecoder):
    """A decoder whose attention depends on its last state, so that it takes one token after the other."""

    def remember(self, latent: Latent) -> Memory:
        """What is computed once an item: tensors with a row each."""
        raise NotImplementedError

    def first(self, latent: Latent) -> State:
        """Before the first token: tensors (1, B, width)."""
        raise NotImplementedError

    def step(self, x: Tensor, memory: Memory, state: State) -> tuple[Tensor, Tensor, State]:
        """An embedded token (B, width) -> the state that the next is written from (B, width), weights (B, N)."""
        raise NotImplementedError

    def states(self, latent: Latent, history: Tensor, starts: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor]:
        memory = self.remember(latent)
        state = self.first(latent)
        if owners is not None:
            memory, state = tuple(part[owners] for part in memory), tuple(part[:, owners] for part in state)
        states, attention = [], []
        for x in self.dropout(self.embedded(history)).unbind(1):
            y, weights, state = self.step(x, memory, state)
            states.append(y)
            attention.append(weights)
        return torch.stack(states, 1), torch.stack(attention, 1)[:, None]

    def begin(self, latent: Latent, beam: int = 1) -> tuple[Callable[..., tuple[Tensor, State]], State]:
        memory = self.remember(latent)
        repeated = tuple(part.repeat_interleave(beam, 0) for part in memory)

        def advance(tokens: Tensor, start: Tensor, state: State) -> tuple[Tensor, State]:
            y, _, state = self.step(self.embedded(tokens)[:, 0], repeated, state)
            return y[:, None], state

        return advance, self.first(latent)


class Captioner(System):
    """Pictures -> captions. A subclass makes `image_encoder` and `text_decoder`."""

    reads, writes = frozenset({"image"}), frozenset({"text"})
    image_encoder: ImageFeatures
    text_decoder: RecurrentDecoder

    def load_published(self) -> None:
        self.image_encoder.load_published()

    def encode_image(self, pictures: Tensor) -> Latent:
        return self.look(pictures)[0]

    def look(self, pictures: Tensor) -> tuple[Latent, tuple[Tensor, ...]]:
        """What `encode_image` gives, and what else the system's own losses need."""
        return self.image_encoder(self.image_encoder.features(pictures)), ()

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        outputs = Outputs()
        if len(batch.images):
            outputs.image, more = self.look(batch.pictures)
            tokens = trim(batch.tokens[: len(batch.owners)])
            written = self.text_decoder(outputs.image, tokens, batch.owners)
            outputs.written["text_from_image"] = [written]
            outputs.own = self.own_losses(outputs.image, more, written, batch, wanted)
        return outputs

    def own_losses(
        self, image: Latent, more: tuple[Tensor, ...], written: Written, batch: Batch, wanted: Collection[str]
    ) -> dict[str, Tensor]:
        """Losses that only this system has, by their names in the recipe; those that are wanted."""
        return {}

    def generate_text(self, latent: Latent, max_length: int, beam: int = 1) -> Sentences:
        return self.text_decoder.generate(latent, max_length, beam)
