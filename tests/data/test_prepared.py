"""The prepared dataset on disk: what is written is read, and nothing damaged is read."""

import multiprocessing
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml

from skipmodal import text
from skipmodal.audio import AudioConfig
from skipmodal.data.prepared import PreparedDataset
from skipmodal.data.writer import DatasetWriter, Dropped, Kept
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig

AUDIO = AudioConfig(sample_rate=8000, n_fft=256, win_length=200, hop_length=100, n_mels=5)
LENGTHS = (320, 500, 100, 250, 730, 99, 400)  # samples


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)


def speech_items() -> list[Kept]:
    rng = np.random.default_rng(0)
    items = []
    for i, samples in enumerate(LENGTHS):
        mel = rng.random((AUDIO.frames(samples), AUDIO.n_mels)).astype(np.float16)
        wav = rng.integers(-32768, 32768, samples).astype(np.int16)
        split = ("train", "val", "test")[i % 3]
        items.append(Kept(f"é{i}", split, [f"Sentence {'abcdefg'[i]}."], (mel, wav), trimmed_seconds=0.25))
    return items


def write_speech(out: Path, shard_bytes: int = 1 << 20) -> list[Kept]:
    items = speech_items()
    settings = {"kind": "text-speech", "source": "s", "licence": "CC0", "audio": AUDIO.model_dump()}
    with DatasetWriter(out, settings, [str(i) for i in range(8)], shard_bytes=shard_bytes) as writer:
        writer.commit([items[0], Dropped("m.csv:3", "too short", "0.1 s")])
        writer.commit(items[1:4])
        writer.commit(items[4:])
        writer.finish()
    return items


def write_pictures(out: Path, count: int = 6, size: int = 16) -> np.ndarray:
    pixels = np.random.default_rng(1).integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    image = ImageConfig(size=size)
    settings = {"kind": "image-text", "source": "s", "licence": "CC0", "image": image.model_dump()}
    with DatasetWriter(out, settings, [str(i) for i in range(count)]) as writer:
        writer.commit(
            Kept(f"p{i}", "train", [f"one {'abcdef'[i % 6]}", "two"], (pixels[i : i + 1],)) for i in range(count)
        )
        writer.finish()
    return pixels


def test_pictures_come_back(tmp_path: Path) -> None:
    pixels = write_pictures(tmp_path / "d")
    data = PreparedDataset(tmp_path / "d")
    assert len(data) == 6
    assert all((data.image(i) == pixels[i]).all() for i in range(6))
    assert (data.image(-1) == pixels[-1]).all()
    assert data.texts(3) == ["one d", "two"]
    assert data.item(-1)["id"] == "p5"
    assert data.indices("train").tolist() == list(range(6))
    assert data.indices("val").size == 0
    assert data.frames.tolist() == [0] * 6
    with pytest.raises(IndexError):
        data.item(6)


@pytest.mark.parametrize(("shard_bytes", "wav_files"), [(1 << 20, 1), (1500, 5), (1, 7)])
def test_recordings_come_back_whatever_the_shards(tmp_path: Path, shard_bytes: int, wav_files: int) -> None:
    items = write_speech(tmp_path / "d", shard_bytes)
    data = PreparedDataset(tmp_path / "d")
    assert len(list((tmp_path / "d").glob("wav*.npy"))) == wav_files
    for i, item in enumerate(items):
        mel, wav = item.arrays
        assert (data.mel(i) == mel).all()
        assert (data.wav(i) == wav).all()
        assert data.texts(i) == item.texts
    assert data.frames.tolist() == [len(item.arrays[0]) for item in items]
    assert [data.indices(split).tolist() for split in ("train", "val", "test")] == [[0, 3, 6], [1, 4], [2, 5]]
    starts = [data.item(i)["sample"] for i in range(len(data))]
    assert starts == np.cumsum([0, *LENGTHS[:-1]]).tolist()  # offsets count over all shards


def test_what_the_description_says(tmp_path: Path) -> None:
    write_speech(tmp_path / "d")
    meta = PreparedDataset(tmp_path / "d").meta
    assert (meta.kind, meta.licence, meta.audio, meta.image) == ("text-speech", "CC0", AUDIO, None)
    assert meta.items == {"train": 3, "val": 2, "test": 2}
    assert meta.dropped == {"too short": 1}
    assert meta.seconds == round(sum(LENGTHS) / 8000, 1)
    assert meta.trimmed_seconds == 1.8  # 7 x 0.25 s
    assert (tmp_path / "d" / "dropped.jsonl").read_text() == (
        '{"where": "m.csv:3", "reason": "too short", "detail": "0.1 s"}\n'
    )
    assert "é" in (tmp_path / "d" / "items.jsonl").read_text(encoding="utf-8")  # for people to read


def test_arrays_are_plain_numpy_files(tmp_path: Path) -> None:
    pixels = write_pictures(tmp_path / "d")
    assert (np.load(tmp_path / "d" / "images.npy") == pixels).all()
    assert np.load(tmp_path / "d" / "index.npy").shape == (6, 6)


def _checksum(data: PreparedDataset) -> int:
    return sum(int(data.wav(i).astype(np.int64).sum()) + len(data.texts(i)[0]) for i in range(len(data)))


def test_workers_map_the_files_again(tmp_path: Path) -> None:
    write_speech(tmp_path / "d", 1500)
    data = PreparedDataset(tmp_path / "d")
    assert len(pickle.dumps(data)) < 500  # a path, no arrays
    assert _checksum(pickle.loads(pickle.dumps(data))) == _checksum(data)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_checksum, [data] * 4) == [_checksum(data)] * 4


def test_opening_reads_no_array(tmp_path: Path) -> None:
    write_pictures(tmp_path / "d", count=1000, size=64)  # 12 MB
    tracemalloc.start()
    data = PreparedDataset(tmp_path / "d")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) == 1000
    assert peak < 1 << 20


def test_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        PreparedDataset(tmp_path / "none")
    with pytest.raises(UserError, match="not a prepared dataset"):
        PreparedDataset(tmp_path)


def test_half_written_is_never_read(tmp_path: Path) -> None:
    write_pictures(tmp_path / "other")
    settings = {"kind": "image-text", "source": "s", "licence": "CC0", "image": {"size": 16}}
    with DatasetWriter(tmp_path / "d", settings, ["0", "1"]) as writer:
        writer.commit([Kept("a", "train", ["b"], (np.zeros((1, 16, 16, 3), np.uint8),))])
    for path in (tmp_path / "d", tmp_path / "d.partial"):
        with pytest.raises(UserError, match="same `skipmodal prep` command again"):
            PreparedDataset(path)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "d")
    file = tmp_path / "d" / "dataset.yaml"
    good = yaml.safe_load(file.read_text())
    for change, message in (
        ({"format": 1}, "format 1, this version reads format 2"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"image": {"size": 1}}, "image.size"),
        ({"kind": "text-speech"}, "text-speech needs `audio`"),
        ({"items": {"train": -6}}, "damaged"),
    ):
        file.write_text(yaml.safe_dump(good | change))
        with pytest.raises(UserError, match=message):
            PreparedDataset(tmp_path / "d")


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "!!python/object/apply:os.abort []", "\0", "x" * 2**21])
def test_hostile_descriptions_are_refused(tmp_path: Path, text: str) -> None:
    write_pictures(tmp_path / "d")
    (tmp_path / "d" / "dataset.yaml").write_text(text)
    with pytest.raises(UserError):
        PreparedDataset(tmp_path / "d")


@pytest.mark.parametrize("name", ["mel.npy", "wav.npy", "wav.2.npy", "index.npy", "items.jsonl"])
@pytest.mark.parametrize("keep", [0, 0.5, -1])
def test_truncated_copies_are_refused(tmp_path: Path, name: str, keep: float) -> None:
    write_speech(tmp_path / "d", 1500)
    file = tmp_path / "d" / name
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if keep >= 0 else -1])
    with pytest.raises(UserError, match="damaged"):
        PreparedDataset(tmp_path / "d")


@pytest.mark.parametrize("name", ["mel.npy", "wav.3.npy", "index.npy", "items.jsonl"])
def test_missing_files_are_noticed(tmp_path: Path, name: str) -> None:
    write_speech(tmp_path / "d", 1500)
    (tmp_path / "d" / name).unlink()
    with pytest.raises(UserError, match="damaged"):
        PreparedDataset(tmp_path / "d")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


@pytest.mark.parametrize("name", ["index.npy", "mel.npy"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_nothing_is_unpickled(tmp_path: Path, name: str, wrapped: bool, capsys: pytest.CaptureFixture[str]) -> None:
    write_speech(tmp_path / "d")
    if wrapped:
        np.save(tmp_path / "d" / name, np.array([_Bomb()], dtype=object), allow_pickle=True)
    else:
        (tmp_path / "d" / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(UserError, match="damaged"):
        PreparedDataset(tmp_path / "d")
    assert "unpickled" not in capsys.readouterr().out


def forged_header(path: Path, header: str) -> None:
    data = header.encode().ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data + bytes(1000))


@pytest.mark.parametrize("name", ["index.npy", "mel.npy"])
@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<i8', 'fortran_order': False, 'shape': (7, 6",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999, 6)}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': ()}",
        "{'descr': None, 'fortran_order': False, 'shape': (7, 6)}",
        "{'descr': [('a', 5)], 'fortran_order': False, 'shape': (7, 6)}",
        "(" * 100,
        "{'descr': '<i8', 'fortran_order': False, 'shape': (7, 6)}\0",
        "'" * 3,
        "{(1, 2): 3}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (7, 6)}",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_forged_headers_are_refused(tmp_path: Path, name: str, header: str) -> None:
    write_speech(tmp_path / "d")
    forged_header(tmp_path / "d" / name, header)
    with pytest.raises(UserError, match="damaged"):
        PreparedDataset(tmp_path / "d")


def test_an_archive_is_no_array(tmp_path: Path) -> None:
    write_speech(tmp_path / "d")
    for name in ("index.npy", "mel.npy"):
        with (tmp_path / "d" / name).open("wb") as file:
            np.savez(file, x=np.zeros(3))
        with pytest.raises(UserError, match="damaged"):
            PreparedDataset(tmp_path / "d")


@pytest.mark.parametrize(
    "line",
    [
        b"\xff", b"{", b"5", b"null", b"{}", b'{"id": 5, "texts": ["a"]}', b'{"id": "a", "texts": "a"}',
        b'{"id": "a", "texts": []}', b'{"id": "a", "texts": [""]}', b'{"id": "a", "texts": [5]}',
        b'{"id": "a", "texts": ["a 5"]}', b'{"id": "a", "texts": ["\xc3\xa9"]}', b'{"id": "../a", "texts": ["a"]}',
        b'{"id": ".a", "texts": ["a"]}', b'{"id": "", "texts": ["a"]}', b"[" * 60,
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    write_speech(tmp_path / "d")
    file = tmp_path / "d" / "items.jsonl"
    before, damaged, after = file.read_bytes().split(b"\n", 2)
    file.write_bytes(b"\n".join((before, line.ljust(len(damaged)), after)))
    data = PreparedDataset(tmp_path / "d")
    assert data.item(0)["id"] == "é0"
    for read in (data.item, data.texts):
        with pytest.raises(UserError, match=r"damaged \(line 2 of items\.jsonl\)"):
            read(1)


def test_any_bit_of_the_items_may_flip(tmp_path: Path) -> None:
    write_speech(tmp_path / "d")
    file = tmp_path / "d" / "items.jsonl"
    good, rng = file.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in rng.permutation(len(good))[:200]:
        bad = bytearray(good)
        bad[place] ^= 1 << rng.integers(8)
        file.write_bytes(bad)
        try:
            data = PreparedDataset(tmp_path / "d")
            assert all(text.encode(each) for i in range(len(data)) for each in data.texts(i))
        except UserError:
            refused += 1
    assert refused > 20


def test_shards_that_end_elsewhere_are_refused(tmp_path: Path) -> None:
    write_speech(tmp_path / "d", 1500)
    first, second = (np.load(tmp_path / "d" / name) for name in ("wav.npy", "wav.1.npy"))
    np.save(tmp_path / "d" / "wav.npy", first[:-1])
    np.save(tmp_path / "d" / "wav.1.npy", np.concatenate([first[-1:], second]))
    with pytest.raises(UserError, match=r"damaged \(the files of wav\.npy end elsewhere"):
        PreparedDataset(tmp_path / "d")


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [(0, 0, -1), (6, 0, 10**9), (2, 1, 3), (1, 2, -5), (6, 3, 999), (6, 5, 999), (3, 2, 999), (2, 0, 999)],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, row: int, column: int, value: int) -> None:
    write_speech(tmp_path / "d")
    index = np.load(tmp_path / "d" / "index.npy")
    index[row, column] = value
    np.save(tmp_path / "d" / "index.npy", index)
    with pytest.raises(UserError, match="damaged"):
        PreparedDataset(tmp_path / "d")
