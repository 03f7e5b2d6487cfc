"""Recipes: found by name or file, with `extends` and `key=value` overrides, validated as their `model.kind` says."""

import os
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, create_model

from skipmodal.config import Recipe, TokensRecipe, VectorRecipe, describe
from skipmodal.errors import UserError
from skipmodal.plain_yaml import parse_yaml, read_yaml

KINDS: dict[str, type[Recipe]] = {"vector": VectorRecipe, "tokens": TokensRecipe}  # and those that `recipe_class` met


def load_recipe(name: str, overrides: list[str] | None = None, model: dict[str, Any] | None = None) -> Recipe:
    """Reads a recipe: a YAML file, or the name of a shipped one (`paper`).

    `model` are settings of the model, of given weights, that take the place of the recipe's.

    `extends: NAME` inside a file starts from another; overrides are `section.key=value` with YAML values.
    Raises UserError that lists every bad field at once.
    """
    tree = _load_tree(name, seen=())
    if model:
        tree["model"] = {**tree.get("model", {}), **model}
    for override in overrides or []:
        key, sign, value = override.partition("=")
        if not sign or not key:
            raise UserError(f"override {override!r}: write it as section.key=value, as in optim.lr=0.001")
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"override {override!r}: {parent} is a value, not a section")
        node[leaf] = parse_yaml(value, f"override {override!r}")
    return parse_recipe(tree, name)


def parse_recipe(tree: Any, name: str) -> Recipe:
    """Validates a plain tree; raises UserError that lists every bad field at once."""
    try:
        return recipe_of(tree)
    except ValidationError as error:
        raise UserError(f"recipe {name}: {describe(error, *KINDS.values())}") from error


def dump_recipe(recipe: Recipe) -> dict[str, Any]:
    """Plain types for YAML."""
    return recipe.model_dump(mode="json")


def architecture(recipe: Recipe) -> dict[str, Any]:
    """What `model` says of the trained network; the rest matters in training alone."""
    model = dump_recipe(recipe)["model"]
    return {key: value for key, value in model.items() if not key.endswith(recipe.model.in_training)}


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def recipes_folder() -> Path:
    """Where the shipped recipes are."""
    package = Path(__file__).parent
    installed = package / "recipes"  # in a wheel; a checkout has them beside the package
    return installed if installed.is_dir() else package.parent / "recipes"


def recipe_of(tree: Any) -> Recipe:
    """Validates a plain tree as the kind of recipe that its `model.kind` names, `vector` where it names none.

    Raises pydantic's ValidationError; a key of the other kind is an unknown key.
    """
    model = tree.get("model") if isinstance(tree, dict) else None
    kind = model.get("kind", "vector") if isinstance(model, dict) else "vector"
    found = recipe_class(kind) if isinstance(kind, str) else None
    if found is None:
        kinds: Any = Literal[("vector", "tokens", *comparators())]
        of_kind = create_model("_AnyModel", kind=(kinds, ...))
        create_model("_AnyRecipe", model=(of_kind, ...)).model_validate({"model": {"kind": kind}})
        raise AssertionError
    return found.model_validate(tree)


def recipe_class(kind: str) -> type[Recipe] | None:
    """The recipe of a kind of model: one of ours, or a comparator's, which has a file of that name."""
    if kind not in KINDS and kind in comparators():
        KINDS[kind] = import_module(f"skipmodal.comparators.{kind}").RECIPE
    return KINDS.get(kind)


@cache
def comparators() -> tuple[str, ...]:
    """Kinds of the systems that ours is compared with."""
    folder = Path(__file__).parent / "comparators"
    return tuple(sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")))


def _load_tree(name: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") and not os.path.isfile(path):  # unlike Path's, it never raises
        path = recipes_folder() / f"{name}.yaml"
        if not os.path.isfile(path):
            shipped = ", ".join(recipe_names())
            raise UserError(f"recipe {name!r}: no such file, and not one of the shipped: {shipped}")
    tree = read_yaml(path, "recipe") or {}
    if not isinstance(tree, dict):
        raise UserError(f"recipe {path}: must be sections with keys")
    base = tree.pop("extends", None)
    tree = {key: {} if value is None else value for key, value in tree.items()}  # a section without keys
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"recipe {path}: extends takes the name of one recipe")
    if path.resolve() in seen:
        raise UserError(f"recipe {path}: extends itself")
    beside = [path.parent / base, path.parent / f"{base}.yaml"]
    found = next((str(file) for file in beside if file.suffix and os.path.isfile(file)), base)
    return _merge(_load_tree(found, (*seen, path.resolve())), tree)


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
