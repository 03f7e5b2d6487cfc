"""Going on from a checkpoint: the weights of another run, or everything of the same one."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from skipmodal.audio import AudioConfig
from skipmodal.checkpoint import (
    CARD,
    STARTED_FROM,
    TRAINER,
    Checkpoint,
    TrainerState,
    clear_crash,
    load_checkpoint,
    load_trainer,
    read_card,
    resolve_checkpoint,
)
from skipmodal.config import Recipe, describe
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig
from skipmodal.models.base import System
from skipmodal.recipe import architecture, dump_recipe

MAX_STEPS = 1 << 40


@contextmanager
def own_run(run: Path, first: bool) -> Iterator[None]:
    """Makes the run's folder and keeps other trainings out of it, as long as this one lasts.

    Of several processes that train together the `first` does. Raises UserError where another training has it.
    """
    if not first:
        yield
        return
    lock, new = FileLock(run / ".lock"), not run.exists()
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"--run {run}: another training writes there; wait for it, or give another --run") from error
    except OSError as error:
        raise UserError(f"--run {run}: cannot be made ({error.strerror or error})") from error
    try:
        for name in ("latest", "best"):
            clear_crash(run / name)
        yield
    finally:
        with suppress(OSError):
            if new and [path.name for path in run.iterdir()] == [".lock"]:  # refused before anything was written
                (run / ".lock").unlink()
        lock.release()
        if new:
            with suppress(OSError):  # it isn't empty
                run.rmdir()


def find_latest(latest: Path) -> Path | None:
    """The checkpoint to go on from, or None where there is none that is complete."""
    try:
        return resolve_checkpoint(latest)
    except UserError:
        return None


def origin(init: Path | None, found: Path | None) -> str:
    """The part of a card, licences included, that says which weights a run started from; empty for fresh ones.

    It comes from the card of `init`, or stands in that of `found`, which the run goes on from.
    """
    if found is not None:
        _, heading, quoted = read_card(found / CARD).partition(STARTED_FROM)
        return heading + quoted
    if init is None:
        return ""
    folder = resolve_checkpoint(init)
    card = read_card(folder / CARD) or f"{folder.name}: has no card, so its data and licences are not known\n"
    return STARTED_FROM + "".join(f"> {line}".rstrip() + "\n" for line in card.splitlines())


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    skipped: int = 0  # steps whose gradients were not finite
    best: float = math.inf  # the lowest validation loss
    improved: bool = False  # whether it is of this very step


class _Scaling(BaseModel):
    """The state of torch's GradScaler."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scale: Annotated[float, Field(gt=0, lt=1e38)]
    growth_factor: Annotated[float, Field(gt=1, lt=1e6)]
    backoff_factor: Annotated[float, Field(gt=0, lt=1)]
    growth_interval: Annotated[int, Field(gt=0, lt=1 << 31)]
    growth_tracker: Annotated[int, Field(ge=0, lt=1 << 31, alias="_growth_tracker")]


def trainer_state(optimizer: torch.optim.Optimizer, scaler: Any, progress: Progress) -> TrainerState:
    """What a resumed run needs beside the weights."""
    state = optimizer.state_dict()["state"]
    tensors = {f"{index}.{key}": value for index, values in state.items() for key, value in values.items()}
    return TrainerState(tensors, {**asdict(progress), "scaler": scaler.state_dict()})


def restore(
    folder: Path,
    recipe: Recipe,
    audio: AudioConfig,
    image: ImageConfig,
    model: System,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    device: torch.device,
) -> Progress:
    """Loads weights and the trainer's state; returns how far the run is. Raises UserError for what doesn't fit."""
    # What decides which batch comes next; the rest may change in a resumed run.
    drawn = ("sampling", "batch_size", "image_share", "captions", "max_characters", "linear_frames", "spelled")
    fixed = [("data", key) for key in drawn]
    fixed += [("optim", "accumulate"), ("optim", "name"), ("train", "seed"), ("train", "only")]
    saved = load_fitting(folder, recipe, audio, image, device, fixed)
    model.load_state_dict(saved.model.state_dict())
    state = load_trainer(folder)
    numbers = dict(state.numbers)
    try:
        scaling = numbers.pop("scaler")
        progress = TypeAdapter(Progress).validate_python(numbers)
        if not {field.name for field in fields(Progress)} == numbers.keys():
            raise ValueError("a number is missing, or not known")
        if not (0 <= progress.skipped <= progress.step < MAX_STEPS) or math.isnan(progress.best):
            raise ValueError("its numbers make no sense")
        # The settings are the recipe's, not those that the optimiser was saved with.
        settings = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": _optimizer_state(state.tensors, optimizer), "param_groups": settings})
        if scaler.is_enabled() and scaling:
            scaler.load_state_dict(_Scaling.model_validate(scaling).model_dump(by_alias=True))
    except (LookupError, ValueError, RuntimeError, TypeError, AttributeError, OverflowError) as error:
        reason = describe(error) if isinstance(error, ValidationError) else error
        raise UserError(f"{folder / TRAINER}: does not fit this model ({reason})") from error
    return progress


def _optimizer_state(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """The state of each parameter. Raises ValueError where shapes don't fit: a fused step would write out of bounds."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        if not index.isdecimal() or not value.isfinite().all() or (key != "exp_avg" and (value < 0).any()):
            raise ValueError(f"{name}: makes no sense")
        shape = parameters[int(index)].shape if key != "step" else torch.Size()
        if value.shape != shape or value.dtype != torch.float32:
            raise ValueError(f"{name}: {tuple(value.shape)} of {value.dtype} where {tuple(shape)} is needed")
        state.setdefault(int(index), {})[key] = value
    keys = {frozenset(values) for values in state.values()}
    if keys - {frozenset(("step", "exp_avg", "exp_avg_sq"))}:
        raise ValueError("a parameter's state is not complete")
    return state


def load_fitting(
    folder: Path,
    recipe: Recipe,
    audio: AudioConfig,
    image: ImageConfig,
    device: torch.device,
    fixed: Sequence[tuple[str, str]] = (),
) -> Checkpoint:
    """A checkpoint with the recipe's model, but for what only training uses, and the data's settings.

    Raises UserError where they, or the `fixed` keys, differ.
    """
    saved = load_checkpoint(folder, device)
    if saved.image != image or not audio.fits(saved.audio):
        raise UserError(f"{folder}: was trained on data prepared with other audio or image settings")
    old, new = dump_recipe(saved.recipe), dump_recipe(recipe)
    keys = [("model", key) for key in architecture(recipe)] + list(fixed)
    changed = [
        f"{section}.{key}={old[section].get(key)}"
        for section, key in keys
        if old[section].get(key) != new[section][key]
    ]
    if changed:
        advice = "set it so, or start a new --run" if fixed else "set it so, or train from fresh weights"
        raise UserError(f"{folder}: was trained with {', '.join(changed)}; {advice}")
    return saved
