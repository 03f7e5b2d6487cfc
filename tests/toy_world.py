"""The toy world as a user has it: prepared, trained on and translated by commands."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

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


def heard_in(folder: Path) -> list[str]:
    return [transcribe_tones(*soundfile.read(path)) for path in sorted(folder.glob("*.wav"))]


def trained(folder: Path, recipe: str, steps: int, *overrides: str) -> Path:
    """Makes the toy world in a folder and trains a recipe on it, in `folder/run`."""
    skipmodal("prep", "toy", folder / "toy")
    data = [f"data.image_text={folder / 'toy/image-text'}", f"data.text_speech={folder / 'toy/text-speech'}"]
    short = (f"train.max_steps={steps}", "train.device=cpu", "train.eval_every=100000")
    skipmodal("train", recipe, *data, *short, *overrides, "--run", folder / "run")
    return folder


def photos_and_captions(world: Path) -> tuple[list[Path], list[str]]:
    """The pictures whose combinations of words neither dataset has, and what is right to say of each."""
    rows = read_table(world / "toy" / "photos" / "truth.tsv")
    return [world / "toy" / "photos" / name for name, _ in rows], [caption for _, caption in rows]


def spoken_pictures(world: Path) -> dict[str, float]:
    """Part of these pictures of which img2speech says each attribute right, and the whole sentence."""
    photos, captions = photos_and_captions(world)
    skipmodal("img2speech", *photos, "-m", world / "run", "-d", world / "spoken")
    heard = heard_in(world / "spoken")
    assert len(heard) == len(captions) == 40
    said = {name: right(heard, captions, {name: words}) for name, words in ATTRIBUTES.items()}
    return {**said, "whole": right(heard, captions, ATTRIBUTES)}


def spoken_sentences(world: Path) -> float:
    """Part of unseen sentences that text2speech says as they are."""
    _, captions = photos_and_captions(world)
    skipmodal("text2speech", *captions, "-m", world / "run", "-d", world / "read")
    return _alike(heard_in(world / "read"), captions)


def written_recordings(world: Path) -> float:
    """Part of unheard sentences that speech2text writes as they are."""
    source = world / "toy" / "raw" / "text-speech"
    rows = [row for row in read_table(source / "manifest.tsv") if row[1] == "test"][:40]
    written = skipmodal("speech2text", *[source / row[2] for row in rows], "-m", world / "run").splitlines()
    return _alike(written, [row[3] for row in rows])


def _alike(found: list[str], wanted: list[str]) -> float:
    return sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted)
