"""The contact sheet of figure 8: each query beside what was found, as one HTML page that needs nothing but itself."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from skipmodal.audio import write_audio
from skipmodal.errors import UserError
from skipmodal.image import read_photo
from skipmodal.modality import Modality
from skipmodal.retrieval.index import Hit, Index
from skipmodal.retrieval.sources import SHOWN_SIDE, read_sound
from skipmodal.templates import render

MAX_MEDIA_BYTES = 32_000_000  # of a sheet, as base64; the rest is named, not shown
MAX_SECONDS = 15  # of a recording
MAX_CHARACTERS = 300  # of a sentence or a file's name


class Shown(NamedTuple):
    """A picture or a recording inside the page, or why it isn't there."""

    kind: Literal["image", "audio", ""]
    src: str = ""
    note: str = ""


@dataclass(frozen=True)
class Query:
    """What was asked for: a sentence, or the path of a picture or recording."""

    modality: Modality
    given: str

    @property
    def item(self) -> Path | str:
        """As a translator reads it."""
        return self.given if self.modality == "text" else Path(self.given)


@dataclass
class Sheet:
    """A page that grows by a query; `problems` says what couldn't be shown."""

    index: Index
    problems: list[str] = field(default_factory=list)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _used: int = 0

    def add(self, query: Query, found: Sequence[tuple[Modality, Sequence[Hit]]]) -> None:
        """One row: the query, and what was found of each modality."""
        media, path = Shown(""), Path(query.given)
        if query.modality == "image":
            media = self._show(query.given, lambda: _image(read_photo(path, SHOWN_SIDE)))
        elif query.modality == "speech":
            media = self._show(query.given, lambda: _audio(*read_sound(path)))
        given = _short(query.given)
        groups = [(modality, [self._cell(hit) for hit in hits]) for modality, hits in found]
        text = given if query.modality == "text" else ""
        self._rows.append({"media": media, "text": text, "name": given, "groups": groups})

    def html(self) -> bytes:
        """The page, UTF-8."""
        return render("sheet.html.j2", title=_short(str(self.index.path)), rows=self._rows)

    def _cell(self, hit: Hit) -> dict[str, Any]:
        item, where, media = hit.item, self.index.where(hit.item), Shown("")
        if item.modality == "image":
            media = self._show(where, lambda: _image(self.index.source(item).picture(item)))
        elif item.modality == "speech":
            media = self._show(where, lambda: _audio(*self.index.source(item).sound(item)))
        name = f"{hit.rank}. {hit.score:.3f} {_short(where)}"
        return {"media": media, "text": _short(item.text or ""), "name": name}

    def _show(self, where: str, load: Callable[[], Shown]) -> Shown:
        """What `load` gives, where it can and the page has room."""
        try:
            shown = load()
        except UserError as error:
            self.problems.append(str(error))
            return Shown("", note="not there any more")
        if self._used + len(shown.src) > MAX_MEDIA_BYTES:
            self.problems.append(f"{where}: not shown, the sheet is full")
            return Shown("", note="not shown, the sheet is full")
        self._used += len(shown.src)
        return shown


def _image(pixels: np.ndarray) -> Shown:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return Shown("image", f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def _audio(wav: np.ndarray, rate: int) -> Shown:
    buffer = io.BytesIO()
    write_audio(buffer, wav[: MAX_SECONDS * rate], rate)
    note = f"the first {MAX_SECONDS} s" if len(wav) > MAX_SECONDS * rate else ""
    return Shown("audio", f"data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}", note)


def _short(text: str) -> str:
    """Of bounded length."""
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
