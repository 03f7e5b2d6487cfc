"""Transcribers: a command as the engine, silence, the cache, what can be wrong."""

import stat
import sys

import numpy as np
import pytest

from skipmodal.errors import UserError
from skipmodal.evaluation.transcribe import Transcriber

TONE = (0.5 * np.sin(np.arange(8000) / 5)).astype(np.float32)


@pytest.fixture
def engine(tmp_path):
    """A program that counts its calls and prints the length of the wav."""
    script = tmp_path / "hear.py"
    script.write_text(
        f"#!{sys.executable}\nimport sys, wave\nopen({str(tmp_path / 'calls')!r}, 'a').write('x')\n"
        "print(' heard  ', wave.open(sys.argv[1]).getnframes())\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    return script


def test_a_command_hears_once_and_silence_is_not_heard(engine, tmp_path):
    cache = tmp_path / "cache.jsonl"
    recordings = [(TONE, 8000), (np.zeros(800, np.float32), 8000), (TONE[:4000], 8000), (TONE[:0], 8000)]
    expected = ["heard 8000", "", "heard 4000", ""]
    assert list(Transcriber(f"command:{engine}", cache)(recordings)) == expected
    assert (tmp_path / "calls").read_text() == "xx"
    cache.write_text(cache.read_text() + '["torn')  # a run that was killed
    assert list(Transcriber(f"command:{engine}", cache)(recordings)) == expected
    assert (tmp_path / "calls").read_text() == "xx"


@pytest.mark.parametrize("spec", ["whisper", "command:", "faster-whisper", "pocketsphinx:x", ""])
def test_unknown_engines_are_refused_with_what_there_is(spec):
    with pytest.raises(UserError, match="expected faster-whisper:NAME_OR_FOLDER"):
        Transcriber(spec)


def test_a_command_that_fails_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be run"):
        list(Transcriber(f"command:{tmp_path / 'none'}")([(TONE, 8000)]))
    with pytest.raises(UserError, match="exit status"):
        list(Transcriber("command:false")([(TONE, 8000)]))


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"skipmodal\[asr\]"):
        Transcriber("faster-whisper:base")


def test_a_damaged_or_impossible_cache_is_no_traceback(engine, tmp_path):
    cache = tmp_path / "cache.jsonl"
    cache.write_bytes(b'5\n["x"]\n\xff\xfe\n{"a": 1}\n')
    assert list(Transcriber(f"command:{engine}", cache)([(TONE, 8000)])) == ["heard 8000"]
    with pytest.raises(UserError, match="--cache"):
        Transcriber(f"command:{engine}", tmp_path)
