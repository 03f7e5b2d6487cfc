"""Training: one loop that reads top to bottom."""

import filecmp
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from skipmodal.audio import AudioConfig
from skipmodal.checkpoint import WEIGHTS, Checkpoint, load_tokenizer, names_of, save_checkpoint, saved_settings
from skipmodal.config import OptimConfig, Recipe, TrainConfig
from skipmodal.data.batches import TrainingBatches, mixed_sizes, validation_batches
from skipmodal.data.prepared import PreparedDataset
from skipmodal.device import pick_device
from skipmodal.errors import UserError, first_few, reason
from skipmodal.models.base import System
from skipmodal.systems import build
from skipmodal.tokenizer import Tokenizer
from skipmodal.training import distributed
from skipmodal.training.losses import total_loss
from skipmodal.training.monitor import Monitor
from skipmodal.training.resume import Progress, find_latest, load_fitting, origin, own_run, restore, trainer_state
from skipmodal.training.self_critical import SelfCritical
from skipmodal.training.step import TrainingStep
from skipmodal.training.validation import validate

SMALL = 3_000_000  # parameters: with fewer a step is too short to be shared by threads


def train(recipe: Recipe, run: Path, resume: bool = False, init: Path | None = None) -> Path:
    """Trains by the recipe and returns the folder of the latest checkpoint, `run/latest`.

    Checkpoints are `latest` and `best` (lowest validation loss). With `resume`, training goes on from `latest` where
    there is one, bit for bit on the CPU and by one process; without it a run that has one is refused. `init` is a
    checkpoint whose weights a new run starts from.
    Raises UserError for data that doesn't fit, a run that exists or can't be written, or too many non-finite steps
    in a row. Under `torchrun` every process takes its share of each batch.
    """
    device = distributed.own_device(pick_device(recipe.train.device))
    with distributed.join(device) as processes, own_run(run, processes.first):
        processes.any(False, device)  # the others wait until the first has put the run in order
        try:
            return _train(recipe, run, resume, init, device, processes)
        except (RuntimeError, OSError, EOFError) as error:
            if not recipe.data.workers or not _loader_died(error):
                raise
            raise UserError(
                f"data.workers: a process that loads data was killed ({reason(error)}); if memory is short, "
                "lower data.workers; --resume auto goes on from the last checkpoint"
            ) from error


def _train(
    recipe: Recipe,
    run: Path,
    resume: bool,
    init: Path | None,
    device: torch.device,
    processes: distributed.Processes,
) -> Path:
    a, b = _open_data(recipe)
    audio, image = b.meta.audio, a.meta.image
    assert audio is not None and image is not None  # the datasets' kinds are checked
    latest = run / "latest"
    found = find_latest(latest)
    if (found is not None or (run / "best").exists()) and not resume:
        raise UserError(f"{run}: has a checkpoint already; use --resume auto to go on, or another --run")
    if found is None and (run / "best").exists():
        raise UserError(f"{run}: has a best checkpoint but no latest to go on from; give another --run")
    if found is None and latest.exists():
        raise UserError(f"{latest}: is not a complete checkpoint; move it, or give another --run")

    started_from = origin(init, found)
    init_from = None if found is not None or init is None else load_fitting(init, recipe, audio, image, device)
    torch.manual_seed(recipe.train.seed)
    model = build(recipe.model, audio, image, _tokenizer(recipe, a, b, found or init)).to(device)
    if device.type == "cpu":
        small = sum(p.numel() for p in model.parameters()) < SMALL
        torch.set_num_threads(recipe.train.threads or (1 if small else torch.get_num_threads()))
    if init_from is not None:
        model.load_state_dict(init_from.model.state_dict())
    elif found is None:
        model.load_published()
    _set_training(model, recipe.train.only)
    start = found or init
    if start is not None and model.voice and not any(recipe.train.trains(part) for part in model.voice):
        # It sounds as it did.
        audio = audio.with_vocoder(saved_settings(start)[1])
    optimizer = _optimizer(model, recipe.optim)
    # Autocast where it pays: the CPU's is slower, and its LSTM lacks it on most processors; MPS has no loss scaling.
    precision = recipe.optim.precision if device.type == "cuda" else "fp32"
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    size = recipe.data.batch_size
    sizes = mixed_sizes(recipe.data) if recipe.data.sampling == "mix" else (size,)
    if any(each % processes.count for each in sizes):
        parts = " + ".join(map(str, sizes))
        raise UserError(f"data.batch_size={size} ({parts}) cannot be shared equally by {processes.count} processes")
    batches = TrainingBatches(a, b, recipe.data, model.tokenizer, recipe.train.seed, processes.rank, processes.count)
    steps = _total_steps(recipe.train, batches.per_epoch, recipe.optim.accumulate)
    at = Progress()
    if found is not None:
        at = restore(found, recipe, audio, image, model, optimizer, scaler, device)
    processes.check_alike(at.step, device)
    critic = None
    if "self_critical" in recipe.loss.weights():
        if "text_from_image" not in recipe.loss.weights():
            raise UserError("loss.self_critical: needs loss.text_from_image too, which chooses the best checkpoint")
        critic = SelfCritical((a.texts(i) for i in a.indices("train")), model.tokenizer, recipe.data.max_characters)
    shared = processes.share(TrainingStep(model, audio, recipe.loss, critic), device)
    stream = iter(DataLoader(
        batches, batch_size=None, sampler=range(at.step * recipe.optim.accumulate, steps * recipe.optim.accumulate),
        num_workers=recipe.data.workers, worker_init_fn=_calm,
    ))  # fmt: skip

    def save(name: str) -> None:
        state = trainer_state(optimizer, scaler, at) if name == "latest" else None
        card = _card(recipe, a, b, at.step, at.best) + started_from
        save_checkpoint(run / name, Checkpoint(model, recipe, audio, image), card, state)

    if at.improved and processes.first and not _same_weights(run / "best", latest):
        save("best")  # a crash came between the two
    weights = recipe.loss.weights()

    def autocast() -> AbstractContextManager[Any]:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float16
        return torch.autocast(device.type, dtype) if precision != "fp32" else nullcontext()

    with Monitor(run, at.step, steps, processes.first) as monitor, _stop_signal() as stop_asked:
        parameters = sum(p.numel() for p in model.parameters())
        monitor.say(
            f"{run}: step {at.step} of {steps} on {device}, {parameters:,} parameters, "
            f"{batches.per_epoch} batches an epoch"
        )
        if precision != recipe.optim.precision:
            monitor.say(f"optim.precision={recipe.optim.precision} is not used on the {device.type}: training in fp32")
        if init_from is not None and init_from.confidence is not None:
            monitor.say(f"the confidence of {init} is not kept; run `skipmodal calibrate` after training")
        if found is None and init is None and (recipe.train.only or critic):
            setting = "train.only" if recipe.train.only else "loss.self_critical"
            monitor.say(f"warning: {setting} is for trained weights, and these are fresh; use --init CHECKPOINT")
        if recipe.model.features and image.encoder == "none" and recipe.data.sampling != "text-speech":
            monitor.say(f"{a.path}: has no features (prep --encoder), so convolutions are trained on its pixels")
        totals: dict[str, list[Tensor]] = {}
        bad_in_a_row, saved_at = 0, time.monotonic()
        while at.step < steps:
            torch.manual_seed(_step_seed(recipe.train.seed, at.step, processes.rank))
            for group in optimizer.param_groups:
                group["lr"] = recipe.optim.lr * _schedule(recipe.optim, at.step, steps)
            ramp = recipe.loss.ramp(at.step)
            statistics = [buffer.clone() for buffer in model.buffers()]
            names: list[str] = []
            logged = {name: len(values) for name, values in totals.items()}
            for batch in islice(stream, recipe.optim.accumulate):
                names += batch.names
                batch = batch.to(device)
                with autocast():  # the losses too: it keeps them in fp32
                    losses = shared(batch)
                    reward = losses.pop("reward", None)
                    loss = total_loss(losses, weights, ramp)
                if reward is not None:
                    totals.setdefault("reward", []).append(reward)
                if not losses:
                    of = f"data.sampling={recipe.data.sampling}"
                    raise UserError(f"{of}: a model of kind {model.kind} learns nothing from such batches")
                if not loss.requires_grad:
                    parts = " or ".join(recipe.train.only)
                    raise UserError(f"train.only: no loss of this batch ({', '.join(losses)}) trains {parts}")
                scaler.scale(loss / recipe.optim.accumulate).backward()
                for name, value in {"loss": loss, **losses}.items():
                    totals.setdefault(name, []).append(value.detach())
            scaler.unscale_(optimizer)
            norm = _clip(model, recipe.optim.clip_norm)
            if torch.isfinite(norm):
                scaler.step(optimizer)
                totals.setdefault("norm", []).append(norm)
                bad_in_a_row = 0
            else:
                # The batch norms have seen the bad batch too: they go back with the weights.
                for buffer, old in zip(model.buffers(), statistics, strict=True):
                    buffer.copy_(old)
                totals = {name: totals[name][:count] for name, count in logged.items()}
                bad_in_a_row += 1
                if bad_in_a_row >= recipe.optim.max_bad_steps:
                    if processes.first:
                        save("latest")
                    raise UserError(
                        f"{bad_in_a_row} steps in a row had non-finite gradients, the last with the items "
                        f"{', '.join(first_few(names, 20))}; lower optim.lr or use optim.precision=fp32 "
                        f"(the last good state is in {latest})"
                    )
                at.skipped += 1
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            at.step, at.improved = at.step + 1, False
            monitor.step(at.step)

            if at.step % recipe.train.log_every == 0 and totals.get("loss"):
                means = {name: torch.stack(values).mean().item() for name, values in totals.items()}
                lr = optimizer.param_groups[0]["lr"]
                monitor.scalars("train", at.step, {**means, "lr": lr, "skipped": at.skipped})
                totals.clear()
            if processes.first and (at.step % recipe.train.eval_every == 0 or at.step == steps):
                validation = validate(model, recipe, a, b, device)
                monitor.scalars("val", at.step, validation)
                _sample(monitor, at.step, model, recipe, a, b, audio, device)
                if validation["loss"] < at.best:
                    at.best, at.improved = validation["loss"], True
                _set_training(model, recipe.train.only)
            stopping = processes.any(stop_asked(), device) and at.step < steps
            due = time.monotonic() - saved_at > 60 * recipe.train.checkpoint_minutes
            if processes.first and (at.step == steps or stopping or due or at.improved):
                save("latest")
                saved_at = time.monotonic()
                if at.improved:  # after the latest, from which it can be saved again
                    save("best")
            if stopping:
                monitor.say(f"stopped at step {at.step}; --resume auto goes on from here")
                raise KeyboardInterrupt
        monitor.say(f"{latest}: step {at.step}, {at.skipped} skipped{_so_far(at.best)}")
        if processes.any(stop_asked(), device):
            raise KeyboardInterrupt  # in the last step: what follows the training is not wanted either
    return latest


def _loader_died(error: Exception) -> bool:
    """Whether it is what torch raises, wherever the training is, or what a connection to the process ends with."""
    if isinstance(error, FileNotFoundError):
        return error.filename is None  # of its socket
    if isinstance(error, BrokenPipeError):
        return False  # of the terminal
    return "DataLoader worker (pid" in str(error) or isinstance(error, (ConnectionError, EOFError))


def _calm(worker: int) -> None:
    """Ctrl-C, and what ends a job, may reach every process; the loader's leave them to the training process.

    Nor do they tell of connections to a training process that was killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    told = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, ConnectionError):
            told(kind, error, trace)

    sys.excepthook = tell


def _step_seed(seed: int, step: int, rank: int) -> int:
    """For dropout: every step draws from a seed of its own, so a resumed run draws what an uninterrupted one does."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def _same_weights(one: Path, other: Path) -> bool:
    one, other = one / WEIGHTS, other / WEIGHTS
    return one.is_file() and filecmp.cmp(one, other, shallow=False)


def _sample(
    monitor: Monitor,
    step: int,
    model: System,
    recipe: Recipe,
    a: PreparedDataset,
    b: PreparedDataset,
    audio: AudioConfig,
    device: torch.device,
) -> None:
    items = recipe.train.sample_items
    batch = next(validation_batches(a, b, model.tokenizer, items, 2 * items)).to(device)
    monitor.samples(step, model, batch, batch.linear(audio), audio)


def _open_data(recipe: Recipe) -> tuple[PreparedDataset, PreparedDataset]:
    a = PreparedDataset(recipe.data.image_text, features=recipe.model.features)
    b = PreparedDataset(recipe.data.text_speech)
    for dataset, kind in ((a, "image-text"), (b, "text-speech")):
        if dataset.meta.kind != kind:
            raise UserError(f"{dataset.path}: is a {dataset.meta.kind} dataset where {kind} is needed")
        for split in ("train", "val"):
            if len(dataset.indices(split)) < 2:
                raise UserError(f"{dataset.path}: has fewer than 2 items in its {split} split; prepare more data")
    return a, b


def _tokenizer(recipe: Recipe, a: PreparedDataset, b: PreparedDataset, start: Path | None) -> Tokenizer:
    """That of the checkpoint to start from, or the most frequent words of the texts that are trained on."""
    if start is not None:
        return load_tokenizer(start, recipe.model)
    trained = {"image-text": (a,), "text-speech": (b,)}.get(recipe.data.sampling, (a, b))
    return Tokenizer.learn(
        (text for each in trained for i in each.indices("train") for text in each.texts(i)),
        recipe.model.whole_words,
        names_of(recipe.model),
    )


def _clip(model: System, limit: float) -> Tensor:
    """Scales the gradients to a norm of at most `limit`, and gives what it was; of the model's critics apart, so that
    they learn at their full rate whatever the other losses weigh.
    """
    parts: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts[name.split(".")[0] in model.critics].append(parameter)
    return torch.stack([torch.nn.utils.clip_grad_norm_(part, limit) for part in parts.values() if part]).norm()


def _set_training(model: System, only: Sequence[str]) -> None:
    """Training mode; of parts alone where some are named, the others then stay as they are, norms included.

    Raises UserError for a part that the model hasn't.
    """
    parts = dict(model.named_children())
    unknown = [name for name in only if name not in parts]
    if unknown:
        raise UserError(f"train.only: no part of the model is {unknown[0]!r}; it has {', '.join(parts)}")
    model.train()
    for name in set(parts) - set(only) if only else ():
        for module in parts[name].requires_grad_(False).eval().modules():
            if isinstance(module, torch.nn.RNNBase):
                module.train()  # or cuDNN would not take a gradient through it


def _optimizer(model: torch.nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UserError("train.only: names nothing but parts that are frozen")
    return kind(trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def _schedule(config: OptimConfig, step: int, steps: int) -> float:
    """The factor on lr at a step: linear warm-up, then decay."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.decay == "cosine":
        done = max(step - config.warmup_steps, 0) / max(steps - config.warmup_steps, 1)
        return warm * (config.min_lr_ratio + (1 - config.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done)))
    if config.decay == "rsqrt":
        return warm * math.sqrt(max(config.warmup_steps, 1) / max(step + 1, config.warmup_steps, 1))
    return warm


def _total_steps(config: TrainConfig, per_epoch: int, accumulate: int) -> int:
    steps = math.ceil(config.epochs * per_epoch / accumulate)
    return min(steps, config.max_steps) if config.max_steps else steps


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a stop after the step, with a checkpoint; the second one is at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs it decides how to stop
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _so_far(best: float) -> str:
    """Nothing before the first validation."""
    return f"; best validation loss {best:.4g}" if math.isfinite(best) else ""


def _card(recipe: Recipe, a: PreparedDataset, b: PreparedDataset, step: int, best: float) -> str:
    lines = ["# Model card", "", f"- trained for {step} steps of {recipe.data.batch_size} items{_so_far(best)}"]
    for name, dataset in (("image-text", a), ("text-speech", b)):
        counts = ", ".join(f"{split} {n}" for split, n in dataset.meta.items.items())
        lines.append(
            f"- {name} data: {dataset.meta.source} ({counts}); licence: {dataset.meta.licence or 'not stated'}"
        )
    return "\n".join(lines) + "\n"
