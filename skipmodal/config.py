"""What a recipe says: its sections, typed and strict about unknown keys."""

import difflib
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from skipmodal.plain_yaml import MAX_INTEGER

Positive = Annotated[int, Field(gt=0, le=1_000_000_000)]
Size = Annotated[int, Field(gt=0, le=8192)]  # a checkpoint's sizes come from outside
Weight = Annotated[float, Field(ge=0)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Words = Annotated[
    int, Field(ge=0, le=8192, description="frequent words that are written as one token, beside the characters")
]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


MAX_LISTED = 20  # problems in one message


class Section(BaseModel):
    """Keys with values, strict about unknown ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which prepared datasets, and how batches are drawn from them."""

    image_text: Path = Field(default=Path("prepared/image-text"), description="prepared dataset A")
    text_speech: Path = Field(default=Path("prepared/text-speech"), description="prepared dataset B")
    sampling: Literal["mix", "alternate", "image-text", "text-speech"] = "mix"
    batch_size: Annotated[int, Field(ge=2, le=1_000_000, description="items a step")] = 8
    image_share: Annotated[float, Field(gt=0, lt=1, description="part of a mixed batch that is of A")] = 0.5
    captions: Positive = Field(default=1, description="texts of a picture that share one pass through its encoder")
    max_characters: Positive = Field(default=1000, description="longer captions of A are not drawn")
    spelled: Fraction = Field(default=0.0, description="part of B's words that is spelled even where it is a token")
    linear_frames: Positive | None = Field(
        default=None, description="train the post-net on so many frames of each recording; none: on all"
    )
    workers: Annotated[int, Field(ge=0, le=1024, description="loader processes; 0 loads in the training process")] = 0

    def datasets(self) -> dict[str, Path]:
        """Where A and B lie, by the kind of what was prepared."""
        return {"image-text": self.image_text, "text-speech": self.text_speech}


class AnyModel(Section):
    """What the network of every kind has."""

    in_training: ClassVar[tuple[str, ...]] = ("dropout", "warp")  # ends of settings that no weight depends on
    features: ClassVar[bool] = False  # whether pictures are read as the features that prep cached of them

    kind: str

    @property
    def whole_words(self) -> int:
        """Frequent words that it writes as one token."""
        return 0

    @property
    def suggested_words(self) -> int:
        """Words that a picture's frozen network suggests, to be copied."""
        return 0


class WordModel(AnyModel):
    """Of networks that write frequent words as one token."""

    words: Words = 0

    @property
    def whole_words(self) -> int:
        return self.words


class SpokenModel(AnyModel):
    """Sizes of what every D_spch ends in; the defaults are the paper's."""

    frames_per_step: Size = Field(default=5, description="r")
    postnet_channels: Size = 128
    postnet_banks: Size = Field(default=8, description="K of the post-net's CBHG")


class MediaModel(SpokenModel):
    """Sizes of the networks that see and draw, hear and speak; the defaults are the paper's."""

    d_k: Size = Field(default=256, description="width of a basis vector, of z and of u")
    embedding: Size = Field(default=512, description="width of e")
    image_channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=4)] = (64, 128, 256, 512)
    speech_channels: tuple[Size, Size] = (32, 64)
    speech_gru: Size = 256
    speech_decoder: Size = Field(default=256, ge=2, description="GRU and LSTM units")
    speech_dropout: Dropout = Field(default=0.3, description="in the recurrent layers of D_spch")


class StepwiseModel(MediaModel):
    """Of networks whose D_spch makes frame after frame from its own last one, as the paper's does."""

    prenet: Annotated[tuple[Size, ...], Field(min_length=1, max_length=8)] = Field(
        default=(256, 128), description="FC layers before D_spch's attention RNN"
    )
    prenet_dropout: Dropout = Field(default=0.5, description="in these FC layers")
    history_dropout: Dropout = Field(
        default=0.0, description="part of their own past that decoders are not shown in training"
    )


class ModelConfig(WordModel, MediaModel):
    """Sizes of the network that both kinds of SkipModal have; the defaults are the paper's."""

    memory: Literal["attention", "wide", "fc", "wide_fc", "none"] = Field(
        default="attention",
        description="M; wide: each head has values of its own; ablations: none; fc and wide_fc, FC layers as large",
    )
    transformer: bool = Field(default=True, description="T; false: a single FC layer")
    n_k: Size = Field(default=128, description="basis vectors of the memory")
    heads: Size = Field(default=4, description="of the memory")
    text_channels: Size = Field(default=128, description="character embedding and the text encoder's CBHG")
    text_banks: Size = Field(default=16, description="K of the text encoder's CBHG")
    text_decoder: Size = Field(default=128, description="width of D_txt")
    dropout: Dropout = Field(default=0.3, description="in D_txt, and before tokens are made")
    text_dropout: Dropout = Field(default=0.5, description="in the FC layers before the text encoder's CBHG")

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelConfig":
        if self.d_k % self.heads:
            raise ValueError(f"d_k ({self.d_k}) must be a multiple of heads ({self.heads})")
        return self


class VectorModel(ModelConfig, StepwiseModel):
    """One vector u an item, as in the paper."""

    kind: Literal["vector"] = "vector"
    text_context: bool = Field(default=False, description="D_txt sees u at every character, not only at first")


class TokensModel(ModelConfig):
    """T, C and M act on every token of an item, and D_txt attends to them."""

    features: ClassVar[bool] = True

    kind: Literal["tokens"] = "tokens"
    characters_per_second: Annotated[float, Field(gt=0)] = Field(
        default=17.0, description="of the voice: where attention between text and speech starts from"
    )
    text_heads: Size = Field(default=4, description="of D_txt's attention, each a character further ahead")
    text_layers: Annotated[int, Field(ge=1, le=64)] = Field(default=3, description="of D_txt, a transformer")
    kinds: Annotated[int, Field(ge=0, le=64)] = Field(
        default=0, description="likeliest words of a picture, as its frozen network's classifier has them, to copy"
    )
    frames_per_token: Annotated[int, Field(ge=1, le=16)] = Field(
        default=2, description="of the spectrogram that E_spch hears: there have to be more tokens than letters"
    )
    speech_warp: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.0, description="most by which E_spch hears recordings faster or slower, higher or lower in training"
    )
    refiner: Annotated[int, Field(ge=0, le=64)] = Field(
        default=0, description="blocks of the network that draws what D_spch's mel spectrogram lacks; 0: none"
    )

    @property
    def suggested_words(self) -> int:
        return self.kinds

    @model_validator(mode="after")
    def _text_heads_divide(self) -> "TokensModel":
        if self.text_decoder % self.text_heads:
            raise ValueError(f"text_decoder ({self.text_decoder}) must be a multiple of text_heads ({self.text_heads})")
        return self


@dataclass(frozen=True)
class Term:
    """What is declared of a loss beside its weight."""

    name: str
    data: Literal["image-text", "text-speech", "both"]  # the datasets that it needs
    selects: bool  # whether it counts when the best checkpoint is chosen; where none does, all count


def loss_term(default: float, equation: str, data: str, selects: bool = True) -> Any:
    """A loss in a class of `Losses`, and what `Term` says of it."""
    return Field(default=default, ge=0, description=equation, json_schema_extra={"data": data, "selects": selects})


class Losses(Section):
    """The losses of a system and their weights: each is declared here, once, by its name in the logs."""

    def terms(self) -> list[Term]:
        """What is declared of each loss."""
        extras = {name: field.json_schema_extra for name, field in type(self).model_fields.items()}
        return [Term(name, **extra) for name, extra in extras.items() if isinstance(extra, dict)]  # type: ignore[arg-type]

    def weights(self) -> dict[str, float]:
        """Name -> weight of the losses that are not left out."""
        return {term.name: getattr(self, term.name) for term in self.terms() if getattr(self, term.name) > 0}

    def ramp(self, step: int) -> float:
        """The part of the adversary's weight that is reached at a step."""
        return 1.0


class LossConfig(Losses):
    """Losses of SkipModal, computed in `training.losses`."""

    image: float = loss_term(1.0, "(4) |x_img - D_img(u_txt)|", "image-text")
    mel: float = loss_term(1.0, "(5) |x_spch - D_spch(u_txt)|, mel", "text-speech")
    linear: float = loss_term(
        1.0, "(5) the same of the post-net's magnitudes; after a refiner, of recordings", "text-speech"
    )
    text_from_image: float = loss_term(1.0, "(6) cross-entropy of D_txt(u_img), a character", "image-text")
    text_from_speech: float = loss_term(1.0, "(6) cross-entropy of D_txt(u_spch), a character", "text-speech")
    text_from_text: float = loss_term(0.0, "cross-entropy of D_txt(u_txt); not in the paper", "both")
    contrastive: float = loss_term(0.0, "InfoNCE of u between the pairs of a batch; not in the paper", "both", False)
    distance: float = loss_term(0.0, "squared distance of u between pairs; not in the paper", "both", False)
    adversary: float = loss_term(0.1, "(1) L_T, alpha; C itself learns from L_C at its full rate", "both", False)
    self_critical: float = loss_term(
        0.0, "CIDEr-D of captions that the model draws (Rennie et al.)", "image-text", False
    )
    adversary_ramp: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        default=0, description="steps over which alpha grows"
    )

    @model_validator(mode="after")
    def _something_to_ramp(self) -> "LossConfig":
        if self.adversary_ramp and not self.adversary:
            raise ValueError("loss.adversary_ramp needs loss.adversary, whose weight grows")
        return self

    def ramp(self, step: int) -> float:
        return min(1.0, (step + 1) / max(self.adversary_ramp, 1))


class VectorLoss(LossConfig):
    """Losses of a model of one vector an item."""

    stop: float = loss_term(1.0, "binary cross-entropy of D_spch's stop output; the paper has none", "text-speech")


class TokensLoss(LossConfig):
    """Losses of a model of tokens."""

    guided_attention: float = loss_term(
        0.0, "guide of D_txt's attention over speech (Tachibana et al.)", "text-speech", False
    )
    flow: float = loss_term(
        1.0, "flow matching of what D_spch's mel lacks (Lipman et al.), where there is a refiner", "text-speech", False
    )
    duration: float = loss_term(1.0, "Poisson deviance of D_spch's durations from the alignment's", "text-speech")
    prosody: float = loss_term(1.0, "squared distance of D_spch's prosody from the recording's", "text-speech")
    alignment: float = loss_term(1.0, "forward sum of D_spch's aligner (Badlani et al.)", "text-speech", False)
    ctc: float = loss_term(
        0.6, "CTC of u_spch and of E_spch's states, the mean of both (Lee and Watanabe)", "text-speech", False
    )
    letters: float = loss_term(0.3, "cross-entropy of the letters that D_spch reads from D_txt's states", "both", False)
    back_translation: float = loss_term(
        0.0, "cross-entropy of D_txt(u of D_spch's own speech) of A's captions (Tjandra et al.)", "image-text", False
    )
    round_trip: float = loss_term(
        0.0, "|D_spch of a picture's states - what it says of the caption|, mel and log durations", "image-text", False
    )


class OptimConfig(Section):
    """Optimiser, schedule and safeguards."""

    name: Literal["adam", "adamw"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 0.002
    weight_decay: Weight = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    decay: Literal["none", "cosine", "rsqrt"] = "none"
    min_lr_ratio: Fraction = Field(default=0.01, description="where cosine decay ends, as a part of lr")
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    accumulate: Positive = Field(default=1, description="batches a step")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    max_bad_steps: Positive = Field(default=20, description="non-finite steps in a row before training stops")


class TrainConfig(Section):
    """How long, how often, where."""

    epochs: Positive = Field(default=100, description="passes over the larger dataset")
    max_steps: Positive | None = Field(default=None, description="stop earlier than `epochs` says")
    only: tuple[str, ...] = Field(default=(), description="parts of the model to train, as speech_decoder; none: all")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: str = "auto"
    threads: Positive | None = Field(default=None, description="of the CPU; none: one for a small model")
    log_every: Positive = 20
    eval_every: Positive = 1000
    eval_items: Positive = Field(default=200, description="validation items of each dataset for the validation loss")
    sample_items: Positive = Field(default=4, description="validation items decoded free-running at each evaluation")
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0

    def trains(self, part: str) -> bool:
        """Whether a part of the model learns."""
        return not self.only or part in self.only


class Recipe(Section):
    """A training run. `model.kind` decides which keys `model` and `loss` have: see `recipe_of`."""

    data: DataConfig = DataConfig()
    model: AnyModel
    loss: Losses
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()


class VectorRecipe(Recipe):
    """Of a model with one vector an item."""

    model: VectorModel = VectorModel()
    loss: VectorLoss = VectorLoss()


class TokensRecipe(Recipe):
    """Of a model of tokens."""

    model: TokensModel = TokensModel()
    loss: TokensLoss = TokensLoss()

    @model_validator(mode="after")
    def _made_from_what_is_there(self) -> "TokensRecipe":
        if self.loss.round_trip > 0 and not self.loss.text_from_image:
            raise ValueError("loss.round_trip needs loss.text_from_image")
        hears = self.loss.text_from_speech or self.loss.back_translation
        if hears and self.train.trains("speech_encoder") and not self.loss.ctc:
            raise ValueError("speech to text needs loss.ctc: what is heard is also chosen by its letters")
        if self.loss.mel and self.train.trains("letter_reader") and not self.loss.letters:
            raise ValueError("loss.mel needs loss.letters: D_spch reads the letters of a sentence from D_txt's states")
        return self


def describe(error: ValidationError, *models: type[BaseModel]) -> str:
    """One line for every bad field, with the nearest known key for a misspelt one.

    `models` are those that may have been meant: a key that another than the validated one has is told as such.
    """
    lines = []
    keys = {model.__name__: _keys(model) for model in models}
    known = keys.get(error.title, [])
    elsewhere = {key for others in keys.values() for key in others} - set(known)
    problems = error.errors(include_url=False)
    for problem in problems[:MAX_LISTED]:
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "does nothing for this model.kind" if where in elsewhere else "unknown key"
            near = [key for key in known if key.endswith(f".{where.split('.')[-1]}")]
            near = difflib.get_close_matches(where[:80], known, 1, 0.7) or near
            if near and where not in elsewhere:
                message += f", did you mean {near[0]}?"
        elif problem["type"] == "model_type":
            message = "must be a section with keys"
        elif problem["input"] is not None and not isinstance(problem["input"], dict):
            shown = _Shown().repr(problem["input"])
            message += f" (it is {shown if len(shown) <= 80 else shown[:77] + '...'})"
        lines.append(f"{where}: {message}" if where else message)
    if len(problems) > MAX_LISTED:
        lines.append(f"and {len(problems) - MAX_LISTED} more")
    return "; ".join(lines)


class _Shown(reprlib.Repr):
    """Values cut short; those of a program, unlike those of YAML, may be integers that Python refuses to write."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) < MAX_INTEGER else f"an integer of {x.bit_length()} bits"


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys
