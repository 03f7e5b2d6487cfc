"""Flickr8k (Hodosh et al. 2013): `photo.jpg#0<TAB>caption` lines, a folder of photos, lists of the splits."""

from collections.abc import Iterator
from pathlib import Path

from skipmodal.data.sources import BadRow, Medium, Row, inside, read_lines, safe_id
from skipmodal.errors import UserError

CAPTIONS = "Flickr8k.token.txt"
PHOTOS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")  # the first is the official spelling
SPLITS = {"train": "train", "dev": "val", "test": "test"}


def matches(source: Path) -> bool:
    return (source / CAPTIONS).is_file()


def rows(source: Path, medium: Medium) -> Iterator[Row | BadRow]:
    """One row a photo, in the order of the caption file; photos in no split list, or in several, are bad rows."""
    table = source / CAPTIONS
    photos = next((source / name for name in PHOTOS if (source / name).is_dir()), None)
    if photos is None:
        raise UserError(f"{source}: no folder of photos; expected one of {', '.join(PHOTOS)}")
    captions: dict[str, list[str]] = {}
    first_line: dict[str, int] = {}
    for number, line in read_lines(table):
        if line is None:
            yield BadRow(f"{table}:{number}", "undecodable line", "not UTF-8")
        elif line.strip():
            key, tab, caption = line.partition("\t")
            if not tab:
                yield BadRow(f"{table}:{number}", "malformed line", "expected photo.jpg#0<TAB>caption")
                continue
            photo = key.rpartition("#")[0] or key
            captions.setdefault(photo, []).append(caption)
            first_line.setdefault(photo, number)
    split_of = _splits(source)
    for photo, texts in captions.items():
        where = f"{table}:{first_line[photo]}"
        path = inside(photos, photo)
        if path is None:
            yield BadRow(where, "unsafe path", photo)
        elif split_of and photo not in split_of:
            yield BadRow(where, "in no split", photo)
        elif split_of.get(photo, "") is None:
            yield BadRow(where, "in several splits", photo)
        else:
            yield Row(safe_id(Path(photo).stem), split_of.get(photo), tuple(texts), path, where)


def _splits(source: Path) -> dict[str, str | None]:
    """Photo -> split, None where several lists have it; empty where the lists are absent."""
    split_of: dict[str, str | None] = {}
    for official, split in SPLITS.items():
        path = source / f"Flickr_8k.{official}Images.txt"
        if path.is_file():
            for photo in {line.strip() for _, line in read_lines(path) if line and line.strip()}:
                split_of[photo] = None if photo in split_of else split
    return split_of
