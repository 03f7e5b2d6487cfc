"""Writing files and folders so that a partial one never replaces a good one."""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from skipmodal.errors import UserError


def write_atomic(path: Path, data: bytes) -> None:
    """Writes beside `path` and renames, so that a partial file never replaces a good one."""
    if not path.name:
        raise UserError(f"{path}: is a folder")
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


def new_partial(out: Path, files: Collection[str]) -> Path:
    """The folder to complete before it becomes `out`, empty: what a killed command left of these files is removed.

    Raises UserError where something else is in its place, or it can't be made.
    """
    partial = partial_path(out)
    try:
        if partial.exists() and not (partial.is_dir() and {path.name for path in partial.iterdir()} <= {*files}):
            raise UserError(f"{partial}: is in the way, and was not left by this command; move it")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{partial}: cannot be made ({error.strerror or error})") from error
    return partial


def to_json(value: object, indent: int | None = None) -> str:
    """JSON in readable UTF-8; what has no place there, as the name of a file may have, becomes JSON's escape for it."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode(errors="backslashreplace").decode()


def files_in(folder: Path, recursive: bool) -> Iterator[str]:
    """Paths from `folder` of its files in order, with those of the folders in it if `recursive`; none that is hidden.

    Raises UserError where a folder can't be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in sorted(names):
            path = os.path.join(root, name)
            if not name.startswith(".") and os.path.isfile(path):  # a pipe would never end
                yield os.path.relpath(path, folder)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file that is on disk before what comes after, as the rename of its folder."""
    with path.open("wb") as file:
        file.write(data)
        sync(file)


def sync(file: BinaryIO) -> None:
    """Waits until the file is on disk."""
    file.flush()
    os.fsync(file.fileno())
