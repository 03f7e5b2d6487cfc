"""A table of one's own: CSV, TSV or JSONL with `text` and `image` or `audio`, optionally `id` and `split`.

Paths are relative to the table. A picture may have several rows, or in JSONL a list of texts. A table of two
columns without a header is `id<TAB>sentence`, to be spoken.
"""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from skipmodal.data.sources import BadRow, Medium, Row, read_lines, safe_id
from skipmodal.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl")
COLUMNS = ("id", "split", "text", "image", "audio")
SPLIT_NAMES = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation", "dev"), "val")
MAX_QUOTED_LINES = 20  # a quote still open after so many lines was never meant as one


@dataclass
class _Entry:
    """One row as it is written; `texts` has several where JSONL gives a list."""

    where: str
    values: dict[str, str]
    texts: list[str]


def matches(source: Path) -> bool:
    return source.is_file() and source.suffix.lower() in SUFFIXES


def rows(source: Path, medium: Medium) -> Iterator[Row | BadRow]:
    """One row a picture, recording or sentence; the rows of one picture are merged into its first."""
    if not source.is_file():
        raise UserError(f"{source}: a manifest is a file ({', '.join(SUFFIXES)})")
    entries = _json_entries(source) if source.suffix.lower() == ".jsonl" else _table_entries(source, medium)
    pictures: dict[Path | None, Row | BadRow] = {}
    for entry in entries:
        row = entry if isinstance(entry, BadRow) else _row(source, entry, medium)
        if isinstance(row, BadRow) or medium != "image":
            yield row
        elif (first := pictures.get(row.media)) is None:
            pictures[row.media] = row
        elif isinstance(first, Row):
            if len({first.split, row.split} - {None}) == 2:
                pictures[row.media] = BadRow(row.where, "in several splits", f"{first.split} before, now {row.split}")
            else:
                pictures[row.media] = replace(first, split=first.split or row.split, texts=first.texts + row.texts)
    yield from pictures.values()


def _row(source: Path, entry: _Entry, medium: Medium) -> Row | BadRow:
    values = entry.values
    name = values.get("audio" if medium == "sentence" else medium, "")
    if not name and medium != "sentence":
        return BadRow(entry.where, f"no {medium} given", f"the column `{medium}` is missing or empty")
    if not any(text.strip() for text in entry.texts):
        return BadRow(entry.where, "no text", "the column `text` is missing or empty")
    split = values.get("split", "").lower()
    if split and split not in SPLIT_NAMES:
        return BadRow(entry.where, "unknown split", f"{split!r} is none of {', '.join(SPLIT_NAMES)}")
    if "\0" in name:
        return BadRow(entry.where, "unsafe path", repr(name))
    number = entry.where.rpartition(":")[2]
    default = os.path.splitext(name)[0] if name else f"{source.stem}-{number}"
    own_id = values.get("id") or default
    media = source.parent / name if name else None
    return Row(safe_id(own_id), SPLIT_NAMES.get(split), tuple(entry.texts), media, entry.where)


def _json_entries(source: Path) -> Iterator[_Entry | BadRow]:
    for number, line in read_lines(source):
        where = f"{source}:{number}"
        if line is None:
            yield BadRow(where, "undecodable line", "not UTF-8")
        elif line.strip():
            try:
                data = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield BadRow(where, "malformed line", f"not JSON ({error})")
                continue
            if not isinstance(data, dict):
                yield BadRow(where, "malformed line", "not a JSON object")
                continue
            text = data.get("text")
            texts = text if isinstance(text, list) else [text]
            values = {key: str(data[key]).strip() for key in COLUMNS if data.get(key) is not None}
            yield _Entry(where, values, [text for text in texts if isinstance(text, str)])


def _table_entries(source: Path, medium: Medium) -> Iterator[_Entry | BadRow]:
    lines = list(read_lines(source))
    first = next((line for _, line in lines if line and line.strip()), None)
    if first is None:
        raise UserError(f"{source}: is empty")
    separator = _separator(first)
    columns: list[str] | None = None
    for number, cells in _records(lines, separator):
        where = f"{source}:{number}"
        if isinstance(cells, str):
            yield BadRow(where, cells)
            continue
        if columns is None:
            columns = [cell.strip().lower() for cell in cells]
            if "text" in columns:
                continue
            if medium != "sentence" or len(columns) != 2:
                needed = "text (or hold id and sentence)" if medium == "sentence" else f"text and {medium}"
                raise UserError(f"{where}: must name the columns {needed}; found {', '.join(cells)[:100]!r}")
            columns = ["id", "text"]
        if len(cells) != len(columns):
            yield BadRow(where, "wrong number of columns", f"{len(cells)}, the first line has {len(columns)}")
            continue
        values = {key: cell.strip() for key, cell in zip(columns, cells, strict=True) if key in COLUMNS}
        yield _Entry(where, values, [values["text"]])


def _separator(first: str) -> str:
    """The separator that splits the first line into the most names of columns, else into the most cells."""

    def fit(separator: str) -> tuple[int, bool, int]:
        cells = [cell.strip().strip('"').lower() for cell in first.split(separator)]
        return sum(cell in COLUMNS for cell in cells), separator == "\t" and len(cells) > 1, len(cells)

    return max("\t,;|", key=fit)


def _records(lines: list[tuple[int, str | None]], separator: str) -> Iterator[tuple[int, list[str] | str]]:
    """(line number, cells or why there are none); a bad quote costs one line, not the rest of the file."""
    span = 1 if separator == "\t" else MAX_QUOTED_LINES
    i = 0
    while i < len(lines):
        number, line = lines[i]
        if line is None:
            yield number, "undecodable line"
        elif line.strip():
            ahead = (text if text is not None else "\ufffd" for _, text in lines[i : i + span])
            reader = csv.reader((text + "\n" for text in ahead), delimiter=separator, strict=True)
            try:
                cells = next(reader)
                yield number, cells
                i += reader.line_num - 1
            except csv.Error:
                # Tabs are rarely quoted: there the quote is a quotation mark.
                yield number, line.split("\t") if separator == "\t" else "malformed quotes"
        i += 1
