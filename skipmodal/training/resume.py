"""Going on from a checkpoint: the weights of another run, or everything of the same one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from skipmodal.audio import AudioConfig
from skipmodal.checkpoint import Checkpoint, load_checkpoint, read_card, resolve_checkpoint
from skipmodal.config import Recipe, dump_recipe
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig
from skipmodal.models.system import SkipModal

STARTED_FROM = "\n## Weights it started from\n\n"


@contextmanager
def own_run(run: Path, first: bool) -> Iterator[None]:
    """Makes the run's folder and keeps other trainings out of it, as long as this one lasts.

    Of several processes that train together the `first` does. Raises UserError where another training has it.
    """
    if not first:
        yield
        return
    lock = FileLock(run / ".lock")
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"--run {run}: another training writes there; wait for it, or give another --run") from error
    except OSError as error:
        raise UserError(f"--run {run}: cannot be made ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


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
        _, heading, quoted = read_card(found / "card.md").partition(STARTED_FROM)
        return heading + quoted
    if init is None:
        return ""
    folder = resolve_checkpoint(init)
    card = read_card(folder / "card.md") or f"{folder.name}: has no card, so its data and licences are not known\n"
    return STARTED_FROM + "".join(f"> {line}".rstrip() + "\n" for line in card.splitlines())


def trainer_state(
    optimizer: torch.optim.Optimizer, scaler: Any, step: int, skipped: int, best: float, device: torch.device
) -> dict[str, Any]:
    """What a resumed run needs beside the weights, plain types and tensors: the loader takes no others."""
    return {
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "step": step,
        "skipped": skipped,
        "best": best,
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
    }


def restore(
    folder: Path,
    recipe: Recipe,
    audio: AudioConfig,
    image: ImageConfig,
    model: SkipModal,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    device: torch.device,
) -> tuple[int, int, float]:
    """Loads weights and the trainer's state; returns step, skipped steps and the best validation loss."""
    # What decides which batch comes next; the rest may change in a resumed run.
    fixed = [("data", key) for key in ("sampling", "batch_size", "image_share", "max_characters", "linear_frames")]
    fixed += [("optim", "accumulate"), ("optim", "name"), ("train", "seed"), ("train", "only")]
    saved = load_fitting(folder, recipe, audio, image, device, fixed)
    model.load_state_dict(saved.model.state_dict())
    state = _load_trainer(folder)
    try:
        optimizer.load_state_dict(state["optimizer"])
        for group in optimizer.param_groups:  # the recipe's, not the saved ones
            group.update(betas=recipe.optim.betas, weight_decay=recipe.optim.weight_decay)
        if scaler.is_enabled() and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if device.type == "cuda" and len(state["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        return state["step"], state["skipped"], state["best"]
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{folder / 'trainer.pt'}: does not fit this model ({error})") from error


def load_fitting(
    folder: Path,
    recipe: Recipe,
    audio: AudioConfig,
    image: ImageConfig,
    device: torch.device,
    fixed: Sequence[tuple[str, str]] = (),
) -> Checkpoint:
    """A checkpoint with the recipe's model, dropout aside, and the data's settings.

    Raises UserError where they, or the `fixed` keys, differ.
    """
    saved = load_checkpoint(folder, device)
    if saved.image != image or not audio.fits(saved.audio):
        raise UserError(f"{folder}: was trained on data prepared with other audio or image settings")
    old, new = dump_recipe(saved.recipe), dump_recipe(recipe)
    keys = [("model", key) for key in new["model"] if not key.endswith("dropout")] + list(fixed)
    changed = [
        f"{section}.{key}={old[section][key]}" for section, key in keys if old[section][key] != new[section][key]
    ]
    if changed:
        advice = "set it so, or start a new --run" if fixed else "set it so, or train from fresh weights"
        raise UserError(f"{folder}: was trained with {', '.join(changed)}; {advice}")
    return saved


def _load_trainer(folder: Path) -> dict[str, Any]:
    """The trainer's state beside the weights. Raises UserError where it is missing or damaged."""
    path = folder / "trainer.pt"
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(f"{path}: cannot be read, so training can't be resumed from it ({error})") from error
