"""Threads wait passively, and small models train on one."""

import os
import subprocess
import sys

import pytest
import torch

from skipmodal.training import loop


def test_waiting_is_passive_unless_told_otherwise():
    script = "import skipmodal, os; print(os.environ['OMP_WAIT_POLICY'])"
    for given, found in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        environment |= {"OMP_WAIT_POLICY": given} if given else {}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert done.stdout.strip() == found


@pytest.mark.parametrize(("threads", "small", "found"), [(None, 10**9, 1), (None, 0, 2), (2, 10**9, 2)])
def test_a_small_model_trains_on_one_thread_unless_told_otherwise(recipe, tmp_path, monkeypatch, threads, small, found):
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(loop, "SMALL", small)
    monkeypatch.setattr(loop, "_optimizer", lambda *_: seen.append(torch.get_num_threads()) or 1 / 0)
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            loop.train(recipe(train={"threads": threads}), tmp_path / "run")
    finally:
        torch.set_num_threads(before)
    assert seen == [found]
