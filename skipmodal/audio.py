"""Audio in and out: wav files, and waveform -> mel and linear spectrogram (torch, batched, on any device).

A spectrogram is 20 log10 of the magnitude less `ref_db`, scaled so that `floor_db` is 0 and 0 dB is 1
(the Tacotron front-end that the paper's public hyper-parameters name).
"""

import io
import struct
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from skipmodal.errors import UserError
from skipmodal.files import write_atomic

if TYPE_CHECKING:
    import torch

MAX_INPUT_SECONDS = 600  # longer files are refused before they are decoded
_BLOCK = 65536  # frames
_UNKNOWN = 2**62  # what libsndfile calls the length of a streamed flac
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}


class AudioConfig(BaseModel):
    """Every number between a waveform and a spectrogram; stored in datasets and checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sample_rate: Annotated[int, Field(ge=4000, le=96000, description="Hz")] = 16000
    n_fft: Annotated[int, Field(ge=64, le=8192, multiple_of=2)] = 2048
    win_length: Annotated[int, Field(ge=32, description="samples, 50 ms")] = 800
    hop_length: Annotated[int, Field(ge=8, description="samples, 12.5 ms")] = 200
    n_mels: Annotated[int, Field(ge=4, le=512)] = 80
    preemphasis: Annotated[float, Field(ge=0, le=0.999)] = 0.97
    ref_db: float = 20.0
    floor_db: Annotated[float, Field(lt=0)] = -100.0
    power: Annotated[float, Field(gt=0, description="magnitude ** power before Griffin-Lim")] = 1.5
    griffin_lim_iters: Annotated[int, Field(ge=1)] = 60

    @model_validator(mode="after")
    def _consistent(self) -> "AudioConfig":
        if not self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError("needs hop_length <= win_length <= n_fft")
        return self

    @property
    def n_linear(self) -> int:
        """Bins of the linear spectrogram."""
        return self.n_fft // 2 + 1

    def fits(self, other: "AudioConfig | None") -> bool:
        """Whether spectrograms of both mean the same; what the vocoder alone uses may differ."""
        vocoder = {"power": self.power, "griffin_lim_iters": self.griffin_lim_iters}
        return other is not None and other.model_copy(update=vocoder) == self

    def frames(self, samples: int) -> int:
        """Frames of a waveform of that many samples (centred frames)."""
        return 1 + samples // self.hop_length


def read_audio(source: Path | bytes, sample_rate: int, max_seconds: float = MAX_INPUT_SECONDS) -> np.ndarray:
    """Mono float32 samples in [-1, 1], shape (samples,), resampled to `sample_rate`.

    `source` is a file or its bytes (wav, flac, ogg, mp3: what libsndfile reads).
    Raises UserError for what is unreadable, empty, longer than `max_seconds`, or not finite.
    """
    import soundfile

    name = str(source) if isinstance(source, Path) else "audio on stdin"
    try:
        regular = isinstance(source, Path) and source.is_file()
        data = source.read_bytes() if isinstance(source, Path) and not regular else source  # libsndfile seeks
        with soundfile.SoundFile(io.BytesIO(data) if isinstance(data, bytes) else data) as file:
            rate = file.samplerate
            if file.frames >= _UNKNOWN:
                raise UserError(f"{name}: its header does not say how long it is; convert it to wav first")
            if file.frames > max_seconds * rate:
                seconds = f"{file.frames / rate:.1f} s of audio, the limit is {max_seconds:g} s"
                raise UserError(f"{name}: {seconds}; cut it first")
            # The header's frame count is not trusted with memory: what is there is read piece by piece.
            blocks = [np.zeros(0, np.float32)]
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1))
            wav = np.concatenate(blocks)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{name}: cannot be read as audio ({error.error_string})") from error
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or error})") from error
    except (soundfile.SoundFileError, TypeError, ValueError) as error:  # TypeError: headerless formats
        raise UserError(f"{name}: cannot be read as audio ({error})") from error
    if not wav.size:
        raise UserError(f"{name}: contains no samples")
    if not np.isfinite(wav).all():
        raise UserError(f"{name}: contains samples that are not finite numbers")
    return finish(resample(wav, rate, sample_rate))


def finish(wav: np.ndarray) -> np.ndarray:
    """Within full scale, which decoded float, ogg and mp3, and resampling, go beyond."""
    return np.ascontiguousarray(wav / max(np.abs(wav).max(), 1), dtype=np.float32)


def resample(wav: np.ndarray, rate: int, target: int) -> np.ndarray:
    """float32 samples (n,) of `rate` Hz at `target` Hz. Raises UserError where torchaudio is missing."""
    if rate == target:
        return wav
    import torch

    # The kernel has as many phases as the ratio's denominator; no ear hears what rounding it costs.
    ratio = Fraction(rate, target).limit_denominator(500)
    if not ratio.numerator:
        raise UserError(f"audio of {rate} Hz can't be resampled to {target} Hz")
    resampled = _torchaudio().resample(
        torch.from_numpy(wav), ratio.numerator, ratio.denominator, lowpass_filter_width=64, rolloff=0.9476,
        resampling_method="sinc_interp_kaiser", beta=14.77,
    )  # fmt: skip
    return resampled.numpy()  # type: ignore[no-any-return]


def write_audio(target: Path | BinaryIO, wav: np.ndarray, sample_rate: int) -> None:
    """Writes 16-bit mono audio; a path's suffix picks wav, flac or ogg, a stream gets wav.

    Files appear complete or not at all. The bytes go through memory: libsndfile seeks, and a pipe can't.
    """
    import soundfile

    if isinstance(target, Path) and target.suffix.lower() not in FORMATS:
        raise UserError(f"{target}: unknown audio suffix; use {', '.join(FORMATS)}")
    wav = np.clip(np.asarray(wav, dtype=np.float32), -1.0, 1.0)
    if not np.isfinite(wav).all():
        name = target if isinstance(target, Path) else "audio"
        raise UserError(f"{name}: not written, the waveform has samples that are not finite numbers")
    buffer = io.BytesIO()
    container = FORMATS[target.suffix.lower()] if isinstance(target, Path) else "WAV"
    subtype = "VORBIS" if container == "OGG" else "PCM_16"
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, subtype, format=container) as file:
        for start in range(0, len(wav), _BLOCK):  # libsndfile's vorbis crashes on minutes in one piece
            file.write(wav[start : start + _BLOCK])
    if not isinstance(target, Path):
        target.write(buffer.getvalue())
        return
    write_atomic(target, buffer.getvalue())


def silence(seconds: float, sample_rate: int) -> np.ndarray:
    """float32 zeros (samples,)."""
    return np.zeros(round(seconds * sample_rate), np.float32)


class WavStream:
    """16-bit mono wav that is written while it is made: its header says that the length is not known yet."""

    def __init__(self, target: BinaryIO, sample_rate: int) -> None:
        self._target = target
        pcm = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
        target.write(b"RIFF\xff\xff\xff\xffWAVE" + pcm + b"data\xff\xff\xff\xff")

    def write(self, wav: np.ndarray) -> None:
        """float32 samples (n,), at once."""
        self._target.write((np.clip(wav, -1, 1) * 32767).round().astype("<i2").tobytes())
        self._target.flush()


def trim_silence(wav: np.ndarray, top_db: float = 40.0, pad: int = 400) -> tuple[np.ndarray, float]:
    """Cuts silence (`top_db` under the peak) at both ends but for `pad` samples; gives it and what was cut.

    Long silence at the start is the usual reason why attention never aligns.
    """
    frame, hop = 1024, 256  # samples
    energy = np.concatenate([[0.0], np.cumsum(np.pad(wav.astype(np.float64), frame // 2) ** 2)])
    firsts = np.arange(0, len(wav) + 1, hop)
    loud = energy[firsts + frame] - energy[firsts]
    heard = np.flatnonzero(loud > loud.max() * 10 ** (-top_db / 10))
    if not len(heard):
        return wav, 0
    start, end = max(int(heard[0]) * hop - pad, 0), min((int(heard[-1]) + 1) * hop + pad, len(wav))
    return wav[start:end], len(wav) - (end - start)


def spectrograms(wav: "torch.Tensor", config: AudioConfig) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Waveforms (B, samples) -> mel (B, frames, n_mels) and linear (B, frames, n_linear), both in [0, 1]."""
    magnitude = _stft_magnitude(wav, config)
    return _to_unit(magnitude @ _mel_basis(config).to(wav).T, config), _to_unit(magnitude, config)


def linear_spectrogram(wav: "torch.Tensor", config: AudioConfig) -> "torch.Tensor":
    """Waveforms (B, samples) -> (B, frames, n_linear) in [0, 1]."""
    return _to_unit(_stft_magnitude(wav, config), config)


def magnitudes(linear: "torch.Tensor", config: AudioConfig) -> "torch.Tensor":
    """Undoes the scaling of a linear spectrogram in [0, 1]: magnitudes of any shape."""
    decibel = linear.clamp(0, 1) * -config.floor_db + config.floor_db + config.ref_db
    return 10 ** (decibel / 20)


def _stft_magnitude(wav: "torch.Tensor", config: AudioConfig) -> "torch.Tensor":
    """(B, samples) -> (B, frames, n_linear).

    Outside the waveform lie zeros, so zero-padding an item leaves its own frames as they are: pre-emphasis
    looks one sample back, hence the sample after the last one.
    """
    import torch
    import torch.nn.functional as F

    frames = config.frames(wav.shape[1])
    emphasised = F.pad(wav, (0, 1)) - config.preemphasis * F.pad(wav, (1, 0))
    window = torch.hann_window(config.win_length, device=wav.device, dtype=wav.dtype)
    return torch.stft(
        emphasised, config.n_fft, config.hop_length, config.win_length, window,
        center=True, pad_mode="constant", return_complex=True,
    ).abs().transpose(1, 2)[:, :frames]  # fmt: skip


def _to_unit(magnitude: "torch.Tensor", config: AudioConfig) -> "torch.Tensor":
    decibel = 20 * magnitude.clamp(min=1e-5).log10() - config.ref_db
    return ((decibel - config.floor_db) / -config.floor_db).clamp(0, 1)


@cache
def _mel_basis(config: AudioConfig) -> "torch.Tensor":
    """Slaney mel filters, shape (n_mels, n_linear)."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands that are narrower than a bin, and empty
        return _torchaudio().melscale_fbanks(  # type: ignore[no-any-return]
            config.n_linear, 0.0, config.sample_rate / 2, config.n_mels, config.sample_rate, "slaney", "slaney"
        ).T.contiguous()  # fmt: skip


def _torchaudio() -> Any:
    """torchaudio.functional, imported by what needs it alone: it is slow to load, and not always there."""
    try:
        import torchaudio.functional
    except (ImportError, OSError) as error:  # OSError: built for another torch
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            "torchaudio cannot be loaded, and resampling and speech as input need it; install the one that belongs to "
            f"your torch, from where that came ({reason})"
        ) from error
    return torchaudio.functional
