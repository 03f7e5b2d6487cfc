"""Two processes under torchrun: the gradient of the whole batch, one checkpoint, one voice."""

import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from skipmodal.config import dump_recipe
from skipmodal.training.checkpoint import load_trainer

AVERAGE = """
import torch
from skipmodal.training import distributed
with distributed.join(torch.device("cpu")) as processes:
    model = torch.nn.Linear(1, 1)
    idle = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(model.weight)
    rows = torch.tensor([[1.0], [2.0], [3.0], [4.0]])[processes.rank :: processes.count]
    (model(rows) * rows).mean().backward()
    both = torch.nn.ModuleList([model, idle])
    processes.average_gradients(both)
    assert model.weight.grad.item() == 7.5, model.weight.grad  # mean of the squares
    assert (idle.weight.grad == 0).all()
    assert processes.any(processes.rank == 1, torch.device("cpu"))
    assert not processes.any(False, torch.device("cpu"))
"""


def torchrun(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, args)],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_gradients_are_averaged_and_flags_shared(tmp_path: Path):
    (tmp_path / "average.py").write_text(AVERAGE)
    done = torchrun(tmp_path / "average.py")
    assert done.returncode == 0, done.stderr


def test_training_by_two_processes_writes_one_run(recipe, tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(dump_recipe(recipe(data={"batch_size": 8}))))
    run = tmp_path / "run"
    done = torchrun("-m", "--", "skipmodal", "train", tmp_path / "recipe.yaml", "--run", run)
    assert done.returncode == 0, done.stderr
    assert load_trainer(run / "latest")["step"] == 4
    assert done.stderr.count("train 4:") == 1
    again = torchrun(
        "-m",
        "--",
        "skipmodal",
        "train",
        tmp_path / "recipe.yaml",
        "train.max_steps=6",
        "--run",
        run,
        "--resume",
        "auto",
    )
    assert again.returncode == 0, again.stderr
    assert load_trainer(run / "latest")["step"] == 6
    assert all(
        torch.isfinite(state["exp_avg"]).all() for state in load_trainer(run / "latest")["optimizer"]["state"].values()
    )
