"""Translator: any modality in, any modality out, batched; the Python API behind the synthesis commands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skipmodal import image, text
from skipmodal.audio import read_audio, spectrograms
from skipmodal.checkpoint import Checkpoint, load_checkpoint
from skipmodal.device import pick_device
from skipmodal.errors import UserError
from skipmodal.modality import MODALITIES
from skipmodal.models.latent import Latent
from skipmodal.models.search import Sentences
from skipmodal.vocoder import griffin_lim

MAX_CHARACTERS = 1000  # of an input sentence
Input = Path | bytes | str | np.ndarray


@dataclass
class Translation:
    """One result: a sentence, a waveform float32 (samples,), or a picture uint8 (S, S, 3)."""

    value: str | np.ndarray
    capped: bool  # the decoder hit its length cap before it stopped by itself
    text: str | None = None  # the sentence, also the latent one behind speech, where the model has one
    score: float | None = None  # its mean log-probability a character
    confidence: float | None = None  # what that is worth, of a picture and a calibrated model


def load(path: str | Path | None = None, device: str = "auto") -> "Translator":
    """A Translator from the folder of a checkpoint or of a training run (its best checkpoint, else the latest).

    Without a path it is the bundled one.

    Raises UserError if it is missing, damaged or of another format.
    """
    chosen = pick_device(device)
    return Translator(load_checkpoint(None if path is None else Path(path), chosen), chosen)


class Translator:
    """Translates lists of items between image, text and speech with one loaded model.

    Items are files (Path or str) or their bytes; text is str; arrays are accepted as they are: pictures uint8
    (S, S, 3) at the model's input size, waveforms float32 at its sample rate. Results come in the order of the items,
    and an item's result does not depend on what else is in the batch.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        *,
        max_seconds: float = 10.0,
        max_text: int = 200,
        beam: int = 4,
    ) -> None:
        self.model, self.audio, self.image = checkpoint.model, checkpoint.audio, checkpoint.image
        self.confidence, self.device = checkpoint.confidence, device
        self.max_seconds, self.max_text, self.beam = max_seconds, max_text, beam

    def img2speech(self, items: Iterable[Input]) -> list[Translation]:
        return self.translate(items, "image", "speech")

    def img2text(self, items: Iterable[Input]) -> list[Translation]:
        return self.translate(items, "image", "text")

    def text2speech(self, items: Iterable[Input]) -> list[Translation]:
        return self.translate(items, "text", "speech")

    def text2img(self, items: Iterable[Input]) -> list[Translation]:
        return self.translate(items, "text", "image")

    def speech2text(self, items: Iterable[Input]) -> list[Translation]:
        return self.translate(items, "speech", "text")

    def speech2img(self, items: Iterable[Input]) -> list[Translation]:
        return self.translate(items, "speech", "image")

    def translate(self, items: Iterable[Input], source: str, target: str) -> list[Translation]:
        """One batch from a modality to another. Raises UserError for an item that can't be read."""
        for modality in (source, target):
            if modality not in MODALITIES:
                raise ValueError(f"modality {modality!r} is unknown; there are: {', '.join(MODALITIES)}")
        if isinstance(items, str | bytes | Path):
            raise TypeError(f"items must be a list, not {type(items).__name__}; of one: [item]")
        read = [self.read(item, source) for item in items]
        return self.decode(self.encode(read, source), target, source) if read else []

    def embed(self, items: Iterable[Input], modality: str) -> Tensor:
        """Items of a modality -> unit vectors (B, d_k) of u, by whose products items of any modality are compared.

        Raises UserError for an item that can't be read, or a broken model.
        """
        return unit_vectors(self.encode([self.read(item, modality) for item in items], modality))

    def read(self, item: Input, modality: str) -> Tensor:
        """An item as the model takes it: picture (3, S, S), ids (L,), or waveform (samples,)."""
        if modality == "text":
            if not isinstance(item, str):
                raise TypeError("text items are str")
            sentence = text.normalise(item)
            if not sentence:
                raise UserError(f"text {item!r}: has no character that the model knows")
            if len(sentence) > MAX_CHARACTERS:
                raise UserError(f"text {item[:40]!r}...: {len(sentence)} characters, the limit is {MAX_CHARACTERS}")
            return torch.tensor(text.encode(sentence))
        if isinstance(item, str):
            item = Path(item)
        if isinstance(item, np.ndarray):
            return self._from_array(item, modality)
        if not isinstance(item, Path | bytes):
            raise TypeError(f"items are files (Path or str), bytes or arrays, not {type(item).__name__}")
        if modality == "image":
            return image.to_tensor(image.read_image(item, self.image))
        return torch.from_numpy(read_audio(item, self.audio.sample_rate, max_seconds=60))

    def _from_array(self, item: np.ndarray, modality: str) -> Tensor:
        side = self.image.input_size
        if modality == "image":
            if item.dtype != np.uint8 or item.shape != (side, side, 3):
                raise UserError(f"a picture array must be uint8 ({side}, {side}, 3), not {item.dtype} {item.shape}")
            return image.to_tensor(item)
        if item.ndim != 1 or not item.size or not np.issubdtype(item.dtype, np.floating) or not np.isfinite(item).all():
            raise UserError(f"a waveform array must be finite floats (samples,), not {item.dtype} {item.shape}")
        return torch.from_numpy((item / max(np.abs(item).max(), 1)).astype(np.float32))  # as in read_audio

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
    def decode(self, latent: Latent, modality: str, source: str | None = None) -> list[Translation]:
        """What `encode` gave -> results in a modality; with a confidence where the `source` is a picture."""
        if modality == "image":
            return [Translation(pixels, False) for pixels in image.to_pixels(self.model.generate_image(latent))]
        if modality == "text":
            found = self.model.generate_text(latent, self.max_text, self.beam)
            return self._sentences(found, source)
        frames = int(self.max_seconds * self.audio.sample_rate / self.audio.hop_length)
        speech, behind = self.model.generate_speech(latent, frames, self.max_text, self.beam)
        _check_finite(speech.linear)
        wavs = griffin_lim(speech.linear, speech.lengths, self.audio)
        said = self._sentences(behind, source) if behind else [Translation("", False)] * len(wavs)
        return [
            replace(sentence, value=_to_peak(wav.numpy()), capped=cut or sentence.capped)
            for wav, cut, sentence in zip(wavs, speech.capped.tolist(), said, strict=True)
        ]

    def _sentences(self, found: Sentences, source: str | None) -> list[Translation]:
        _check_finite(found.log_probability)
        results = []
        for ids, capped, log_p, _ in zip(*(tensor.tolist() for tensor in found), strict=True):
            sentence = text.decode(ids)
            score = log_p / max(sum(i != text.PAD for i in ids), 1)
            confidence = self.confidence(score) if self.confidence and source == "image" else None
            results.append(Translation(sentence, capped, sentence, score, confidence))
        return results


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
