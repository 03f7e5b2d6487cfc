"""The model that comes with the package: small enough, with its card, and used where none is named."""

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import soundfile
import torch

from skipmodal.checkpoint import BUNDLED, load_checkpoint
from skipmodal.recipe import load_recipe
from skipmodal.training.resume import load_fitting
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


def test_speaking_starts_without_what_is_slow_to_import(tmp_path):
    script = f"""
import sys
from skipmodal.cli.app import app
try:
    app(['img2speech', {str(PHOTO)!r}, '-o', {str(tmp_path / "out.wav")!r}])
except SystemExit as stop:
    assert not stop.code
heavy = ('torch._dynamo', 'torchaudio', 'jinja2', 'timm', 'scipy', 'matplotlib')  # tqdm comes with torch.hub
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
    assert (tmp_path / "out.wav").is_file()


def test_the_command_that_trains_it_further_fits_it():
    readme = (PHOTO.parents[1] / "recipes" / "flickr8k" / "README.md").read_text()
    (command,) = re.findall(r"\nskipmodal train (base [^`]*--init bundled [^`]*)\n```", readme)
    settings = [word for word in command.split() if word.startswith("model.")]
    cpu = torch.device("cpu")
    bundled = load_checkpoint(None, cpu)
    load_fitting(BUNDLED, load_recipe("base", settings), bundled.audio, bundled.image, cpu)


def test_it_is_small_and_says_what_it_is(here):  # noqa: F811
    assert sum(len(zlib.compress(file.read_bytes())) for file in BUNDLED.iterdir()) < 45e6  # as a wheel has them
    status, out, _ = here("info")
    text = out.decode()
    assert status == 0
    for part in ("Flickr8k", "What it can't do", "| image -> speech |", "parameters"):
        assert part in text, part
