"""The recipe of a training that goes on from something: from given weights, or from where the same run stopped."""

from pathlib import Path
from typing import Any

from skipmodal.checkpoint import saved_recipe
from skipmodal.config import Recipe
from skipmodal.errors import UserError, first_few
from skipmodal.recipe import architecture, dump_recipe, load_recipe, parse_recipe
from skipmodal.training.resume import find_latest

LISTED = 8  # settings in one line
# What a resumed run may change: how long and how often, and where things are.
FREE = {"data.image_text", "data.text_speech", "data.workers"} | {
    f"train.{key}"
    for key in ("epochs", "max_steps", "device", "threads", "log_every", "eval_every", "eval_items", "sample_items",
                "checkpoint_minutes")
}  # fmt: skip


def recipe_to_fine_tune(name: str, overrides: list[str], init: Path) -> tuple[Recipe, list[str]]:
    """A recipe with the trained network of the checkpoint `init`, and which settings of the recipe gave way to it.

    Overrides count more than the checkpoint. Raises UserError where the recipe is of another kind.
    """
    own = load_recipe(name, overrides)
    saved = architecture(saved_recipe(init))
    if saved["kind"] != own.model.kind:
        raise UserError(f"--init {init}: has model.kind={saved['kind']}, and the recipe {name} {own.model.kind}")
    recipe = load_recipe(name, overrides, saved)
    return recipe, _differences(dump_recipe(own), dump_recipe(recipe))


def recipe_to_resume(name: str, overrides: list[str], run: Path) -> tuple[Recipe, list[str]]:
    """The recipe that `run` was started with, and which of its settings the recipe `name` now has otherwise.

    Where the run has no checkpoint, its start is still to come, with the recipe as it is given. Overrides may change
    what is in FREE; UserError names others that differ from the run's.
    """
    given = load_recipe(name, overrides)
    latest = find_latest(run / "latest")
    if latest is None:
        return given, []
    saved, wanted = dump_recipe(saved_recipe(latest)), dump_recipe(given)
    if saved["model"]["kind"] != given.model.kind:
        kinds = f"model.kind={saved['model']['kind']}, and the recipe {name} {given.model.kind}"
        raise UserError(f"{run}: was started with {kinds}; give its recipe, or another --run")
    keys = [override.partition("=")[0] for override in overrides]
    if whole := [key for key in keys if "." not in key]:
        raise UserError(f"{whole[0]}: a run that goes on takes single settings, as {whole[0]}.KEY=VALUE")
    refused = [key for key in keys if key not in FREE and _get(saved, key) != _get(wanted, key)]
    if refused:
        pairs = ", ".join(f"{key}={_get(saved, key)}" for key in refused)
        raise UserError(f"{run}: was started with {pairs}; leave that out to go on, or give another --run")
    for key in keys:
        section, _, leaf = key.partition(".")
        if key in FREE:
            saved[section][leaf] = wanted[section][leaf]
    recipe = parse_recipe(saved, name)
    return recipe, _differences(wanted, dump_recipe(recipe))


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`section.key=value` of what is otherwise in the new one, the first few."""
    changed = [
        f"{section}.{key}={value}"
        for section, values in new.items() for key, value in values.items() if old[section].get(key) != value
    ]  # fmt: skip
    return first_few(changed, LISTED)


def _get(tree: dict[str, Any], key: str) -> Any:
    section, _, leaf = key.partition(".")
    return tree.get(section, {}).get(leaf)
