"""The recipe: typed, validated, strict about unknown keys, with `extends` and `key=value` overrides."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from skipmodal.errors import UserError

Positive = Annotated[int, Field(gt=0)]
Size = Annotated[int, Field(gt=0, le=8192)]  # a checkpoint's sizes come from outside
Weight = Annotated[float, Field(ge=0)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which prepared datasets, and how batches are drawn from them."""

    image_text: Path = Field(Path("prepared/image-text"), description="prepared dataset A")
    text_speech: Path = Field(Path("prepared/text-speech"), description="prepared dataset B")
    sampling: Literal["mix", "alternate"] = "mix"
    batch_size: Annotated[int, Field(ge=2, description="items a step; mix takes half from each dataset")] = 8
    workers: Annotated[int, Field(ge=0, description="loader processes; 0 loads in the training process")] = 0


class ModelConfig(_Section):
    """Sizes of the network; the defaults are the paper's."""

    memory: Literal["attention", "fc", "none"] = "attention"
    transformer: bool = True
    n_k: Size = Field(128, description="basis vectors of the memory")
    d_k: Size = Field(256, description="width of a basis vector, of z and of u")
    heads: Size = 4
    embedding: Size = Field(512, description="width of e")
    image_channels: tuple[Size, ...] = (64, 128, 256, 512)
    text_channels: Size = 128
    text_banks: Size = Field(16, description="K of the text encoder's CBHG")
    speech_channels: tuple[Size, Size] = (32, 64)
    speech_gru: Size = 256
    text_decoder: Size = Field(128, description="LSTM units")
    dropout: Dropout = Field(0.3, description="in the LSTMs of the text and speech decoders")
    prenet_dropout: Dropout = Field(0.5, description="in the FC layers before a CBHG or an attention RNN")
    prenet: tuple[Size, ...] = (256, 128)
    speech_decoder: Size = Field(256, description="GRU and LSTM units")
    frames_per_step: Size = Field(5, description="r")
    postnet_channels: Size = 128
    postnet_banks: Size = Field(8, description="K of the post-net's CBHG")

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelConfig":
        if self.d_k % self.heads:
            raise ValueError(f"d_k ({self.d_k}) must be a multiple of heads ({self.heads})")
        return self


class LossConfig(_Section):
    """Weights, keyed by the name under which each loss is logged (paper, equations 3 to 7)."""

    image: Weight = 1.0
    mel: Weight = 1.0
    linear: Weight = 1.0
    text_from_image: Weight = 1.0
    text_from_speech: Weight = 1.0
    text_from_text: Weight = Field(0.0, description="D_txt on u_txt; the paper trains across modalities only")
    stop: Weight = 1.0
    adversary: Weight = Field(0.1, description="alpha")


class OptimConfig(_Section):
    """Optimiser, schedule and safeguards."""

    name: Literal["adam", "adamw"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 0.002
    weight_decay: Weight = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["none", "cosine", "rsqrt"] = "none"
    min_lr_ratio: Fraction = Field(0.01, description="where cosine decay ends, as a part of lr")
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    accumulate: Positive = Field(1, description="batches a step")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    max_bad_steps: Positive = Field(20, description="non-finite steps in a row before training stops")


class TrainConfig(_Section):
    """How long, how often, where."""

    epochs: Positive = Field(100, description="passes over the larger dataset")
    max_steps: Positive | None = Field(None, description="stop earlier than `epochs` says")
    seed: int = 0
    device: str = "auto"
    log_every: Positive = 20
    eval_every: Positive = 1000
    eval_items: Positive = Field(200, description="validation items of each dataset for the validation loss")
    sample_items: Positive = Field(4, description="fixed validation items decoded free-running at each evaluation")
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0


class Recipe(_Section):
    """A training run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()


def load_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe: a YAML file, or the name of a shipped one (`paper`).

    `extends: NAME` inside a file starts from another; overrides are `section.key=value` with YAML values.
    Raises UserError that lists every bad field at once.
    """
    tree = _load_tree(name, seen=())
    for override in overrides or []:
        key, sign, value = override.partition("=")
        if not sign or not key:
            raise UserError(f"override {override!r}: write it as section.key=value, for example optim.lr=0.001")
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"override {override!r}: {parent} is a value, not a section")
        node[leaf] = _parse(value, f"override {override!r}")
    return parse_recipe(tree, name)


def parse_recipe(tree: Any, name: str) -> Recipe:
    """Validates a plain tree; raises UserError that lists every bad field at once."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"recipe {name}: {describe(error, Recipe)}") from error


def describe(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """One line for every bad field, with the nearest known key for a misspelt one."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key"
            near = difflib.get_close_matches(where, _keys(model), 1, 0.7) if model else []
            if near:
                message += f", did you mean {near[0]}?"
        elif problem["input"] is not None and not isinstance(problem["input"], dict):
            message += f" (it is {problem['input']!r})"
        lines.append(f"{where}: {message}" if where else message)
    return "; ".join(lines)


def dump_recipe(recipe: Recipe) -> dict[str, Any]:
    """Plain types for YAML."""
    return recipe.model_dump(mode="json")


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in _recipes_folder().glob("*.yaml"))


def _recipes_folder() -> Path:
    package = Path(__file__).parent
    installed = package / "recipes"  # in a wheel; a checkout has them beside the package
    return installed if installed.is_dir() else package.parent / "recipes"


def _load_tree(name: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        path = _recipes_folder() / f"{name}.yaml"
        if not path.is_file():
            raise UserError(f"recipe {name!r}: no such file, and not one of the shipped: {', '.join(recipe_names())}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path}: cannot be read ({error})") from error
    tree = _parse(text, f"recipe {path}") or {}
    if not isinstance(tree, dict):
        raise UserError(f"recipe {path}: must be sections with keys")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if path.resolve() in seen:
        raise UserError(f"recipe {path}: extends itself")
    sibling = path.parent / f"{base}.yaml"
    parent = _load_tree(str(sibling) if sibling.is_file() else str(base), (*seen, path.resolve()))
    return _merge(parent, tree)


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: is not valid YAML ({' '.join(str(error).split())})") from error


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys
