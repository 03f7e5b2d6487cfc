"""Ray: two workers of which one is killed in the middle of training."""

import os
import signal
import threading
import time

import pytest

from skipmodal.checkpoint import load_trainer
from skipmodal.errors import UserError
from skipmodal.sweep import executors
from skipmodal.sweep.executors import on_ray
from skipmodal.sweep.plan import load_plan


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(executors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"skipmodal\[ray\]"):
        next(on_ray([], "local"))


def test_a_killed_workers_run_goes_on_from_its_checkpoint(sweep, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    always = ("train.checkpoint_minutes=0",)
    runs = load_plan(str(sweep(seeds=[0, 1], systems=[("full", [])], steps=60)), tmp_path / "runs", always).runs
    killed = []

    def kill():
        log, deadline = runs[1].folder / "train.log", time.monotonic() + 240
        while time.monotonic() < deadline and not killed:
            if (runs[1].folder / "latest").exists():
                killed.append(holder(log))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    results = dict(on_ray(runs, "local"))
    thread.join()
    assert killed
    assert set(results) == set(runs)
    for run in runs:
        assert results[run].error is None
        trainer = load_trainer(run.folder / "latest").numbers
        assert trainer["step"] == 60
    starts = [line for line in (runs[1].folder / "train.log").read_text().splitlines() if " of 60 on cpu" in line]
    assert len(starts) == 2
    assert "step 0 of 60" not in starts[1]


def holder(file):
    """The process that has a file open (Linux)."""
    for folder in os.listdir("/proc"):
        if folder.isdigit() and int(folder) != os.getpid():
            try:
                links = [os.readlink(f"/proc/{folder}/fd/{number}") for number in os.listdir(f"/proc/{folder}/fd")]
            except OSError:
                continue
            if str(file) in links:
                return int(folder)
    raise AssertionError("nobody has it open")
