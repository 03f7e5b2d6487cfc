"""The contact sheet of figure 8: each query beside what was found, as one HTML page that needs nothing but itself."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from skipmodal.audio import write_audio
from skipmodal.errors import UserError
from skipmodal.image import read_photo
from skipmodal.modality import Modality
from skipmodal.retrieval.index import Hit, Index
from skipmodal.retrieval.sources import SHOWN_SIDE, read_sound

MAX_MEDIA_BYTES = 32_000_000  # of a sheet, as base64; the rest is named, not shown
MAX_SECONDS = 15  # of a recording
MAX_CHARACTERS = 300  # of a sentence or a file's name

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>Retrieval from {title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #222; background: #fff }}
section {{ border-top: 1px solid #ccc; display: flex; flex-wrap: wrap; gap: 2rem; padding: 1rem 0 }}
section > div:last-child {{ flex: 1 1 16rem }}
h2 {{ font-size: 1rem; margin: 0 0 .5rem }}
.cells + h2 {{ margin-top: 1.5rem }}
.cells {{ display: flex; flex-wrap: wrap; gap: 1rem }}
figure {{ margin: 0; width: 11rem; overflow-wrap: anywhere }}
img {{ display: block; max-width: 100%; max-height: 11rem }}
audio {{ width: 100% }}
blockquote {{ margin: 0; font-size: 1.05rem }}
small {{ display: block; color: #666; font-variant-numeric: tabular-nums }}
</style>
<h1>Retrieval from {title}</h1>
{body}
</html>
"""


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
    _rows: list[str] = field(default_factory=list)
    _used: int = 0

    def add(self, query: Query, found: Sequence[tuple[Modality, Sequence[Hit]]]) -> None:
        """One row: the query, and what was found of each modality."""
        media, path = "", Path(query.given)
        if query.modality == "image":
            media = self._show(query.given, lambda: _image(read_photo(path, SHOWN_SIDE)))
        elif query.modality == "speech":
            media = self._show(query.given, lambda: _audio(*read_sound(path)))
        named = _quote(query.given) if query.modality == "text" else f"<small>{_short(query.given)}</small>"
        groups = []
        for modality, hits in found:
            cells = "\n".join(map(self._cell, hits))
            groups.append(f'<h2>{modality}</h2>\n<div class="cells">\n{cells}\n</div>')
        asked = f"<div>\n<h2>query</h2>\n<figure>{media}{named}</figure>\n</div>"
        self._rows.append("\n".join(["<section>", asked, "<div>", *groups, "</div>", "</section>"]))

    def html(self) -> bytes:
        """The page, UTF-8."""
        return _PAGE.format(title=_short(str(self.index.path)), body="\n".join(self._rows)).encode(errors="replace")

    def _cell(self, hit: Hit) -> str:
        item, where, media = hit.item, self.index.where(hit.item), ""
        if item.modality == "image":
            media = self._show(where, lambda: _image(self.index.source(item).picture(item)))
        elif item.modality == "speech":
            media = self._show(where, lambda: _audio(*self.index.source(item).sound(item)))
        text = _quote(item.text) if item.text else ""
        return f"<figure>{media}{text}<small>{hit.rank}. {hit.score:.3f} {_short(where)}</small></figure>"

    def _show(self, where: str, load: Callable[[], str]) -> str:
        """The element that `load` gives, where it can and the page has room."""
        try:
            element = load()
        except UserError as error:
            self.problems.append(str(error))
            return "<p>not there any more</p>"
        if self._used + len(element) > MAX_MEDIA_BYTES:
            self.problems.append(f"{where}: not shown, the sheet is full")
            return "<p>not shown, the sheet is full</p>"
        self._used += len(element)
        return element


def _image(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _audio(wav: np.ndarray, rate: int) -> str:
    buffer = io.BytesIO()
    write_audio(buffer, wav[: MAX_SECONDS * rate], rate)
    note = f"<small>the first {MAX_SECONDS} s</small>" if len(wav) > MAX_SECONDS * rate else ""
    return f'<audio controls src="data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}"></audio>{note}'


def _quote(text: str) -> str:
    return f"<blockquote>{_short(text)}</blockquote>"


def _short(text: str) -> str:
    """Escaped, and of bounded length."""
    return escape(text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…")
