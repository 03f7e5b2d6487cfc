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
TIMEOUT = 60.0  # seconds for one sentence


class EngineError(Exception):
    """The engine failed on one sentence."""


@dataclass(frozen=True)
class Voice:
    """One voice of one engine; `speak` may be called from several threads."""

    engine: str
    name: str

    def __str__(self) -> str:
        return f"{self.engine}:{Path(self.name).name}"

    def speak(self, text: str) -> bytes:
        """A wav file of the sentence; EngineError where the engine fails or takes more than TIMEOUT."""
        text = " ".join(text.split())  # piper speaks line by line
        with tempfile.TemporaryDirectory(prefix="skipmodal-") as folder:
            wav = Path(folder) / "speech.wav"
            if self.engine == "flite":
                done = _call(["flite", "-voice", self.name, "-t", text, "-o", str(wav)])
            elif self.engine == "espeak-ng":
                done = _call(["espeak-ng", "-v", self.name, "-w", str(wav), "--stdin"], text)
            else:
                done = _call(["piper", "--model", self.name, "--output_file", str(wav)], text)
            if done.returncode or not wav.is_file() or not wav.stat().st_size:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise EngineError(f"{self.engine} failed with exit status {done.returncode}: {last[:200]}")
            return wav.read_bytes()


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
            voices = _call(["flite", "-lv"]).stdout.partition(":")[2].split()
            if name not in voices:
                raise UserError(f"--speak {spec}: no such voice; flite has {', '.join(sorted(voices))}")
        voice.speak("one two three")
    except EngineError as error:
        raise UserError(f"--speak {spec}: this voice does not speak ({error})") from error
    return voice


def _call(command: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs an engine without a shell, and in its own session: Ctrl-C must not count as a failed sentence."""
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", timeout=TIMEOUT,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{command[0]} took more than {TIMEOUT:.0f} s") from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{command[0]} cannot be run ({error})") from error
