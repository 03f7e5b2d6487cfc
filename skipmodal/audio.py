"""Audio in and out: wav files, and waveform -> mel and linear spectrogram (torch, batched, on any device).

A spectrogram is 20 log10 of the magnitude less `ref_db`, scaled so that `floor_db` is 0 and 0 dB is 1
(the Tacotron front-end that the paper's public hyper-parameters name).
"""

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from skipmodal.errors import UserError

if TYPE_CHECKING:
    import torch

MAX_INPUT_SECONDS = 600  # longer files are refused before they are decoded
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}


class AudioConfig(BaseModel):
    """Every number between a waveform and a spectrogram; stored in datasets and checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_rate: Annotated[int, Field(ge=4000, le=96000, description="Hz")] = 16000
    n_fft: Annotated[int, Field(ge=64, le=8192)] = 2048
    win_length: Annotated[int, Field(ge=32, description="samples, 50 ms")] = 800
    hop_length: Annotated[int, Field(ge=8, description="samples, 12.5 ms")] = 200
    n_mels: Annotated[int, Field(ge=4, le=512)] = 80
    preemphasis: Annotated[float, Field(ge=0, lt=1)] = 0.97
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
        with soundfile.SoundFile(source if isinstance(source, Path) else io.BytesIO(source)) as file:
            if file.frames > max_seconds * file.samplerate:
                seconds = file.frames / file.samplerate
                raise UserError(f"{name}: {seconds:.0f} s of audio, the limit is {max_seconds:.0f} s; cut it first")
            # The header's frame count is not trusted: the read itself is bounded.
            wav = file.read(int(max_seconds * file.samplerate) + 1, dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{name}: cannot be read as audio ({error})") from error
    wav = wav.mean(axis=1)
    if not wav.size:
        raise UserError(f"{name}: contains no samples")
    if not np.isfinite(wav).all():
        raise UserError(f"{name}: contains samples that are not finite numbers")
    if rate != sample_rate:
        import librosa

        wav = librosa.resample(wav, orig_sr=rate, target_sr=sample_rate)
    return np.ascontiguousarray(wav, dtype=np.float32)


def write_audio(target: Path | BinaryIO, wav: np.ndarray, sample_rate: int) -> None:
    """Writes 16-bit mono audio; a path's suffix picks wav, flac or ogg, a stream gets wav.

    Files appear complete or not at all. The bytes go through memory because libsndfile seeks, and a pipe can't.
    """
    import soundfile

    if isinstance(target, Path) and target.suffix.lower() not in FORMATS:
        raise UserError(f"{target}: unknown audio suffix; use {', '.join(FORMATS)}")
    buffer = io.BytesIO()
    container = FORMATS[target.suffix.lower()] if isinstance(target, Path) else "WAV"
    subtype = "VORBIS" if container == "OGG" else "PCM_16"
    soundfile.write(buffer, np.clip(wav, -1.0, 1.0), sample_rate, format=container, subtype=subtype)
    if not isinstance(target, Path):
        target.write(buffer.getvalue())
        return
    write_atomic(target, buffer.getvalue())


def write_atomic(path: Path, data: bytes) -> None:
    """Writes beside `path` and renames, so that a partial file never replaces a good one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def trim_silence(wav: np.ndarray, top_db: float = 40.0, pad: int = 400) -> tuple[np.ndarray, float]:
    """Cuts silence (`top_db` under the peak) at both ends, leaving `pad` samples; returns it and the samples cut.

    Long silence at the start is the usual reason why attention never aligns.
    """
    import librosa

    _, (start, end) = librosa.effects.trim(wav, top_db=top_db, frame_length=1024, hop_length=256)
    start, end = max(start - pad, 0), min(end + pad, len(wav))
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

    Frames are centred on zeros outside the waveform, so zero-padding an item leaves its own frames as they are.
    """
    import torch
    import torch.nn.functional as F

    emphasised = wav - config.preemphasis * F.pad(wav, (1, 0))[:, :-1]
    window = torch.hann_window(config.win_length, device=wav.device, dtype=wav.dtype)
    return torch.stft(
        emphasised, config.n_fft, config.hop_length, config.win_length, window,
        center=True, pad_mode="constant", return_complex=True,
    ).abs().transpose(1, 2)  # fmt: skip


def _to_unit(magnitude: "torch.Tensor", config: AudioConfig) -> "torch.Tensor":
    decibel = 20 * magnitude.clamp(min=1e-5).log10() - config.ref_db
    return ((decibel - config.floor_db) / -config.floor_db).clamp(0, 1)


@cache
def _mel_basis(config: AudioConfig) -> "torch.Tensor":
    """Slaney mel filters, shape (n_mels, n_linear)."""
    import librosa.filters
    import torch

    return torch.from_numpy(
        librosa.filters.mel(sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels)
    )
