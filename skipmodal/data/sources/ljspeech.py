"""LJSpeech (Ito 2017): `id|transcript|normalised transcript` lines in metadata.csv, recordings in wavs/."""

from collections.abc import Iterator
from pathlib import Path

from skipmodal.data.sources import BadRow, Medium, Row, inside, read_lines, safe_id

TABLE = "metadata.csv"


def matches(source: Path) -> bool:
    return (source / TABLE).is_file() and (source / "wavs").is_dir()


def rows(source: Path, medium: Medium) -> Iterator[Row | BadRow]:
    """One row a recording; the layout names no splits. Quotes are quotation marks, not CSV."""
    table = source / TABLE
    for number, line in read_lines(table):
        where = f"{table}:{number}"
        if line is None:
            yield BadRow(where, "undecodable line", "not UTF-8")
            continue
        if not line.strip():
            continue
        name, *transcripts = line.split("|")
        if not 1 <= len(transcripts) <= 2:
            yield BadRow(where, "malformed line", "expected id|transcript|normalised transcript")
        elif (path := inside(source / "wavs", f"{name}.wav")) is None or not name:
            yield BadRow(where, "unsafe path", name)
        else:
            text = next((text for text in reversed(transcripts) if text.strip()), "")
            yield Row(safe_id(name), None, (text,), path, where)
