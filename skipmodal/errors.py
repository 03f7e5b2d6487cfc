"""What the user can fix: one line, no traceback, exit status 1."""

import importlib.util


class UserError(Exception):
    """A problem the user can solve; the message says what, where and what to do."""


def require(what: str, **packages: str) -> None:
    """Raises UserError where a module is missing that `what` needs; `packages` maps it to what pip installs."""
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        names = " and ".join(missing)
        raise UserError(f"{what}: needs {names}, not installed here (pip install {' '.join(missing)})")
