"""Audio in and out: wav files, and waveform -> mel and linear spectrogram (torch, batched, on any device).

A spectrogram is 20 log10 of the magnitude less `ref_db`, scaled so that `floor_db` is 0 and 0 dB is 1
(the Tacotron front-end that the paper's public hyper-parameters name).
"""

import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from skipmodal.errors import UserError, reason
from skipmodal.files import write_atomic

if TYPE_CHECKING:
    import torch
    from soundfile import SoundFile

MAX_INPUT_SECONDS = 600  # longer files are refused before they are decoded
MAX_SAMPLES = 1 << 28  # of all channels: ten minutes of stereo at 192 kHz
MAX_PIPE_BYTES = 200_000_000  # of a pipe or device, which has no size that could be looked at first
RATES = (1000, 768_000)  # Hz of a file
_BLOCK = 65536  # samples
_UNKNOWN = 2**62  # what libsndfile calls the length of a streamed flac
_HEADROOM = 2.0**-24  # a power of two loses nothing, and floats near 3e38 overflow in sums
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}
# What is read, of all that libsndfile knows: it is looked at before libsndfile sees it, some of whose readers print.
CONTAINERS = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"}
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"fLaC", b"OggS")


class AudioConfig(BaseModel):
    """Every number between a waveform and a spectrogram; stored in datasets and checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sample_rate: Annotated[int, Field(ge=4000, le=96000, description="Hz")] = 16000
    n_fft: Annotated[int, Field(ge=64, le=8192, multiple_of=2)] = 2048
    win_length: Annotated[int, Field(ge=32, le=8192, description="samples, 50 ms")] = 800
    hop_length: Annotated[int, Field(ge=8, le=8192, description="samples, 12.5 ms")] = 200
    n_mels: Annotated[int, Field(ge=4, le=512)] = 80
    preemphasis: Annotated[float, Field(ge=0, le=0.999)] = 0.97
    ref_db: Annotated[float, Field(ge=-200, le=200)] = 20.0
    floor_db: Annotated[float, Field(ge=-400, lt=0)] = -100.0
    power: Annotated[float, Field(gt=0, le=4, description="magnitude ** power before Griffin-Lim")] = 1.5
    griffin_lim_iters: Annotated[int, Field(ge=1, le=1000)] = 60  # a checkpoint's comes from outside, as all of these

    @model_validator(mode="after")
    def _consistent(self) -> "AudioConfig":
        if not self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError("needs hop_length <= win_length <= n_fft")
        if self.n_fft > 64 * self.hop_length:
            raise ValueError("needs n_fft <= 64 * hop_length: a second of sound would be a hundred of spectrogram")
        return self

    @property
    def n_linear(self) -> int:
        """Bins of the linear spectrogram."""
        return self.n_fft // 2 + 1

    def fits(self, other: "AudioConfig | None") -> bool:
        """Whether spectrograms of both mean the same; what the vocoder alone uses may differ."""
        return other is not None and other.with_vocoder(self) == self

    def with_vocoder(self, other: "AudioConfig") -> "AudioConfig":
        """The same with what the other's vocoder alone uses."""
        return self.model_copy(update={"power": other.power, "griffin_lim_iters": other.griffin_lim_iters})

    def frames(self, samples: int) -> int:
        """Frames of a waveform of that many samples (centred frames)."""
        return 1 + samples // self.hop_length


def read_audio(source: Path | bytes, sample_rate: int, max_seconds: float = MAX_INPUT_SECONDS) -> np.ndarray:
    """Mono float32 samples in [-1, 1], shape (samples,), resampled to `sample_rate`.

    `source` is a file or its bytes, of a format in CONTAINERS. Raises UserError for what is unreadable, empty,
    longer than `max_seconds`, of more than MAX_SAMPLES or a rate outside RATES, or not finite.
    """
    with _opened(source, max_seconds) as (file, name):
        # The header's frame count is not trusted with memory: what is there is read piece by piece.
        wav = np.concatenate([np.zeros(0, np.float32), *_resampled(_mono(file, name), file.samplerate, sample_rate)])
        if not wav.size:
            raise UserError(f"{name}: contains no samples")
        return finish(wav, _HEADROOM)


def audio_seconds(path: Path) -> float:
    """How long a file is by its header. Raises UserError for what `read_audio` refuses without decoding it."""
    with _opened(path, MAX_INPUT_SECONDS) as (file, _):
        return float(file.frames / file.samplerate)


def audio_rate(path: Path) -> int:
    """Samples a second of a file by its header. Raises UserError as `audio_seconds`."""
    with _opened(path, MAX_INPUT_SECONDS) as (file, _):
        return int(file.samplerate)


@contextmanager
def _opened(source: Path | bytes, max_seconds: float) -> Iterator[tuple["SoundFile", str]]:
    """A recording whose header is harmless, and its name; what goes wrong while it is open is a UserError."""
    import soundfile

    name = str(source) if isinstance(source, Path) else "audio on stdin"
    try:
        if isinstance(source, Path) and not source.is_file():  # libsndfile seeks, which a pipe can't
            source = _read_pipe(source)
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as start:
            if not _known(start):
                raise UserError(f"{name}: cannot be read as audio (not wav, flac, ogg, mp3, aiff, au, caf or w64)")
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            _check_header(file, name, max_seconds)
            yield file, name
    except soundfile.LibsndfileError as error:
        raise UserError(f"{name}: cannot be read as audio ({error.error_string})") from error
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or error})") from error
    except (soundfile.SoundFileError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name}: cannot be read as audio ({error})") from error


def _read_pipe(path: Path) -> bytes:
    with path.open("rb") as pipe:
        data = pipe.read(MAX_PIPE_BYTES + 1)
    if len(data) > MAX_PIPE_BYTES:
        raise UserError(f"{path}: more than {MAX_PIPE_BYTES // 1_000_000} MB from a pipe or device; cut it first")
    return data


def _known(start: BinaryIO) -> bool:
    """Whether a file begins as one of CONTAINERS does, after the ID3 tags that may come first."""
    head = start.read(10)
    while head[:3] == b"ID3" and len(head) == 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        start.seek(size, io.SEEK_CUR)
        head = start.read(10)
    return head.startswith(_MAGIC) or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _check_header(file: "SoundFile", name: str, max_seconds: float) -> None:
    """Raises UserError for what is not to be decoded, by what its header says."""
    rate = file.samplerate
    if file.format not in CONTAINERS:
        raise UserError(f"{name}: cannot be read as audio ({file.format}); convert it to wav first")
    if file.frames >= _UNKNOWN:
        raise UserError(f"{name}: its header does not say how long it is; convert it to wav first")
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{name}: {rate} Hz, not between {RATES[0]} and {RATES[1]}; resample it first")
    if file.frames > max_seconds * rate:
        raise UserError(f"{name}: {file.frames / rate:.1f} s of audio, the limit is {max_seconds:g} s; cut it first")
    if file.frames * file.channels > MAX_SAMPLES:
        raise UserError(f"{name}: more than {MAX_SAMPLES:,} samples ({rate} Hz); resample it first")


def _mono(file: "SoundFile", name: str) -> Iterator[np.ndarray]:
    """Blocks of the mean of the channels, times _HEADROOM."""
    most = file.frames
    while len(block := file.read(max(_BLOCK // file.channels, 1024), dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise UserError(f"{name}: contains samples that are not finite numbers")
        if (most := most - len(block)) < 0:
            raise UserError(f"{name}: has more samples than its header says; convert it to wav first")
        yield (block * np.float32(_HEADROOM)).mean(axis=1)


def _resampled(blocks: Iterator[np.ndarray], rate: int, target: int) -> Iterator[np.ndarray]:
    """The same at another rate, as the blocks come: the original of a minute may be longer than an hour of ours."""
    if rate == target:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
    missing = 0  # times `rate`
    for block in chain(blocks, [None]):
        out = stream.resample_chunk(np.zeros(0, np.float32) if block is None else block, last=block is None)
        missing += (0 if block is None else len(block)) * target - len(out) * rate
        yield out
    yield np.zeros(max(-(-missing // rate), 0), np.float32)  # the length is rounded up


def finish(wav: np.ndarray, full: float = 1.0) -> np.ndarray:
    """In [-1, 1], where `full` was full scale, which decoded float, ogg and mp3, and resampling, go beyond."""
    return np.ascontiguousarray(wav / max(np.abs(wav).max(), full), dtype=np.float32)


def resample(wav: np.ndarray, rate: int, target: int) -> np.ndarray:
    """float32 samples (n,) of `rate` Hz at `target` Hz."""
    if rate == target:
        return wav
    import soxr

    return soxr.resample(wav, rate, target, quality="HQ")  # type: ignore[no-any-return]


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
        return torchaudio_functional().melscale_fbanks(  # type: ignore[no-any-return]
            config.n_linear, 0.0, config.sample_rate / 2, config.n_mels, config.sample_rate, "slaney", "slaney"
        ).T.contiguous()  # fmt: skip


def mel_to_linear(config: AudioConfig) -> tuple[np.ndarray, float]:
    """The envelope that a mel spectrogram in [0, 1] leaves of a linear one: mel @ weights + offset.

    weights (n_mels, n_linear) float32, by which a bin lies between the centres of two bands; the offset is what the
    normalised filters' area makes of a flat spectrum.
    """
    mels = np.linspace(0.0, _slaney(config.sample_rate / 2), config.n_mels + 2)[1:-1]
    centres = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * math.log(6.4) / 27))
    bins = np.linspace(0, config.sample_rate / 2, config.n_linear)
    weights = np.stack([np.interp(bins, centres, row) for row in np.eye(config.n_mels)])
    return weights.astype(np.float32), 20 * math.log10(config.sample_rate / config.n_fft) / -config.floor_db


def _slaney(hertz: float) -> float:
    """The place on Slaney's mel scale of a frequency of at least 1,000 Hz."""
    return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def torchaudio_functional() -> Any:
    """torchaudio.functional, imported by what needs it alone: it is slow to load, and not always there."""
    try:
        import torchaudio.functional
    except (ImportError, OSError) as error:  # OSError: built for another torch
        raise UserError(
            "torchaudio cannot be loaded, and preparing, hearing and aligning speech need it; install the one that "
            f"belongs to your torch, from where that came ({reason(error)})"
        ) from error
    return torchaudio.functional
