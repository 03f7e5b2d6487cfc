"""COCO captions (Chen et al. 2015): annotations/captions_train2017.json beside train2017/, and so on."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skipmodal.data.sources import MAX_TABLE_BYTES, BadRow, Medium, Row, inside, safe_id
from skipmodal.errors import UserError

_NAME = re.compile(r"captions_((train|val)(\d{4}))\.json")


def matches(source: Path) -> bool:
    return bool(_NAME.fullmatch(source.name)) if source.is_file() else bool(_tables(source))


def rows(source: Path, medium: Medium) -> Iterator[Row | BadRow]:
    """One row a picture with all its captions; of a folder with both releases, the newer one."""
    tables = [source] if source.is_file() else _tables(source)
    if not tables:
        raise UserError(f"{source}: no annotations/captions_*.json")
    for table in tables:
        yield from _rows(table)


def _tables(folder: Path) -> list[Path]:
    found = [path for path in (folder / "annotations").glob("captions_*.json") if _NAME.fullmatch(path.name)]
    newest = max((_year(path) for path in found), default="")
    return sorted(path for path in found if _year(path) == newest)


def _year(table: Path) -> str:
    match = _NAME.fullmatch(table.name)
    return match[3] if match else ""


def _rows(table: Path) -> Iterator[Row | BadRow]:
    match = _NAME.fullmatch(table.name)
    split = match[2] if match else None
    photos = _photos(table, match[1] if match else "")
    data = _read(table)
    captions: dict[Any, list[str]] = {}
    for annotation in data["annotations"]:
        key, text = annotation.get("image_id"), annotation.get("caption")
        if isinstance(key, int | str) and isinstance(text, str):
            captions.setdefault(key, []).append(text)
        else:
            where = f"{table}: annotation {annotation.get('id')}"
            yield BadRow(where, "malformed annotation", "no image_id or no caption")
    for image in data["images"]:
        key, name = image.get("id"), image.get("file_name")
        where = f"{table}: image {key}"
        if not isinstance(key, int | str) or not isinstance(name, str):
            yield BadRow(where, "malformed image entry", "no id or file_name")
        elif (path := inside(photos, name)) is None:
            yield BadRow(where, "unsafe path", name)
        elif key not in captions:
            yield BadRow(where, "no caption", name)
        else:
            yield Row(safe_id(Path(name).stem), split, tuple(captions[key]), path, where)


def _photos(table: Path, folder: str) -> Path:
    """train2017/ lies beside annotations/, in images/, or beside the table itself."""
    places = [table.parent.parent / folder, table.parent.parent / "images" / folder, table.parent / folder]
    for place in places:
        if folder and place.is_dir():
            return place
    raise UserError(f"{table}: no folder of pictures; expected {places[0]}")


def _read(table: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        if table.stat().st_size > MAX_TABLE_BYTES:
            raise UserError(f"{table}: larger than {MAX_TABLE_BYTES >> 20} MiB")
        data = json.loads(table.read_bytes())
        return {key: [x for x in data[key] if isinstance(x, dict)] for key in ("images", "annotations")}
    except OSError as error:
        raise UserError(f"{table}: cannot be read ({error.strerror or error})") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{table}: not a COCO captions file ({type(error).__name__}: {error})") from error
