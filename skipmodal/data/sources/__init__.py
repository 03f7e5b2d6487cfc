"""Public layouts and manifests -> rows. A layout is a module with `matches` and `rows`; media stay closed."""

import hashlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from skipmodal.errors import UserError

Medium = Literal["image", "audio", "sentence"]
MAX_TABLE_BYTES = 1 << 30  # a larger table of captions is not one


@dataclass(frozen=True)
class Row:
    """One row of a source: a picture or recording with its texts; `media` is None where speech is to be made.

    `split` is None where the source names none; `where` is file:line, for messages.
    """

    id: str
    split: str | None
    texts: tuple[str, ...]
    media: Path | None
    where: str


@dataclass(frozen=True)
class BadRow:
    """A row that the source itself makes unusable."""

    where: str
    reason: str
    detail: str = ""


class Layout(Protocol):
    """What each module of this package offers."""

    def matches(self, source: Path) -> bool: ...

    def rows(self, source: Path, medium: Medium) -> Iterator[Row | BadRow]: ...


# Layout -> (what its rows can be, what it looks like)
LAYOUTS: dict[str, tuple[tuple[Medium, ...], str]] = {
    "flickr8k": (("image",), "a folder with Flickr8k.token.txt and Flicker8k_Dataset/"),
    "coco": (("image",), "captions_*.json, or a folder with annotations/ and the picture folders"),
    "ljspeech": (("audio",), "a folder with metadata.csv and wavs/"),
    "librispeech": (("audio",), "a folder with train-*, dev-* or test-*, each SPEAKER/CHAPTER/*.flac and *.trans.txt"),
    "manifest": (
        ("image", "audio", "sentence"),
        "a .csv, .tsv or .jsonl with `text` and `image` or `audio`, or with `text` alone, to be spoken",
    ),
}


def load(layout: str) -> Layout:
    """The module of a layout."""
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is unknown; there are: auto, {', '.join(LAYOUTS)}")
    return cast(Layout, importlib.import_module(f"{__name__}.{layout}"))


def detect(source: Path) -> str:
    """Name of the layout of a file or folder; UserError where none fits."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    for name in LAYOUTS:
        if load(name).matches(source):
            return name
    known = "; ".join(f"{name}: {look}" for name, (_, look) in LAYOUTS.items())
    raise UserError(f"{source}: no known layout ({known})")


def read_lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """(number, line without its end) of a UTF-8 file, with or without BOM; None where a line is not UTF-8."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size > MAX_TABLE_BYTES:
                raise UserError(f"{path}: larger than {MAX_TABLE_BYTES >> 20} MiB; split it")
            for number, line in enumerate(file, 1):
                if number == 1:
                    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise UserError(f"{path}: is UTF-16; save it as UTF-8")
                    line = line.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, line.decode().rstrip("\r\n")
                except UnicodeDecodeError:
                    yield number, None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def safe_id(raw: str) -> str:
    """An id that is also a harmless file name; one that must be changed gets a digest, so that none meet."""
    clean = re.sub(r"[^\w.-]", "_", raw).lstrip(".-")[:100]
    digest = hashlib.sha256(raw.encode(errors="surrogatepass")).hexdigest()
    return clean if raw and clean == raw else f"{clean or 'item'}-{digest[:8]}"


def inside(folder: Path, name: str) -> Path | None:
    """folder / name, or None where the name leads out of the folder."""
    path = Path(name)
    return None if not name or path.is_absolute() or ".." in path.parts or "\0" in name else folder / path
