"""The token model: the paper's system where T, C and M act on every token.

One vector u for a picture and a sentence is the paper's limit: a picture's grid, a text's characters and a
recording's time are kept instead. T, C and M are those of the vector model, M still the one memory for all.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.config import ModelConfig
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models.bottleneck import ModalityClassifier, ModalityTransformer, build_memory
from skipmodal.models.decoders import ImageDecoder, Speech
from skipmodal.models.efficientnet import EfficientNetLite
from skipmodal.models.layers import length_mask, reverse_gradient
from skipmodal.models.search import Sentences
from skipmodal.models.skipmodal import Outputs, Written
from skipmodal.models.token_decoders import AttentionTextDecoder, Latent, TimedSpeechDecoder, Transcript
from skipmodal.models.token_encoders import ImageTokens, SpeechTokens, TextTokens
from skipmodal.text import PAD

# Part of B's words in training: how words are spelled is learned from many of them, not from the rare ones alone.
SPELLED = 0.25
SEEN, HEARD = 2, 4  # hypotheses of a picture, and of a recording, for each of the beam
LIKENESS = 1.0  # nats a word for the cosine of a picture's and its sentence's u; 0.7 to 3 do about the same
MISFIT = 3.0  # nats for a frame that is off by one in every band; 2 to 10 do about the same
CELLS = 2_000_000  # frames times characters of all hypotheses that are read, or said, at once: bounds the memory
FRAMES = 256  # of a recording that takes as much memory to be said as a picture's sentence to be read


class TokenSkipModal(nn.Module):
    """Translates between image, text and speech through one memory, token by token."""

    def __init__(self, config: ModelConfig, audio: AudioConfig, image: ImageConfig) -> None:
        super().__init__()
        self.config = config
        # Where a character of average length lies in a recording.
        self.characters_per_frame = config.characters_per_second * audio.hop_length / audio.sample_rate
        self.image_encoder = ImageTokens(config, image)
        self.text_encoder = TextTokens(config)
        self.speech_encoder = SpeechTokens(config, audio.n_mels)
        self.transformer = ModalityTransformer(config)
        self.classifier = ModalityClassifier(config)
        self.memory = build_memory(config)
        self.image_decoder = ImageDecoder(config, image.size)
        self.text_decoder = AttentionTextDecoder(config)
        self.speech_decoder = TimedSpeechDecoder(config, audio.n_mels, audio.n_linear)

    def learn_words(self, texts: Iterable[str]) -> None:
        """Chooses the words that D_txt writes whole: the most frequent of these texts."""
        self.text_decoder.units.learn(texts)

    def load_published(self) -> None:
        """Gives the frozen image encoder its published weights. Raises UserError where they are not installed."""
        if isinstance(self.image_encoder.backbone, EfficientNetLite):
            self.image_encoder.backbone.load_published()

    def encode_image(self, pictures: Tensor) -> Latent:
        """Pixels (B, 3, S, S) in [-1, 1], or cached features (B, N, width)."""
        e = self.image_encoder(pictures)
        return self._latent(e, torch.full((len(e),), e.shape[1], device=e.device), 0.0)

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Latent:
        """ids (B, L), lengths (B,)."""
        return self._latent(self.text_encoder(ids, lengths), lengths, 1.0)._replace(ids=ids)

    def encode_speech(self, mel: Tensor, lengths: Tensor) -> Latent:
        """mel (B, frames, n_mels), lengths (B,)."""
        e, tokens = self.speech_encoder(mel, lengths)
        return self._latent(e, tokens, 4 * self.characters_per_frame)._replace(recording=(mel, lengths))

    def generate_text(self, latent: Latent, max_length: int, beam: int = 1) -> Sentences:
        """The most likely sentence of each item, in characters (B, L).

        With a beam, for a picture or a recording: of twice, or four times, as many likely ones that which agrees with
        it best. What judges is learned by the contrastive loss, and by D_spch.
        """
        if latent.ids is not None or beam == 1:
            return self.text_decoder.generate(latent, max_length, beam)
        hypotheses = beam * (HEARD if latent.recording else SEEN)
        return self._choose(latent, self.text_decoder.generate(latent, max_length, hypotheses, every=True))

    def generate_speech(
        self, latent: Latent, max_frames: int, max_length: int, beam: int = 1
    ) -> tuple[Speech, Sentences | None]:
        """Speech, and the latent sentence behind it, which a text has already."""
        if latent.ids is not None:
            sentences, ids = None, latent.ids
        else:
            sentences = self.generate_text(latent, max_length, beam)
            ids = sentences.ids
        units = self.text_decoder.units.segment(ids)
        _, states, _ = self.text_decoder(latent, units)
        return self.speech_decoder.generate(self._transcript(states, units, ids), max_frames), sentences

    def generate_image(self, latent: Latent) -> Tensor:
        """RGB (B, 3, size, size) in [-1, 1]."""
        return self.image_decoder(latent.mean)  # type: ignore[no-any-return]

    def forward(
        self, batch: Batch, adversary_scale: float = 1.0, text_from_text: bool = False, image_from_text: bool = True
    ) -> Outputs:
        """One training pass. All tokens go through T together, so its norm has one statistic for all.

        `text_from_text` asks for B's alone, which D_spch needs the states of in any case. Without `image_from_text`
        the texts of A are not encoded, and have no contrastive pair: twice as many pictures in the same time.
        """
        n_a, n_b = len(batch.images), len(batch.mel)
        skipped = 0 if image_from_text else n_a
        n_text = n_a - skipped
        e_text = torch.zeros(0, 0, self.config.embedding, device=batch.ids.device)
        if n_text + n_b:
            e_text = self.text_encoder(batch.ids[skipped:], batch.lengths[skipped:])
        text_mask = length_mask(batch.lengths[skipped:], e_text.shape[1])
        e = [e_text[:n_text][text_mask[:n_text]], e_text[n_text:][text_mask[n_text:]]]
        if n_a:
            e_image = self.image_encoder(batch.pictures)
            e.insert(0, e_image.flatten(0, 1))
        if n_b:
            e_speech, tokens = self.speech_encoder(batch.mel, batch.mel_lengths)
            speech_mask = length_mask(tokens, e_speech.shape[1])
            e.append(e_speech[speech_mask])
        counts = [0] * (not n_a) + [len(part) for part in e] + [0] * (not n_b)
        z = self.transformer(torch.cat(e))
        z_image, z_text, z_speech = z.split([counts[0], counts[1] + counts[2], counts[3]])
        logits = self.classifier(torch.cat([
            reverse_gradient(z_image, adversary_scale), z_text.detach(), reverse_gradient(z_speech, adversary_scale),
        ]))  # fmt: skip
        u_image, u_text_a, u_text_b, u_speech = self.memory(z).split(counts)

        outputs = Outputs(modality_logits=logits, modality_counts=counts)
        if n_a:
            image = Latent(u_image.unflatten(0, (n_a, -1)), batch.lengths.new_full((n_a,), counts[0] // n_a), 0.0)
            outputs.image = image
            units = self.text_decoder.units.segment(batch.ids[:n_a])
            outputs.text_from_image = Written(self.text_decoder(image, units)[0], units)
        if n_text:
            longest = int(batch.lengths[:n_a].max())
            text_a = Latent(_pad(u_text_a, text_mask[:n_a, :longest]), batch.lengths[:n_a], 1.0)
            outputs.images = self.generate_image(text_a)
            outputs.pairs += ((image.mean, text_a.mean),)
        if n_b:
            lengths = batch.lengths[n_a:]
            longest = int(lengths.max())
            ids = batch.ids[n_a:, :longest]
            text_b = Latent(_pad(u_text_b, text_mask[n_text:, :longest]), lengths, 1.0)
            units = self.text_decoder.units.segment(ids, SPELLED if self.training else 0.0)
            logits_b, states, _ = self.text_decoder(text_b, units)
            outputs.text_from_text = Written(logits_b, units) if text_from_text else None
            speech = Latent(_pad(u_speech, speech_mask), tokens, 4 * self.characters_per_frame)
            logits_b, _, weights = self.text_decoder(speech, units)
            outputs.text_from_speech = Written(logits_b, units)
            outputs.pairs += ((text_b.mean, speech.mean),)
            along = self.text_decoder.units.starts(units) / lengths[:, None]
            outputs.listening = weights.mean(1), along, (units != PAD).sum(1), tokens
            outputs.speech = self.speech_decoder(
                self._transcript(states, units, ids), batch.mel, batch.mel_lengths, batch.linear_part
            )
        return outputs

    @torch.no_grad()
    def _choose(self, latent: Latent, found: Sentences) -> Sentences:
        """Of as many hypotheses of each item, in rows one after the other, the best once they are read, or said, again.

        What a picture shows has a u like its own. What a recording holds sounds like it in its own rhythm: analysis by
        synthesis, p(text | speech) p(speech | text).
        """
        # Those of one recording last as long as it does, those of a picture may be of any length.
        likely = found.log_probability if latent.recording else found.log_probability / found.lengths
        score = torch.full_like(likely, -torch.inf)
        rows = (~found.capped).nonzero()[:, 0]
        each, device = len(found.ids) // len(latent.u), rows.device
        if len(rows):
            # The same sentence in other units is the same. On the CPU: MPS had no unique of rows before torch 2.10.
            numbered = torch.cat([rows[:, None] // each, found.ids[rows]], 1).cpu()
            sentences, which = torch.unique(numbered, dim=0, return_inverse=True)
            frames = latent.recording[0].shape[1] if latent.recording else FRAMES
            parts = sentences.to(device).split(max(1, CELLS // (frames * found.ids.shape[1])))
            agreement = torch.cat([self._agree(latent, part[:, 0], part[:, 1:]) for part in parts])
            score[rows] = likely[rows] + agreement[which.to(device)]
        best = score.view(-1, each).argmax(1) + each * torch.arange(len(latent.u), device=device)
        longest = int((found.ids[best] != PAD).sum(1).max())
        return Sentences(found.ids[best, :longest], *(tensor[best] for tensor in found[1:]))

    def _agree(self, latent: Latent, items: Tensor, ids: Tensor) -> Tensor:
        """How well sentences (N, L) go with the latent's items (N,), in nats: (N,)."""
        lengths = (ids != PAD).sum(1)
        ids = ids[:, : int(lengths.max())]
        read = self.encode_text(ids, lengths)
        if not latent.recording:
            return LIKENESS * F.cosine_similarity(read.mean, latent.mean[items])
        units = self.text_decoder.units.segment(ids)
        said = self._transcript(self.text_decoder(read, units)[1], units, ids)
        return -MISFIT * self.speech_decoder.misfit(said, *(part[items] for part in latent.recording))

    def _transcript(self, states: Tensor, units: Tensor, ids: Tensor) -> Transcript:
        """States of D_txt at units (B, S) -> at each of their characters ids (B, L)."""
        states = self.text_decoder.units.to_characters(states, units, ids.shape[1])
        return Transcript(states, ids, (ids != PAD).sum(1))

    def _latent(self, e: Tensor, lengths: Tensor, rate: float) -> Latent:
        mask = length_mask(lengths, e.shape[1])
        return Latent(_pad(self.memory(self.transformer(e[mask])), mask), lengths, rate)


def _pad(tokens: Tensor, mask: Tensor) -> Tensor:
    """(sum of valid, width) -> (B, N, width), zeros in the padding."""
    padded = tokens.new_zeros(*mask.shape, tokens.shape[1])
    return padded.masked_scatter(mask[:, :, None], tokens)
