"""How figures are shown: a table on the terminal, report.json, report.md and items.jsonl in a folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from skipmodal.audio import write_atomic
from skipmodal.evaluation.published import BESIDE, SOURCE
from skipmodal.evaluation.tasks import Report

Rows = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, heads, cells


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


def write_report(report: Report, folder: Path) -> None:
    """report.json, report.md, and items.jsonl with what was said for each item, into a folder that is there."""
    summary = {key: value for key, value in asdict(report).items() if key != "details"}
    write_atomic(folder / "report.json", (json.dumps(summary, indent=1) + "\n").encode())
    write_atomic(folder / "report.md", _markdown(report).encode())
    lines = "".join(json.dumps(detail, ensure_ascii=False) + "\n" for detail in report.details)
    write_atomic(folder / "items.jsonl", lines.encode())


def _tables(report: Report) -> list[Rows]:
    shown = [
        (name, f"{value:.1f}" if isinstance(value, float) else str(value)) for name, value in report.figures.items()
    ]
    title = f"{report.task}: measured on {report.items} items of {report.data}, {report.split} split"
    tables: list[Rows] = [(title, ("figure", "value"), shown)]
    for table in BESIDE[report.task]:
        tables.append((f"Table {table.number}, {table.title}: {SOURCE}", ("system", *table.columns), table.rows))
    return tables


def _markdown(report: Report) -> str:
    parts = []
    for title, heads, cells in _tables(report):
        rule = ["---", *["---:"] * (len(heads) - 1)]
        rows = ["| " + " | ".join(row) + " |" for row in (heads, rule, *cells)]
        parts.append("\n".join([f"**{title}**", "", *rows]))
    return "\n\n".join(parts) + "\n"
