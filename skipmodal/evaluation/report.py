"""How figures are shown: a table on the terminal; report.json, .md, .html and items.jsonl in a folder."""

import base64
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from skipmodal.errors import UserError
from skipmodal.evaluation.differences import compare
from skipmodal.evaluation.published import rows_beside
from skipmodal.evaluation.tasks import Report
from skipmodal.files import to_json, write_atomic
from skipmodal.plots import Picture
from skipmodal.tables import Table, markdown, print_table
from skipmodal.templates import render


def print_report(report: Report, published: bool = False) -> None:
    """The table of `table` on stdout, and the notes."""
    shown = table(report, published)
    print_table(shown, right=range(1, len(shown.heads)))
    for note in _notes(report, published):
        print(note)


def table(report: Report, published: bool = False) -> Table:
    """The measured figures; with `published` in a row, above the paper's own where it has some."""
    title = f"{report.task}: measured on {report.items} items of {report.data}, {report.split} split"
    figures = {name: f"{v:.1f}" if isinstance(v, float) else str(v) for name, v in report.figures.items()}
    beside = rows_beside(report.task) if published else []
    if not beside:
        return Table(title, ("figure", "value"), list(figures.items()))
    columns = list(dict.fromkeys(name for _, known, _ in beside for name in known))
    rows = [(name, *(known.get(column, "-") for column in columns), why) for name, known, why in beside]
    ours = ("this checkpoint", *(figures.get(column, "-") for column in columns), "")
    return Table(title, ("system", *columns, "comparable"), [ours, *rows])


def write_report(report: Report, folder: Path, published: bool = False) -> None:
    """report.json, .md, and items.jsonl with what was said for each item, into a folder that is there."""
    summary = {key: value for key, value in asdict(report).items() if key != "details"}
    write_atomic(folder / "report.json", f"{to_json(summary, 1)}\n".encode())
    parts = [markdown(table(report, published)), *_notes(report, published)]
    write_atomic(folder / "report.md", ("\n\n".join(parts) + "\n").encode(errors="backslashreplace"))
    lines = (f"{to_json(_relative(detail, folder))}\n" for detail in report.details)
    write_atomic(folder / "items.jsonl", "".join(lines).encode())


def write_page(report: Report, folder: Path, pictures: Sequence[Picture] = (), published: bool = False) -> None:
    """report.html: the table, `pictures`, which also go into the folder's `plots`, and every item, the worst first.

    Sound and photos of the items are named by paths from the folder, so that it can be sent as it is.
    """
    plots = folder / "plots"
    if pictures:
        try:
            plots.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{plots}: cannot be made ({error.strerror or error})") from error
    for picture in pictures:
        write_atomic(plots / picture.name, picture.png)
    page = render(
        "report.html.j2", title=f"{report.task}: {report.data}", table=table(report, published),
        notes=_notes(report, published), items=_items(report, folder),
        pictures=[{"caption": each.caption, "data": base64.b64encode(each.png).decode()} for each in pictures],
    )  # fmt: skip
    write_atomic(folder / "report.html", page)


def _notes(report: Report, published: bool) -> list[str]:
    """What the table has no room for, and what could not be measured."""
    shown = table(report, published)
    if shown.heads[0] != "system":
        return report.notes
    rest = (name for name in report.figures if name not in shown.heads)
    also = ", ".join(f"{name} {report.figures[name]:.4g}" for name in rest)
    return [*([f"this checkpoint also: {also}"] if also else []), *report.notes]


def _items(report: Report, folder: Path) -> list[dict[str, Any]]:
    """What the page shows of each item, the worst first."""
    items = []
    for detail in report.details:
        heard = detail.get("heard")
        found = compare(detail["references"], heard if heard is not None else detail["text"] or "")
        relative = _relative(detail, folder)
        links = {key: quote(os.fsencode(relative.get(key, ""))) for key in ("audio", "picture")}
        items.append(links | {
            "id": detail["id"], "parts": found.parts, "errors": found.errors, "words": found.words, "rate": found.rate,
            "sentence": detail["text"] if heard is not None else None,
        })  # fmt: skip
    return sorted(items, key=lambda item: -item["rate"])


def _relative(detail: dict[str, Any], folder: Path) -> dict[str, Any]:
    """With paths from the folder."""
    paths = {
        key: Path(os.path.relpath(detail[key], folder)).as_posix() for key in ("audio", "picture") if key in detail
    }
    return detail | paths
