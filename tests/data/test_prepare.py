"""Preparing datasets: what is kept is right, what is left out is counted, and a killed run is finished."""

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from skipmodal.audio import AudioConfig, spectrograms
from skipmodal.data import pipeline, prepare
from skipmodal.data.prepare import mel_batch, prepare_image_text, prepare_text_speech, split_of
from skipmodal.data.prepared import PreparedDataset
from skipmodal.data.writer import PrepReport
from skipmodal.errors import UserError
from skipmodal.features import efficientnet
from skipmodal.features.efficientnet import EfficientNetLite
from skipmodal.image import ImageConfig, read_image, read_views, shrink, to_tensor

IMAGE = ImageConfig(size=16)
AUDIO = AudioConfig(sample_rate=8000, n_fft=512, win_length=400, hop_length=100, n_mels=12)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pictures(folder: Path, count: int) -> Path:
    """A manifest of small pictures, all different."""
    rng = np.random.default_rng(0)
    lines = ["image,text"]
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(folder / f"p{i}.png")
        lines.append(f"p{i}.png,Picture {'abcdefghijklmnopqrstu'[i]} .")  # digits would load inflect: slow
    (folder / "m.csv").write_text("\n".join(lines))
    return folder / "m.csv"


def tone(seconds: float, rate: int = 8000, silence: float = 0.0, level: float = 0.5) -> np.ndarray:
    wav = level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    quiet = np.zeros(int(silence * rate))
    return np.concatenate([quiet, wav, quiet])


def recordings(folder: Path, wavs: dict[str, np.ndarray], rate: int = 8000) -> Path:
    lines = ["audio\ttext"]
    for name, wav in wavs.items():
        soundfile.write(folder / f"{name}.wav", wav, rate, subtype="FLOAT")
        lines.append(f"{name}.wav\tThe recording {name}.")
    (folder / "m.tsv").write_text("\n".join(lines))
    return folder / "m.tsv"


def speech(source: Path, out: Path, **options: object) -> PrepReport:
    return prepare_text_speech(source, out, audio=AUDIO, device="cpu", **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------- pictures


def test_pictures(tmp_path: Path) -> None:
    source = pictures(tmp_path, 5)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and nothing")
    (tmp_path / "cut.png").write_bytes((tmp_path / "p0.png").read_bytes()[:300])
    more = ("broken.png,x", "none.png,x", "cut.png,x", "p1.png,and  ágain", "p1.png,日本", "b.png,日本", ",x")
    source.write_text("\n".join((source.read_text(), *more, "p3.png," + "x" * 1001)))
    report = prepare_image_text(source, tmp_path / "d", image=IMAGE, licence="CC0", val=0, test=0)
    data = PreparedDataset(tmp_path / "d")
    assert len(data) == report.kept["train"] == 5
    for i in range(5):
        assert (data.image(i) == read_image(tmp_path / f"p{i}.png", IMAGE)).all()
    assert data.texts(1) == ["Picture b.", "and again"]
    assert report.dropped == {
        "unreadable picture": 2, "missing file": 1, "no usable text": 1, "no image given": 1,
    }  # fmt: skip
    assert report.dropped_texts == 2  # of p1 and p3
    assert report.texts == 6
    assert report.examples["missing file"] == [f"{source}:8: {tmp_path / 'none.png'}"]
    assert data.meta.dropped == report.dropped
    assert (data.meta.source, data.meta.licence, data.meta.image) == ("m.csv (manifest)", "CC0", IMAGE)
    assert len((tmp_path / "d" / "dropped.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize("dry_run", [False, True])
def test_names_that_no_file_can_have_are_missing_files(tmp_path: Path, dry_run: bool) -> None:
    pictures(tmp_path, 1)
    names = ["x" * 300 + ".png", "\ud800.png", "p0.png"]
    lines = [json.dumps({"image": name, "text": "a dog", "id": f"\udcff{i}"}) for i, name in enumerate(names)]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    report = prepare_image_text(tmp_path / "m.jsonl", tmp_path / "d", image=IMAGE, dry_run=dry_run)
    assert report.dropped == {"missing file": 2}
    assert report.kept.total() == 1
    assert not (tmp_path / "d.partial").exists()


def test_views_of_training_pictures_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EfficientNetLite, "load_published", lambda self, classifier=None: self.eval())
    monkeypatch.setattr(prepare, "BATCH", 3)  # pictures and their views don't fill batches evenly
    torch.manual_seed(0)
    networks: list[EfficientNetLite] = []
    build = efficientnet.build
    monkeypatch.setattr(efficientnet, "build", lambda name: networks.append(build(name)) or networks[-1])
    config = ImageConfig(size=16, encoder="efficientnet_lite0")
    source = pictures(tmp_path, 3)
    lines = source.read_text().split("\n")
    splits = ("split", "train", "val", "train")
    source.write_text("\n".join(f"{line},{split}" for line, split in zip(lines, splits, strict=True)))
    prepare_image_text(source, tmp_path / "d", image=config, views=2, device="cpu")
    prepare_image_text(source, tmp_path / "plain", image=config, device="cpu")
    data = PreparedDataset(tmp_path / "d")
    assert data.meta.views == 2 and PreparedDataset(tmp_path / "plain").meta.views is None
    shown = read_views(tmp_path / "p2.png", config, 2, zlib.crc32(b"p2"))
    with torch.inference_mode():
        expected = networks[0](to_tensor(shown)).half().numpy()
    for view in range(3):
        np.testing.assert_allclose(data.features(2, view), expected[view], rtol=1e-2, atol=1e-3)
    assert data.features(1).any() and not data.features(1, 1).any()  # of the val split
    for i in range(3):
        assert (data.image(i) == shrink(read_image(tmp_path / f"p{i}.png", config), 16)).all()


def test_views_need_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="views are for a frozen image encoder: --encoder"):
        prepare_image_text(pictures(tmp_path, 2), tmp_path / "d", image=IMAGE, views=1)


def test_a_dry_run_refuses_what_the_header_shows(tmp_path: Path) -> None:
    rows = {
        "a.wav": (np.zeros(9), 999_999, "WAV"),
        "b.wav": (np.zeros(900), 8000, "VOC"),
        "c.wav": (tone(1), 8000, "WAV"),
    }
    for name, (wav, rate, container) in rows.items():
        soundfile.write(tmp_path / name, wav, rate, format=container)
    (tmp_path / "m.csv").write_text("audio,text\n" + "".join(f"{name},x\n" for name in rows))
    assert speech(tmp_path / "m.csv", tmp_path / "d", dry_run=True).dropped == {"unreadable audio": 2}
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png", "EPS")
    Image.new("RGB", (30, 20)).save(tmp_path / "b.png")
    (tmp_path / "m.csv").write_text("image,text\na.png,x\nb.png,x\n")
    assert prepare_image_text(tmp_path / "m.csv", tmp_path / "d", dry_run=True).dropped == {"unreadable picture": 1}


def test_repeated_ids_are_left_out(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    (tmp_path / "m.csv").write_text("id,image,text\na,p0.png,one\na,p1.png,two\n")
    report = prepare_image_text(tmp_path / "m.csv", tmp_path / "d", image=IMAGE)
    assert report.dropped == {"duplicate id": 1}
    assert PreparedDataset(tmp_path / "d").texts(0) == ["one"]


def test_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BLOCK", 4)
    source = pictures(tmp_path, 21)
    for jobs in (1, 5):
        prepare_image_text(source, tmp_path / f"d{jobs}", image=IMAGE, jobs=jobs)
    assert contents(tmp_path / "d1") == contents(tmp_path / "d5")


def test_limit_uses_the_first_rows(tmp_path: Path) -> None:
    source = pictures(tmp_path, 5)
    prepare_image_text(source, tmp_path / "d", image=IMAGE, limit=3)
    assert [PreparedDataset(tmp_path / "d").item(i)["id"] for i in range(3)] == ["p0", "p1", "p2"]
    assert len(PreparedDataset(tmp_path / "d")) == 3


def test_limit_counts_usable_rows(tmp_path: Path) -> None:
    source = pictures(tmp_path, 5)
    source.write_text(source.read_text().replace("p1.png,", "p1.png,,").replace("p4.png,", "p4.png,,"))
    prepare_image_text(source, tmp_path / "d", image=IMAGE, limit=2)  # the layout tells of bad rows before all others
    assert [PreparedDataset(tmp_path / "d").item(i)["id"] for i in range(2)] == ["p0", "p2"]


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = pictures(tmp_path, 4)
    (tmp_path / "p2.png").write_bytes(b"nothing")
    (tmp_path / "p3.png").unlink()
    before = contents(tmp_path)
    report = prepare_image_text(source, tmp_path / "d", image=IMAGE, dry_run=True)
    assert report.kept.total() == 2
    assert report.dropped == {"unreadable picture": 1, "missing file": 1}
    assert contents(tmp_path) == before


def test_no_usable_row_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,text\na.png,x\nb.png,y\n")
    message = r"no usable row; left out: 2 x missing file \(.*m.csv:2: .*a.png\)"
    for dry_run in (True, False):
        with pytest.raises(UserError, match=message):
            prepare_image_text(tmp_path / "m.csv", tmp_path / "d", dry_run=dry_run)
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]
    (tmp_path / "m.csv").write_text("image,text\n")
    with pytest.raises(UserError, match="the source is empty"):
        prepare_image_text(tmp_path / "m.csv", tmp_path / "d")


def test_a_layout_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tx\n")
    with pytest.raises(UserError, match=r"layout flickr8k .* offers image, not audio"):
        prepare_text_speech(tmp_path, tmp_path / "d", device="cpu")


def test_splits_depend_on_the_id_alone() -> None:
    ids = [f"item {i}" for i in range(5000)]
    splits = [split_of(each, 0.02, 0.1) for each in ids]
    assert abs(splits.count("val") / 5000 - 0.02) < 0.01
    assert abs(splits.count("test") / 5000 - 0.1) < 0.02
    assert splits[:100] == [split_of(each, 0.02, 0.1) for each in ids[:100]]
    assert {split_of(each, 0, 0) for each in ids} == {"train"}
    assert split_of("a fixed id", 0.5, 0.25) == "val"  # must never change between versions


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0), (0.5, 0.5), (0, 1.5), (float("nan"), 0)])
def test_fractions_that_leave_nothing(tmp_path: Path, val: float, test: float) -> None:
    with pytest.raises(UserError, match="fractions"):
        prepare_image_text(pictures(tmp_path, 1), tmp_path / "d", val=val, test=test)


KILLED = """
import os, signal, sys
from pathlib import Path
from skipmodal import progress
from skipmodal.data import pipeline, prepare, shards, writer
from skipmodal.image import ImageConfig

left, real = int(sys.argv[3]), shards.sync

def sync(file):  # dies when something has to reach the disk for the n-th time; where n is odd, half-written
    global left
    left -= 1
    if left == 0:
        if int(sys.argv[3]) % 2:
            file.flush()
            os.truncate(file.fileno(), os.fstat(file.fileno()).st_size - 5)
        os.kill(os.getpid(), signal.SIGKILL)
    real(file)

shards.sync = writer.sync = sync
pipeline.BLOCK = 4
prepare.prepare_image_text(Path(sys.argv[1]), Path(sys.argv[2]), image=ImageConfig(size=16), jobs=2)
"""


def test_a_killed_run_is_finished_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pictures(tmp_path, 14)
    monkeypatch.setattr(pipeline, "BLOCK", 4)
    prepare_image_text(source, tmp_path / "whole", image=IMAGE)
    blocks = []
    # The settings are synced once, each commit twice (array, journal): killed in both, and while finishing.
    for at in (5, 3, 4, 6, 0):
        done = subprocess.run([sys.executable, "-c", KILLED, source, tmp_path / "d", str(at)], check=False)
        assert done.returncode == (-signal.SIGKILL if at else 0)
        if at:
            with pytest.raises(UserError, match="it resumes"):
                PreparedDataset(tmp_path / "d")
            blocks.append((tmp_path / "d.partial" / "journal.jsonl").read_bytes().count(b"\n"))
    assert blocks == [1, 2, 3, 4]
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


# ---------------------------------------------------------------- recordings


def test_recordings_are_trimmed_and_match_their_spectrograms(tmp_path: Path) -> None:
    import torch

    lengths = {"a": 0.9, "b": 0.4, "c": 1.3}
    source = recordings(tmp_path, {name: tone(each, silence=0.5) for name, each in lengths.items()})
    report = speech(source, tmp_path / "d", val=0, test=0)
    data = PreparedDataset(tmp_path / "d")
    for i, (name, seconds) in enumerate(lengths.items()):
        wav = data.wav(i)
        assert data.texts(i) == [f"The recording {name}."]
        assert seconds <= len(wav) / 8000 < seconds + 0.3  # what is left is the tone and a little silence
        full, _ = soundfile.read(tmp_path / f"{name}.wav", dtype="float32")
        whole = np.round(full * 32768).astype(np.int16)
        start = np.flatnonzero(whole)[0] - np.flatnonzero(wav)[0]
        assert (whole[start : start + len(wav)] == wav).all()
        alone = torch.from_numpy(wav.astype(np.float32) / 32768)[None]
        mel = spectrograms(alone, AUDIO)[0][0].half().numpy()
        assert (data.mel(i) == mel).all()
        assert data.frames[i] == len(mel) == data.item(i)["frames"]
    assert report.seconds == pytest.approx(sum(len(data.wav(i)) for i in range(3)) / 8000, abs=0.01)
    assert report.trimmed_median == pytest.approx(0.85, abs=0.15)
    assert data.meta.trimmed_seconds == pytest.approx(sum(report.trimmed), abs=0.1)


def test_a_batch_gives_the_mels_of_its_items() -> None:
    import torch

    rng = np.random.default_rng(0)
    wavs = [rng.integers(-20000, 20000, n).astype(np.int16) for n in (900, 1000, 1001, 2399, 4000, 50)]
    together = mel_batch(wavs, AUDIO, torch.device("cpu"))
    for wav, mel in zip(wavs, together, strict=True):
        assert mel.dtype == np.float16
        assert mel.shape == (AUDIO.frames(len(wav)), AUDIO.n_mels)
        assert (mel == mel_batch([wav], AUDIO, torch.device("cpu"))[0]).all()
        assert 0 < mel.astype(float).mean() < 1


def test_batches_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(prepare, "BATCH", 3)
    monkeypatch.setattr(prepare, "BATCH_FRAMES", 60)
    sizes: list[int] = []

    def spy(wavs: list[np.ndarray], config: AudioConfig, device: torch.device) -> list[np.ndarray]:
        sizes.append(len(wavs))
        assert len(wavs) * config.frames(max(map(len, wavs))) <= 60 or len(wavs) == 1
        return [wav[:1] for wav in wavs]

    monkeypatch.setattr(prepare, "mel_batch", spy)
    wavs = [np.full(n, i, dtype=np.int16) for i, n in enumerate((2500, 400, 9000, 500, 600, 700, 800, 2600))]
    done = prepare._with_mels(wavs, AUDIO, torch.device("cpu"))
    assert [int(mel[0]) for mel, _ in done] == list(range(8))
    assert all(after is before for (_, after), before in zip(done, wavs, strict=True))
    assert sizes == [3, 2, 2, 1]


def test_unusable_recordings_are_counted(tmp_path: Path) -> None:
    wavs = {
        "good": tone(0.5), "silent": np.zeros(8000), "short": tone(0.1, silence=0.4), "long": tone(2.5),
        "nan": np.full(8000, np.nan), "trimmed_in_time": tone(1.8, silence=1.0), "loud": tone(0.5, level=3.0),
    }  # fmt: skip
    source = recordings(tmp_path, wavs)
    (tmp_path / "text.wav").write_text("not audio")
    long = "good.wav\t" + "x" * 31
    extra = "\ntext.wav\tx\nnone.wav\tx\n" + long + "\ngood.wav\t" + "1" * 400 + "\ngood.wav\t日本\n"
    source.write_text(source.read_text() + "".join(f"\n{line}" for line in extra.split("\n") if line))
    lines = source.read_text().split("\n")
    source.write_text("\n".join(["id\t" + lines[0], *(f"{i}\t{line}" for i, line in enumerate(lines[1:]))]))
    report = speech(source, tmp_path / "d", max_seconds=2.0, max_chars=30)
    assert report.dropped == {
        "only silence": 1, "too short": 1, "too long": 1, "unreadable audio": 2, "missing file": 1,
        "text too long": 2, "no usable text": 1,
    }  # fmt: skip
    data = PreparedDataset(tmp_path / "d")
    assert [data.item(i)["id"] for i in range(len(data))] == ["0", "5", "6"]
    assert data.wav(2).max() == 32767  # clipped, not wrapped around
    assert data.wav(2).min() == -32768
    dry = speech(source, tmp_path / "e", max_seconds=2.0, max_chars=30, dry_run=True)
    assert dry.dropped == {"unreadable audio": 1, "missing file": 1, "text too long": 2, "no usable text": 1}
    assert not (tmp_path / "e").exists()


def test_other_rates_and_channels(tmp_path: Path) -> None:
    stereo = np.stack([tone(0.6, rate=16000), np.zeros(9600)], axis=1)
    report = speech(recordings(tmp_path, {"a": stereo}, rate=16000), tmp_path / "d")
    assert report.seconds == pytest.approx(0.6, abs=0.02)
    assert PreparedDataset(tmp_path / "d").wav(0).max() == pytest.approx(0.25 * 32768, rel=0.05)


def test_interrupted_it_resumes_without_doing_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "BLOCK", 2)
    source = recordings(tmp_path, {"abcdef"[i]: tone(0.4 + 0.05 * i, silence=0.1) for i in range(6)})
    speech(source, tmp_path / "whole")
    capsys.readouterr()
    real, computed = prepare.mel_batch, []

    def interrupted(wavs: list[np.ndarray], *rest: object) -> list[np.ndarray]:
        computed.extend(wavs)
        if len(computed) == 4:
            raise KeyboardInterrupt
        return real(wavs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "mel_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        speech(source, tmp_path / "d")
    assert "2 of 6 rows are done; the same command resumes" in capsys.readouterr().err
    with pytest.raises(UserError, match="other settings"):
        speech(source, tmp_path / "d", max_chars=50)
    computed.clear()
    computed.append(np.zeros(1))
    monkeypatch.setattr(prepare, "mel_batch", lambda wavs, *rest: computed.extend(wavs) or real(wavs, *rest))
    report = speech(source, tmp_path / "d")
    assert len(computed) == 1 + 4
    assert report.kept.total() == 6
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


def test_an_error_stops_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C must not wait for what is still queued."""
    monkeypatch.setattr(pipeline, "BLOCK", 2)
    source, loaded = pictures(tmp_path, 8), []

    def load(path: Path, config: ImageConfig) -> np.ndarray:
        loaded.append(path)
        time.sleep(0.1)
        return read_image(path, config)

    def fail(self: pipeline.Pipeline, block: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "read_image", load)
    monkeypatch.setattr(pipeline.Pipeline, "_encoded", fail)
    with pytest.raises(KeyboardInterrupt) as stopped:  # which keeps every frame alive, as a traceback does
        prepare_image_text(source, tmp_path / "d", image=IMAGE, jobs=1)
    at_once = len(loaded)
    time.sleep(0.3)
    assert len(loaded) == at_once <= 4
    assert stopped.tb


# ---------------------------------------------------------------- spoken sentences


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a shell script on the PATH as a speech engine."""

    def install(name: str, script: str) -> None:
        soundfile.write(tmp_path / "voice.wav", tone(0.5), 8000)
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nVOICE='{tmp_path / 'voice.wav'}'\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return install


def test_a_sentence_that_fails_is_left_out(tmp_path: Path, engine: Callable[[str, str], None]) -> None:
    engine("espeak-ng", 'read text; case "$text" in *bad*) echo broke >&2; exit 3;; esac; cp "$VOICE" "$4"')
    (tmp_path / "s.tsv").write_text("1\tA good one\n2\tA bad one\n3\tAnother & on\n")
    report = speech(tmp_path / "s.tsv", tmp_path / "d", speak=["espeak-ng:en"], max_chars=20)
    assert report.dropped == {"engine failed": 1}
    assert report.examples["engine failed"] == [f"{tmp_path / 's.tsv'}:2: espeak-ng exit status 3: broke"]
    data = PreparedDataset(tmp_path / "d")
    assert [data.texts(i) for i in range(2)] == [["A good one"], ["Another and on"]]
    assert data.meta.source == "s.tsv (manifest), spoken by espeak-ng:en"


def test_piper_starts_once_for_many_sentences(tmp_path: Path, engine: Callable[[str, str], None]) -> None:
    """It stops at a sentence that it can't speak; the others are found one by one."""
    engine(
        "piper",
        f'echo start >> "{tmp_path}/starts"; n=99; while read line; do n=$((n + 1))\n'
        'case "$line" in *bad*) exit 1;; esac; cp "$VOICE" "$4/$n.wav"; done',
    )
    source = tmp_path / "s.tsv"
    source.write_text("".join(f"{i}\tsentence {'a' * i}.\n" for i in range(40)))
    speech(source, tmp_path / "d", speak=["piper:x.onnx"])
    assert (tmp_path / "starts").read_text().count("start") == 1 + 2  # the trial, and 32 + 8 sentences
    source.write_text(source.read_text().replace("sentence aaaaaaa.\n", "a bad one\n"))
    report = speech(source, tmp_path / "e", speak=["piper:x.onnx"])
    assert report.dropped == {"engine failed": 1}
    assert report.kept.total() == 39


def test_voices_take_turns_where_there_is_no_recording(tmp_path: Path, engine: Callable[[str, str], None]) -> None:
    engine("espeak-ng", f'cat > /dev/null; echo "$2" >> "{tmp_path}/said"; cp "$VOICE" "$4"')
    soundfile.write(tmp_path / "a.wav", tone(1.0), 8000)
    source = tmp_path / "s.tsv"
    source.write_text("id\taudio\ttext\n1\t\tOne\n2\ta.wav\tTwo\n3\t\tThree\n4\t\tFour\n5\tnone.wav\tFive\n")
    report = speech(source, tmp_path / "d", speak=["espeak-ng:en", "espeak-ng:fr"], jobs=1)
    assert (tmp_path / "said").read_text().split() == ["en", "fr", "en", "fr", "en"]  # each is tried first
    assert report.dropped == {"missing file": 1}
    data = PreparedDataset(tmp_path / "d")
    assert [len(data.wav(i)) > 0.9 * data.meta.audio.sample_rate for i in range(4)] == [False, True, False, False]
    assert data.meta.source == "s.tsv (manifest), spoken by espeak-ng:en, espeak-ng:fr"


def test_recordings_and_voices_of_one_group_keep_their_order(
    tmp_path: Path, engine: Callable[[str, str], None]
) -> None:
    """Piper speaks 32 sentences at once: its groups hold other rows too."""
    engine("piper", 'n=99; while read line; do n=$((n + 1)); cp "$VOICE" "$4/$n.wav"; done')
    engine("espeak-ng", 'read text; [ "$text" = bad ] && exit 3; cp "$VOICE" "$4"')
    soundfile.write(tmp_path / "a.wav", tone(1.0), 8000)
    texts = ["one", "bad", "three", "a.wav", "five", "six", "a.wav", "eight"]
    rows = "".join(f"{i}\t{t if t == 'a.wav' else ''}\t{t}\n" for i, t in enumerate(texts))
    (tmp_path / "s.tsv").write_text("id\taudio\ttext\n" + rows)
    report = speech(tmp_path / "s.tsv", tmp_path / "d", speak=["piper:x.onnx", "espeak-ng:en"], jobs=1)
    assert report.dropped == {"engine failed": 1}
    data = PreparedDataset(tmp_path / "d")
    kept = [text for text in texts if text != "bad"]
    assert [data.item(i)["id"] for i in range(7)] == ["0", "2", "3", "4", "5", "6", "7"]
    long = [len(data.wav(i)) > 0.9 * data.meta.audio.sample_rate for i in range(7)]
    assert long == [text == "a.wav" for text in kept]


def test_dry_run_does_not_speak(tmp_path: Path, engine: Callable[[str, str], None]) -> None:
    engine("espeak-ng", f'cat >> "{tmp_path}/said"; cp "$VOICE" "$4"')
    (tmp_path / "s.tsv").write_text("1\tsecret\n")
    assert speech(tmp_path / "s.tsv", tmp_path / "d", speak=["espeak-ng:en"], dry_run=True).kept.total() == 1
    assert "secret" not in (tmp_path / "said").read_text()
