"""Rows through decoding threads into a dataset writer: in order, resumable, with progress on stderr."""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from skipmodal.data.sources import BadRow, Row
from skipmodal.data.writer import DatasetWriter, Dropped, Kept, PrepReport, no_usable_row
from skipmodal.progress import progress

BLOCK = 64  # rows that are committed together
AHEAD = 2  # blocks being decoded while one is written


class Unusable(Exception):
    """The row is left out; arguments: reason, detail."""


@dataclass(frozen=True)
class Loaded:
    """A usable row: normalised texts, decoded medium (None in a dry run), and for audio its seconds."""

    row: Row
    texts: list[str]
    media: Any  # as `encode` takes it
    seconds: float = 0.0
    trimmed_seconds: float = 0.0


Task = tuple[Row, list[str]]  # a row and its usable texts


@dataclass(frozen=True)
class Pipeline:
    """Each row goes through `texts` here, `load` in a thread, and `encode`, a block at a time, here.

    Threads do, since decoders and speech engines release the interpreter lock: nothing is copied between
    processes and nothing breaks by forking. `texts` stays out of them because num2words is not thread-safe.
    """

    rows: list[Row | BadRow]
    texts: Callable[[Row], list[str]]
    load: Callable[[list[Task]], list[Loaded | Dropped]]
    encode: Callable[[list[Any]], list[tuple[np.ndarray, ...]]]
    jobs: int | None = None  # threads; default: one a core
    group: int = 1  # rows that are loaded together

    def check(self) -> PrepReport:
        """Loads every row and writes nothing; UserError where none is usable."""
        report = PrepReport()
        for block in self._blocks(0):
            for result in block:
                if isinstance(result, Dropped):
                    report.add(asdict(result))
                else:
                    item = {"split": result.row.split, "texts": result.texts, "seconds": result.seconds}
                    report.add({"item": item, "dropped_texts": len(result.row.texts) - len(result.texts)})
        if not report.kept:
            raise no_usable_row(report)
        return report

    def write(self, out: Path, settings: dict[str, Any], digests: list[str], overwrite: bool) -> PrepReport:
        """Prepares the dataset, going on where an earlier run of the same command was killed."""
        with DatasetWriter(out, settings, digests, overwrite=overwrite) as writer:
            try:
                with closing(self._blocks(writer.done)) as blocks:  # stops the threads whatever happens
                    for block in blocks:
                        writer.commit(self._encoded(block))
            except KeyboardInterrupt:
                done = f"{writer.done} of {len(self.rows)} rows are done"
                print(f"{done}; the same command resumes", file=sys.stderr)
                raise
            return writer.finish()

    def _encoded(self, block: list[Loaded | Dropped]) -> list[Kept | Dropped]:
        media = [result.media for result in block if isinstance(result, Loaded) and result.media is not None]
        arrays = iter(self.encode(media))
        return [_kept(result, next(arrays)) if isinstance(result, Loaded) else result for result in block]

    def _blocks(self, done: int) -> Generator[list[Loaded | Dropped]]:
        """What became of the rows, a block at a time and in order, with AHEAD blocks under way."""
        pool = ThreadPoolExecutor(self.jobs or os.cpu_count())
        waiting: deque[Callable[[], list[Loaded | Dropped]]] = deque()
        try:
            with progress(len(self.rows), done, "rows") as advance:
                for start in range(done, len(self.rows) + AHEAD * BLOCK, BLOCK):
                    waiting.append(self._submit(pool, self.rows[start : start + BLOCK]))
                    if len(waiting) > AHEAD and (block := waiting.popleft()()):
                        yield block
                        advance(len(block))
        finally:
            pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, rows: list[Row | BadRow]) -> Callable[[], list[Loaded | Dropped]]:
        """Starts loading a block; the result waits for it."""
        checked = [self._check_texts(row) for row in rows]
        tasks = [task for task in checked if not isinstance(task, Dropped)]
        groups = [tasks[i : i + self.group] for i in range(0, len(tasks), self.group)]
        return partial(_collect, checked, [pool.submit(self.load, group) for group in groups])

    def _check_texts(self, row: Row | BadRow) -> Task | Dropped:
        if isinstance(row, BadRow):
            return Dropped(row.where, row.reason, row.detail)
        try:
            return row, self.texts(row)
        except Unusable as problem:
            return Dropped(row.where, *problem.args)


def one_by_one(load: Callable[[Row, list[str]], Loaded]) -> Callable[[list[Task]], list[Loaded | Dropped]]:
    """Lifts a function that loads one row, or raises Unusable, to groups of them."""

    def load_group(group: list[Task]) -> list[Loaded | Dropped]:
        results: list[Loaded | Dropped] = []
        for row, texts in group:
            try:
                results.append(load(row, texts))
            except Unusable as problem:
                results.append(Dropped(row.where, *problem.args))
        return results

    return load_group


def _collect(checked: list[Task | Dropped], futures: list[Future[list[Loaded | Dropped]]]) -> list[Loaded | Dropped]:
    """What was loaded, with the rows that never went to a thread in their places."""
    loaded = chain.from_iterable(future.result() for future in futures)
    return [task if isinstance(task, Dropped) else next(loaded) for task in checked]


def _kept(result: Loaded, arrays: tuple[np.ndarray, ...]) -> Kept:
    row = result.row
    assert row.split
    unusable = len(row.texts) - len(result.texts)
    return Kept(row.id, row.split, result.texts, arrays, unusable, result.trimmed_seconds)
