"""What commands print: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from skipmodal.progress import say


def tell(message: str) -> None:
    """One line on stderr."""
    say(f"skipmodal: {message}")


def json_line(record: dict[str, Any]) -> str:
    """One line of JSON in readable UTF-8; a file's name that isn't UTF-8 is escaped."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A table on stdout: with lines on a terminal, in plain columns in a pipe; `right` are columns of numbers."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title or None, title_justify="left")
        for i, head in enumerate(heads):
            table.add_column(head, justify="right" if i in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        Console(markup=False, emoji=False, highlight=False).print(table)
        return
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [title] if title else []
    for row in (heads, *rows):
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    sys.stdout.write("\n".join(lines) + "\n")


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
