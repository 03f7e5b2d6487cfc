"""LibriSpeech (Panayotov et al. 2015): train-clean-100/SPEAKER/CHAPTER/*.flac, and `ID TEXT` lines beside them."""

from collections.abc import Iterator
from pathlib import Path

from skipmodal.data.sources import BadRow, Medium, Row, inside, read_lines, safe_id
from skipmodal.errors import UserError

FOLDER = "LibriSpeech"  # what the archives unpack to
SPLITS = {"train": "train", "dev": "val", "test": "test"}  # what a folder's name begins with


def matches(source: Path) -> bool:
    return any(any(folder.glob("*/*/*.trans.txt")) for folder in _folders(source))


def rows(source: Path, medium: Medium) -> Iterator[Row | BadRow]:
    """One row a recording, in the order of the names, in lower case; recordings without a transcript are bad rows."""
    folders = _folders(source)
    if not folders:
        raise UserError(f"{source}: no folder train-*, dev-* or test-*; give the folder that has train-clean-100 in it")
    chapters = [(folder, chapter) for folder in folders for chapter in sorted(folder.glob("*/*")) if chapter.is_dir()]
    if not chapters:
        raise UserError(f"{folders[0]}: no SPEAKER/CHAPTER folders with recordings; unpack the archive anew")
    for folder, chapter in chapters:
        yield from _chapter(chapter, SPLITS[folder.name.partition("-")[0]])


def _folders(source: Path) -> list[Path]:
    """Those of the splits, in `source` or in its LibriSpeech/."""
    root = source / FOLDER if (source / FOLDER).is_dir() else source
    found = sorted(path for split in SPLITS for path in root.glob(f"{split}-*"))
    return [path for path in found if path.is_dir()]


def _chapter(chapter: Path, split: str) -> Iterator[Row | BadRow]:
    table = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
    untold = {path.stem for path in chapter.glob("*.flac")}
    if not table.is_file():
        yield BadRow(str(table), "no transcripts", f"missing, for {len(untold)} recordings beside it")
        return
    for number, line in read_lines(table):
        where = f"{table}:{number}"
        if line is None:
            yield BadRow(where, "undecodable line", "not UTF-8")
            continue
        if not line.strip():
            continue
        name, _, transcript = line.partition(" ")
        path = inside(chapter, f"{name}.flac")
        if not transcript.strip():
            yield BadRow(where, "malformed line", "expected ID TEXT")
        elif path is None or "/" in name or not name:
            yield BadRow(where, "unsafe path", name)
        else:
            untold.discard(name)
            yield Row(safe_id(name), split, (transcript.lower(),), path, where)
    for name in sorted(untold):
        yield BadRow(f"{table}: {name}.flac", "no transcript", "the recording has no line")
