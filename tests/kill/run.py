"""Runs a case in a child that is killed at one point, goes on until it is complete, and compares what it wrote."""

import hashlib
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.run import _in_child
from tests.kill.cases import CASES, Case, clean

WRITES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "os.replace")
IGNORED = ("tensorboard", ".lock")  # what is shown, and what says who runs
PATIENCE = 120.0  # seconds that one run may last
LINGER = 20.0  # seconds that processes of a killed run may last: the loader's look for their parent every five


@dataclass(frozen=True)
class Point:
    """Where to kill: at a number of `events` that change files, after `seconds`, or when a file has so many `bytes`.

    Of processes that train together one `worker` is killed, or `everything`, after so many seconds.
    """

    kind: str
    at: float


@dataclass(frozen=True)
class Result:
    """What became of one point; `outcome` is "same" where all is well."""

    number: int
    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class Straight:
    """The uninterrupted run: what it wrote, how many events and seconds it had, and its largest file."""

    files: dict[str, str]
    events: int
    seconds: float
    bytes: int


def straight(case: Case, data: Path, out: Path) -> Straight:
    """Runs a case without a kill. Raises RuntimeError where it fails."""
    started = time.monotonic()
    counted, count = os.pipe()
    if (end := _run(case, data, clean(out), None, count)).status:
        raise RuntimeError(f"the uninterrupted run failed: {end.printed}")
    os.close(count)
    with os.fdopen(counted) as events:
        total = int(events.read() or 0)
    largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Straight(written(out), total, time.monotonic() - started, largest)


def kill(case: Case, whole: Straight, data: Path, out: Path, number: int, random: Random) -> Result:
    """Kills a run once or twice, lets it go on, and compares."""
    clean(out)
    told = []
    for _ in range(random.choice((1, 1, 2))):
        point = choose(case, whole, random)
        end = _run(case, data, out, point)
        told.append(f"{point.kind} {point.at:.6g} (status {end.status})")
        if end.left:
            return Result(number, "processes left", f"{', '.join(told)}: {end.left}")
        if "Traceback" in end.printed and case.processes == 1:  # those of a launcher are beyond us
            return Result(number, "traceback", f"{', '.join(told)}: {end.printed[-3000:]}")
    end = _run(case, data, out, None)
    if end.left:
        return Result(number, "processes left", f"{', '.join(told)}, then: {end.left}")
    if end.status or "Traceback" in end.printed:
        return Result(number, "not resumed", f"{', '.join(told)}: {end.printed[-3000:]}")
    now = written(out)
    if now != whole.files:
        differ = sorted(name for name in now.keys() | whole.files.keys() if now.get(name) != whole.files.get(name))
        return Result(number, "other bytes", f"{', '.join(told)}: {', '.join(differ)}")
    return Result(number, "same", ", ".join(told))


def choose(case: Case, whole: Straight, random: Random) -> Point:
    """Events hit the renames, bytes the middle of a write, seconds everything else; of processes mostly one is hit."""
    if case.processes > 1:
        return Point(random.choice(("worker", "worker", "everything")), random.uniform(0, whole.seconds))
    kind = random.choice(("events", "events", "seconds", "bytes"))
    return Point(
        kind, random.uniform(0, {"events": whole.events, "seconds": whole.seconds, "bytes": whole.bytes}[kind])
    )


def written(out: Path) -> dict[str, str]:
    """A digest of every file."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    names = ((path.relative_to(out), path) for path in files)
    return {
        str(name): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names
        if not set(name.parts) & set(IGNORED)
    }


# ---------------------------------------------------------------- the child


@dataclass(frozen=True)
class End:
    """How a run ended: exit status, negative for a signal; what its processes printed; which of them stayed."""

    status: int
    printed: str
    left: str = ""


def _run(case: Case, data: Path, out: Path, point: Point | None, count: int | None = None) -> End:
    """One run in a child; whatever it starts holds `receive` as long as it lives."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        _work(case, data, out, point, send, count)
    os.close(send)
    handle, printed = os.pidfd_open(child), bytearray()
    try:
        by_clock = point is not None and point.kind in ("seconds", "worker", "everything")
        if not _wait(handle, receive, point.at if point is not None and by_clock else PATIENCE, printed):
            if point is None or not by_clock:
                printed += b"\nstill running"
            _strike(child, point)
            if not _wait(handle, receive, PATIENCE, printed):
                _strike(child, None)
        _, status = os.waitpid(child, 0)
        stayed = {} if _wait(receive, receive, LINGER, printed) else _holders(receive)
        for process in stayed:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    finally:
        os.close(handle)
        os.close(receive)
    return End(os.waitstatus_to_exitcode(status), printed.decode(errors="replace"), "; ".join(stayed.values()))


def _wait(done: int, receive: int, seconds: float, printed: bytearray) -> bool:
    """Reads what is printed until `done` is readable, or, where it is `receive`, at its end; false if it never is."""
    sources, deadline = {done, receive}, time.monotonic() + seconds
    while (wait := deadline - time.monotonic()) > 0:
        ready = select.select(list(sources), [], [], wait)[0]
        if receive in ready:
            if some := os.read(receive, 1 << 16):
                printed += some
                continue
            sources.discard(receive)
            if done == receive:
                return True
        if done in ready and done != receive:
            return True
    return False


def _strike(child: int, point: Point | None) -> None:
    """Kills the child, with all its family; or a worker alone, which then starts anew."""
    relatives = sorted(family(child))
    if point is not None and point.kind == "worker":
        if relatives:  # none before the launcher has started one, or once all is done
            os.kill(Random(point.at).choice(relatives), signal.SIGKILL)
        return
    training_together = point is None or point.kind == "everything"
    for process in [*relatives, child] if training_together else [child]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _holders(pipe: int) -> dict[int, str]:
    """Other processes that have a pipe open, and their commands (Linux)."""
    name, found = os.readlink(f"/proc/self/fd/{pipe}"), {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if name in map(os.readlink, (folder / "fd").iterdir()):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def family(child: int) -> dict[int, str]:
    """The descendants of a process and their commands (Linux)."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parents[int(folder.name)] = parent, command
    found: dict[int, str] = {}
    while more := {pid: command for pid, (parent, command) in parents.items() if parent in {child, *found}} | found:
        if len(more) == len(found):
            break
        found = more
    return found


def _work(case: Case, data: Path, out: Path, point: Point | None, send: int, count: int | None) -> None:
    status = 1
    try:
        os.dup2(send, 2)
        os.dup2(send, 1)
        os.close(send)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        events = _count_events(out, point.at if point is not None and point.kind == "events" else None)
        if point is not None and point.kind == "bytes":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # or Python turns it into an error
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(point.at), resource.RLIM_INFINITY))
            infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)  # the loader's processes are not meant
            os.register_at_fork(after_in_child=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, infinite))
        case.work(data, out)
        if count is not None:
            os.write(count, str(events()).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _count_events(out: Path, last: float | None) -> Callable[[], int]:
    """Counts what this process does to files below `out`, and kills it at the last event."""
    folder, own, seen = str(out), os.getpid(), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in WRITES or not arguments or os.getpid() != own:  # the loader's processes read
            return
        if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
            return
        path = arguments[0]
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(folder):  # type: ignore[arg-type]
            seen += 1
            if last is not None and seen > last:
                os.kill(own, signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: seen


def kill_points(name: str, seed: int, numbers: range, folder: Path) -> Iterator[Result]:
    """Results of some points of a case, in order; the numbers decide where, as far as a clock can be repeated."""
    case, data = CASES[name], clean(folder / "data")
    _in_child(lambda: case.make(data))
    whole = straight(case, data, folder / "out")
    for number in numbers:
        yield kill(case, whole, data, folder / "out", number, Random(f"{seed} {name} {number}"))
