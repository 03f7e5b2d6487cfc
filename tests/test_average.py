"""The mean of checkpoints: its weights, what it keeps, and what is refused."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from skipmodal.average import average_checkpoints
from skipmodal.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skipmodal.cli.app import app
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig
from skipmodal.recipe import parse_recipe
from skipmodal.training.resume import STARTED_FROM
from tests.conftest import TINY
from tests.models.tiny import AUDIO, tiny_model


def saved(folder: Path, shift: float = 0.0, **changes) -> Path:
    model = tiny_model(**changes)
    for value in model.state_dict().values():
        value.add_(int(100 * shift) if not value.is_floating_point() else shift)
    settings = {**TINY["tokens"], "frames_per_step": 3, "characters_per_second": 400, **changes}
    recipe = parse_recipe({"model": settings}, "tiny")
    card = f"# Model card\n\n- {shift}\n{STARTED_FROM}> - before\n"
    save_checkpoint(folder, Checkpoint(model, recipe, AUDIO, ImageConfig(size=16)), card)
    return folder


def test_weights_are_the_mean_and_the_rest_the_last_ones(tmp_path):
    paths = [saved(tmp_path / name / "latest", shift) for name, shift in (("a", 0.0), ("b", 0.3), ("c", 0.6))]
    average_checkpoints(paths, tmp_path / "out")
    first, last, mean = (
        load_checkpoint(path, torch.device("cpu")).model.state_dict() for path in (paths[0], paths[2], tmp_path / "out")
    )
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, first[name] + 0.3)
        else:
            assert torch.equal(value, last[name])
    card = (tmp_path / "out" / "card.md").read_text()
    line = "- the mean of the weights of a, b, c; the steps and the loss above are those of the last\n"
    assert card == f"# Model card\n\n- 0.6\n{line}{STARTED_FROM}> - before\n"


def test_the_command_and_what_it_refuses(tmp_path):
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", dropout=0.5, speech_warp=0.5)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["average", str(a), str(b), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert (out / "model.safetensors").is_file()
    with pytest.raises(UserError, match="exists already"):
        average_checkpoints([a, b], out)
    with pytest.raises(UserError, match="at least two"):
        average_checkpoints([a], tmp_path / "one")
    wide = saved(tmp_path / "wide", n_k=9)
    with pytest.raises(UserError, match=f"{a}: is of another model"):
        average_checkpoints([a, wide], tmp_path / "no")
    assert not (tmp_path / "no").exists()
