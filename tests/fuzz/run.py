"""Runs mutated inputs through a reader, in a forked process that may hang, grow or die without ending the run."""

import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from skipmodal.errors import UserError
from tests.fuzz.mutate import mutate
from tests.fuzz.readers import READERS, Reader

SECONDS, MEGABYTES = 10.0, 2000  # seconds of the processor; by the clock three times as many
ROOM = 4 << 30  # bytes that a process may reserve beyond what it has at first, so that the machine stays usable
GOOD = ("read", "refused")
BAD = ("traceback", "hang", "memory", "died", "left behind", "printed")


@dataclass(frozen=True)
class Result:
    """What became of one input; `outcome` is one of GOOD or BAD."""

    number: int
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    megabytes: int = 0


def fuzz(name: str, seed: int, numbers: range, keep: Path | None = None) -> Iterator[Result]:
    """Results of some inputs of a reader, in order; input `number` depends on it, the name and the seed alone.

    Inputs whose outcome is bad are kept as folders in `keep`.
    """
    with tempfile.TemporaryDirectory(prefix="skipmodal-fuzz-") as folder:
        valid, place = Path(folder) / "valid", Path(folder) / "place"
        valid.mkdir()
        _in_child(lambda: READERS[name].make(valid))
        start = numbers.start
        while start < numbers.stop:
            for result in _batch(READERS[name], f"{seed} {name}", range(start, numbers.stop), valid, place):
                start = result.number + 1
                if result.outcome in BAD and keep is not None:
                    shutil.copytree(place, keep / f"{name} {result.number}", dirs_exist_ok=True, symlinks=True)
                yield result


def _batch(reader: Reader, seed: str, numbers: range, valid: Path, place: Path) -> Iterator[Result]:
    """Results from one child, until it is done, or one of them is its last."""
    receive, send = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        os.close(tell)
        _work(reader, seed, numbers, valid, place, send, told)
    os.close(send)
    os.close(told)
    started = time.monotonic()
    try:
        with os.fdopen(receive, "rb") as lines, os.fdopen(tell, "wb", buffering=0) as go_on:
            for number in numbers:
                go_on.write(b".")  # until then it waits, so that what it leaves can be kept
                if not select.select([lines], [], [], 3 * SECONDS)[0]:
                    yield Result(number, "hang", f"over {3 * SECONDS:g} s", time.monotonic() - started)
                    return
                line = lines.readline()
                if not line.endswith(b"\n"):
                    yield Result(number, "died", "the process was killed by a signal, or ended by itself")
                    return
                result = Result(**json.loads(line))
                yield result
                if result.outcome == "memory":
                    return
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _work(reader: Reader, seed: str, numbers: range, valid: Path, place: Path, send: int, told: int) -> None:
    """The child: one line of JSON an input."""
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") * 1024 + ROOM, hard))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.fsync = lambda file: None  # type: ignore[assignment]  # nothing of it shall last
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(valid, place)
        for path in _files(place):
            with suppress(UserError):  # what is imported late shall not count
                reader.read(place, path)
        for number in numbers:
            if not os.read(told, 1):
                break
            result = _one(reader, Random(f"{seed} {number}"), number, valid, place)
            os.write(send, json.dumps(result.__dict__).encode() + b"\n")
    finally:
        os._exit(0)


def _one(reader: Reader, random: Random, number: int, valid: Path, place: Path) -> Result:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(valid, place)
    changed = random.choice(_files(place))
    if random.random() < 0.01:
        changed.unlink()
    else:
        changed.write_bytes(mutate(changed.read_bytes(), random))
    before, started = {path.name for path in place.iterdir()}, time.process_time()
    detail, outcome = "", "read"
    with tempfile.TemporaryFile() as printed, _stdout(printed.fileno()):
        try:
            reader.read(place, changed)
        except UserError as error:
            outcome, detail = "refused", str(error)
        except Exception:
            outcome, detail = "traceback", traceback.format_exc()
        seconds = time.process_time() - started  # a busy machine is no hang
        sys.stdout.flush()
        size = os.fstat(printed.fileno()).st_size
    left = {path.name for path in place.iterdir()} - before - (reader.writes if outcome == "read" else frozenset())
    megabytes = _status("VmHWM") // 1024
    if outcome in GOOD and left:
        outcome, detail = "left behind", f"{', '.join(sorted(left))} after: {detail}"
    if outcome in GOOD and size:
        outcome, detail = "printed", f"{size} bytes"
    if outcome in GOOD and seconds > SECONDS:
        outcome, detail = "hang", f"{seconds:.1f} s; {detail}"
    if megabytes > MEGABYTES:
        outcome, detail = "memory", f"{megabytes} MB; {detail}"
    return Result(number, outcome, f"{changed.relative_to(place)}: {detail}", round(seconds, 3), megabytes)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def _stdout(file: int) -> Iterator[None]:
    """What C code prints is seen too."""
    saved = os.dup(1)
    os.dup2(file, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _status(key: str) -> int:
    """A line of /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _in_child(work: Callable[[], object]) -> None:
    """So that no thread of a library is running here when the next child is forked."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the valid input could not be made")


def table(results: dict[str, list[Result]]) -> str:
    """A line a reader: how many inputs came to which end, the slowest and the largest."""
    rows = [["reader", "inputs", *GOOD, *BAD, "slowest s", "most MB"]]
    for name, some in results.items():
        counts = Counter(result.outcome for result in some)
        slowest = max((result.seconds for result in some), default=0.0)
        largest = max((result.megabytes for result in some), default=0)
        ends = (str(counts[outcome]) for outcome in (*GOOD, *BAD))
        rows.append([name, str(len(some)), *ends, f"{slowest:.1f}", str(largest)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
