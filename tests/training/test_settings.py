"""Recipes of runs that go on: what they keep, what they take, what they refuse."""

from pathlib import Path

import pytest

from skipmodal.errors import UserError
from skipmodal.recipe import architecture, dump_recipe, load_recipe
from skipmodal.training.settings import recipe_to_fine_tune, recipe_to_resume
from tests.cli.test_commands import here  # noqa: F401
from tests.conftest import TINY
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    tiny_checkpoint(folder / "latest")
    return folder


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: toy\nmodel: {dropout: 0.5, speech_warp: 0.2}\noptim: {lr: 0.3}\n")
    return str(path)


def test_fine_tuning_takes_the_model_but_dropout_and_overrides_win(run, recipe):
    chosen, changed = recipe_to_fine_tune(recipe, ["model.n_k=9"], run)
    model = dump_recipe(chosen)["model"]
    assert (model["d_k"], model["n_k"], model["dropout"], model["speech_warp"]) == (TINY["tokens"]["d_k"], 9, 0.5, 0.2)
    assert chosen.optim.lr == 0.3
    assert f"model.d_k={model['d_k']}" in changed and not any("n_k" in line for line in changed)
    with pytest.raises(UserError, match="tokens, and the recipe paper vector"):
        recipe_to_fine_tune("paper", [], run)


def test_the_bundled_model_fits_its_recipe(recipe):
    chosen, _ = recipe_to_fine_tune("base", [], Path("bundled"))
    assert chosen.model.text_decoder == 256


def test_resuming_keeps_what_the_run_was_started_with(run, recipe):
    chosen, changed = recipe_to_resume(recipe, ["train.max_steps=7", "optim.lr=0.002"], run)
    assert (chosen.optim.lr, chosen.train.max_steps, chosen.model.d_k) == (0.002, 7, TINY["tokens"]["d_k"])
    assert changed
    with pytest.raises(UserError, match=r"was started with optim\.lr=0\.002, loss\.image=1\.0; leave that out"):
        recipe_to_resume(recipe, ["optim.lr=0.1", "loss.image=2"], run)
    with pytest.raises(UserError, match="kind=tokens"):
        recipe_to_resume("paper", [], run)
    with pytest.raises(UserError, match=r"single settings, as train\.KEY=VALUE"):
        recipe_to_resume(recipe, ["train={max_steps: 50}"], run)


def test_what_only_training_uses_may_differ_from_the_weights_it_starts_from():
    one, other = (load_recipe("policy_learning", [f"model.errors={errors}"]) for errors in ("words", "characters"))
    assert one != other and architecture(one) == architecture(other) and "width" in architecture(one)


def test_a_run_that_has_not_begun_starts_as_given(recipe, tmp_path):
    assert recipe_to_resume(recipe, ["optim.lr=0.1"], tmp_path) == (load_recipe(recipe, ["optim.lr=0.1"]), [])


def test_init_and_resume_exclude_each_other(here, tmp_path):  # noqa: F811
    status, _, err = here("train", "base", "--init", "bundled", "--resume", "auto", "--run", tmp_path / "r")
    assert status == 2 and "--resume goes on" in err
    assert not (tmp_path / "r").exists()


def test_names_of_checkpoints(here, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    for name in ("", "."):
        status, _, err = here("info", name)
        assert (status, err.count("\n")) == (1, 1) and "has no config.yaml" in err
    status, out, _ = here("info", tiny_checkpoint(tmp_path / "m", card="# A card\nlicence: CC0"))
    assert status == 0
    for part in ("licence: CC0", "of kind tokens", "parameters", "66 characters", "not calibrated"):
        assert part in out.decode()
    monkeypatch.chdir(tmp_path / "m")
    assert here("info", ".")[0] == 0
    assert here("export", "bundled", tmp_path / "copy")[0] == 0
    assert b"2,000 words whole" in here("info", "bundled")[1]
