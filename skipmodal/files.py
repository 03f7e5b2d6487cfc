"""Writing files so that a partial one never replaces a good one."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from skipmodal.errors import UserError


def write_atomic(path: Path, data: bytes) -> None:
    """Writes beside `path` and renames, so that a partial file never replaces a good one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # its folder may not even be one
            partial.unlink(missing_ok=True)


def beside(path: Path, suffix: str) -> Path:
    """The path beside it whose name has one more suffix."""
    return Path(f"{os.path.abspath(path)}.{suffix}")  # `.` and `..` have names too


def partial_path(out: Path) -> Path:
    """Where a folder lies until it is complete: beside it."""
    return beside(out, "partial")


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file that is on disk before what comes after, as the rename of its folder."""
    with path.open("wb") as file:
        file.write(data)
        sync(file)


def sync(file: BinaryIO) -> None:
    """Waits until the file is on disk."""
    file.flush()
    os.fsync(file.fileno())
