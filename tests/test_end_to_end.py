"""The whole idea, from prep to a spoken picture: train on toy pictures with captions and toy speech with captions, and
have pictures spoken whose combination of words was in neither dataset.

Some minutes on a CPU. Chance is 1 in 2 for size, 6 for colour, 4 for place, and 1 in 240 for the whole sentence.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import soundfile

from skipmodal.data.toy import COLOURS, PLACES, SHAPES, SIZES, transcribe_tones

ATTRIBUTES = {"size": SIZES, "colour": COLOURS, "shape": SHAPES, "place": PLACES}


def skipmodal(*args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "skipmodal", *map(str, args)], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def right(heard: list[str], captions: list[str], attributes: dict[str, Iterable[str]]) -> float:
    """Part of the items for which, of each attribute's words, the right one is said and no other."""
    hits = 0
    for said, caption in zip(heard, captions, strict=True):
        hits += all(
            set(said.split()) & set(words) == set(caption.split()) & set(words) for words in attributes.values()
        )
    return hits / len(captions)


def read_table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))[1:]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("end-to-end")
    skipmodal("prep", "toy", folder / "toy")
    data = [f"data.image_text={folder / 'toy/image-text'}", f"data.text_speech={folder / 'toy/text-speech'}"]
    short = ("train.max_steps=1500", "train.device=cpu", "train.eval_every=100000")
    skipmodal("train", "toy", *data, *short, "--run", folder / "run")
    return folder


def heard_in(folder: Path) -> list[str]:
    return [transcribe_tones(*soundfile.read(path)) for path in sorted(folder.glob("*.wav"))]


def test_pictures_of_unseen_combinations_are_spoken(world: Path):
    rows = read_table(world / "toy" / "photos" / "truth.tsv")
    photos, captions = [world / "toy" / "photos" / name for name, _ in rows], [caption for _, caption in rows]
    skipmodal("img2speech", *photos, "-m", world / "run", "-d", world / "spoken")
    heard = heard_in(world / "spoken")
    assert len(heard) == len(captions) == 40
    said = {name: right(heard, captions, {name: words}) for name, words in ATTRIBUTES.items()}
    whole = right(heard, captions, ATTRIBUTES)
    print(said, whole)
    assert min(said["size"], said["colour"], said["place"]) > 0.85
    assert whole > 0.4


def test_unseen_sentences_are_spoken(world: Path):
    captions = [caption for _, caption in read_table(world / "toy" / "photos" / "truth.tsv")]
    skipmodal("text2speech", *captions, "-m", world / "run", "-d", world / "read")
    heard = heard_in(world / "read")
    print(sum(a == b for a, b in zip(heard, captions, strict=True)))
    assert sum(a == b for a, b in zip(heard, captions, strict=True)) > 0.8 * len(captions)


def test_unheard_sentences_are_written_down(world: Path):
    source = world / "toy" / "raw" / "text-speech"
    rows = [row for row in read_table(source / "manifest.tsv") if row[1] == "test"][:40]
    written = skipmodal("speech2text", *[source / row[2] for row in rows], "-m", world / "run").splitlines()
    print(sum(text == row[3] for text, row in zip(written, rows, strict=True)))
    assert sum(text == row[3] for text, row in zip(written, rows, strict=True)) > 0.7 * len(rows)
