"""The whole idea, from prep to a spoken picture: train on toy pictures with captions and toy speech with captions, and
have pictures spoken whose combination of words was in neither dataset.

Some minutes on a CPU. In that time the model learns to say size and place of what it sees, which are asserted here;
shape comes later, and colour is learned for seen combinations only.
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("end-to-end")
    skipmodal("prep", "toy", folder / "toy")
    data = [f"data.image_text={folder / 'toy/image-text'}", f"data.text_speech={folder / 'toy/text-speech'}"]
    skipmodal("train", "toy", *data, "train.device=cpu", "train.eval_every=100000", "--run", folder / "run")
    return folder


def test_pictures_of_unseen_combinations_are_spoken(world: Path):
    with (world / "toy" / "photos" / "truth.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    photos = [world / "toy" / "photos" / row["file"] for row in rows]
    captions = [row["caption"] for row in rows]
    skipmodal("img2speech", *photos, "-m", world / "run", "-d", world / "spoken")
    heard = [transcribe_tones(*soundfile.read(world / "spoken" / f"{photo.stem}.wav")) for photo in photos]
    assert len(captions) == 40
    size, place = {"size": SIZES}, {"place": PLACES}
    print({name: right(heard, captions, {name: words}) for name, words in ATTRIBUTES.items()})
    assert right(heard, captions, size) > 0.7  # guessing: 1 in 2
    assert right(heard, captions, place) > 0.4  # 1 in 4
    assert right(heard, captions, size | place) > 0.3  # 1 in 8

    seen = skipmodal("img2text", *photos, "-m", world / "run").splitlines()
    assert right(seen, captions, size | place) > 0.6
