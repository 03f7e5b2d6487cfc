"""The model that comes with the package: small enough, with its card, and used where none is named."""

import json
from pathlib import Path

import soundfile

from skipmodal.training.checkpoint import BUNDLED
from tests.cli.test_commands import here  # noqa: F401

PHOTO = Path(__file__).parents[2] / "examples" / "astronaut.jpg"


def test_a_photo_is_described_without_naming_a_model(here, tmp_path):  # noqa: F811
    status, out, err = here("img2speech", PHOTO, "-o", tmp_path / "out.wav", "--json")
    assert status == 0 and "wrote" in err
    said = json.loads(out)
    assert len(said["text"].split()) >= 4 and said["text"].endswith(".") and not said["capped"]
    assert 0 <= said["confidence"] <= 1
    sound = soundfile.info(tmp_path / "out.wav")
    assert sound.samplerate == 16000
    assert 0.1 * len(said["text"]) > sound.duration > 0.03 * len(said["text"])


def test_it_is_small_and_says_what_it_is(here):  # noqa: F811
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) < 40e6
    status, out, _ = here("info")
    text = out.decode()
    assert status == 0
    for part in ("Flickr8k", "What it can't do", "| image -> speech |", "parameters"):
        assert part in text, part
