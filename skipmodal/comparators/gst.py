"""GST: Tacotron with global style tokens, which learn how a voice may speak (Wang et al., ICML 2018; table 3).

As there, convolutions and a GRU sum up the target's mel, attention of several heads compares that with a bank of
learned tokens, and what it finds, the style, is added to every state of Tacotron's text encoder. In synthesis there is
no target: the style is that of the weights that the tokens had in training on average, a running mean. Left out:
phonemes; styles by choice, of one token or of another recording; its LSTMs and dilated convolutions, in whose place
Tacotron's GRUs and CBHG stay. r is 5 for 2, and the convolutions have half of the channels.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.comparators._speaking import SpeakingLoss
from skipmodal.comparators.tacotron import Tacotron, TacotronSizes
from skipmodal.config import Recipe, Size
from skipmodal.image import ImageConfig
from skipmodal.models.decoders.speech import Part, Speech
from skipmodal.models.encoders.speech import Convolutions
from skipmodal.models.latent import Latent
from skipmodal.models.layers import sum_over_processes
from skipmodal.models.search import Sentences
from skipmodal.tokenizer import Tokenizer

MOMENTUM = 0.01  # of the running mean


class GSTModel(TacotronSizes):
    """Its sizes."""

    kind: Literal["gst"] = "gst"
    reference_channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = Field(
        default=(16, 16, 32, 32, 64, 64), description="of the convolutions over the target's mel, each of stride 2"
    )
    reference_gru: Size = 128
    tokens: Size = Field(default=10, description="of style")
    heads: Size = Field(default=4, description="of the attention over them; they divide 2 x text_channels")

    @model_validator(mode="after")
    def _heads_divide(self) -> "GSTModel":
        if 2 * self.text_channels % self.heads:
            raise ValueError(f"2 x text_channels ({self.text_channels}) must be a multiple of heads ({self.heads})")
        return self


class GSTRecipe(Recipe):
    """A training of it."""

    model: GSTModel = GSTModel()
    loss: SpeakingLoss = SpeakingLoss()


class ReferenceEncoder(nn.Module):
    """Mel as an image -> [Conv2D 3x3 stride 2 -> BN -> ReLU] x n -> GRU -> its state at the end."""

    def __init__(self, channels: tuple[int, ...], units: int, n_mels: int) -> None:
        super().__init__()
        self.convolve = Convolutions(channels, n_mels, 3, (2,) * len(channels))
        self.gru = nn.GRU(self.convolve.width, units, batch_first=True)

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """mel (B, T, n_mels), lengths (B,) -> (B, units)."""
        x, lengths = self.convolve(mel, lengths)
        states, _ = self.gru(x)
        return states[torch.arange(len(states), device=states.device), lengths - 1]  # type: ignore[no-any-return]


class StyleTokens(nn.Module):
    """Attention of a reference over a bank of tokens, and how much each was used in training."""

    usage: Tensor  # (heads, tokens), sums to one for each head
    seen: Tensor  # batches

    def __init__(self, reference: int, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.bank = nn.Parameter(torch.randn(tokens, width // heads) * 0.5)
        self.query = nn.Linear(reference, width)
        self.key, self.value = nn.Linear(width // heads, width), nn.Linear(width // heads, width)
        self.register_buffer("usage", torch.full((heads, tokens), 1 / tokens))
        self.register_buffer("seen", torch.tensor(0))

    def weights(self, reference: Tensor) -> Tensor:
        """(B, reference) -> weights of the tokens (B, heads, tokens), which `usage` follows in training."""
        query = self.query(reference).unflatten(1, (self.heads, -1))
        keys = self._split(self.key)
        weights = torch.einsum("bhw,htw->bht", query, keys).div(keys.shape[2] ** 0.5).softmax(2)
        if self.training:
            with torch.no_grad():
                total = sum_over_processes(weights.float().sum(0))
                self.seen += 1
                self.usage.lerp_(total / total.sum(1, keepdim=True), max(MOMENTUM, 1 / int(self.seen)))
        return weights

    def style(self, weights: Tensor) -> Tensor:
        """Weights (B, heads, tokens) -> (B, width)."""
        return torch.einsum("bht,htw->bhw", weights, self._split(self.value)).flatten(1)

    def _split(self, project: nn.Module) -> Tensor:
        projected: Tensor = project(torch.tanh(self.bank))
        return projected.unflatten(1, (self.heads, -1)).transpose(0, 1)


class GST(Tacotron):
    """Tacotron that is told the style of its target."""

    def __init__(self, config: GSTModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, audio, image, tokenizer)
        self.reference = ReferenceEncoder(config.reference_channels, config.reference_gru, audio.n_mels)
        self.styles = StyleTokens(config.reference_gru, 2 * config.text_channels, config.tokens, config.heads)

    def follow(self, latent: Latent, mel: Tensor, lengths: Tensor, part: Part | None) -> tuple[Speech, Tensor]:
        weights = self.styles.weights(self.reference(mel, lengths))
        return super().follow(self._styled(latent, weights), mel, lengths, part)

    def generate_speech(
        self, latent: Latent, max_frames: int, max_length: int, beam: int = 1
    ) -> tuple[Speech, Sentences | None]:
        """In the style of the training on average."""
        usage = self.styles.usage.expand(len(latent.u), -1, -1)
        return super().generate_speech(self._styled(latent, usage), max_frames, max_length, beam)

    def _styled(self, latent: Latent, weights: Tensor) -> Latent:
        u = (latent.u + self.styles.style(weights)[:, None]) * latent.mask[:, :, None]
        return Latent(latent.z, u, latent.lengths, latent.rate, latent.ids)


RECIPE, SYSTEM = GSTRecipe, GST
