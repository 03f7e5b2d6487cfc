"""Who may write to a run, and what it goes on from."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from skipmodal import checkpoint
from skipmodal.checkpoint import TRAINER, WEIGHTS, Confidence, add_confidence, load_checkpoint, load_trainer
from skipmodal.errors import UserError
from skipmodal.training.loop import train
from skipmodal.training.resume import own_run


def test_a_second_training_in_the_same_folder_is_refused(recipe, tmp_path):
    with own_run(tmp_path / "run", first=True):
        code = (
            "import sys\nfrom pathlib import Path\nfrom skipmodal.training.resume import own_run\n"
            "with own_run(Path(sys.argv[1]), True): pass"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
        assert "another training writes there" in done.stderr and done.returncode
    train(recipe(), tmp_path / "run")  # it is free again


def test_other_processes_of_the_same_training_are_let_in(tmp_path):
    with own_run(tmp_path / "run", first=True), own_run(tmp_path / "run", first=False):
        pass


def test_a_run_with_best_alone_is_not_begun_anew(recipe, tmp_path):
    latest = train(recipe(), tmp_path / "run")
    latest.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no latest to go on from"):
        train(recipe(), tmp_path / "run", resume=True)


@pytest.mark.parametrize("lost", ["best", "weights"])
def test_a_crash_between_latest_and_best_is_made_good(recipe, tmp_path, lost):
    run = tmp_path / "run"
    latest = train(recipe(train={"max_steps": 2}), run)
    assert load_trainer(latest).numbers["improved"]
    best = {path.name: path.read_bytes() for path in (run / "best").iterdir()}
    if lost == "best":
        shutil.rmtree(run / "best")
    else:
        (run / "best" / WEIGHTS).write_bytes(b"of an earlier step")
    train(recipe(train={"max_steps": 2}), run, resume=True)
    assert {path.name: path.read_bytes() for path in (run / "best").iterdir()} == best


def test_a_finished_run_keeps_its_calibration(recipe, tmp_path):
    latest = train(recipe(train={"max_steps": 2}), tmp_path / "run")
    add_confidence(
        tmp_path / "run" / "best", Confidence(slope=1.0, distance=0.0, intercept=0.0, far=1.0), torch.ones(1, 8)
    )
    train(recipe(train={"max_steps": 2}), tmp_path / "run", resume=True)
    assert load_trainer(latest).numbers["improved"]
    assert load_checkpoint(tmp_path / "run" / "best", torch.device("cpu")).confidence is not None


def test_a_disk_that_is_full_leaves_nothing_half_written(recipe, tmp_path, monkeypatch):
    latest = train(recipe(), tmp_path / "run")
    before = (latest / TRAINER).read_bytes()

    def full(path: Path, data: bytes) -> None:
        if path.name == TRAINER:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(checkpoint, "write_synced", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        train(recipe(train={"max_steps": 6}), tmp_path / "run", resume=True)
    assert (latest / TRAINER).read_bytes() == before
    assert not list((tmp_path / "run").glob("*.partial"))
