"""CycleGAN between unpaired pictures of A and recordings of B (Zhu et al., ICCV 2017; table 1).

The generators are made of our encoders and decoders: E_img and D_spch one way, E_spch and D_img the other. Text is not
used. The identity loss, which asks a generator to leave its own target alone, cannot be asked across modalities: here
each modality has to come back through its own encoder and decoder. What a picture sounds like has the length of the
recording beside it, since nothing says how long it should be.

Not as there: the critics are smaller (PatchGAN of three layers), their loss is not halved, and they and the generators
step together, by one optimiser. The generators keep our batch norm, where the original has instance norm: its running
statistics are those of real items, made ones leave them alone. Ours: the stop output, and the post-net's start from the
interpolated mel spectrogram, as from nothing a CBHG needs tens of thousands of steps.
"""

from collections.abc import Collection
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from skipmodal.audio import AudioConfig
from skipmodal.comparators._critics import WINDOW, Critic, Pool, running_statistics_kept, windows
from skipmodal.config import Losses, Recipe, Size, StepwiseModel, loss_term
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.base import Outputs, System
from skipmodal.models.decoders.image import ImageDecoder
from skipmodal.models.decoders.speech import PostNet, Speech, SpeechDecoder, stop_loss
from skipmodal.models.encoders.image import ImageEncoder
from skipmodal.models.encoders.speech import SpeechEncoder
from skipmodal.models.latent import Encoded, Latent
from skipmodal.models.layers import length_mask, mean
from skipmodal.models.search import Sentences
from skipmodal.tokenizer import Tokenizer


class CycleGANModel(StepwiseModel):
    """Its sizes."""

    kind: Literal["cyclegan"] = "cyclegan"
    d_k: Size = Field(default=256, description="width of what the decoders get")
    critics: Size = Field(default=32, description="channels of the critics' first layer")


class CycleGANLoss(Losses):
    """Its losses; the critics' own have no weight."""

    adversary_image: float = loss_term(1.0, "least squares: D_img(e_spch) passes for a picture", "both", False)
    adversary_speech: float = loss_term(1.0, "least squares: D_spch(e_img) passes for a recording", "both", False)
    cycle_image: float = loss_term(10.0, "a picture, spoken and drawn again", "both")
    cycle_speech: float = loss_term(10.0, "a recording, drawn and spoken again, mel", "both")
    image: float = loss_term(5.0, "identity: a picture through its own encoder and decoder", "image-text")
    mel: float = loss_term(5.0, "identity: a recording through its own encoder and decoder", "text-speech")
    linear: float = loss_term(5.0, "the same of the post-net's linear magnitudes", "text-speech")
    stop: float = loss_term(1.0, "binary cross-entropy of D_spch's stop output", "text-speech")
    stop_image: float = loss_term(1.0, "the same of pictures, at the length of the recording beside", "both", False)


class CycleGANRecipe(Recipe):
    """A training of it."""

    model: CycleGANModel = CycleGANModel()
    loss: CycleGANLoss = CycleGANLoss()

    @model_validator(mode="after")
    def _both_at_once(self) -> "CycleGANRecipe":
        if self.data.sampling != "mix":
            raise ValueError("data.sampling must be mix: a batch needs pictures and recordings")
        return self


class CycleGAN(System):
    """Pictures and speech, each from the other."""

    reads, writes = frozenset({"image", "speech"}), frozenset({"image", "speech"})
    critics = ("image_critic", "speech_critic")

    def __init__(self, config: CycleGANModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.frames_a_step = config.frames_per_step
        self.image_encoder, self.image_decoder = ImageEncoder(config), ImageDecoder(config, image.size)
        self.speech_encoder, self.speech_decoder = SpeechEncoder(config, audio.n_mels), SpeechDecoder(config, audio)
        self.speech_decoder.postnet = PostNet(config, audio, envelope=True)
        self.from_image, self.from_speech = (nn.Linear(config.embedding, config.d_k) for _ in range(2))
        self.image_critic, self.speech_critic = Critic(3, config.critics), Critic(1, config.critics)
        self.image_pool, self.speech_pool = Pool(3, image.size, image.size), Pool(1, WINDOW, audio.n_mels)

    def encode_image(self, pictures: Tensor) -> Latent:
        """Pixels (B, 3, S, S) in [-1, 1]."""
        return _latent(self.image_encoder(pictures), self.from_image)

    def encode_speech(self, mel: Tensor, lengths: Tensor) -> Latent:
        """mel (B, frames, n_mels), lengths (B,)."""
        return _latent(self.speech_encoder(mel, lengths), self.from_speech)

    def generate_image(self, latent: Latent) -> Tensor:
        """RGB (B, 3, size, size) in [-1, 1]."""
        return self.image_decoder(latent)  # type: ignore[no-any-return]

    def generate_speech(
        self, latent: Latent, max_frames: int, max_length: int, beam: int = 1
    ) -> tuple[Speech, Sentences | None]:
        """Speech; there is no sentence behind it."""
        return self.speech_decoder.generate(latent, max_frames), None

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        outputs, made = Outputs(), {}
        wanted = set(wanted)
        if len(batch.images):
            outputs.image = self.encode_image(batch.pictures)
            if "image" in wanted:
                outputs.pictures = self.image_decoder(outputs.image)
        if len(batch.mel):
            outputs.speech = self.encode_speech(batch.mel, batch.mel_lengths)
            if wanted & {"mel", "linear", "stop"}:
                outputs.spoken = self.speech_decoder(outputs.speech, batch.mel, batch.mel_lengths, batch.linear_part)
        if outputs.image is None or outputs.speech is None:
            return outputs  # at the end of a validation split
        if wanted & {"adversary_image", "cycle_speech"}:
            drawn = self.image_decoder(outputs.speech)
            if "cycle_speech" in wanted:
                with running_statistics_kept(self.image_encoder):
                    seen = self.encode_image(drawn)
                again, _ = self._speak(seen, batch.mel_lengths)
                valid = length_mask(batch.mel_lengths, batch.mel.shape[1])
                outputs.own["cycle_speech"] = mean((again - batch.mel).abs()[valid])
            made["image"] = (self.image_critic, self.image_pool, drawn, batch.images)
        if wanted & {"adversary_speech", "cycle_image", "stop_image"}:
            lengths = batch.mel_lengths[torch.arange(len(batch.images), device=batch.mel.device) % len(batch.mel)]
            said, stop = self._speak(outputs.image, lengths)
            if "stop_image" in wanted:
                outputs.own["stop_image"] = stop_loss(stop, -(-lengths // self.frames_a_step))
            if "cycle_image" in wanted:
                with running_statistics_kept(self.speech_encoder, self.image_decoder):
                    drawn = self.image_decoder(self.encode_speech(said, lengths))
                outputs.own["cycle_image"] = mean((drawn - batch.images).abs())
            parts = windows(said, lengths), windows(batch.mel, batch.mel_lengths)
            made["speech"] = (self.speech_critic, self.speech_pool, *parts)  # type: ignore[assignment]
        for name, (critic, pool, fake, real) in made.items():
            if f"adversary_{name}" in wanted:
                shown = pool(fake.detach()) if self.training else fake.detach()
                outputs.own[f"{name}_critic"] = mean((critic(real) - 1).square()) + mean(critic(shown).square())
                frozen = {key: value.detach() for key, value in critic.named_parameters()}
                fooled = functional_call(critic, frozen, (fake,))
                outputs.own[f"adversary_{name}"] = mean((fooled - 1).square())
        return outputs

    def _speak(self, latent: Latent, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Free-running with gradients: mel (B, T, n_mels) of `lengths` (B,) frames, zeros after them; stop (B, S)."""
        decoder, u = self.speech_decoder, latent.mean
        gru, lstm = decoder._initial_state(u)
        frame, parts, stops = u.new_zeros(len(u), 1, decoder.n_mels), [], []
        for _ in range(-(-int(lengths.max()) // decoder.r)):
            mel, stop, gru, lstm = decoder._steps(frame, u, gru, lstm)
            parts.append(mel)
            stops.append(stop)
            frame = mel[:, -1:]
        mel = torch.cat(parts, 1)[:, : int(lengths.max())]
        return mel * length_mask(lengths, mel.shape[1])[:, :, None], torch.cat(stops, 1)


def _latent(encoded: Encoded, project: nn.Linear) -> Latent:
    u = project(encoded.e)
    return Latent(u, u, encoded.lengths)


RECIPE, SYSTEM = CycleGANRecipe, CycleGAN
