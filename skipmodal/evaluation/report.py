"""How figures are shown: a table on the terminal; report.json, .md, .html and items.jsonl in a folder."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from skipmodal.errors import UserError
from skipmodal.evaluation.published import BESIDE, SOURCE
from skipmodal.evaluation.tasks import Report
from skipmodal.files import write_atomic
from skipmodal.plots import Picture

Rows = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, heads, cells

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }}
h1 {{ font-size: 1.5rem }}
h2 {{ font-size: 1rem; margin: 2rem 0 .4rem }}
h1, h2 {{ overflow-wrap: anywhere }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ border-bottom: 1px solid #ccc; padding: .2rem .8rem .2rem 0; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
figure {{ margin: 2rem 0 }}
img {{ max-width: 100% }}
figcaption {{ overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def print_report(report: Report) -> None:
    """Measured figures, then the paper's, on stdout."""
    console = Console(markup=False, highlight=False)
    for title, heads, cells in _tables(report):
        table = Table(title=title, title_justify="left")
        for i, head in enumerate(heads):
            table.add_column(head, justify="right" if i else "left")
        for row in cells:
            table.add_row(*row)
        console.print(table)
    for note in report.notes:
        console.print(note, soft_wrap=True)


def write_report(report: Report, folder: Path) -> None:
    """report.json, .md, and items.jsonl with what was said for each item, into a folder that is there."""
    summary = {key: value for key, value in asdict(report).items() if key != "details"}
    write_atomic(folder / "report.json", (json.dumps(summary, indent=1) + "\n").encode())
    write_atomic(folder / "report.md", _markdown(report).encode())
    lines = "".join(json.dumps(detail, ensure_ascii=False) + "\n" for detail in report.details)
    write_atomic(folder / "items.jsonl", lines.encode())


def write_page(report: Report, folder: Path, pictures: Sequence[Picture] = ()) -> None:
    """report.html, a page that needs nothing but itself, with pictures that also go into the folder's `plots`."""
    plots = folder / "plots"
    if pictures:
        try:
            plots.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{plots}: cannot be made ({error.strerror or error})") from error
    for picture in pictures:
        write_atomic(plots / picture.name, picture.png)
    write_atomic(folder / "report.html", _html(report, pictures).encode())


def _tables(report: Report) -> list[Rows]:
    shown = [
        (name, f"{value:.1f}" if isinstance(value, float) else str(value)) for name, value in report.figures.items()
    ]
    title = f"{report.task}: measured on {report.items} items of {report.data}, {report.split} split"
    tables: list[Rows] = [(title, ("figure", "value"), shown)]
    for table in BESIDE[report.task]:
        tables.append((f"{table.place}, {table.title}: {SOURCE}", ("system", *table.columns), table.rows))
    return tables


def _markdown(report: Report) -> str:
    parts = []
    for title, heads, cells in _tables(report):
        rule = ["---", *["---:"] * (len(heads) - 1)]
        rows = ["| " + " | ".join(row) + " |" for row in (heads, rule, *cells)]
        parts.append("\n".join([f"**{title}**", "", *rows]))
    return "\n\n".join([*parts, *report.notes]) + "\n"


def _html(report: Report, pictures: Sequence[Picture]) -> str:
    parts = []
    for title, heads, cells in _tables(report):
        head, *rows = (
            "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
            for tag, row in (("th", heads), *(("td", row) for row in cells))
        )
        body = "\n".join(rows)
        parts.append(f"<h2>{escape(title)}</h2>\n<table>\n<thead>{head}</thead>\n<tbody>{body}</tbody>\n</table>")
    parts += [f"<p>{escape(note)}</p>" for note in report.notes]
    for picture in pictures:
        data, caption = base64.b64encode(picture.png).decode(), escape(picture.caption)
        image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
        parts.append(f"<figure>\n{image}\n<figcaption>{caption}</figcaption>\n</figure>")
    return _PAGE.format(title=escape(f"{report.task}: {report.data}"), body="\n".join(parts))
