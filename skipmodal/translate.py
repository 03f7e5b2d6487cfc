"""Translator: any modality in, any modality out, batched; the Python API behind the synthesis commands."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal import image, inputs, text
from skipmodal.audio import spectrograms
from skipmodal.checkpoint import Checkpoint, load_checkpoint
from skipmodal.confidence import distances
from skipmodal.device import pick_device
from skipmodal.errors import UserError
from skipmodal.modality import MODALITIES
from skipmodal.models.decoders.speech import Speech
from skipmodal.models.latent import Latent
from skipmodal.models.search import Sentences
from skipmodal.sentences import sentences
from skipmodal.translation import Translation, join
from skipmodal.vocoder import griffin_lim
from skipmodal.words import Word, word_times

MAX_CHARACTERS = 1000  # of an input sentence
MAX_SECONDS = 60  # of an input recording
Item = str | Path | bytes | np.ndarray | Tensor | Image.Image | tuple[Any, int]  # see `inputs`
Items = list[Any] | Iterator[Any]


def load(path: str | Path | None = None, device: str = "auto") -> "Translator":
    """A Translator from the folder of a checkpoint or of a training run (its best checkpoint, else the latest).

    `bundled`, and no path, is the one that comes with the package. Raises UserError if it is missing, damaged or of
    another format.
    """
    chosen = pick_device(device)
    return Translator(load_checkpoint(None if path is None else Path(path), chosen), chosen)


class Translator:
    """Translates items between image, text and speech with one loaded model: one item, or a list of them.

    A picture is a file (str or Path), its bytes, a PIL image, or an array or tensor of any size: uint8 or floats from 0
    to 1, (H, W), (H, W, channels) or (channels, H, W). Speech is a file, its bytes, or an array or tensor of floats
    (samples,), alone at the model's sample rate or as (samples, Hz). Text is str; to be spoken it may have any length,
    and is spoken sentence by sentence. Results come in the order of the items, and an item's result does not depend on
    what else is in the batch.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        *,
        max_seconds: float = 10.0,
        max_text: int = 200,
        beam: int = 4,
        pause: float = 0.3,
    ) -> None:
        """Caps of a sentence's speech and of a text, the beam's width, and seconds of silence between sentences."""
        self.model, self.audio, self.image = checkpoint.model, checkpoint.audio, checkpoint.image
        self.confidence, self.prototypes, self.device = checkpoint.confidence, checkpoint.prototypes, device
        self.max_seconds, self.max_text, self.beam, self.pause = max_seconds, max_text, beam, pause

    @overload
    def img2text(self, items: Item) -> Translation: ...
    @overload
    def img2text(self, items: Items) -> list[Translation]: ...
    def img2text(self, items: Item | Items) -> Translation | list[Translation]:
        return self.translate(items, "image", "text")

    @overload
    def img2speech(self, items: Item) -> Translation: ...
    @overload
    def img2speech(self, items: Items) -> list[Translation]: ...
    def img2speech(self, items: Item | Items) -> Translation | list[Translation]:
        return self.translate(items, "image", "speech")

    @overload
    def text2img(self, items: Item) -> Translation: ...
    @overload
    def text2img(self, items: Items) -> list[Translation]: ...
    def text2img(self, items: Item | Items) -> Translation | list[Translation]:
        return self.translate(items, "text", "image")

    @overload
    def text2speech(self, items: Item) -> Translation: ...
    @overload
    def text2speech(self, items: Items) -> list[Translation]: ...
    def text2speech(self, items: Item | Items) -> Translation | list[Translation]:
        return self.translate(items, "text", "speech")

    @overload
    def speech2img(self, items: Item) -> Translation: ...
    @overload
    def speech2img(self, items: Items) -> list[Translation]: ...
    def speech2img(self, items: Item | Items) -> Translation | list[Translation]:
        return self.translate(items, "speech", "image")

    @overload
    def speech2text(self, items: Item) -> Translation: ...
    @overload
    def speech2text(self, items: Items) -> list[Translation]: ...
    def speech2text(self, items: Item | Items) -> Translation | list[Translation]:
        return self.translate(items, "speech", "text")

    @overload
    def translate(self, items: Item, source: str, target: str) -> Translation: ...
    @overload
    def translate(self, items: Items, source: str, target: str) -> list[Translation]: ...
    def translate(self, items: Item | Items, source: str, target: str) -> Translation | list[Translation]:
        """One item or several from a modality to another.

        Raises UserError for an item that can't be read, TypeError for what is none.
        """
        for modality in (source, target):
            if modality not in MODALITIES:
                raise ValueError(f"modality {modality!r} is unknown; there are: {', '.join(MODALITIES)}")
        several = inputs.is_batch(items)
        given: list[Any] = list(items) if several else [items]  # type: ignore[arg-type]
        results = []
        for _, parts in groupby(self.stream(given, source, target), lambda part: part[0]):
            found = []
            for _, part in parts:
                if isinstance(part, UserError):
                    raise part
                found.append(part)
            results.append(join(found, self.pause))
        return results if several else results[0]

    def stream(
        self, items: Iterable[Item], source: str, target: str, batch_size: int = 16,
        advance: Callable[[int], None] = lambda parts: None,
    ) -> Iterator[tuple[int, Translation | UserError]]:  # fmt: skip
        """The number of each item and its result, or why it has none, in order and as soon as a batch is done.

        A text that is spoken gives a result for each of its sentences; `advance` hears how many of them are done.
        """
        waiting: list[tuple[int, Item, Tensor | UserError]] = []
        for number, item in enumerate(items):
            try:
                waiting += [(number, part, self.read(part, source)) for part in _parts(item, source, target)]
            except UserError as error:
                waiting.append((number, item, error))
            while len(waiting) >= batch_size:
                yield from self._finish(waiting[:batch_size], source, target)
                advance(batch_size)
                del waiting[:batch_size]
        yield from self._finish(waiting, source, target)
        advance(len(waiting))

    def _finish(
        self, waiting: Sequence[tuple[int, Item, Tensor | UserError]], source: str, target: str
    ) -> Iterator[tuple[int, Translation | UserError]]:
        read = [item for _, _, item in waiting if isinstance(item, Tensor)]
        results = iter(self.decode(self.encode(read, source), target) if read else ())
        for number, given, item in waiting:
            result = next(results) if isinstance(item, Tensor) else item
            if isinstance(result, Translation) and source == "text" and result.capped and result.words is not None:
                yield number, UserError(f"text {str(given)[:40]!r}...: takes more than {self.max_seconds:g} s")
            else:
                yield number, result

    def embed(self, items: Iterable[Item], modality: str) -> Tensor:
        """Items of a modality -> unit vectors (B, d_k) of u, by whose products items of any modality are compared.

        Raises UserError for an item that can't be read, or a broken model.
        """
        return unit_vectors(self.encode([self.read(item, modality) for item in items], modality))

    def read(self, item: Item, modality: str) -> Tensor:
        """An item as the model takes it: picture (3, S, S), ids (L,), or waveform (samples,)."""
        if modality == "image":
            return image.to_tensor(inputs.picture(item, self.image))
        if modality == "speech":
            return torch.from_numpy(inputs.waveform(item, self.audio, MAX_SECONDS))
        if not isinstance(item, str):
            raise TypeError(f"text is str, not {type(item).__name__}")
        sentence = text.normalise(item)
        if not sentence:
            raise UserError(f"text {item!r}: has no character that the model knows")
        if len(sentence) > MAX_CHARACTERS:
            raise UserError(f"text {item[:40]!r}...: {len(sentence)} characters, the limit is {MAX_CHARACTERS}")
        return torch.tensor(text.encode(sentence))

    @torch.inference_mode()
    def encode(self, items: Sequence[Tensor], modality: str) -> Latent:
        """What `read` gave -> the model's latent."""
        if modality == "image":
            return self.model.encode_image(torch.stack(list(items)).to(self.device))
        lengths = torch.tensor([len(item) for item in items], device=self.device)
        padded = pad_sequence(list(items), batch_first=True).to(self.device)
        if modality == "text":
            return self.model.encode_text(padded, lengths)
        mel, _ = spectrograms(padded, self.audio)
        return self.model.encode_speech(mel, lengths // self.audio.hop_length + 1)

    @torch.inference_mode()
    def decode(self, latent: Latent, modality: str) -> list[Translation]:
        """What `encode` gave -> results in a modality; with a confidence where the source is a picture."""
        if modality == "image":
            return [Translation(pixels, False) for pixels in image.to_pixels(self.model.generate_image(latent))]
        far = self._distances(latent)
        if far is not None and self.confidence:
            latent = replace(latent, unfamiliar=far > self.confidence.far)
        if modality == "text":
            found = self.model.generate_text(latent, self.max_text, self.beam)
            return self._sentences(found, latent, far)
        frames = int(self.max_seconds * self.audio.sample_rate / self.audio.hop_length)
        speech, behind = self.model.generate_speech(latent, frames, self.max_text, self.beam)
        _check_finite(speech.linear)
        wavs = griffin_lim(speech.linear, speech.lengths, self.audio)
        said = self._sentences(behind, latent, far) if behind else [Translation("", False)] * len(wavs)
        words = self._words(speech, latent.ids if behind is None else behind.ids)
        rate = self.audio.sample_rate
        return [
            replace(
                sentence, value=_to_peak(wav.numpy()), capped=cut or sentence.capped, sample_rate=rate, words=times
            )
            for wav, cut, sentence, times in zip(wavs, speech.capped.tolist(), said, words, strict=True)
        ]  # fmt: skip

    def _words(self, speech: Speech, ids: Tensor | None) -> list[list[Word] | None]:
        """Of each item of speech when the words of its sentence ids (B, L) sound; None where it isn't known."""
        if speech.alignment is None or ids is None:
            return [None] * len(speech.lengths)
        step = self.model.frames_a_step * self.audio.hop_length / self.audio.sample_rate
        return [
            word_times(text.decode(row), weights[:steps], step)
            for row, weights, steps in zip(ids.tolist(), speech.alignment.cpu(), speech.steps.tolist(), strict=True)
        ]

    def _distances(self, latent: Latent) -> Tensor | None:
        """How far pictures are from those of the training, where that is known: (B,)."""
        if latent.seen is None or self.prototypes is None:
            return None
        _check_finite(latent.seen)
        return distances(latent.seen, self.prototypes)

    def _sentences(self, found: Sentences, latent: Latent, far: Tensor | None) -> list[Translation]:
        """Of each item of a latent; `far` are the distances of pictures."""
        _check_finite(found.log_probability)
        results = []
        measured = [None] * len(found.ids) if far is None else far.tolist()
        named = [False] * len(found.ids) if found.named is None else found.named.tolist()
        strange = [False] * len(found.ids) if latent.unfamiliar is None else latent.unfamiliar.tolist()
        columns = found.ids.tolist(), found.capped.tolist(), found.log_probability.tolist(), named, measured, strange
        for ids, capped, log_p, is_name, distance, unfamiliar in zip(*columns, strict=True):
            sentence = text.decode(ids)
            score = log_p / max(sum(i != text.PAD for i in ids), 1)
            result = Translation(sentence, capped, sentence, score, unfamiliar=unfamiliar, named=is_name)
            if self.confidence and distance is not None:
                result.confidence = math.exp(log_p) if is_name else self.confidence(score, distance)
            results.append(result)
        return results


def _parts(item: Item, source: str, target: str) -> list[Any]:
    """A text that is spoken is spoken sentence by sentence, however long it is."""
    if isinstance(item, str) and source == "text" and target == "speech":
        return sentences(item) or [item]
    return [item]


def unit_vectors(latent: Latent) -> Tensor:
    """u of each item, the mean of its tokens, at length 1: (B, d_k).

    Raises UserError where it is not finite: it would be found near everything.
    """
    if not latent.u.isfinite().all():
        raise UserError("the checkpoint gives vectors that are not finite numbers; train another")
    return F.normalize(latent.mean, dim=1)


def _check_finite(output: Tensor) -> None:
    if not output.isfinite().all():
        raise UserError("the model says something that is not finite: its weights are damaged")


def _to_peak(wav: np.ndarray, peak: float = 0.95) -> np.ndarray:
    """Full scale, whatever `power` did to the level; near-silence stays silent."""
    return np.asarray(wav * (peak / max(float(np.abs(wav).max(initial=0)), 0.01)), dtype=np.float32)
