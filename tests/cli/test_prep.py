"""`skipmodal prep` as a user meets it: summary, exit status, one line for what can be fixed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from skipmodal.cli import app
from skipmodal.data import pipeline
from skipmodal.data.prepared import PreparedDataset


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in "abc":
        Image.fromarray(np.full((8, 8, 3), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "m.csv").write_text("image,text\na.png,one\nb.png,two\nc.png,three\nd.png,four\n")
    return tmp_path / "m.csv"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    """Exit status, or the message that goes with status 1."""
    monkeypatch.setattr(sys, "argv", ["skipmodal", "prep", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    return stopped.value.code


def test_summary(source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.parent / "d"
    options = ("--size", 16, "--licence", "CC0", "--val", 0, "--test", 0)
    assert not run(monkeypatch, "image-text", source, out, *options)
    printed, progress = capsys.readouterr()
    table = [line.split() for line in printed.splitlines()]
    assert table[0] == ["kept", "3", "train", "3,", "val", "0,", "test", "0"]
    assert table[1] == ["dropped", "1", "missing", "file"]
    assert f"  {source}:5: {source.parent / 'd.png'}\n" in printed
    assert progress == f"wrote {out}\n"
    data = PreparedDataset(out)
    assert (data.meta.licence, data.image(0).shape) == ("CC0", (16, 16, 3))


def test_power_travels_with_the_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(np.arange(16000) / 5), 16000)
    (tmp_path / "m.csv").write_text("audio,text\na.wav,Hello there.\n")
    assert not run(monkeypatch, "text-speech", tmp_path / "m.csv", tmp_path / "d", "--power", 1.2)
    audio = PreparedDataset(tmp_path / "d").meta.audio
    assert audio is not None
    assert audio.power == 1.2


def test_dry_run_and_limit(source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert not run(monkeypatch, "image-text", source, source.parent / "d", "--dry-run", "--limit", 2)
    printed, progress = capsys.readouterr()
    assert printed.split()[:2] == ["kept", "2"]
    *warnings, last = progress.splitlines()
    assert last == "dry run: nothing written"
    assert [line.split(" split ")[1].split(",")[0] for line in warnings] == ["val", "test"]
    assert not (source.parent / "d").exists()


def test_what_can_be_fixed_is_one_line(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = source.parent / "d"
    assert not run(monkeypatch, "image-text", source, out)
    for arguments, message in (
        (("image-text", source, out), f"error: {out}: exists and is complete; --overwrite replaces it"),
        (("image-text", "none", out), "skipmodal: error: none: no such file or folder"),
        (("text-speech", source, source.parent / "e"), "no usable row"),
        (("text-speech", source, out, "--speak", "flute:x"), "expected ENGINE:VOICE"),
        (("text-speech", source, out, "--device", "warp"), "device 'warp'"),
        (("image-text", source, out, "--layout", "x"), "layout 'x' is unknown"),
    ):
        code = run(monkeypatch, *arguments)  # a string: Python prints it on stderr and exits with 1
        assert isinstance(code, str)
        assert message in code
        assert "\n" not in code
    assert sorted(path.name for path in source.parent.iterdir()) == ["a.png", "b.png", "c.png", "d", "m.csv"]
    assert not run(monkeypatch, "image-text", source, out, "--overwrite")


@pytest.mark.parametrize(
    "wrong", [["--size", "3"], ["--size", "100"], ["--jobs", "0"], ["--colour"], ["--limit", "none"]]
)
def test_wrong_usage(source: Path, monkeypatch: pytest.MonkeyPatch, wrong: list[str]) -> None:
    assert run(monkeypatch, "image-text", source, source.parent / "d", *wrong) == 2


def test_interrupted(source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(self: pipeline.Pipeline, block: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Pipeline, "_encoded", interrupt)
        assert run(monkeypatch, "image-text", source, source.parent / "d") == 130
    assert "0 of 4 rows are done; the same command resumes" in capsys.readouterr().err
    assert not run(monkeypatch, "image-text", source, source.parent / "d")


def test_help_is_quick() -> None:
    """Neither help nor preparing pictures waits for torch or librosa."""
    code = """
import sys
from skipmodal.cli import app
for command in ("", "prep", "prep image-text", "prep text-speech"):
    sys.argv = ["skipmodal", *command.split(), "--help"]
    try:
        app.main()
    except SystemExit as stopped:
        assert not stopped.code, stopped.code
import skipmodal.data.prepare
assert not {"torch", "librosa", "torchaudio", "soundfile", "inflect"} & set(sys.modules), "heavy import"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "image-text" in done.stdout
    assert "--speak" in done.stdout


def test_names_that_a_terminal_cannot_show(tmp_path: Path) -> None:
    (tmp_path / "\udcff").mkdir()  # a name that is not UTF-8
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / "\udcff" / f"{name}.png")
    lines = ['{"image": "\\u001b[2J\\ud800.png", "text": "x"}', '{"image": "a.png", "text": "x"}', '{"image": "b.png"}']
    source = tmp_path / "\udcff" / "m.jsonl"
    source.write_text("\n".join(lines))
    command = [sys.executable, "-m", "skipmodal", "prep", "image-text", str(source), str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\udcff/m.jsonl:1: " in done.stdout
    assert b"\\x1b[2J\\ud800.png" in done.stdout
    assert len(PreparedDataset(tmp_path / "d")) == 1


def test_names_that_are_too_long_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 300)
    assert str(run(monkeypatch, "image-text", long, tmp_path / "d")).endswith("cannot be used (File name too long)")
    assert not list(tmp_path.iterdir())
