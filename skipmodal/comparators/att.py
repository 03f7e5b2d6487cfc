"""Image captioning with semantic attention: image to text (You et al., CVPR 2016; table 2).

As there: the LSTM sees the picture once, at first, and then attends to words that a picture probably shows, its
attributes, in what it reads and in what it writes. Not as there: the attributes are the likeliest words of the frozen
network's own classifier that captions use too, instead of those of detectors trained on the captions; the output has
weights of its own, not the embedding's; (11) has a weight, 0.1, where the paper has none.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.comparators._captioning import Captioner, CaptioningLoss, CaptioningModel, Memory, RecurrentDecoder
from skipmodal.config import Recipe, loss_term
from skipmodal.data.batches import Batch
from skipmodal.errors import UserError
from skipmodal.features import kinds
from skipmodal.image import ImageConfig
from skipmodal.models.decoders.written import Written
from skipmodal.models.encoders.image import ImageFeatures
from skipmodal.models.latent import Latent, Suggested
from skipmodal.models.layers import lstm_step, ratio
from skipmodal.models.search import State
from skipmodal.text import PAD
from skipmodal.tokenizer import Tokenizer


class AttModel(CaptioningModel):
    """Its sizes."""

    kind: Literal["att"] = "att"
    attributes: Annotated[int, Field(ge=1, le=64)] = Field(default=10, description="words of a picture")


class AttLoss(CaptioningLoss):
    """Its losses."""

    spread: float = loss_term(
        0.1, "(11) attention over attributes: all in a sentence, few in a step; a character", "image-text", False
    )


class AttRecipe(Recipe):
    """A training of it."""

    model: AttModel = AttModel()
    loss: AttLoss = AttLoss()


class AttributeEncoder(ImageFeatures):
    """The mean of a picture's features, and the likeliest words of their network's classifier.

    Raises UserError where the features are of no network with a classifier, or the vocabulary has too few of its words.
    """

    members: Tensor  # (1000, W): which words a kind has
    numbers: Tensor  # (W,): the token of each

    def __init__(self, config: AttModel, image: ImageConfig, tokenizer: Tokenizer) -> None:
        if image.encoder in ("none", "regions"):
            raise UserError("model.kind att: the features are of no network that names things; prep --encoder")
        super().__init__(image, ())
        known = set(tokenizer.words)
        words = [word for word in kinds.words() if f" {word}" in known]
        if len(words) < config.attributes:
            found = f"the vocabulary has {len(words)} words that the image encoder's classifier knows"
            raise UserError(f"model.attributes={config.attributes}: {found}; raise model.words")
        self.attributes, column = config.attributes, {word: number for number, word in enumerate(words)}
        self.classifier = nn.Linear(self.width, kinds.COUNT).requires_grad_(False)
        members = torch.zeros(kinds.COUNT, len(words), device="cpu")
        for kind, of_one in enumerate(kinds.kinds()):
            members[kind, [column[word] for word in of_one if word in column]] = 1.0
        self.register_buffer("members", members, persistent=False)
        numbers = torch.tensor([tokenizer.number(f" {word}") for word in words], device="cpu")
        self.register_buffer("numbers", numbers, persistent=False)

    def load_published(self, classifier: nn.Linear | None = None) -> None:
        super().load_published(self.classifier)

    def forward(self, features: Tensor) -> Latent:
        """(B, N, width) -> one vector an item, (B, 1, width), and its attributes."""
        mean = self.mean(features)
        likely, which = (self.classifier(self.named(features).mean(1)).softmax(1) @ self.members).topk(self.attributes)
        lengths = torch.ones(len(mean), dtype=torch.long, device=mean.device)
        tokens = torch.stack([self.numbers[which], torch.full_like(which, PAD)], 2)
        return Latent(mean[:, None], mean[:, None], lengths, suggested=Suggested(tokens, likely), seen=mean)


class AttDecoder(RecurrentDecoder):
    """Token and attributes -> LSTM -> state and attributes -> the next token (5 to 8)."""

    def __init__(self, config: AttModel, features: int, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer, config.width, config.dropout)
        width = config.width
        self.picture = nn.Linear(features, width)
        self.score_in, self.score_out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.gain_in, self.gain_out = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.input, self.read = nn.Linear(width, width), nn.Linear(width, width)
        self.rnn = nn.LSTM(width, width, batch_first=True)

    def remember(self, latent: Latent) -> Memory:
        assert latent.suggested is not None
        return (self.embedded(latent.suggested.tokens[:, :, 0]),)

    def first(self, latent: Latent) -> State:
        nothing = latent.u.new_zeros(1, len(latent.u), self.width)
        return lstm_step(self.rnn, self.picture(latent.u), (nothing, nothing))[1]

    def step(self, x: Tensor, memory: Memory, state: State) -> tuple[Tensor, Tensor, State]:
        """The weights are those of what it reads, then those of what it writes: (B, 2 * attributes)."""
        (words,) = memory
        # Unscaled, embeddings of N(0, 1) would put all weight on one attribute from the start.
        alpha = (words @ self.score_in(x)[:, :, None] * self.width**-0.5)[:, :, 0].softmax(1)
        x = self.input(x + self.gain_in * (alpha[:, None] @ words)[:, 0])
        h, state = lstm_step(self.rnn, x[:, None], (state[0], state[1]))
        squashed = torch.tanh(words)
        beta = (squashed @ self.score_out(h[:, 0])[:, :, None])[:, :, 0].softmax(1)
        y = self.read(h[:, 0] + self.gain_out * (beta[:, None] @ squashed)[:, 0])
        return y, torch.cat([alpha, beta], 1), state


class SemanticAttention(Captioner):
    """Picture and attributes -> LSTM that attends to the attributes -> caption."""

    def __init__(self, config: AttModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.image_encoder = AttributeEncoder(config, image, tokenizer)
        self.text_decoder = AttDecoder(config, self.image_encoder.width, tokenizer)

    def own_losses(
        self, image: Latent, more: tuple[Tensor, ...], written: Written, batch: Batch, wanted: Collection[str]
    ) -> dict[str, Tensor]:
        """The norm of what each attribute is given in all, p = 2, and what each step gives to many, q = 1/2."""
        if "spread" not in wanted or written.attention is None:
            return {}
        valid = (written.target != PAD)[:, :, None]
        total = written.spans.new_zeros((), dtype=torch.float)
        for weights in (written.attention[:, 0] * valid).chunk(2, 2):
            total = total + weights.sum(1).square().sum(1).sqrt().sum()
            total = total + (weights.clamp(min=1e-6).sqrt().sum(2).square() * valid[:, :, 0]).sum()
        return {"spread": ratio(total, written.spans.sum())}


RECIPE, SYSTEM = AttRecipe, SemanticAttention
