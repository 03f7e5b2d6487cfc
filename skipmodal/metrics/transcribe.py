"""Transcribers: recordings -> text, through a recogniser that is installed or any command; cached by what is heard.

Silence is never fed to a recogniser, which would invent words: its transcript is empty.
"""

import hashlib
import io
import json
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from skipmodal.audio import resample, write_audio
from skipmodal.errors import UserError, reason, require

SILENCE = 1e-3  # peak; -60 dB
ENGINES = (
    "faster-whisper:NAME_OR_FOLDER, whisper:NAME_OR_FILE, wav2vec2:NAME_OR_FOLDER, pocketsphinx, "
    "or command:PROGRAM (gets a wav's path, prints the text)"
)
PACKAGES = {  # module, and what installs it
    "faster-whisper": ("faster_whisper", "faster-whisper"),
    "pocketsphinx": ("pocketsphinx", "pocketsphinx"),
    "whisper": ("whisper", "openai-whisper"),
    "wav2vec2": ("transformers", "transformers"),
}
RATE = 16000  # of every recogniser here
Engine = Callable[[np.ndarray, int], str]  # samples (n,) and their rate -> text


class Transcriber:
    """One engine with a cache on disk; a rerun on the same audio costs no recognition."""

    def __init__(self, spec: str, cache: Path | None = None) -> None:
        """`spec` as in ENGINES. Raises UserError for an engine that is unknown or not installed."""
        name, _, argument = spec.partition(":")
        makers = {
            "faster-whisper": _faster_whisper, "whisper": _whisper, "wav2vec2": _wav2vec2,
            "pocketsphinx": _pocketsphinx, "command": _command,
        }  # fmt: skip
        if name not in makers or (name != "pocketsphinx") != bool(argument):
            raise UserError(f"transcriber {spec!r}: expected {ENGINES}")
        self.spec = spec
        if name in PACKAGES:
            require(f"transcriber {name}", **dict([PACKAGES[name]]))
        self._make: Callable[[], Engine] = lambda: makers[name](argument)
        self._engine: Engine | None = None
        self._path = cache
        self._known: dict[str, str] = {}
        if cache:
            with _writing(cache):
                cache.parent.mkdir(parents=True, exist_ok=True)
                cache.touch()
                self._known = dict(_read_cache(cache))

    def __call__(self, recordings: Iterable[tuple[np.ndarray, int]]) -> Iterator[str]:
        """(samples float32 (n,), sample rate) -> texts, in order."""
        for wav, rate in recordings:
            if wav.size == 0 or np.abs(wav).max() < SILENCE:
                yield ""
                continue
            samples = np.clip(np.round(wav * 32767), -32768, 32767).astype("<i2")
            key = hashlib.sha256(f"{self.spec} {rate} ".encode() + samples.tobytes()).hexdigest()[:32]
            if key not in self._known:
                self._engine = self._engine or self._make()
                self._known[key] = " ".join(self._engine(samples.astype(np.float32) / 32767, rate).split())
                if self._path:
                    with _writing(self._path), self._path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([key, self._known[key]]) + "\n")
            yield self._known[key]


def _read_cache(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                key, text = json.loads(line)
                yield str(key), str(text)
            except (ValueError, TypeError):  # a line that was cut short
                continue


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--cache {path}: cannot be written ({error.strerror or error})") from error


def _faster_whisper(name: str) -> Engine:
    from faster_whisper import WhisperModel

    try:
        model = WhisperModel(name, device="auto", compute_type="int8", local_files_only=Path(name).is_dir())
    except Exception as error:  # of its own and its hub's many kinds
        raise UserError(f"transcriber faster-whisper:{name}: cannot be loaded ({reason(error)})") from error

    def hear(wav: np.ndarray, rate: int) -> str:
        segments, _ = model.transcribe(resample(wav, rate, RATE), language="en", beam_size=1, without_timestamps=True)
        return " ".join(segment.text for segment in segments)

    return hear


def _whisper(name: str) -> Engine:
    import whisper

    try:
        model = whisper.load_model(name)
    except Exception as error:  # a download, a damaged file, a name that does not exist
        raise UserError(f"transcriber whisper:{name}: cannot be loaded ({reason(error)})") from error

    def hear(wav: np.ndarray, rate: int) -> str:
        options = {"language": "en", "temperature": 0.0, "without_timestamps": True}
        return str(model.transcribe(resample(wav, rate, RATE), fp16=model.device.type == "cuda", **options)["text"])

    return hear


def _wav2vec2(name: str) -> Engine:
    import torch
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

    local = Path(name).is_dir()
    try:
        processor: Any = Wav2Vec2Processor.from_pretrained(name, local_files_only=local)
        model: Any = Wav2Vec2ForCTC.from_pretrained(name, local_files_only=local, use_safetensors=True)
        model.eval()
    except Exception as error:  # of its own and its hub's many kinds
        raise UserError(f"transcriber wav2vec2:{name}: cannot be loaded ({reason(error)})") from error

    @torch.inference_mode()
    def hear(wav: np.ndarray, rate: int) -> str:
        inputs = processor(resample(wav, rate, RATE), sampling_rate=RATE, return_tensors="pt")
        best = model(inputs.input_values).logits.argmax(-1)
        return str(processor.batch_decode(best)[0]).lower()

    return hear


def _pocketsphinx(_: str) -> Engine:
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL")

    def hear(wav: np.ndarray, rate: int) -> str:
        samples = (np.clip(resample(wav, rate, RATE), -1, 1) * 32767).astype("<i2")
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return hear


def _command(line: str) -> Engine:
    import tempfile

    def hear(wav: np.ndarray, rate: int) -> str:
        buffer = io.BytesIO()
        write_audio(buffer, wav, rate)
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            file.write(buffer.getvalue())
            file.flush()
            try:
                done = subprocess.run([*shlex.split(line), file.name], capture_output=True, text=True, timeout=300)
            except (OSError, ValueError, subprocess.TimeoutExpired) as error:
                raise UserError(f"transcriber command:{line}: cannot be run ({error})") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"transcriber command:{line}: exit status {done.returncode} ({last[:200]})")
        return done.stdout

    return hear
