"""What a translation gives: a sentence, speech or a picture, to be saved, played, and shown in a notebook."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np

from skipmodal.audio import resample, silence, write_audio
from skipmodal.errors import UserError
from skipmodal.files import write_atomic
from skipmodal.image import write_image
from skipmodal.words import TIMED_FORMATS, Word


@dataclass
class Translation:
    """One result: a sentence, a waveform float32 (samples,), or a picture uint8 (S, S, 3)."""

    value: str | np.ndarray
    capped: bool  # the decoder hit its length cap before it stopped by itself
    text: str | None = None  # the sentence, also the latent one behind speech, where the model has one
    score: float | None = None  # its mean log-probability a character
    confidence: float | None = None  # share of its content words expected to be right, of a picture; or p of its name
    unfamiliar: bool = False  # whether the picture is unlike those that a calibrated model was trained on
    named: bool = False  # whether the sentence therefore only names the thing
    sample_rate: int | None = None  # Hz, of speech
    words: list[Word] | None = None  # of speech, from a model that knows when each sounds

    @property
    def seconds(self) -> float:
        """Length of the speech; 0 of anything else."""
        return len(self.value) / self.sample_rate if self.sample_rate else 0.0

    def save(self, path: str | Path, rate: int | None = None) -> Path:
        """Writes a file and returns its path. The suffix picks the format.

        Speech: .wav, .flac, .ogg, or its words' times as .vtt, .srt, .TextGrid; pictures: .png, .jpg, .webp; sentences:
        any. `rate` in Hz is of speech, by default the model's. Raises UserError where it can't be written.
        """
        path = Path(path)
        if isinstance(self.value, str):
            write_atomic(path, f"{self.value}\n".encode())
        elif self.sample_rate is None:
            write_image(path, self.value)
        elif path.suffix in TIMED_FORMATS:
            write_atomic(path, self.timed(path.suffix).encode())
        else:
            rate = rate or self.sample_rate
            write_audio(path, resample(self.value, self.sample_rate, rate), rate)
        return path

    def timed(self, suffix: str) -> str:
        """The words' times as .vtt, .srt or .TextGrid. Raises UserError where the model doesn't know them."""
        if self.words is None:
            raise UserError(f"no {suffix}: this model does not know when each word sounds (those of kind tokens do)")
        return TIMED_FORMATS[suffix](self.words, self.seconds)

    def play(self) -> None:
        """Plays speech in a notebook, at once. Raises UserError elsewhere."""
        if self.sample_rate is None:
            raise UserError("only speech can be played")
        try:
            from IPython.display import HTML, display
        except ImportError as error:
            raise UserError("play() needs a notebook; elsewhere save() the speech") from error
        display(HTML(self._repr_html_().replace("<audio ", "<audio autoplay ")))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        buffer = io.BytesIO()
        shown = ""
        if isinstance(self.value, np.ndarray) and self.sample_rate:
            write_audio(buffer, self.value, self.sample_rate)
            shown = f'<audio controls src="data:audio/wav;base64,{_base64(buffer)}"></audio>'
        elif isinstance(self.value, np.ndarray):
            write_image(buffer, self.value)
            shown = f'<img alt="" src="data:image/png;base64,{_base64(buffer)}">'
        sure = "" if self.confidence is None else f" <small>confidence {self.confidence:.2f}</small>"
        said = f"<p>{escape(self.text)}{sure}</p>" if self.text else ""
        return f"<div>{said}{shown}</div>"


def join(parts: Sequence[Translation], pause: float) -> Translation:
    """Speech of several sentences in one, with so many seconds of silence between them."""
    if len(parts) == 1:
        return parts[0]
    rate = parts[0].sample_rate
    assert rate
    pieces: list[np.ndarray] = []
    words: list[Word] | None = []
    at = 0.0
    for part in parts:
        assert isinstance(part.value, np.ndarray)
        if words is not None and part.words is not None:
            words += [Word(word.text, round(word.begin + at, 3), round(word.end + at, 3)) for word in part.words]
        else:
            words = None
        pieces += [part.value, silence(pause, rate)]
        at += (len(part.value) + len(pieces[-1])) / rate
    return replace(
        parts[0], value=np.concatenate(pieces[:-1]), capped=any(part.capped for part in parts), words=words,
        text=" ".join(part.text for part in parts if part.text) or None,
    )  # fmt: skip


def _base64(buffer: io.BytesIO) -> str:
    return base64.b64encode(buffer.getvalue()).decode()
