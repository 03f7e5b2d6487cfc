"""Tables on stdout and in Markdown."""

import sys
from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """Cells as they are shown."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def print_table(table: Table, right: Sequence[int] = ()) -> None:
    """On stdout: with lines on a terminal, in plain columns in a pipe; `right` are columns of numbers."""
    title, heads, rows = table
    if sys.stdout.isatty():
        import rich.table
        from rich.console import Console

        drawn = rich.table.Table(title=title or None, title_justify="left", show_header=any(heads))
        for i, head in enumerate(heads):
            drawn.add_column(head, justify="right" if i in right else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*row)
        Console(markup=False, emoji=False, highlight=False).print(drawn)
        return
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [title] if title else []
    for row in (heads, *rows) if any(heads) else rows:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    sys.stdout.write("\n".join(lines) + "\n")


def markdown(table: Table) -> str:
    """The same in Markdown."""
    rule = ["---", *["---:"] * (len(table.heads) - 1)]
    rows = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (table.heads, rule, *table.rows)
    ]
    return "\n".join([*([f"**{table.title}**", ""] if table.title else []), *rows])
