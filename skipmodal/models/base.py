"""What training, checkpoints and translation ask of a system, whichever it is, and what a training pass gives."""

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from skipmodal import text
from skipmodal.config import AnyModel
from skipmodal.data.batches import Batch
from skipmodal.errors import UserError
from skipmodal.modality import MODALITIES, Modality
from skipmodal.models.adversary import Adversary
from skipmodal.models.decoders.attending import AttendingDecoder
from skipmodal.models.decoders.letters import Letters
from skipmodal.models.decoders.speech import Imitation, Speech
from skipmodal.models.decoders.text import TextDecoder
from skipmodal.models.decoders.written import Written
from skipmodal.models.encoders.image import ImageEncoder, ImageFeatures
from skipmodal.models.latent import Latent
from skipmodal.models.search import Sentences
from skipmodal.tokenizer import Tokenizer


@dataclass
class Outputs:
    """Everything the losses need; None or absent where the batch or the wanted losses lack it."""

    image: Latent | None = None  # of A's pictures
    text_a: Latent | None = None  # of the first text of each picture
    text_b: Latent | None = None
    speech: Latent | None = None  # of B's recordings
    written: dict[str, list[Written]] = field(default_factory=dict)  # by the name of the loss
    pictures: Tensor | None = None  # (Na, 3, S, S) from u_txt
    spoken: Speech | None = None  # from u_txt
    game: tuple[Tensor, Tensor] | None = None  # L_C and L_T
    letters: list[Letters] = field(default_factory=list)
    imitation: Imitation | None = None  # of captions, from the states of their pictures
    own: dict[str, Tensor] = field(default_factory=dict)  # losses that the system computes itself

    @property
    def pairs(self) -> list[tuple[Latent, Latent]]:
        """Latents of the same items in two modalities: pictures and texts of A, texts and recordings of B."""
        both = ((self.image, self.text_a), (self.speech, self.text_b))
        return [(other, text) for other, text in both if other is not None and text is not None]


class System(nn.Module):
    """A trainable system that translates from some modalities to others; one that can't raises UserError."""

    reads: frozenset[Modality] = frozenset(MODALITIES)  # what it has encoders for
    writes: frozenset[Modality] = frozenset(MODALITIES)
    d_k: int | None = None  # width of u, where items of all modalities can be compared
    frames_a_step = 1  # of the speech decoder
    attends = False  # whether `attention` says what a sentence was written from
    voice: tuple[str, ...] = ()  # parts that make what the vocoder hears
    critics: tuple[str, ...] = ()  # parts that learn against the others: their gradients are clipped apart
    # Those of its parts that losses and evaluations ask for, where it has them:
    adversary: Adversary
    image_encoder: ImageEncoder | ImageFeatures
    text_decoder: TextDecoder | AttendingDecoder

    def __init__(self, config: AnyModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.kind, self.tokenizer = config.kind, tokenizer

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        """One training pass: what the losses named in `wanted` need of the batch, and no more."""
        raise NotImplementedError

    def load_published(self) -> None:
        """Gives frozen parts their published weights. Raises UserError where they are not installed."""

    def encode_image(self, pictures: Tensor) -> Latent:
        """Pixels (B, 3, S, S) in [-1, 1], or cached features (B, N, width)."""
        raise self._refusal("reads no images")

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Latent:
        """Characters ids (B, L), lengths (B,)."""
        raise self._refusal("reads no text")

    def encode_speech(self, mel: Tensor, lengths: Tensor) -> Latent:
        """mel (B, frames, n_mels), lengths (B,)."""
        raise self._refusal("hears no speech")

    def generate_text(self, latent: Latent, max_length: int, beam: int = 1) -> Sentences:
        """The most likely sentence of each item, in characters (B, L)."""
        raise self._refusal("writes no text")

    def generate_speech(
        self, latent: Latent, max_frames: int, max_length: int, beam: int = 1
    ) -> tuple[Speech, Sentences | None]:
        """Speech, and the sentence behind it where the system writes one first."""
        raise self._refusal("does not speak")

    def generate_image(self, latent: Latent) -> Tensor:
        """RGB (B, 3, size, size) in [-1, 1]."""
        raise self._refusal("draws no images")

    def attention(self, latent: Latent, ids: Tensor) -> Tensor | None:
        """What it attended to at each character of sentences ids (B, L), (B, L, N), where it attends."""
        return None

    def addressed(self, *latents: Latent) -> Tensor | None:
        """How much each item's z draws on each basis vector of a memory, (heads, B, n_k), where there is one."""
        return None

    def tokenize(self, ids: Tensor) -> Tensor:
        """Characters (B, L) -> tokens (B, S), both padded; every sentence gets an end."""
        rows = [torch.tensor(self.tokenizer.encode(text.decode(row))) for row in ids.tolist()]
        return pad_sequence(rows, batch_first=True, padding_value=text.PAD).to(ids.device)

    def _refusal(self, what: str) -> UserError:
        return UserError(f"a model of kind {self.kind} {what}")
