"""Speech engines: what is asked of them, safely, and what is said when they are missing or fail."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from skipmodal.data import speak
from skipmodal.data.speak import EngineError, Voice, parse
from skipmodal.errors import UserError


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a shell script on the PATH as a speech engine; it sees $LOG."""

    def install(name: str, script: str) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nLOG='{tmp_path / 'log'}'\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "log"

    return install


def seconds(wav: bytes) -> float:
    with soundfile.SoundFile(io.BytesIO(wav)) as file:
        return file.frames / file.samplerate


@pytest.mark.parametrize("spec", ["", "flite", "flite:", ":slt", "festival:x", "FLITE:slt"])
def test_malformed_specs(spec: str) -> None:
    with pytest.raises(UserError, match="expected ENGINE:VOICE, as flite:slt"):
        parse(spec)


@pytest.mark.parametrize("name", speak.INSTALL)
def test_a_missing_engine_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=f"no `{name}` on the PATH; install it \\({speak.INSTALL[name]}\\)"):
        parse(f"{name}:x")


def test_an_engine_that_fails_at_once(engine: Callable[[str, str], Path]) -> None:
    engine("espeak-ng", "echo 'no such voice' >&2; exit 1")
    with pytest.raises(UserError, match=r"espeak-ng:xx: this voice does not speak .*status 1: no such voice"):
        parse("espeak-ng:xx")
    engine("flite", '[ "$1" = -lv ] && echo "Voices available: kal slt " && exit 0; touch "$6"')
    with pytest.raises(UserError, match="no such voice; flite has kal, slt"):
        parse("flite:xx")
    assert str(parse("flite:slt")) == "flite:slt"


def test_an_engine_that_writes_nothing(engine: Callable[[str, str], Path]) -> None:
    engine("flite", "exit 0")
    with pytest.raises(EngineError, match="wrote 0 files for 1 sentences"):
        Voice("flite", "slt").speak(["x"])


def test_an_engine_that_hangs(engine: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine("flite", "exec sleep 60")
    monkeypatch.setattr(speak, "TIMEOUT", 0.2)
    with pytest.raises(EngineError, match=r"took more than 0\.2 s"):
        Voice("flite", "slt").speak(["x"])


@pytest.mark.parametrize("name", speak.INSTALL)
def test_sentences_are_data(name: str, engine: Callable[[str, str], Path], tmp_path: Path) -> None:
    """No sentence becomes an option, a command or a file."""
    where = {"flite": '"$6"', "espeak-ng": '"$4"', "piper": '"$4/1.wav"'}[name]
    log = engine(name, f'printf "%s\\n" "$@" > "$LOG"; cat > "$LOG.in"; echo wav > {where}')
    text = f"-o $(touch {tmp_path}/hacked) `id`; \"quoted\" 'text'"
    assert Voice(name, "v").speak([text]) == [b"wav\n"]
    arguments = log.read_text().splitlines()
    if name == "flite":
        assert arguments[:4] == ["-voice", "v", "-t", text]
    else:
        assert text not in arguments
        assert Path(f"{log}.in").read_text().strip() == text
    assert not (tmp_path / "hacked").exists()


def test_piper_gets_one_line_a_sentence(engine: Callable[[str, str], Path]) -> None:
    log = engine("piper", 'cat > "$LOG"; for i in 9 10 11; do echo $i > "$4/$i.wav"; done')
    voice = Voice("piper", "/some/where/joe.onnx")
    assert voice.speak(["a\nb", " c ", "d"]) == [b"9\n", b"10\n", b"11\n"]  # by number, not by name
    assert log.read_text() == "a b\nc\nd\n"
    assert (voice.batch, str(voice)) == (32, "piper:joe.onnx")


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite() -> None:
    voice = parse("flite:slt")
    wav, with_dash = voice.speak(["A dog runs."])[0], voice.speak(["-lv A dog runs."])[0]
    assert 0.5 < seconds(wav) < 3
    assert seconds(with_dash) > seconds(wav)
    assert voice.speak(["A dog runs."]) == [wav]
    with pytest.raises(UserError, match=r"flite has .*slt"):
        parse("flite:nobody")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak() -> None:
    voice = parse("espeak-ng:en-us")
    assert 0.5 < seconds(voice.speak(["A dog runs."])[0]) < 3
    assert seconds(voice.speak(["-q A dog runs."])[0]) > 0.5
    with pytest.raises(UserError, match="does not speak"):
        parse("espeak-ng:nobody")
