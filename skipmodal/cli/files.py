"""Which inputs a synthesis command was given, and where their results go."""

import glob
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from skipmodal.cli.output import tell
from skipmodal.errors import UserError
from skipmodal.files import files_in
from skipmodal.modality import SUFFIXES, Modality, modality_of

MAX_BYTES = 200_000_000  # of stdin, or of a text


@dataclass(frozen=True)
class Input:
    """One thing to translate."""

    name: str  # of a file, - for stdin, or the sentence itself
    inside: str = ""  # its folder below the one that was named
    content: str | None = None  # a text that a file held


def find_inputs(given: list[str], source: Modality, recursive: bool) -> list[Input]:
    """Files, the files of folders and patterns, or sentences. Raises UserError where a folder or pattern has none."""
    if given.count("-") > 1:
        raise UserError("- (stdin) is given more than once")
    found: list[Input] = []
    for name in given:
        if source == "text":
            lines = read_stdin().decode(errors="replace").splitlines() if name == "-" else [name]
            found += [Input(line) for line in lines if line.strip()]
            if os.path.isfile(name):
                tell(f"note: {name} is the name of a file, and is taken as a sentence; --file speaks what a file says")
        elif name != "-" and os.path.isdir(name):
            found += _in_folder(name, source, recursive)
        elif glob.has_magic(name) and not os.path.exists(name):
            matches = sorted(path for path in glob.glob(name, recursive=recursive) if os.path.isfile(path))
            if not matches:
                raise UserError(f"{name}: no file matches")
            found += [Input(path) for path in matches]
        else:
            found.append(Input(name))
    if not found:
        raise UserError("stdin has no sentence" if "-" in given else "the sentence is empty")
    return found


def read_text(path: str) -> Input:
    """A text file, or stdin for -. Raises UserError where it can't be read or is empty."""
    try:
        if path == "-":
            data = read_stdin()
        else:
            with open(path, "rb") as file:
                data = _read(file, f"--file {path}")
    except OSError as error:
        raise UserError(f"--file {path}: cannot be read ({error.strerror or error})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--file {path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not text.strip():
        raise UserError(f"--file {path}: is empty")
    return Input(path, content=text)


def read_stdin() -> bytes:
    """All of stdin. Raises UserError where it is too much."""
    return _read(sys.stdin.buffer, "stdin")


def _read(file: BinaryIO, name: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: more than {MAX_BYTES // 1_000_000} MB")
    return data


def find_targets(
    inputs: list[Input], source: Modality, output: str | None, directory: Path | None, suffix: str
) -> list[Path | None]:
    """One path an input; None is stdout. Raises UserError where two inputs would share one."""
    if directory is None:
        return [None if output in (None, "-") else Path(str(output))] * len(inputs)
    owners: dict[str, str] = {}
    paths: list[Path | None] = []
    for i, each in enumerate(inputs, 1):
        text = source == "text" and each.content is None
        stem = f"{i:04d}" if text else "stdin" if each.name == "-" else Path(each.name).stem
        path = directory / each.inside / f"{stem}.{suffix}"
        other = owners.setdefault(os.path.normcase(path).lower(), each.name)
        if other is not each.name:
            raise UserError(
                f"{other} and {each.name} would both become {path}; give them apart, in folders of their own"
            )
        paths.append(path)
    return paths


def _in_folder(folder: str, source: Modality, recursive: bool) -> list[Input]:
    """Its files of a modality, known by suffix, in order."""
    found = [path for path in files_in(Path(folder), recursive) if modality_of(path) == source]
    if not found:
        more = "" if recursive else ", and --recursive also looks into the folders in it"
        raise UserError(f"{folder}: has no {source} file (looked for {' '.join(SUFFIXES[source])}{more})")
    return [Input(os.path.join(folder, path), os.path.dirname(path)) for path in found]
