"""Learning curves from TensorBoard's events: real ones, damaged ones, forged ones."""

import math
import struct

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from skipmodal.errors import UserError
from skipmodal.evaluation import curves
from skipmodal.evaluation.curves import read_curves


def log(run, steps, value, purge_step=None):
    with SummaryWriter(str(run / "tensorboard"), purge_step=purge_step, filename_suffix=f".{value}") as writer:
        for step in steps:
            writer.add_scalar("train/mel", value, step)
            writer.add_scalar("train/lr", 0.1, step)
        writer.add_images("samples/picture", np.random.default_rng(0).random((1, 3, 64, 64)), steps[-1])
        writer.add_scalar("val/mel", value + 1, steps[-1])


def test_losses_alone_are_read_and_pictures_skipped(tmp_path):
    log(tmp_path, [10, 20], 3.0)
    assert read_curves(tmp_path) == {"mel": {"train": ([10, 20], [3.0, 3.0]), "val": ([20], [4.0])}}
    assert read_curves(tmp_path / "elsewhere") == {}


def test_the_losses_of_any_kind_of_model_are_read(tmp_path, monkeypatch):
    names = ("loss", "stop", "letters", "classifier", "ctc")
    with SummaryWriter(str(tmp_path / "tensorboard")) as writer:
        for name in (*names, "norm", "lr", "skipped", "steps_per_second"):
            writer.add_scalar(f"train/{name}", 1.0, 10)
    assert tuple(read_curves(tmp_path)) == names
    monkeypatch.setattr(curves, "MAX_CURVES", 2)
    assert tuple(read_curves(tmp_path)) == names[:2]


def test_a_resumed_run_draws_anew_what_it_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.0)
    log(tmp_path, [10, 20, 30], 1.0)
    monkeypatch.setattr("time.time", lambda: 2.0)
    log(tmp_path, [25], 2.0, purge_step=21)
    found = read_curves(tmp_path)["mel"]
    assert found["train"] == ([10, 20, 25], [1.0, 1.0, 2.0])
    assert found["val"] == ([25], [3.0])


def test_what_is_cut_short_gives_what_is_there(tmp_path):
    log(tmp_path, [10, 20, 30], 1.0)
    (path,) = (tmp_path / "tensorboard").iterdir()
    whole = path.read_bytes()
    place = whole.rindex(b"train/mel")
    for end in (place, place + 5, 5, 0):
        path.write_bytes(whole[:end])
        found = read_curves(tmp_path)
        assert found == ({"mel": {"train": ([10, 20], [1.0, 1.0])}} if end >= place else {})


def test_forged_files_cost_no_memory_and_no_traceback(tmp_path, monkeypatch):
    log(tmp_path, [10], 1.0)
    folder = tmp_path / "tensorboard"
    huge = struct.pack("<QI", 2**63, 0)
    noise = struct.pack("<QI", 64, 0) + b"\xff" * 68
    for number, data in enumerate((huge, noise, huge[:8] * 9, b"\xff" * 5000)):
        (folder / f"events.out.tfevents.0{number}").write_bytes(data)
    (folder / "events.out.tfevents.folder").mkdir()
    assert set(read_curves(tmp_path)["mel"]) == {"train", "val"}
    with SummaryWriter(str(folder), filename_suffix=".more") as writer:
        for tag in ("train/$x$", "train/" + "a" * 41, "other/mel", "train/mel/../x", "train/reward"):
            writer.add_scalar(tag, 1.0, 1)
        writer.add_scalar("train/stop", math.nan, 1)
    assert set(read_curves(tmp_path)) == {"mel"}
    monkeypatch.setattr(curves, "MAX_POINTS", 1)
    assert read_curves(tmp_path) == {"mel": {"train": ([10], [1.0])}}


def test_without_tensorboard_one_line_says_what_to_install(tmp_path, monkeypatch):
    log(tmp_path, [10], 1.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        read_curves(tmp_path)
