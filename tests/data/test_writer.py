"""Writing a prepared dataset: what a killed run leaves behind is finished to the same bytes, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skipmodal.audio import AudioConfig
from skipmodal.data.prepared import PreparedDataset
from skipmodal.data.shards import GrowingArray
from skipmodal.data.writer import DatasetWriter, Dropped, Kept
from skipmodal.errors import UserError

AUDIO = AudioConfig(sample_rate=8000, n_fft=256, win_length=200, hop_length=100, n_mels=5)
SETTINGS = {"kind": "text-speech", "source": "s", "licence": "CC0", "audio": AUDIO.model_dump()}
PICTURES = {"kind": "image-text", "source": "s", "licence": "CC0", "image": {"size": 16}}
SHARD = 1500  # bytes: two or three items
DIGESTS = [f"digest {i}" for i in range(12)]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)


def rows() -> list[Kept | Dropped]:
    rng = np.random.default_rng(0)
    result: list[Kept | Dropped] = []
    for i, samples in enumerate(rng.integers(99, 700, len(DIGESTS))):
        mel = rng.random((AUDIO.frames(int(samples)), AUDIO.n_mels)).astype(np.float16)
        wav = rng.integers(-32768, 32768, samples).astype(np.int16)
        kept = Kept(f"r{i}", "train", [f"Text {i}."], (mel, wav), trimmed_seconds=0.1)
        result.append(Dropped(f"m.csv:{i}", "too long", "") if i % 5 == 1 else kept)
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(out: Path, *, stop: int | None = None, block: int = 3, **options: Any) -> int:
    """Writes the rows from where the last run stopped, up to row `stop`; returns where it began."""
    todo = rows()
    with DatasetWriter(out, SETTINGS, DIGESTS, shard_bytes=SHARD, **options) as writer:
        begun = writer.done
        for start in range(begun, len(todo) if stop is None else stop, block):
            writer.commit(todo[start : start + block])
        if stop is None:
            writer.finish()
    return begun


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    write(tmp_path / "whole")
    return contents(tmp_path / "whole")


def test_a_complete_folder_holds_nothing_else(whole: dict[str, bytes]) -> None:
    plain = {name for name in whole if not name.startswith(("wav", "mel"))}
    assert plain == {"dataset.yaml", "items.jsonl", "index.npy", "dropped.jsonl"}
    assert sum(name.startswith("wav") for name in whole) > 2


def test_resuming_gives_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    write(tmp_path / "d", stop=3)
    assert write(tmp_path / "d", stop=9) == 3
    assert write(tmp_path / "d") == 9
    assert contents(tmp_path / "d") == whole
    assert not (tmp_path / "d.partial").exists()


def test_torn_tails_are_cut_off(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Whatever a crash left behind the last complete block: parts of arrays, later shards, part of a line."""
    write(tmp_path / "d", stop=6)
    partial = tmp_path / "d.partial"
    journal = (partial / "journal.jsonl").read_bytes()
    write(tmp_path / "d", stop=9)
    torn = (partial / "journal.jsonl").read_bytes()
    assert len(torn) > len(journal)
    for keep in (len(journal), len(journal) + 1, (len(journal) + len(torn)) // 2, len(torn) - 1):
        (partial / "journal.jsonl").write_bytes(torn[:keep])
        shards = sorted(partial.glob("wav*.npy"), key=lambda path: (len(path.name), path.name))
        for path in (partial / "mel.npy", shards[-1]):
            path.write_bytes(path.read_bytes() + b"tail")
        (partial / f"wav.{len(shards)}.npy").write_bytes(b"of a block that never was")
        assert write(tmp_path / "d", stop=9) == 6
    assert write(tmp_path / "d") == 9
    assert contents(tmp_path / "d") == whole


def test_a_crash_while_finishing_is_resumed(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: DatasetWriter) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DatasetWriter, "_move", crash)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "d")
    assert write(tmp_path / "d") == len(DIGESTS)
    assert contents(tmp_path / "d") == whole


def test_a_crash_while_replacing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "d", stop=None)
    real, calls = Path.rename, 0

    def crash(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == 2:  # the old dataset has made way, the new one is not there yet
            raise KeyboardInterrupt
        return real(self, target)

    other = SETTINGS | {"licence": "other"}
    for _ in range(2):
        calls = 0 if (tmp_path / "d").exists() else 1
        with DatasetWriter(tmp_path / "d", other, DIGESTS, overwrite=True) as writer:
            writer.commit(rows()[writer.done :])
            with monkeypatch.context() as patch:
                patch.setattr(Path, "rename", crash)
                with pytest.raises(KeyboardInterrupt):
                    writer.finish()
        assert [path.name for path in tmp_path.iterdir()] == ["d.partial"]
        assert (tmp_path / "d.partial" / "replaced" / "dataset.yaml").exists()
    shutil.copytree(tmp_path / "d.partial", tmp_path / "e.partial")
    with DatasetWriter(tmp_path / "d", other, DIGESTS) as writer:
        assert writer.done == len(DIGESTS)
        writer.finish()
    assert PreparedDataset(tmp_path / "d").meta.licence == "other"
    assert not (tmp_path / "d" / "replaced").exists()
    # Where it is not gone on with, the old one is back until there is a new one.
    with DatasetWriter(tmp_path / "e", SETTINGS | {"licence": "third"}, DIGESTS, overwrite=True):
        assert PreparedDataset(tmp_path / "e").meta.licence == SETTINGS["licence"]


def test_a_full_disk_is_one_line_and_can_be_resumed(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    write(tmp_path / "d", stop=3)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UserError, match=r"d.partial: cannot be written \(No space left on device\)"):
            write(tmp_path / "d")
    assert write(tmp_path / "d") in (3, 6)  # the journal may have reached the disk or not
    assert contents(tmp_path / "d") == whole


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    picture = Kept("a", "train", ["b"], (np.zeros((1, 16, 16, 3), np.uint8),))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        with (
            pytest.raises(UserError, match="cannot be written"),
            DatasetWriter(tmp_path / "d", PICTURES, DIGESTS) as writer,
        ):
            writer.commit([picture] * 12)  # 9 kB
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with DatasetWriter(tmp_path / "d", PICTURES, DIGESTS) as writer:
        assert writer.done == 0
        writer.commit([picture] * 12)
        writer.finish()
    assert len(PreparedDataset(tmp_path / "d")) == 12


def test_headers_have_room_for_any_number_of_rows(tmp_path: Path) -> None:
    array = GrowingArray(tmp_path, "x", "<f2", (80,), None)
    assert len({len(array._header(rows)) for rows in (0, 1, 99_999, 10**15)}) == 1


def test_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="not a prepared dataset"):
        PreparedDataset(".")
    write(Path("."))
    assert len(PreparedDataset(tmp_path / "here")) == 9


def test_other_settings_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "d", stop=6)
    before = contents(tmp_path / "d.partial")
    with pytest.raises(UserError, match=r"other settings.*--overwrite"):
        DatasetWriter(tmp_path / "d", SETTINGS | {"licence": "other"}, DIGESTS)
    assert contents(tmp_path / "d.partial") == before
    with DatasetWriter(tmp_path / "d", SETTINGS | {"licence": "other"}, DIGESTS, overwrite=True) as writer:
        assert writer.done == 0
    assert not list((tmp_path / "d.partial").glob("*.npy"))


@pytest.mark.parametrize("changed", [[*DIGESTS[:2], "new", *DIGESTS[3:]], DIGESTS[:4]])
def test_another_source_is_refused(tmp_path: Path, changed: list[str], whole: dict[str, bytes]) -> None:
    write(tmp_path / "d", stop=6)
    with pytest.raises(UserError, match="of the source has changed"):
        DatasetWriter(tmp_path / "d", SETTINGS, changed, shard_bytes=SHARD)
    assert write(tmp_path / "d") == 6  # the refusal did no harm
    assert contents(tmp_path / "d") == whole


@pytest.mark.parametrize("damage", ["shorten", "remove", "garble"])
def test_a_damaged_partial_is_refused(tmp_path: Path, damage: str, whole: dict[str, bytes]) -> None:
    write(tmp_path / "d", stop=6)
    partial = tmp_path / "d.partial"
    last = sorted(partial.glob("wav*.npy"))[-1]
    if damage == "shorten":
        last.write_bytes(last.read_bytes()[:-1])
    elif damage == "remove":
        last.unlink()
    else:
        (partial / "journal.jsonl").write_bytes(b'{"not": "a block"}\n')
    with pytest.raises(UserError, match="--overwrite"):
        write(tmp_path / "d")
    assert write(tmp_path / "d", overwrite=True) == 0
    assert contents(tmp_path / "d") == whole


def test_a_complete_dataset_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    write(tmp_path / "d")
    with pytest.raises(UserError, match=r"complete.*--overwrite"):
        write(tmp_path / "d")
    other = SETTINGS | {"licence": "other"}
    with DatasetWriter(tmp_path / "d", other, DIGESTS[:1], overwrite=True) as writer:
        writer.commit(rows()[:1])
        assert len(PreparedDataset(tmp_path / "d")) > 1  # still the old one
        writer.finish()
    assert PreparedDataset(tmp_path / "d").meta.licence == "other"
    assert len(PreparedDataset(tmp_path / "d")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["d", "d.partial"])
def test_a_folder_that_is_no_dataset_is_never_touched(tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("three years")
    with pytest.raises(UserError, match="not a"):
        DatasetWriter(tmp_path / "d", SETTINGS, DIGESTS, overwrite=overwrite)
    assert contents(tmp_path / name) == {"thesis.txt": b"three years"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_another_tool_calls_a_dataset_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset.yaml").write_text("train: images\n")
    with pytest.raises(UserError, match="not a prepared dataset"):
        DatasetWriter(tmp_path / "d", SETTINGS, DIGESTS, overwrite=overwrite)
    assert contents(tmp_path / "d") == {"dataset.yaml": b"train: images\n"}


def test_a_damaged_dataset_of_ours_can_be_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "d")
    (tmp_path / "d" / "dataset.yaml").write_text("format: 0\n")
    write(tmp_path / "d", overwrite=True)
    assert len(PreparedDataset(tmp_path / "d")) > 1


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("x")
    with pytest.raises(UserError, match="not a prepared dataset"):
        DatasetWriter(tmp_path / "d", SETTINGS, DIGESTS, overwrite=True)
    with pytest.raises(UserError, match="cannot be written"):
        DatasetWriter(tmp_path / "d" / "e", SETTINGS, DIGESTS)


def test_two_commands_do_not_interleave(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with DatasetWriter(tmp_path / "d", SETTINGS, DIGESTS, shard_bytes=SHARD) as writer:
        writer.commit(rows()[:3])
        for settings in (SETTINGS, SETTINGS | {"licence": "other"}):
            with pytest.raises(UserError, match="another command"):
                DatasetWriter(tmp_path / "d", settings, DIGESTS, overwrite=True)
        writer.commit(rows()[3:6])
    assert write(tmp_path / "d") == 6


def test_where_no_row_is_usable_nothing_is_left(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", PICTURES, ["0", "1"]) as writer:
        writer.commit([Dropped(f"m.csv:{i}", "missing file", f"{i}.png") for i in (2, 3)])
        with pytest.raises(UserError, match=r"no usable row.*2 x missing file \(m.csv:2: 2.png\)"):
            writer.finish()
    assert not list(tmp_path.iterdir())


def test_the_report_counts_what_an_earlier_run_did_too(tmp_path: Path) -> None:
    write(tmp_path / "d", stop=9)
    with DatasetWriter(tmp_path / "d", SETTINGS, DIGESTS, shard_bytes=SHARD) as writer:
        writer.commit(rows()[9:])
        report = writer.finish()
    assert report.kept == {"train": 9}
    assert report.dropped == {"too long": 3}
    assert report.examples == {"too long": ["m.csv:1", "m.csv:6", "m.csv:11"]}
    assert report.trimmed_median == pytest.approx(0.1)
    lines = (tmp_path / "d" / "items.jsonl").read_text().splitlines()
    assert report.seconds == pytest.approx(sum(json.loads(line)["seconds"] for line in lines))
