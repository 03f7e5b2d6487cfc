"""Checkpoints: a folder with weights, configuration and card, and for training the trainer's state.

Weights and the trainer's state are safetensors: no file runs code.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from skipmodal.audio import AudioConfig
from skipmodal.confidence import Confidence
from skipmodal.config import AnyModel, Recipe, describe
from skipmodal.errors import UserError, reason
from skipmodal.features import kinds
from skipmodal.files import beside, new_partial, partial_path, write_atomic, write_synced
from skipmodal.image import ImageConfig
from skipmodal.models.base import System
from skipmodal.plain_yaml import read_description
from skipmodal.recipe import KINDS, dump_recipe, recipe_of
from skipmodal.systems import build
from skipmodal.tokenizer import Tokenizer

FORMAT = 11
BUNDLED = Path(__file__).parent / "bundled"  # the checkpoint that comes with the package
CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
WORDS = "words.txt"  # the words of the tokenizer, one a line
TRAINER = "trainer.safetensors"
PROTOTYPES = "prototypes.safetensors"  # of the pictures that were trained on, for the confidence
CARD = "card.md"
FILES = {CONFIG, WEIGHTS, WORDS, TRAINER, PROTOTYPES, CARD}
REPLACED = "replaced"  # suffix of the old one while the new one takes its place
MAX_CONFIG_BYTES = 1_000_000
STARTED_FROM = "\n## Weights it started from\n\n"  # in a card, before that of those weights


@dataclass
class TrainerState:
    """What a resumed training needs beside the weights; `numbers` are what JSON can hold."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


@dataclass
class Checkpoint:
    """A model with everything that synthesis needs to know."""

    model: System
    recipe: Recipe
    audio: AudioConfig
    image: ImageConfig
    confidence: Confidence | None = None  # once it has been calibrated
    prototypes: Tensor | None = None  # (P, width), the pictures that confidence compares with


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, card: str, trainer: TrainerState | None = None, half: bool = False
) -> None:
    """Writes a complete checkpoint beside `folder`, then takes its place; a crash leaves the old or the new one.

    With `half` the weights are stored in 16 bits. Raises UserError where it can't be written.
    """
    try:
        _save(folder, checkpoint, card, trainer, half)
    except OSError as error:
        shutil.rmtree(partial_path(folder), ignore_errors=True)  # on a full disk it would stay in the way
        raise UserError(f"{folder}: the checkpoint cannot be written ({error.strerror or error})") from error


def _save(folder: Path, checkpoint: Checkpoint, card: str, trainer: TrainerState | None, half: bool) -> None:
    partial, old = new_partial(folder, FILES), beside(folder, REPLACED)
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.model.state_dict().items()}
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    write_synced(partial / WEIGHTS, save(weights))  # save_file would keep it from other users
    config = {
        "format": FORMAT,
        "audio": checkpoint.audio.model_dump(mode="json"),
        "image": checkpoint.image.model_dump(mode="json"),
        "recipe": dump_recipe(checkpoint.recipe),
    }
    if checkpoint.confidence is not None and checkpoint.prototypes is not None:
        config["confidence"] = checkpoint.confidence.model_dump()
        write_synced(partial / PROTOTYPES, save({"prototypes": checkpoint.prototypes.half()}))
    write_synced(partial / CONFIG, yaml.safe_dump(config, sort_keys=False).encode())
    write_synced(partial / WORDS, "".join(f"{word}\n" for word in checkpoint.model.tokenizer.words).encode())
    write_synced(partial / CARD, card.encode())
    if trainer is not None:
        write_synced(partial / TRAINER, save(trainer.tensors, {TRAINER: json.dumps(trainer.numbers)}))
    if folder.exists():  # else an old one, left by a crash, is all there is until the new one is in its place
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def resolve_checkpoint(path: Path) -> Path:
    """The folder to load for `path`: a checkpoint, a run (its best, else its latest), or what a crash left of one.

    `bundled` is the one that comes with the package, wherever the command runs.
    """
    if path == Path(BUNDLED.name):
        return BUNDLED
    for folder in (path, path / "best", path / "latest"):
        for candidate in (folder, beside(folder, REPLACED)):
            if (candidate / CONFIG).is_file():
                return candidate
    what = "has no config.yaml" if path.is_dir() else "does not exist"
    raise UserError(f"checkpoint {path}: {what}; give the folder of a checkpoint or of a training run")


def identity(checkpoint: Path | None) -> str:
    """Tells checkpoints apart: the SHA-256 of the weights, by default those of the bundled one. Raises UserError."""
    file = resolve_checkpoint(checkpoint or BUNDLED) / WEIGHTS
    try:
        with file.open("rb") as weights:
            return hashlib.file_digest(weights, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def load_checkpoint(path: Path | None, device: torch.device) -> Checkpoint:
    """Loads a model in evaluation mode, by default the bundled one.

    Raises UserError for another format or for damaged files.

    The network is laid out without memory and takes the file's tensors, so a forged configuration allocates nothing.
    """
    folder = resolve_checkpoint(path or BUNDLED)
    config = folder / CONFIG
    try:
        tree = read_description(config, FORMAT, "train again")
        recipe = recipe_of(tree.get("recipe"))
        audio = AudioConfig.model_validate(tree.get("audio"))
        image = ImageConfig.model_validate(tree.get("image"))
        confidence = Confidence.model_validate(tree["confidence"]) if "confidence" in tree else None
        tokenizer = _read_words(folder / WORDS, recipe.model)
        with torch.device("meta"), _Uninitialised():
            model = build(recipe.model, audio, image, tokenizer)
        weights = load_file(folder / WEIGHTS, device=str(device))
        dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        weights = {name: tensor.to(dtypes.get(name, tensor.dtype)) for name, tensor in weights.items()}
        model.load_state_dict(weights, assign=True)
        prototypes = _read_prototypes(folder / PROTOTYPES, model, device) if confidence else None
    except ValidationError as error:
        raise UserError(f"{config}: {describe(error, *KINDS.values())}") from error
    except (OSError, ValueError, LookupError, TypeError, SafetensorError, RuntimeError) as error:
        raise UserError(f"checkpoint {folder}: cannot be loaded ({reason(error)})") from error
    return Checkpoint(model.to(device).eval(), recipe, audio, image, confidence, prototypes)


def load_trainer(folder: Path) -> TrainerState:
    """The trainer's state beside the weights. Raises UserError where it is missing or damaged."""
    path = folder / TRAINER
    try:
        with safe_open(path, "pt") as file:
            numbers = json.loads((file.metadata() or {})[TRAINER])
            if not isinstance(numbers, dict):
                raise ValueError("its numbers are no object")
            return TrainerState({name: file.get_tensor(name).clone() for name in file.keys()}, numbers)  # noqa: SIM118
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(f"{path}: cannot be read, so training can't be resumed from it ({reason(error)})") from error


def clear_crash(folder: Path) -> None:
    """Puts back what a crash while saving left of the checkpoint `folder`, and removes what is not needed."""
    partial, old = partial_path(folder), beside(folder, REPLACED)
    if not (folder / CONFIG).is_file() and (old / CONFIG).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        old.rename(folder)
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)


def export_checkpoint(path: Path, out: Path, card: str | None = None) -> None:
    """Writes what `path` has for synthesis alone: 16-bit weights, no trainer's state, no paths of this machine.

    Raises UserError where `out` exists or `path` can't be loaded.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; give a new folder")
    checkpoint = load_checkpoint(path, torch.device("cpu"))
    data = checkpoint.recipe.data
    names = {"image_text": Path(data.image_text.name), "text_speech": Path(data.text_speech.name)}
    recipe = checkpoint.recipe.model_copy(update={"data": data.model_copy(update=names)})
    card = read_card(resolve_checkpoint(path) / CARD) if card is None else card
    save_checkpoint(out, replace(checkpoint, recipe=recipe), card, half=True)


def saved_recipe(path: Path) -> Recipe:
    """The recipe that the checkpoint at `path` was trained with. Raises UserError where it can't be read."""
    return saved_settings(path)[0]


def saved_settings(path: Path) -> tuple[Recipe, AudioConfig]:
    """The recipe of the checkpoint at `path`, and its settings of sound. Raises UserError where they can't be read."""
    config = resolve_checkpoint(path) / CONFIG
    try:
        tree = read_description(config, FORMAT, "train again")
        return recipe_of(tree["recipe"]), AudioConfig.model_validate(tree["audio"])
    except ValidationError as error:
        raise UserError(f"{config}: {describe(error, *KINDS.values())}") from error
    except (OSError, UnicodeDecodeError, LookupError, TypeError) as error:
        raise UserError(f"{config}: cannot be read ({error})") from error


def add_confidence(path: Path, confidence: Confidence, prototypes: Tensor) -> Path:
    """Writes a calibration, and prototypes (P, width) of the pictures that were trained on, into the checkpoint at
    `path`, and returns its folder.

    Raises UserError where it can't be written.
    """
    folder = resolve_checkpoint(path)
    config = folder / CONFIG
    try:
        tree = read_description(config, FORMAT, "train again")
        if tree.pop("confidence", None):  # a crash leaves none rather than an old one with new prototypes
            write_atomic(config, yaml.safe_dump(tree, sort_keys=False).encode())
        tree["confidence"] = confidence.model_dump()
        write_atomic(folder / PROTOTYPES, save({"prototypes": prototypes.half().contiguous()}))
        write_atomic(config, yaml.safe_dump(tree, sort_keys=False).encode())
    except OSError as error:
        raise UserError(f"{config}: cannot be written ({error.strerror or error})") from error
    return folder


def read_card(path: Path) -> str:
    """A model card's text, printable; empty where there is none. Raises UserError where it can't be read."""
    if not path.is_file():
        return ""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(f"{path}: too large for a model card")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return "".join(c for c in text if c.isprintable() or c == "\n")


def load_tokenizer(path: Path, model: AnyModel) -> Tokenizer:
    """The tokenizer of a checkpoint for a model. Raises UserError where it is missing or damaged."""
    words = resolve_checkpoint(path) / WORDS
    try:
        return _read_words(words, model)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{words}: cannot be read ({error})") from error


def _read_prototypes(path: Path, model: System, device: torch.device) -> Tensor:
    found = load_file(path, device=str(device))["prototypes"]
    fits = found.dim() == 2 and len(found) and found.shape[1] == _features_of(model)
    if not fits or found.dtype != torch.float16 or not found.isfinite().all():
        raise ValueError(f"{path.name}: does not fit the image encoder")
    return found


def _features_of(model: System) -> int | None:
    """Width of a picture's features; None for a system that reads no pictures."""
    return model.image_encoder.width if "image" in model.reads else None


def names_of(model: AnyModel) -> tuple[str, ...]:
    """The tokenizer's names: what the classifier of the frozen image encoder suggests, where D_txt copies from it."""
    return kinds.names() if model.suggested_words else ()


def _read_words(path: Path, model: AnyModel) -> Tokenizer:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise UserError(f"{path}: too large for a vocabulary")
    try:
        return Tokenizer(path.read_text(encoding="utf-8").split("\n")[:-1], names_of(model))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


class _Uninitialised(TorchFunctionMode):
    """Leaves out random initialisation, for which the meta device would import torch's compiler: two seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
