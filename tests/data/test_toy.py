import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.signal import resample_poly
from typer.testing import CliRunner

from skipmodal.audio import read_audio, spectrograms, trim_silence
from skipmodal.cli.app import app
from skipmodal.data import toy
from skipmodal.data.prepared import PreparedDataset
from skipmodal.data.toy import (
    CAPTIONS,
    TOY_AUDIO,
    draw,
    partition,
    prepare_toy,
    say,
    transcribe_tones,
    write_toy,
)
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig, read_image

RATE = TOY_AUDIO.sample_rate
WORD = 1500  # samples


def noise(shape: int | tuple[int, ...], deviation: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, deviation, shape).astype(np.float32)


def tones(*hertz: float, seconds: float = 0.14) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return sum(0.25 * np.sin(2 * np.pi * f * t) for f in hertz).astype(np.float32)


# ---------------------------------------------------------------- the partition


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_partition_is_disjoint_complete_and_balanced(seed: int) -> None:
    sets = partition(seed)
    parts = [sets.pictured, sets.spoken, sets.held_out]
    assert [len(part) for part in parts] == [120, 80, 40]
    assert sorted(caption for part in parts for caption in part) == sorted(CAPTIONS)
    expected = {word: sum(word in caption.split() for caption in CAPTIONS) / 240 for word in toy.WORDS}
    for part in parts:
        counts = Counter(word for caption in part for word in caption.split())
        assert all(abs(counts[word] / len(part) - share) < 0.06 for word, share in expected.items())


def test_partition_depends_on_the_seed_alone() -> None:
    assert partition(3) == partition(3)
    assert set(partition(3).held_out) != set(partition(4).held_out)


# ---------------------------------------------------------------- pictures


def read_picture(pixels: np.ndarray) -> str:
    """The caption of a picture by measurement alone."""
    pixels = pixels.astype(float)
    distance = np.abs(pixels - np.median(pixels.reshape(-1, 3), axis=0)).sum(2)
    cover = np.clip(distance / np.quantile(distance, 0.97), 0, 1)
    rows, columns = (np.flatnonzero((cover > 0.4).any(axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    x, y = (left + right) / 2 / len(pixels) - 0.5, (top + bottom) / 2 / len(pixels) - 0.5
    place = ("left" if x < 0 else "right") if abs(x) > abs(y) else ("top" if y < 0 else "bottom")
    size = "big" if bottom - top > 0.38 * len(pixels) else "small"
    mean = pixels[cover > 0.9].mean(0)
    colour = min(toy.COLOURS, key=lambda name: np.abs(mean - toy.COLOURS[name]).sum())
    crop = Image.fromarray((cover[top:bottom, left:right] * 255).astype(np.uint8))
    box = np.asarray(crop.resize((24, 24), Image.Resampling.BICUBIC)) / 255
    if box[:4, :4].mean() > 0.32:  # the upper left corner is filled
        shape = "square"
    elif box[-4:, :4].mean() > 0.37:  # the lower left one
        shape = "triangle"
    elif box[-3:, 10:14].mean() < 0.35:  # nothing in the middle of the lower edge
        shape = "star"
    else:
        shape = "circle" if box.mean() > 0.605 else "cross"
    return f"{size} {colour} {shape} {place}"


@pytest.mark.parametrize("size", [32, 64])
def test_pictures_show_what_their_captions_say(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    wrong = []
    for caption in CAPTIONS:
        Image.fromarray(draw(caption, rng)).save(tmp_path / "a.bmp")
        read = read_picture(read_image(tmp_path / "a.bmp", ImageConfig(size=size)))
        if read != caption:
            wrong.append((caption, read))
    assert wrong == []


def test_renderings_of_one_caption_differ() -> None:
    rng = np.random.default_rng(0)
    first, second = draw("big red circle left", rng), draw("big red circle left", rng)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert np.abs(first.astype(int) - second).mean() > 3


# ---------------------------------------------------------------- speech


def test_every_caption_is_heard_exactly() -> None:
    assert [transcribe_tones(say(caption), RATE) for caption in CAPTIONS] == list(CAPTIONS)


def test_a_word_is_three_decoder_steps_and_trimming_takes_nothing() -> None:
    wav = say("small white star bottom")
    assert wav.dtype == np.float32
    assert TOY_AUDIO.frames(len(wav)) == 4 * 2 * 5
    assert trim_silence(wav)[1] == 0


def test_heard_exactly_after_the_vocoder() -> None:
    import torch

    from skipmodal.vocoder import griffin_lim

    captions = (*CAPTIONS[::10], "red red red red", "left big big star", "circle small top top")
    wavs = np.stack([say(caption, gain) for caption, gain in zip(captions, [0.8, 1.0, 1.2] * 9, strict=True)])
    _, linear = spectrograms(torch.from_numpy(wavs), TOY_AUDIO)
    assert linear.max() < 1  # nothing is clipped
    rough = (linear + torch.from_numpy(noise(linear.shape, 0.05))).clamp(0, 1)
    rebuilt = griffin_lim(torch.cat([linear, rough]), torch.full((2 * len(captions),), 60), TOY_AUDIO)
    assert max(wav.abs().max() for wav in rebuilt) < 1
    assert tuple(transcribe_tones(wav.numpy(), RATE) for wav in rebuilt) == captions * 2


@pytest.mark.parametrize(("up", "down"), [(2, 1), (441, 160), (6, 1), (7, 8)])
def test_heard_at_other_sample_rates(up: int, down: int) -> None:
    for caption in CAPTIONS[::17]:
        assert transcribe_tones(resample_poly(say(caption), up, down), RATE * up // down) == caption


def test_heard_in_noise_and_after_silence() -> None:
    for i, caption in enumerate(CAPTIONS[::7]):
        wav = np.concatenate([np.zeros(1000 + 37 * i), say(caption), np.zeros(3000)])
        level = np.sqrt(np.square(say(caption)).mean()) / 10  # 20 dB below
        assert transcribe_tones(wav + noise(len(wav), level, seed=i), RATE) == caption


NO_WORDS = {
    "empty": np.zeros(0),
    "tiny": np.zeros(3),
    "silence": np.zeros(8000),
    "noise": noise(80000, 0.1),
    "hiss": noise(80000, 1e-4),
    "one tone": tones(500, seconds=1),
    "two low tones": tones(500, 794, seconds=1),
    "three tones": tones(500, 1260, seconds=1) + 0.8 * tones(2001, seconds=1),
    "off the grid": tones(560, 1420, seconds=1),
    "drowned": tones(500, 1260, seconds=1) + 2 * tones(3600, seconds=1),
    "too short": tones(500, 1260, seconds=0.03),
    "inaudible": 1e-3 * say("big red circle left"),
}


@pytest.mark.parametrize("sound", NO_WORDS)
def test_what_is_no_word_is_not_heard(sound: str) -> None:
    assert transcribe_tones(NO_WORDS[sound], RATE) == ""


@pytest.mark.parametrize("text", ["red", "left star red small", "red red red", "big big circle circle right"])
def test_heard_as_spoken_not_as_the_grammar_wants(text: str) -> None:
    assert transcribe_tones(say(text), RATE) == text


def test_missing_and_spoilt_words_are_missing() -> None:
    wav = say("big red circle left")
    silent, noisy, chopped, other = (wav.copy() for _ in range(4))
    silent[WORD : 2 * WORD] = 0
    noisy[WORD : 2 * WORD] += noise(WORD, 0.5)
    chopped[WORD + 350 : 2 * WORD] = 0  # 25 ms of the word are left
    other[WORD + 150 : WORD + 150 + 1120] = tones(1000, 2001)  # a chord that no word has
    heard = [transcribe_tones(spoilt, RATE) for spoilt in (silent, noisy, chopped, other)]
    assert heard == ["big circle left"] * 4


def chord(word: str, seconds: float) -> np.ndarray:
    return tones(*(toy._GRID[tone] for tone in toy._CHORDS[word]), seconds=seconds)


def test_timing_is_free() -> None:
    broken = np.concatenate([chord("star", 0.1), np.zeros(80), chord("star", 0.1)])  # 10 ms missing
    wav = np.concatenate([chord("big", 0.4), chord("red", 0.08), broken, np.zeros(4000), chord("top", 0.1)])
    assert transcribe_tones(wav, RATE) == "big red star top"


def test_tones_may_be_out_of_tune() -> None:
    assert transcribe_tones(tones(500 * 1.04, 1260 * 0.96), RATE) == "big"


def test_a_faint_echo_between_words_does_not_join_them() -> None:
    wav = np.concatenate([chord("red", 0.14), 0.1 * chord("red", 0.05), chord("red", 0.14)])
    assert transcribe_tones(wav, RATE) == "red red"


def test_unusable_input_is_refused() -> None:
    with pytest.raises(UserError, match=r"only has the words big, small"):
        say("big orange circle left")
    with pytest.raises(UserError):
        say("")
    with pytest.raises(UserError, match="6000"):
        transcribe_tones(np.zeros(6000), 6000)


# ---------------------------------------------------------------- files


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def seen(file: Path) -> str:
    return read_picture(read_image(file, ImageConfig(size=64)))


def heard(file: Path) -> str:
    return transcribe_tones(read_audio(file, RATE), RATE)


def test_sources_hold_what_the_manifests_say(tmp_path: Path) -> None:
    report = write_toy(tmp_path / "toy", pictures=150, sentences=60, seed=5)
    assert report.pictures == {"train": 120, "val": 15, "test": 15}
    assert report.sentences == {"train": 48, "val": 6, "test": 6}
    assert report.photos == 40
    sets = partition(5)
    for kind, column, known, count, perceive in [
        ("image-text", "image", sets.pictured, report.pictures, seen),
        ("text-speech", "audio", sets.spoken, report.sentences, heard),
    ]:
        folder = tmp_path / "toy" / kind
        rows = table(folder / "manifest.tsv")
        assert list(rows[0]) == ["id", "split", column, "text"]
        assert Counter(row["split"] for row in rows) == count
        assert len({row["id"] for row in rows}) == len({row[column] for row in rows}) == len(rows)
        assert {row["split"] for row in rows if row["text"] in known} == {"train", "val"}
        assert {row["split"] for row in rows if row["text"] in sets.held_out} == {"test"}
        words = {word for row in rows if row["split"] == "train" for word in row["text"].split()}
        assert words == set(toy.WORDS)
        assert [perceive(folder / row[column]) for row in rows] == [row["text"] for row in rows]


def test_photos_show_each_held_out_caption(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy", pictures=10, sentences=10, seed=5)
    truth = table(tmp_path / "toy/photos/truth.tsv")
    assert {row["caption"] for row in truth} == set(partition(5).held_out)
    for row in truth:
        assert seen(tmp_path / "toy/photos" / row["file"]) == row["caption"]


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        write_toy(tmp_path / name, pictures=20, sentences=10, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_photos_do_not_depend_on_the_numbers(tmp_path: Path) -> None:
    write_toy(tmp_path / "a", pictures=10, sentences=10, seed=1)
    write_toy(tmp_path / "b", pictures=20, sentences=30, seed=1)
    assert contents(tmp_path / "a/photos") == contents(tmp_path / "b/photos")


def test_existing_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    with pytest.raises(UserError, match="exists already"):
        write_toy(tmp_path / "toy", pictures=10, sentences=10)
    assert contents(tmp_path) == {}


def test_too_little_or_unwritable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 10"):
        write_toy(tmp_path / "toy", pictures=9, sentences=10)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_toy(tmp_path / "file" / "toy", pictures=10, sentences=10)


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(toy, "write_audio", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_toy(tmp_path / "toy", pictures=10, sentences=10)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- prepared datasets


def test_prepared_datasets_hold_every_item(tmp_path: Path) -> None:
    out = tmp_path / "toy"
    report = prepare_toy(out, pictures=60, sentences=50, seed=2, size=32)
    assert sorted(path.name for path in out.iterdir()) == ["image-text", "photos", "raw", "text-speech"]
    pictures, speech = PreparedDataset(out / "image-text"), PreparedDataset(out / "text-speech")
    assert pictures.meta.items == report.pictures == {"train": 48, "val": 6, "test": 6}
    assert speech.meta.items == report.sentences == {"train": 40, "val": 5, "test": 5}
    assert pictures.meta.image == ImageConfig(size=32)
    assert speech.meta.audio == TOY_AUDIO
    assert speech.meta.trimmed_seconds == 0
    assert set(speech.frames) == {40}
    for i in range(len(pictures)):
        assert [read_picture(pictures.image(i))] == pictures.texts(i)
    for i in range(len(speech)):
        assert [transcribe_tones(speech.wav(i) / 32768, RATE)] == speech.texts(i)
    assert len(table(out / "photos/truth.tsv")) == len(list((out / "photos").glob("*.png"))) == 40
    with pytest.raises(UserError, match="exists already"):
        prepare_toy(out, pictures=60, sentences=50)


def test_failed_preparation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UserError("disk full")

    monkeypatch.setattr("skipmodal.data.prepare.prepare_text_speech", fail)
    with pytest.raises(UserError, match="disk full"):
        prepare_toy(tmp_path / "toy", pictures=10, sentences=10)
    assert not (tmp_path / "toy").exists()


def test_command_line(tmp_path: Path) -> None:
    arguments = f"prep toy {tmp_path}/toy --pictures 10 --sentences 20 --size 16".split()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "pictures: train 8, val 1, test 1"
    assert result.stderr.splitlines()[-1] == f"wrote {tmp_path / 'toy'}"
    assert PreparedDataset(tmp_path / "toy/image-text").image(0).shape == (16, 16, 3)
