"""One run of a sweep: trained, or trained on from its checkpoint, then measured; and what is left of it on disk.

DIR/SYSTEM-sSEED/
    run.json      recipe, overrides and settings, and the seconds of CPU that training has taken so far
    result.json   the same with the figures, once they are measured
    latest/ best/ tensorboard/   the training run
    then/         that of a second model, which says what the first one writes
    train.log     what `skipmodal train` says
    eval/         reports with all figures and what was said of each item
"""

import json
import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from pydantic import ValidationError

from skipmodal.checkpoint import load_checkpoint
from skipmodal.data.prepared import PreparedDataset
from skipmodal.device import pick_device
from skipmodal.errors import UserError, reason
from skipmodal.evaluation.measure import measure
from skipmodal.evaluation.report import write_report
from skipmodal.files import write_atomic
from skipmodal.metrics.transcribe import Transcriber
from skipmodal.recipe import dump_recipe, recipe_of
from skipmodal.sweep.plan import Run
from skipmodal.training.loop import train
from skipmodal.translate import Translator

CLOCK_SECONDS = 10.0  # of accounting that a killed run loses
MAX_BYTES = 1_000_000  # of a file of ours
ERROR_CHARACTERS = 10_000  # of an error: a pipe holds 64 KiB, and is read when the process has ended


class Result(NamedTuple):
    """What a run came to: figures by column (None: this system has no such figure), or what went wrong."""

    figures: dict[str, float | None]
    cpu_seconds: float
    error: str | None = None


def read_result(run: Run) -> Result | None:
    """The result of a run that is done; None where there is still something to do.

    Raises UserError where the folder holds a system of the same name that was another.
    """
    check_unchanged(run)
    found = _read(run.folder / "result.json")
    if found is None or found.get("evaluate") != _measures(run):
        return None
    return Result(found["figures"], found["cpu_seconds"])


def check_unchanged(run: Run) -> None:
    """Raises UserError where the run's folder holds other settings, and says which."""
    found = _read(run.folder / "run.json")
    if found is None:
        return
    try:
        old = [dump_recipe(recipe_of(tree)) for tree in found["settings"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{run.name}: {run.folder} is of another version; give a new --run, or remove it") from error
    new = _settings(run)
    if len(old) != len(new):
        raise UserError(
            f"{run.name}: {run.folder} is of {len(old)} models, not {len(new)}; give a new --run, or remove it"
        )
    if old != new:
        changed = [
            f"{section}.{key}={value}"
            for one, other in zip(old, new, strict=True)
            for section, values in one.items()
            for key, value in values.items()
            if other[section].get(key) != value
        ]
        shown = ", ".join(changed[:5]) or "less"
        raise UserError(f"{run.name}: {run.folder} was made with {shown}; set it so, give a new --run, or remove it")


def attempt(run: Run) -> Result:
    """`execute`, whose errors become a result: one run that fails leaves the others their turn."""
    try:
        return execute(run)
    except UserError as error:
        return Result({}, 0.0, str(error)[:ERROR_CHARACTERS])
    except Exception as error:  # a fault of ours, or no memory left
        with suppress(OSError), (run.folder / "train.log").open("a", buffering=1, encoding="utf-8") as log:
            traceback.print_exc(file=log)
        return Result({}, 0.0, f"{type(error).__name__}: {reason(error)} (see {run.folder / 'train.log'})")


def execute(run: Run) -> Result:
    """Trains, measures and writes result.json; what is done already is not done again.

    Two processes never work in one folder: the second waits, and finds it done.
    Raises UserError where training or measuring does.
    """
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        log = (run.folder / "train.log").open("a", buffering=1, encoding="utf-8")  # a killed run has told it all
    except OSError as error:
        raise UserError(f"{run.folder}: cannot be made ({error.strerror or error})") from error
    with log, FileLock(run.folder / ".sweep.lock"):
        if (done := read_result(run)) is not None:
            return done
        with redirect_stderr(log), _accounting(run):
            for recipe, folder in run.models:
                torch.set_num_threads(run.cpus)  # the training of a small model takes one
                train(recipe, folder, resume=True)
        torch.set_num_threads(run.cpus)
        with redirect_stderr(log):
            figures = _figures(run)
        record = {**(_read(run.folder / "run.json") or {}), "evaluate": _measures(run), "figures": figures}
        _write(run.folder / "result.json", record)
        return Result(figures, record["cpu_seconds"])


def _figures(run: Run) -> dict[str, float | None]:
    """Measures the best checkpoint, as `skipmodal eval` does; whole reports go into the run's folder."""
    device = pick_device(run.recipe.train.device)
    loaded, *second = (load_checkpoint(folder, device) for _, folder in run.models)
    figures: dict[str, float | None] = {}
    for number, each in enumerate(run.measures, 1):
        translator, *then = (
            Translator(each_of, device, max_seconds=each.max_seconds, max_text=300) for each_of in (loaded, *second)
        )
        features = translator.image.encoder != "none"
        dataset, *against = (PreparedDataset(path, features=features) for path in each.datasets(run.recipe.data))
        report = measure(
            loaded, translator, each.task, dataset, against[0] if against else None,
            transcriber=Transcriber(each.transcriber) if each.transcriber else None, then=then[0] if then else None,
            split=each.split, limit=each.limit,
        )  # fmt: skip
        folder = run.folder / "eval" / f"{number}-{each.task}"
        folder.mkdir(parents=True, exist_ok=True)
        write_report(report, folder)
        figures |= {each.column(name): report.figures.get(name) for name in each.figures}
    return figures


@contextmanager
def _accounting(run: Run) -> Iterator[None]:
    """Keeps run.json, where the seconds of CPU go on from those of earlier attempts."""
    path = run.folder / "run.json"
    before, started = (_read(path) or {}).get("cpu_seconds", 0.0), _cpu_seconds()
    ended = threading.Event()

    def note() -> None:
        _write(path, {
            "system": run.system, "seed": run.seed, "recipe": run.recipe_name, "overrides": run.overrides,
            "settings": _settings(run), "cpu_seconds": round(before + _cpu_seconds() - started, 1),
        })  # fmt: skip

    def keep() -> None:
        while not ended.wait(CLOCK_SECONDS):
            note()

    note()
    clock = threading.Thread(target=keep, daemon=True)
    clock.start()
    try:
        yield
    finally:
        ended.set()
        clock.join()
        with suppress(UserError):  # a full disk: what ended the training is what to tell
            note()


def _cpu_seconds() -> float:
    """Of this process and of those that it has started and seen end."""
    return sum(os.times()[:4])


def _settings(run: Run) -> list[dict[str, Any]]:
    return [dump_recipe(recipe) for recipe, _ in run.models]


def _measures(run: Run) -> list[dict[str, Any]]:
    return [each.model_dump(mode="json") for each in run.measures]


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON file of ours; None where there is none that is whole."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, record: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(record, indent=1) + "\n").encode())
