"""The wheel, installed in a new environment and run outside the checkout."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`skipmodal` of an environment that has the wheel, and the dependencies of the environment that runs the tests."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    run = lambda *command: subprocess.run([*map(str, command)], check=True, capture_output=True)  # noqa: E731
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (wheel,) = folder.glob("skipmodal-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    # A line in a .pth adds a folder but does not read the .pth files in it: an editable install stays out of sight.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "skipmodal"


def skipmodal(command: Path, folder: Path, *arguments: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_the_bundled_model_and_speaks(command: Path, tmp_path: Path):
    skipmodal(command, tmp_path, "text2speech", "a dog runs on the beach", "-o", "out.wav")
    assert (tmp_path / "out.wav").stat().st_size > 10_000
    skipmodal(command, tmp_path, "img2text", str(ROOT / "examples" / "astronaut.jpg"))


def test_it_has_the_recipes_and_trains(command: Path, tmp_path: Path):
    skipmodal(command, tmp_path, "prep", "toy", "world", "--pictures", "240", "--sentences", "40", "--size", "16")
    data = ["data.image_text=world/image-text", "data.text_speech=world/text-speech"]
    skipmodal(command, tmp_path, "train", "toy", *data, "train.max_steps=1", "train.device=cpu", "--run", "run")
    assert (tmp_path / "run" / "latest" / "model.safetensors").exists()


def test_it_is_not_the_checkout(command: Path, tmp_path: Path):
    python = command.with_name("python")
    found = subprocess.run(
        [python, "-c", "import skipmodal; print(skipmodal.__file__)"], cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert Path(found.stdout.strip()).is_relative_to(command.parents[1])
