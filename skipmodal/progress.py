"""The progress bar that everything long shares, and the lines that are told beside it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

DELAY = 2.0  # seconds: what is done by then shows no bar


@contextmanager
def progress(total: int, done: int = 0, unit: str = "items") -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left where stderr is a terminal, else nothing; yields a function that advances it."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda items: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=f" {unit}", delay=DELAY, leave=False, dynamic_ncols=True) as bar:

        def advance(items: int) -> None:
            bar.update(items)

        yield advance


def say(line: str, file: TextIO | None = None) -> None:
    """One line, by default on stderr, above a bar that may be there."""
    file = file or sys.stderr
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(line, file=file)
    else:
        file.write(line + "\n")
