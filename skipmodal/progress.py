"""The progress bar that prep, training and evaluation share."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_A_LINE = 15.0  # between lines of progress where stderr is no terminal


@contextmanager
def progress(total: int, done: int) -> Iterator[Callable[[int], None]]:
    """A bar where stderr is a terminal, else a line now and then; yields a function that advances it."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("rows", total=total, completed=done)
            yield lambda rows: bar.advance(task, rows)
        return
    shown = time.monotonic()

    def advance(rows: int) -> None:
        nonlocal shown, done
        done += rows
        if time.monotonic() - shown > SECONDS_A_LINE:
            shown = time.monotonic()
            print(f"{done} of {total} rows", file=sys.stderr, flush=True)

    yield advance
