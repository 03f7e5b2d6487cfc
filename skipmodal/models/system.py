"""The whole model: three encoders, one bottleneck, three decoders (paper, figure 2), and the one forward pass.

A model of kind `vector` is the paper's: one token an item. One of kind `tokens` keeps a picture's grid, a text's
characters and a recording's time; T, C and M then act on every token, M still the one memory for all.
"""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipmodal.audio import AudioConfig
from skipmodal.config import ModelConfig, TokensModel, VectorModel
from skipmodal.data.batches import Batch
from skipmodal.image import ImageConfig
from skipmodal.models import rerank
from skipmodal.models.adversary import Adversary
from skipmodal.models.base import Outputs, System
from skipmodal.models.bottleneck import Bottleneck, Memory
from skipmodal.models.ctc import beam_search, ctc_loss, log_probability
from skipmodal.models.decoders.image import ImageDecoder
from skipmodal.models.decoders.letters import LetterReader, Letters, counts, lay_out, regroup
from skipmodal.models.decoders.speech import Imitation, Speech, SpeechDecoder, Transcript
from skipmodal.models.decoders.text import TextDecoder
from skipmodal.models.decoders.timed import TimedSpeechDecoder
from skipmodal.models.decoders.transformer import TransformerTextDecoder
from skipmodal.models.decoders.written import Written
from skipmodal.models.encoders.image import ImageEncoder, ImageTokenEncoder
from skipmodal.models.encoders.speech import SpeechEncoder, SpeechTokenEncoder
from skipmodal.models.encoders.text import TextEncoder, TextTokenEncoder
from skipmodal.models.latent import Encoded, Latent
from skipmodal.models.layers import processes, trim
from skipmodal.models.naming import name_unfamiliar
from skipmodal.models.search import Sentences
from skipmodal.text import PAD, SYMBOLS
from skipmodal.tokenizer import Tokenizer

ROUND_TRIPS = 8  # captions a batch, of all processes: more cost more than they teach
SPEECH_LOSSES = frozenset({"mel", "linear", "flow", "stop", "duration", "prosody", "alignment"})


class SkipModal(System):
    """Translates between image, text and speech through one memory."""

    voice = ("speech_decoder",)
    critics = ("adversary",)

    def __init__(self, config: ModelConfig, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.d_k = config.d_k
        self.image_encoder: ImageEncoder | ImageTokenEncoder
        self.text_decoder: TextDecoder | TransformerTextDecoder
        self.speech_decoder: SpeechDecoder | TimedSpeechDecoder
        self.speech_encoder: SpeechEncoder | SpeechTokenEncoder
        if isinstance(config, TokensModel):
            # Where a character of average length lies in a recording.
            characters_per_frame = config.characters_per_second * audio.hop_length / audio.sample_rate
            self.image_encoder = ImageTokenEncoder(config, image, tokenizer)
            self.text_encoder: TextEncoder = TextTokenEncoder(config)
            self.speech_encoder = SpeechTokenEncoder(config, audio.n_mels, characters_per_frame)
            self.speech_letters = nn.Linear(config.d_k, len(SYMBOLS))
            self.text_decoder = TransformerTextDecoder(config, tokenizer)
            self.letter_reader = LetterReader(config.text_decoder)
            self.speech_decoder = TimedSpeechDecoder(config, audio)
        elif isinstance(config, VectorModel):
            self.image_encoder = ImageEncoder(config)
            self.text_encoder = TextEncoder(config)
            self.speech_encoder = SpeechEncoder(config, audio.n_mels)
            self.text_decoder = TextDecoder(config, tokenizer)
            self.speech_decoder = SpeechDecoder(config, audio)
        self.bottleneck = Bottleneck(config)
        self.adversary = Adversary(config)
        self.image_decoder = ImageDecoder(config, image.size)
        self.frames_a_step, self.attends = config.frames_per_step, isinstance(config, TokensModel)

    def load_published(self) -> None:
        """Gives a frozen image encoder its published weights. Raises UserError where they are not installed."""
        if isinstance(self.image_encoder, ImageTokenEncoder):
            self.image_encoder.load_published()

    def encode_image(self, pictures: Tensor) -> Latent:
        """Pixels (B, 3, S, S) in [-1, 1], or cached features (B, N, width)."""
        encoder = self.image_encoder
        features = encoder.features(pictures)
        seen = encoder.mean(features) if isinstance(encoder, ImageTokenEncoder) else features.mean(1)
        return self._through(encoder(features)).with_source(seen=seen)

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Latent:
        """Characters ids (B, L), lengths (B,)."""
        return self._through(self.text_encoder(ids, lengths)).with_source(ids=ids)

    def encode_speech(self, mel: Tensor, lengths: Tensor) -> Latent:
        """mel (B, frames, n_mels), lengths (B,)."""
        return self._through(self.speech_encoder(mel, lengths)).with_source(heard=True)

    def generate_text(self, latent: Latent, max_length: int, beam: int = 1) -> Sentences:
        """The most likely sentence of each item, in characters (B, L).

        With a beam and tokens, several likely ones are reranked; those of a recording are D_txt's and CTC's. Of an
        unfamiliar picture only the thing is named, where the network is sure of one.
        """
        if beam == 1 or latent.ids is not None or not self.attends:
            found = self.text_decoder.generate(latent, max_length, beam)
        else:
            count = rerank.hypotheses(beam)
            found = self.text_decoder.generate(latent, max_length, count, every=True)
            if latent.heard:
                letters = self.speech_letters(latent.u)
                found = rerank.beside(found, beam_search(letters, latent.lengths, max_length, count), len(letters))
            found = rerank.choose(latent, found, self._fit)
            if latent.heard:  # whichever wrote it
                found = found._replace(log_probability=-self.text_decoder(latent, self.tokenize(found.ids)).spent())
        return name_unfamiliar(latent, found, self.tokenizer, max_length)

    def generate_speech(
        self, latent: Latent, max_frames: int, max_length: int, beam: int = 1
    ) -> tuple[Speech, Sentences | None]:
        """Speech, and the sentence behind it: none of a text, which is one, nor where D_spch speaks from u alone."""
        if isinstance(self.speech_decoder, SpeechDecoder):
            return self.speech_decoder.generate(latent, max_frames), None
        sentences, ids = None, latent.ids
        if ids is None:
            sentences = self.generate_text(latent, max_length, beam)
            ids = sentences.ids
        written = self._follow(latent, self.tokenize(ids))
        logits = self._read_letters(written)
        read = counts(logits) * (written.spans > 0)
        speech = self.speech_decoder.generate(_spelled(written, logits, read), max_frames)
        assert speech.alignment is not None
        speech.alignment = regroup(speech.alignment, read, written.spans)
        return speech, sentences

    def attention(self, latent: Latent, ids: Tensor) -> Tensor | None:
        """What D_txt attends to while it writes sentences ids (B, L): the mean of its heads (B, L, N)."""
        if not self.attends:
            return None
        written = self._follow(latent, self.tokenize(ids))
        assert written.attention is not None
        attention = written.attention.mean(1)
        if latent.suggested is not None:  # of the picture's places alone
            attention = attention[:, :, : -latent.suggested.likely.shape[1]]
        if latent.seen is not None and isinstance(self.image_encoder, ImageTokenEncoder):
            # What is seen at one place, by whichever network.
            attention = attention.unflatten(2, (self.image_encoder.networks, -1)).sum(2)
        return self.text_decoder.spelling.spread(attention, written.target, ids.shape[1])

    def generate_image(self, latent: Latent) -> Tensor:
        """RGB (B, 3, size, size) in [-1, 1]."""
        return self.image_decoder(latent)  # type: ignore[no-any-return]

    def addressed(self, *latents: Latent) -> Tensor | None:
        """How much each item's z draws on each basis vector of M, (heads, B, n_k), if M is a memory."""
        memory = self.bottleneck.memory
        return memory.weights(torch.cat([each.mean_z for each in latents])) if isinstance(memory, Memory) else None

    def forward(self, batch: Batch, wanted: Collection[str]) -> Outputs:
        """One training pass: what the losses named in `wanted` need of the batch, and no more."""
        wanted = set(wanted)
        n_t = len(batch.owners)
        tokens_a, tokens_b = trim(batch.tokens[:n_t]), trim(batch.tokens[n_t:])
        outputs = self._encode(batch, wanted)
        image, text_a, text_b, speech = outputs.image, outputs.text_a, outputs.text_b, outputs.speech
        if image is not None and wanted & {"text_from_image", "round_trip"}:
            outputs.written["text_from_image"] = [self.text_decoder(image, tokens_a, batch.owners)]
        if speech is not None and wanted & {"text_from_speech", "guided_attention"}:
            outputs.written["text_from_speech"] = [self.text_decoder(speech, tokens_b)]
        spoken = text_b is not None and bool(wanted & SPEECH_LOSSES)
        written: list[Written] = []
        reads = spoken and isinstance(self.speech_decoder, TimedSpeechDecoder)
        if text_b is not None and (wanted & {"text_from_text", "letters"} or reads):
            decode = self.text_decoder if "text_from_text" in wanted else self._follow
            written.append(decode(text_b, tokens_b))
        if "letters" in wanted:
            read = [part for parts in (*outputs.written.values(), written) for part in parts]
            if "text_from_image" in outputs.written:  # one caption of each picture is enough
                read[0] = read[0].rows(batch.firsts)
            for each in read:
                spelled = self.text_decoder.spelling.table[each.target]
                outputs.letters.append(Letters(self._read_letters(each), spelled, each.spans))
        if text_b is not None and spoken:
            recorded = (batch.mel, batch.mel_lengths, batch.linear_part)
            if isinstance(self.speech_decoder, TimedSpeechDecoder):
                transcript = self._transcript(written[0], outputs.letters[-1].logits if outputs.letters else None)
                outputs.spoken = self.speech_decoder(transcript, *recorded, flow="flow" in wanted)
            else:
                outputs.spoken = self.speech_decoder(text_b, *recorded)
        if "text_from_text" in wanted:
            if text_a is not None:
                written.append(self.text_decoder(text_a, tokens_a[batch.firsts]))
            outputs.written["text_from_text"] = written
        if "round_trip" in wanted and image is not None and text_a is not None:
            outputs.imitation = self._round_trip(outputs.written["text_from_image"][0], text_a, tokens_a, batch.firsts)
        if text_a is not None and "image" in wanted:
            outputs.pictures = self.image_decoder(text_a)
        if "back_translation" in wanted and text_a is not None:
            outputs.written["back_translation"] = [self._hear_itself(text_a, tokens_a[batch.firsts])]
        if "adversary" in wanted:
            outputs.game = self.adversary.game({"image": [image], "text": [text_a, text_b], "speech": [speech]})
        return outputs

    def _round_trip(self, seen: Written, text_a: Latent, tokens: Tensor, firsts: Tensor) -> Imitation:
        """The first captions of some pictures, spoken from what D_txt makes of the pictures and of the captions."""
        assert isinstance(self.speech_decoder, TimedSpeechDecoder)
        some = firsts[: -(-ROUND_TRIPS // processes())]
        with torch.no_grad():
            captions = text_a.rows(torch.arange(len(some), device=some.device))
            model = self._transcript(self._follow(captions, tokens[some]))
        return self.speech_decoder.imitate(self._transcript(seen.rows(some)), model)

    def _hear_itself(self, text: Latent, tokens: Tensor) -> Written:
        """What D_txt makes of D_spch's own recordings of texts that have none."""
        assert isinstance(self.speech_decoder, TimedSpeechDecoder)
        with torch.no_grad():
            mel, lengths = self.speech_decoder.vary(self._transcript(self._follow(text, tokens)))
        return self.text_decoder(self.encode_speech(mel, lengths), tokens)  # type: ignore[no-any-return]

    def _encode(self, batch: Batch, wanted: set[str]) -> Outputs:
        """The latents that the wanted losses need. All go through T together, so its norm has one statistic for all."""
        n_a, n_b, n_t = len(batch.images), len(batch.mel), len(batch.owners)
        pairs = bool(wanted & {"contrastive", "distance", "adversary"})
        every_text = pairs or bool(wanted & {"text_from_text", "round_trip", "back_translation"})
        encoded: dict[str, Encoded] = {}
        if n_a and (pairs or wanted & {"text_from_image", "round_trip", "self_critical"}):
            encoded["image"] = self.image_encoder(batch.pictures)
        firsts = batch.firsts if every_text or "image" in wanted else batch.firsts[:0]
        end = n_t + n_b if every_text or wanted & {*SPEECH_LOSSES, "letters"} else n_t
        rows = torch.cat([firsts, torch.arange(n_t, end, device=firsts.device)])
        if len(rows):
            texts = self.text_encoder(trim(batch.ids[rows]), batch.lengths[rows])
            for name, part in (("text_a", slice(0, len(firsts))), ("text_b", slice(len(firsts), None))):
                if len(lengths := texts.lengths[part]):
                    encoded[name] = Encoded(texts.e[part, : int(lengths.max())], lengths, texts.rate)
        if n_b and (pairs or wanted & {"text_from_speech", "ctc", "guided_attention"}):
            encoded["speech"] = self.speech_encoder(batch.mel, batch.mel_lengths)
        if not encoded:
            return Outputs()
        latents = dict(zip(encoded, self.bottleneck(list(encoded.values())), strict=True))
        outputs = Outputs(latents.get("image"), latents.get("text_a"), latents.get("text_b"), latents.get("speech"))
        if n_b and "ctc" in wanted:
            outputs.own["ctc"] = self._letters_loss(encoded["speech"], latents["speech"], batch)
        return outputs

    def _letters_loss(self, encoded: Encoded, latent: Latent, batch: Batch) -> Tensor:
        """CTC of u, and of what E_spch makes it from: the gradient through T and M alone is weak."""
        assert isinstance(self.speech_encoder, SpeechTokenEncoder)
        before = ctc_loss(self.speech_encoder.letters(encoded.states), encoded.lengths, *batch.spoken)
        behind = ctc_loss(self.speech_letters(latent.u), latent.lengths, *batch.spoken)
        return (before + behind) / 2

    def _through(self, encoded: Encoded) -> Latent:
        (latent,) = self.bottleneck([encoded])
        return latent

    def _fit(self, latent: Latent, items: Tensor, ids: Tensor) -> Tensor:
        """How well sentences (N, L) fit the items (N,) of a latent, in nats: (N,).

        A recording's by their log-probabilities, D_txt's and that of CTC (Watanabe et al., Hybrid CTC/Attention
        Architecture for End-to-End Speech Recognition, 2017); a picture's by how like its u theirs is.
        """
        lengths = (ids != PAD).sum(1)
        ids = trim(ids)
        if latent.heard:
            letters = self.speech_letters(latent.u)[items]
            read = log_probability(letters, latent.lengths[items], ids, lengths - 1)
            return rerank.LETTERS * read - self.text_decoder(latent, self.tokenize(ids), items).spent()
        encoded = self.encode_text(ids, lengths)
        return rerank.LIKENESS * F.cosine_similarity(encoded.mean, latent.mean[items])

    def _follow(self, latent: Latent, tokens: Tensor) -> Written:
        """D_txt's states along sentences that it is given, without what else it could have written."""
        assert isinstance(self.text_decoder, TransformerTextDecoder)
        return self.text_decoder.follow(latent, tokens)

    def _read_letters(self, written: Written) -> Tensor:
        return self.letter_reader(written.taken, written.spans > 0)  # type: ignore[no-any-return]

    def _transcript(self, written: Written, letters: Tensor | None = None) -> Transcript:
        """What D_txt hands to D_spch, at each character of a sentence whose characters are known.

        `letters` are the logits that were read from its states, if they were read before.
        """
        spelled = _spelled(written, self._read_letters(written) if letters is None else letters, written.spans)
        return spelled._replace(ids=self.text_decoder.spelling.characters(written.target))


def _spelled(written: Written, logits: Tensor, spans: Tensor) -> Transcript:
    """A transcript of `spans` (B, S) letters of each token, read with logits (B, S, LONGEST, symbols) from its state.

    Its ids are those that are read most likely: D_spch is given the probabilities.
    """
    assert written.taken is not None
    letters = lay_out(logits.softmax(3), spans)
    states = lay_out(written.taken[:, :, None].expand(-1, -1, logits.shape[2], -1), spans)
    return Transcript(states, letters.argmax(2), spans.sum(1), letters)
