"""Features of regions that a detector found, from the public files of bottom-up attention (Anderson et al., CVPR 2018).

A TSV file, with the columns image_id, image_w, image_h, num_boxes, boxes and features, the last two float32 in base64;
or a folder with a .npz file a picture, whose array `feat`, `features` or `x` has a row a region, or a column where its
`bbox` has as many rows (OpenVQA's files). The files come from outside: sizes are bounded, and nothing is unpickled.
"""

import base64
import binascii
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from skipmodal.errors import UserError, reason

MAX_REGIONS, MAX_WIDTH = 100, 4096
MAX_LINE = 4 * (MAX_REGIONS * (MAX_WIDTH + 4)) * 4 // 3 + 1000  # bytes
MAX_PICTURES = 10_000_000
COLUMNS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
ARRAYS, BOXES = ("feat", "features", "x"), "bbox.npy"
_NUMBER = re.compile(r"(?:COCO_\w+_)?0*(\d{1,18})")  # as COCO's pictures are called


@dataclass(frozen=True)
class _Place:
    """Where the features of a picture are."""

    file: Path
    where: str  # for messages
    shape: tuple[int, int]
    offset: int = 0  # of its line


class Regions:
    """Features by the name of a picture; opening it reads no more than where they are and how many there are.

    `shape` is the most regions of a picture, and the width of their features.
    """

    def __init__(self, source: Path) -> None:
        """Raises UserError, which names file and item, for what is neither of the layouts, damaged or too large."""
        self._places: dict[str, _Place] = {}
        if not os.path.isdir(source) and not os.path.isfile(source):  # unlike Path's, these never raise
            raise UserError(f"{source}: no such file or folder")
        try:
            places = _of_folder(source) if os.path.isdir(source) else _of_table(source)
            for name, place in places:
                first = next(iter(self._places.values()), place)
                if place.shape[1] != first.shape[1]:
                    raise UserError(f"{place.where}: width {place.shape[1]}, that of others is {first.shape[1]}")
                if _key(name) in self._places:
                    raise UserError(f"{place.where}: picture {name[:80]!r} is there twice")
                if len(self._places) == MAX_PICTURES:
                    raise UserError(f"{source}: more than {MAX_PICTURES:,} pictures")
                self._places[_key(name)] = place
        except OSError as error:
            raise UserError(f"{source}: cannot be read ({error.strerror or error})") from error
        if not self._places:
            raise UserError(f"{source}: has no features of regions; give a .tsv of bottom-up attention, or .npz files")
        shapes = [place.shape for place in self._places.values()]
        self.shape = (max(count for count, _ in shapes), shapes[0][1])

    def __contains__(self, name: str) -> bool:
        """Whether the picture of that name, without its suffix, has features."""
        return _key(name) in self._places

    def __getitem__(self, name: str) -> np.ndarray:
        """float16 of `shape`; rows beyond a picture's own regions are zeros.

        Raises KeyError for another picture, UserError where its features are damaged.
        """
        place = self._places[_key(name)]
        try:
            found = _read_line(place) if place.file.suffix != ".npz" else _read_npz(place)
        except UserError:
            raise
        except Exception as error:  # a damaged file fails in many ways
            raise UserError(f"{place.where}: cannot be read ({reason(error)})") from error
        if found.shape != place.shape:
            raise UserError(f"{place.where}: {found.shape} features where {place.shape} were announced")
        with np.errstate(over="ignore"):
            half = found.astype(np.float16)
        if not np.isfinite(half).all():
            raise UserError(f"{place.where}: has features that are not finite in 16 bits")
        if not half.any(1).all():
            raise UserError(f"{place.where}: has a region whose features are all zero")
        rows = np.zeros(self.shape, dtype=np.float16)
        rows[: len(half)] = half
        return rows


def _key(name: str) -> str:
    """The number of `COCO_val2014_000000000042` and of `42` alike; other names as they are."""
    match = _NUMBER.fullmatch(name)
    return match[1] if match else name


def _bounded(where: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_REGIONS or not 1 <= shape[1] <= MAX_WIDTH:
        limits = f"1 to {MAX_REGIONS} regions of width 1 to {MAX_WIDTH}"
        raise UserError(f"{where}: features of shape {tuple(shape)}; expected {limits}")
    return shape[0], shape[1]


def _of_table(table: Path) -> list[tuple[str, _Place]]:
    places: list[tuple[str, _Place]] = []
    offset = 0
    with table.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            where = f"{table}:{len(places) + 1}"
            if len(line) > MAX_LINE:
                raise UserError(f"{where}: a line of more than {MAX_LINE:,} bytes")
            name, count, _, features = _columns(line, where)
            size = 3 * (len(features) // 4) - features[-2:].count(b"=")
            if not 1 <= count <= MAX_REGIONS or size % (4 * count):
                raise UserError(f"{where}: picture {name!r}: {size} bytes of features for {count} boxes")
            places.append((name, _Place(table, where, _bounded(where, (count, size // (4 * count))), offset)))
            offset = file.tell()
            if len(places) > MAX_PICTURES:
                break
    return places


def _columns(line: bytes, where: str) -> tuple[str, int, bytes, bytes]:
    """Name, number of boxes, boxes and features."""
    cells = line.rstrip(b"\r\n").split(b"\t")
    try:
        if len(cells) != len(COLUMNS):
            raise ValueError
        return cells[0][:200].decode(), int(cells[3][:20]), cells[4], cells[5]
    except ValueError as error:  # of a number, or of UTF-8
        raise UserError(f"{where}: is no line of {', '.join(COLUMNS)}, with a tab between each") from error


def _read_line(place: _Place) -> np.ndarray:
    with place.file.open("rb") as file:
        file.seek(place.offset)
        name, _, _, features = _columns(file.readline(MAX_LINE + 1), place.where)
    try:
        values = np.frombuffer(base64.b64decode(features, validate=True), dtype="<f4")
        return values.reshape(place.shape)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{place.where}: picture {name!r}: its features are not base64 of float32") from error


def _of_folder(folder: Path) -> list[tuple[str, _Place]]:
    places = []
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if path.suffix != ".npz" or not os.path.isfile(path):
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                _, shape, _ = _layout(path, archive)
        except UserError:
            raise
        except Exception as error:  # a damaged file fails in many ways
            raise UserError(f"{path}: cannot be read ({reason(error)})") from error
        places.append((path.stem, _Place(path, str(path), shape)))
    return places


def _layout(path: Path, archive: zipfile.ZipFile) -> tuple[str, tuple[int, int], bool]:
    """The member with the features, their shape with a row a region, and whether they are stored with a column each."""
    names = archive.namelist()
    member = next((f"{name}.npy" for name in ARRAYS if f"{name}.npy" in names), None)
    if member is None:
        raise UserError(f"{path}: has no array {' or '.join(ARRAYS)}")
    shape, dtype = _header(path, archive, member)
    if dtype.kind != "f":
        raise UserError(f"{path}: features are {dtype}, not floats")
    turned = False
    if BOXES in names and len(shape) == 2:
        boxes = _header(path, archive, BOXES)[0][0]
        turned = shape[0] != boxes and shape[1] == boxes  # of a square, rows are regions
    return member, _bounded(str(path), shape[::-1] if turned else shape), turned


def _header(path: Path, archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, before anything of that size is allocated."""
    with archive.open(member) as file:
        if npy.read_magic(file) != (1, 0):
            raise UserError(f"{path}: is of a format that plain arrays don't have")
        shape, _, dtype = npy.read_array_header_1_0(file)
    return shape, dtype


def _read_npz(place: _Place) -> np.ndarray:
    with zipfile.ZipFile(place.file) as archive:
        member, _, turned = _layout(place.file, archive)
        with archive.open(member) as file:
            found: np.ndarray = npy.read_array(file, allow_pickle=False)
    return found.T if turned else found
