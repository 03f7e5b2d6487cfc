"""Local speech engines: sentences -> recordings, through the executables flite, espeak-ng and piper."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from skipmodal.errors import UserError

INSTALL = {
    "flite": "apt install flite",
    "espeak-ng": "apt install espeak-ng",
    "piper": "pip install piper-tts",
}
TIMEOUT = 30.0  # seconds for one sentence
PIPER_BATCH = 32  # sentences for one start of piper, which loads its model every time


class EngineError(Exception):
    """The engine failed on a sentence."""


@dataclass(frozen=True)
class Voice:
    """One voice of one engine; `speak` may be called from several threads."""

    engine: str
    name: str

    def __str__(self) -> str:
        return f"{self.engine}:{Path(self.name).name}"

    @property
    def batch(self) -> int:
        """How many sentences to give to `speak` at once."""
        return PIPER_BATCH if self.engine == "piper" else 1

    def speak(self, texts: list[str]) -> list[bytes]:
        """A wav file of each sentence; EngineError where the engine fails on one or exceeds TIMEOUT."""
        with tempfile.TemporaryDirectory(prefix="skipmodal-") as name:
            folder = Path(name)
            if self.engine == "piper":
                lines = "".join(" ".join(text.split()) + "\n" for text in texts)  # one file a line
                _call(["piper", "--model", self.name, "--output_dir", name], lines, sentences=len(texts))
            for i, text in enumerate(texts):
                wav = str(folder / f"{i}.wav")
                if self.engine == "flite":
                    _call(["flite", "-voice", self.name, "-t", text, "-o", wav])
                elif self.engine == "espeak-ng":
                    _call(["espeak-ng", "-v", self.name, "-w", wav, "--stdin"], text)
            # Piper names its files by the clock: numbers in the order of the lines.
            files = sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name))
            wavs = [path.read_bytes() for path in files]
            if len(wavs) != len(texts):
                raise EngineError(f"{self.engine} wrote {len(wavs)} files for {len(texts)} sentences")
            return wavs


def parse(spec: str) -> Voice:
    """ENGINE:VOICE -> a voice that has spoken; UserError says what to install or which voices there are."""
    engine, _, name = spec.partition(":")
    if engine not in INSTALL or not name:
        raise UserError(f"--speak {spec}: expected ENGINE:VOICE, as flite:slt; engines: {', '.join(INSTALL)}")
    if shutil.which(engine) is None:
        raise UserError(f"--speak {spec}: no `{engine}` on the PATH; install it ({INSTALL[engine]})")
    voice = Voice(engine, name)
    try:
        if engine == "flite":
            # Asked for a voice it doesn't have, flite speaks with another one; so its list decides.
            voices = _call(["flite", "-lv"]).partition(":")[2].split()
            if name not in voices:
                raise UserError(f"--speak {spec}: no such voice; flite has {', '.join(sorted(voices))}")
        voice.speak(["one two three"])
    except EngineError as error:
        raise UserError(f"--speak {spec}: this voice does not speak ({error})") from error
    return voice


def _call(command: list[str], stdin: str = "", sentences: int = 1) -> str:
    """What an engine prints, run without a shell, and in its own session: Ctrl-C must not fail a sentence."""
    timeout = TIMEOUT * sentences
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{command[0]} took more than {timeout:g} s") from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{command[0]} cannot be run ({error})") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError(f"{command[0]} exit status {done.returncode}: {last[:200]}")
    return done.stdout
