"""The whole model: three encoders, one bottleneck, three decoders (paper, figure 2)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.config import ModelConfig
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.bottleneck import ModalityClassifier, ModalityTransformer, build_memory
from skipmodal.models.decoders import ImageDecoder, Speech, SpeechDecoder, TextDecoder
from skipmodal.models.encoders import ImageEncoder, SpeechEncoder, TextEncoder
from skipmodal.models.layers import reverse_gradient
from skipmodal.models.search import Sentences

MODALITIES = ("image", "text", "speech")  # the classifier's three classes, in order


class Written(NamedTuple):
    """What D_txt gives under teacher forcing."""

    logits: Tensor  # (B, L, 66), or (B, S, units)
    target: Tensor  # (B, L), padded: what it should have given


@dataclass
class Outputs:
    """Everything the losses need; sizes as in Batch, None where the batch lacks one half."""

    modality_logits: Tensor  # (vectors or tokens, 3) of images, texts of A, texts of B, speech, in this order
    modality_counts: list[int]  # how many of each
    image: Any = None  # the latent that the text decoder gets of the images
    text_from_image: Written | None = None  # Na, from u_img
    text_from_speech: Written | None = None  # Nb, from u_spch
    text_from_text: Written | None = None  # the last items, from u_txt
    images: Tensor | None = None  # (Na, 3, S, S) from u_txt
    speech: Speech | None = None  # from u_txt
    # u of A's images and texts, where both are encoded, then of B's texts and speech: (Na or Nb, d_k) twice.
    pairs: tuple[tuple[Tensor, Tensor], ...] = ()
    # What `guided_attention` takes, of D_txt over speech where it attends.
    listening: tuple[Tensor, Tensor, Tensor, Tensor] | None = None


class SkipModal(nn.Module):
    """Translates between image, text and speech through one memory."""

    def __init__(self, config: ModelConfig, audio: AudioConfig, image: ImageConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.text_encoder = TextEncoder(config)
        self.speech_encoder = SpeechEncoder(config, audio.n_mels)
        self.transformer = ModalityTransformer(config)
        self.classifier = ModalityClassifier(config)
        self.memory = build_memory(config)
        self.image_decoder = ImageDecoder(config, image.size)
        self.text_decoder = TextDecoder(config)
        self.speech_decoder = SpeechDecoder(config, audio.n_mels, audio.n_linear)

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> u (B, d_k)."""
        return self.memory(self.transformer(self.image_encoder(images)))  # type: ignore[no-any-return]

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (B, L), lengths (B,) -> u (B, d_k)."""
        return self.memory(self.transformer(self.text_encoder(ids, lengths)))  # type: ignore[no-any-return]

    def encode_speech(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """mel (B, T, n_mels), lengths (B,) -> u (B, d_k)."""
        return self.memory(self.transformer(self.speech_encoder(mel, lengths)))  # type: ignore[no-any-return]

    def generate_text(self, u: Tensor, max_length: int, beam: int = 1) -> Sentences:
        """u (B, d_k) -> the most likely sentence of each item."""
        return self.text_decoder.generate(u, max_length, beam)

    def generate_speech(
        self, u: Tensor, max_frames: int, max_length: int = 0, beam: int = 1
    ) -> tuple[Speech, Sentences | None]:
        """u (B, d_k) -> speech; no sentence lies behind it here, and the last two arguments have no effect."""
        return self.speech_decoder.generate(u, max_frames), None

    def generate_image(self, u: Tensor) -> Tensor:
        """u (B, d_k) -> RGB (B, 3, size, size) in [-1, 1]."""
        return self.image_decoder(u)  # type: ignore[no-any-return]

    def forward(
        self, batch: Batch, adversary_scale: float = 1.0, text_from_text: bool = False, image_from_text: bool = True
    ) -> Outputs:
        """One training pass. All vectors go through T together, so its batch norm has one statistic for all."""
        n_a, n_b = len(batch.images), len(batch.mel)
        e = [self.text_encoder(batch.ids, batch.lengths)]
        if n_a:
            e.insert(0, self.image_encoder(batch.images))
        if n_b:
            e.append(self.speech_encoder(batch.mel, batch.mel_lengths))
        z = self.transformer(torch.cat(e))
        counts = [n_a, n_a, n_b, n_b]
        u_image, u_text_a, u_text_b, u_speech = self.memory(z).split(counts)
        z_image, z_text, z_speech = z.split([n_a, n_a + n_b, n_b])
        # L_T has terms for image and speech only, so C sees text without a gradient back. The min-max game is played
        # by reversing C's gradient, as the paper says: z leaves its own class, where L_T itself would name text.
        logits = self.classifier(torch.cat([
            reverse_gradient(z_image, adversary_scale), z_text.detach(), reverse_gradient(z_speech, adversary_scale),
        ]))  # fmt: skip
        u_text = torch.cat([u_text_a, u_text_b])
        u_other = torch.cat([u_image, u_speech])
        text_logits = self.text_decoder(
            torch.cat([u_other, u_text]) if text_from_text else u_other,
            batch.ids.repeat(2, 1) if text_from_text else batch.ids,
        )
        return Outputs(
            modality_logits=logits,
            modality_counts=counts,
            image=u_image,
            text_from_image=Written(text_logits[:n_a], batch.ids[:n_a]) if n_a else None,
            text_from_speech=Written(text_logits[n_a : n_a + n_b], batch.ids[n_a:]) if n_b else None,
            text_from_text=Written(text_logits[n_a + n_b :], batch.ids) if text_from_text else None,
            images=self.image_decoder(u_text_a) if n_a and image_from_text else None,
            pairs=((u_image, u_text_a), (u_text_b, u_speech)),
            speech=self.speech_decoder(u_text_b, batch.mel, batch.mel_lengths, batch.linear_part) if n_b else None,
        )
