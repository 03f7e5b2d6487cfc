"""YAML from outside, as plain values: no tags, aliases or repeated keys, and nothing too large."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from skipmodal.errors import UserError, reason

MAX_BYTES = 100_000  # of a file
MAX_DESCRIPTION = 1_000_000  # bytes of one of ours
MAX_YAML = 300_000  # characters: plain YAML takes seconds
MAX_INTEGER = 2**63
MAX_DEPTH = 200  # of sections in sections


def read_yaml(path: Path, what: str) -> Any:
    """Plain values of a YAML file that a user wrote; raises UserError that says `what` it should have been."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (OSError, ValueError) as error:  # ValueError: a name with NUL, or with half a character
        raise UserError(f"{what} {path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(text) > MAX_BYTES:
        raise UserError(f"{what} {path}: too large for a {what}")
    return parse_yaml(text, f"{what} {path}")


def read_description(file: Path, number: int, advice: str) -> dict[str, Any]:
    """What describes a dataset, an index or a checkpoint; its `format` has to be `number`, else there is `advice`.

    Raises UserError.
    """
    try:
        if file.stat().st_size > MAX_DESCRIPTION:
            raise UserError(f"{file}: larger than {MAX_DESCRIPTION:,} bytes")
        tree = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({reason(error)})") from error
    found = tree.get("format") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or found != number:
        raise UserError(f"{file}: format {found!r}, this version reads format {number}; {advice}")
    return tree


def parse_yaml(text: str, where: str) -> Any:
    """Plain values of YAML from outside: no tags, aliases or repeated keys. UserErrors begin with `where`."""
    if len(text) > MAX_YAML:
        raise UserError(f"{where}: is not valid YAML (more than {MAX_YAML:,} characters)")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context
        raise UserError(f"{where}: is not valid YAML ({place}{problem})") from error
    except RecursionError as error:
        raise UserError(f"{where}: is nested too deeply") from error
    except Exception as error:  # a reader error, or what the constructors let through: 2001-99-99, !!int ''
        raise UserError(f"{where}: is not valid YAML ({reason(error)})") from error


class _Loader(yaml.SafeLoader):
    """Plain YAML without what a recipe has no use for: aliases, which multiply, keys given twice, deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        problem = "aliases (*name) are not allowed" if self.check_event(yaml.AliasEvent) else ""
        problem = "it is nested too deeply" if self.depth > MAX_DEPTH else problem
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= MAX_INTEGER:
            raise yaml.constructor.ConstructorError(None, None, "a number is too large", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            twice, _ = Counter(key.value for key, _ in node.value).most_common(1)[0]
            problem = f"the key {twice!r} is given twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return mapping


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
