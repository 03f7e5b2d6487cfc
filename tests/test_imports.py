"""The parts of the package import each other one way, and only models/ asks which kind of model it has."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from skipmodal import config

PACKAGE = Path(config.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)
MODELS = [ast.parse(path.read_text()) for path in (PACKAGE / "models").rglob("*.py")]
CLASSES = {each.name for tree in MODELS for each in ast.walk(tree) if isinstance(each, ast.ClassDef)}
PARTS = {"text_decoder", "speech_decoder", "image_encoder", "letter_reader", "adversary", "refiner"}
CONFIGS = {name for name, each in vars(config).items() if isinstance(each, type) and issubclass(each, config.Section)}


def part_of(path: Path) -> str:
    """A folder of the package, or a file beside them."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Parts that a file imports, wherever in it; but for what only the type checker reads."""
    tree = ast.parse(path.read_text())
    skipped = {each for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
               for each in ast.walk(node)}  # fmt: skip
    names = []
    for node in set(ast.walk(tree)) - skipped:
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("skipmodal.")}


def test_parts_import_each_other_one_way():
    graph: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        graph[part_of(path)] |= imported(path) - {part_of(path)}
    assert {"models", "training", "evaluation", "cli"} <= set(graph)
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"parts of skipmodal import each other: {' -> '.join(error.args[1])}")
    ranks = [order.index(part) for part in ("errors", "config", "models", "checkpoint", "translate", "cli")]
    assert ranks == sorted(ranks)


def test_outside_of_models_nothing_asks_for_the_kind_of_a_model():
    asking = ("isinstance", "issubclass", "cast", "hasattr", "type")
    for path in MODULES:
        if part_of(path) in ("models", "comparators"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in asking:
                found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
                found |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
                found |= {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                assert not found & (CONFIGS | CLASSES | PARTS), f"{path}: {ast.unparse(node)}"
            elif isinstance(node, ast.Compare):
                found = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                assert not found & {"vector", "tokens"}, f"{path}: {ast.unparse(node)}"
