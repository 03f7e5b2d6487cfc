"""Where the runs of a sweep are worked on: in this process, in several, or on Ray. Each yields results as they come."""

import importlib.util
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from skipmodal.errors import UserError, reason
from skipmodal.sweep.plan import Run
from skipmodal.sweep.runner import Result, attempt

Results = Generator[tuple[Run, Result], None, None]
LOST = 3  # times that Ray may lose the worker of one run
STOP_SECONDS = 120.0  # that Ray's workers have for their last checkpoint


def in_this_process(runs: Sequence[Run]) -> Results:
    """One after the other."""
    for run in runs:
        yield run, attempt(run)


def in_processes(runs: Sequence[Run], jobs: int) -> Results:
    """`jobs` at a time, each in a fresh process. When this one is stopped, all save their checkpoints first."""
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(runs))
    busy: dict[int, tuple[Run, Any, Connection]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                run = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(run, sender))
                process.start()
                sender.close()
                busy[process.sentinel] = (run, process, receiver)
            for sentinel in wait(list(busy)):
                assert isinstance(sentinel, int)
                run, process, receiver = busy.pop(sentinel)
                process.join()
                yield run, _received(receiver, process.exitcode)
    finally:
        for _, process, _ in busy.values():
            process.terminate()
        for _, process, _ in busy.values():
            process.join()


def on_ray(runs: Sequence[Run], address: str) -> Results:
    """Every run a task of its CPUs and GPUs; where its worker is lost, another goes on from the last checkpoint.

    `address` is that of a cluster whose machines share the folders of the runs and of the data, or `local`.
    Raises UserError where Ray is not installed or not reached.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray: Ray is not installed (pip install 'skipmodal[ray]')")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone unasked
    import ray

    try:
        ray.init(
            address=address, include_dashboard=False if address == "local" else None,
            log_to_driver=False, logging_level=logging.ERROR,
        )  # fmt: skip
    except Exception as error:  # of many kinds
        raise UserError(f"--ray {address}: cannot be reached ({reason(error)})") from error
    task = ray.remote(max_retries=LOST)(_work_at)
    pending = {
        task.options(num_cpus=run.cpus, num_gpus=run.gpus, name=run.folder.name).remote(run, os.getcwd()): run
        for run in runs
    }
    try:
        while pending:
            (done,), _ = ray.wait(list(pending))
            run = pending.pop(done)
            try:
                yield run, ray.get(done)
            except ray.exceptions.RayError as error:
                yield run, Result({}, 0.0, f"Ray gave it up ({reason(error)})")
    finally:
        for left in pending:
            ray.cancel(left)  # as Ctrl-C: training saves a checkpoint
        if pending:
            ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)
        ray.shutdown()


def _work(run: Run, sender: Connection) -> None:
    """In a process of its own."""
    with suppress(OSError):
        os.setpgid(0, 0)  # Ctrl-C in the terminal reaches the parent alone, which stops all, once
    threading.Thread(target=_follow_parent, daemon=True).start()
    with suppress(KeyboardInterrupt):
        sender.send(attempt(run))


def _follow_parent() -> None:
    """Without a parent nobody waits for the result: training saves a checkpoint and stops."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _received(receiver: Connection, status: int | None) -> Result:
    with receiver:
        try:
            found = receiver.recv()
        except (EOFError, OSError):  # before, or in the middle of what it had to tell
            return Result({}, 0.0, f"its process ended with status {status}")
    assert isinstance(found, Result)
    return found


def _work_at(run: Run, folder: str) -> Result:
    """On a machine of a cluster, in the same folder as the command."""
    os.chdir(Path(folder))
    return attempt(run)
