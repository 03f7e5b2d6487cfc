"""What the user can fix: one line, no traceback, exit status 1."""

import importlib.util
from collections.abc import Sequence


class UserError(Exception):
    """A problem the user can solve; the message says what, where and what to do.

    It is one printable line, whatever a file's name or a library's message brings in.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Text with its line ends as spaces, and what a terminal would obey, or can't show, as escapes."""
    text = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_few(lines: Sequence[str], most: int) -> list[str]:
    """The first lines, at most so many, and one that says how many more there are."""
    return [*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])]


def reason(error: BaseException) -> str:
    """What a library says went wrong, on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]


def require(what: str, **packages: str) -> None:
    """Raises UserError where a module is missing that `what` needs; `packages` maps it to what pip installs."""
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        names = " and ".join(missing)
        raise UserError(f"{what}: needs {names}, not installed here (pip install {' '.join(missing)})")
