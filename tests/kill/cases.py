"""What is killed: each case has data that are made once, and work that is done in a folder of its own."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from skipmodal.audio import AudioConfig
from skipmodal.config import Recipe
from skipmodal.data.prepare import prepare_image_text, prepare_text_speech
from skipmodal.data.toy import prepare_toy
from skipmodal.errors import UserError
from skipmodal.features.efficientnet import EfficientNetLite
from skipmodal.image import ImageConfig
from skipmodal.recipe import parse_recipe
from skipmodal.training import monitor
from skipmodal.training.loop import train
from tests.conftest import TINY

AUDIO = AudioConfig(sample_rate=8000, n_fft=128, win_length=128, hop_length=64, n_mels=8, griffin_lim_iters=3)
STEPS = 8


@dataclass(frozen=True)
class Case:
    """`make` writes the data into a folder; `work` reads it there, and writes, or goes on writing, into another."""

    make: Callable[[Path], object]
    work: Callable[[Path, Path], object]
    processes: int = 1  # that train together


# ---------------------------------------------------------------- trainings


def make_toy(data: Path) -> None:
    prepare_toy(data / "toy", pictures=40, sentences=30, size=16)


def tiny_recipe(world: Path, **sections: dict[str, Any]) -> Recipe:
    """A checkpoint after every step, and dropout everywhere."""
    kind = sections.get("model", {}).get("kind", "vector")
    dropout = {"dropout": 0.2, "text_dropout": 0.2, "speech_dropout": 0.2}
    tree: dict[str, Any] = {
        "data": {"image_text": f"{world}/image-text", "text_speech": f"{world}/text-speech", "batch_size": 4},
        "model": {**TINY[kind], **dropout},
        "train": {"max_steps": STEPS, "log_every": 4, "eval_every": 3, "eval_items": 2, "sample_items": 1,
                  "device": "cpu", "checkpoint_minutes": 0},
    }  # fmt: skip
    for section, values in sections.items():
        tree[section] = {**tree.get(section, {}), **values}
    return parse_recipe(tree, "tiny")


def _train(sections: dict[str, Any], data: Path, out: Path) -> None:
    monitor.SAMPLE_SECONDS, monitor.SAMPLE_CHARACTERS = 0.5, 10  # what is only shown shall cost little
    monitor._summary_writer = lambda run, step: None
    train(tiny_recipe(data / "toy", **sections), out / "run", resume=True)


def training(**sections: dict[str, Any]) -> Case:
    """A training by this process."""
    return Case(make_toy, partial(_train, sections))


def _together(data: Path, out: Path) -> None:
    """By two processes, as torchrun starts them, and starts them again; forked, for importing torch takes longest."""
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="kill", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        start_method="fork", max_restarts=3, monitor_interval=0.1,
    )  # fmt: skip
    elastic_launch(config, _train)({}, data, out)


# ---------------------------------------------------------------- preparations

ROWS = 150  # more than two blocks


def _make_pictures(data: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["image,text"]
    for i in range(ROWS):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(data / f"{i}.png")
        rows.append(f"{i}.png,picture {i}")
    (data / "7.png").write_bytes(b"no picture")
    (data / "rows.csv").write_text("\n".join(rows))


def _make_recordings(data: Path) -> None:
    rows = ["audio,text"]
    for i in range(ROWS):
        tone = 0.5 * np.sin(np.arange(2400 + 40 * i) / (4 + i % 7))
        soundfile.write(data / f"{i}.wav", tone, 8000)
        rows.append(f"{i}.wav,recording {i}")
    (data / "7.wav").write_bytes(b"no recording")
    (data / "rows.csv").write_text("\n".join(rows))


def _prepare_pictures(encoder: str, views: int, data: Path, out: Path) -> None:
    EfficientNetLite.load_published = lambda self, classifier=None: self.eval()  # type: ignore[method-assign]  # random ones will do
    import torch

    torch.manual_seed(0)
    config = ImageConfig.model_validate({"size": 16, "encoder": encoder})
    _complete(
        partial(
            prepare_image_text, data / "rows.csv", out / "prepared", image=config, views=views, jobs=2, device="cpu"
        )
    )


def _prepare_recordings(data: Path, out: Path) -> None:
    _complete(partial(prepare_text_speech, data / "rows.csv", out / "prepared", audio=AUDIO, jobs=2, device="cpu"))


def _complete(prepare: Callable[[], object]) -> None:
    """A preparation that was killed after its last step is refused as complete, and is."""
    try:
        prepare()
    except UserError as error:
        if "exists and is complete" not in str(error):
            raise


CASES: dict[str, Case] = {
    "mix": training(),
    "tokens": training(model={"kind": "tokens", "words": 20}, data={"linear_frames": 8}),
    "alternate": training(data={"sampling": "alternate"}),
    "accumulation": training(optim={"accumulate": 2}),
    "workers": training(data={"workers": 2}),
    "self-critical": training(model={"kind": "tokens", "words": 6}, loss={"self_critical": 1.0}),
    "two processes": Case(make_toy, _together, processes=2),
    "pictures": Case(_make_pictures, partial(_prepare_pictures, "none", 0)),
    "pictures with encoder": Case(_make_pictures, partial(_prepare_pictures, "efficientnet_lite0", 1)),
    "recordings": Case(_make_recordings, _prepare_recordings),
}


def clean(out: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return out
