"""From a recipe to its network: ours, or that of a comparator."""

from importlib import import_module

from skipmodal.audio import AudioConfig
from skipmodal.config import AnyModel, ModelConfig
from skipmodal.image import ImageConfig
from skipmodal.models.base import System
from skipmodal.models.system import SkipModal
from skipmodal.tokenizer import Tokenizer


def build(config: AnyModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> System:
    """Raises UserError for settings that don't fit the data."""
    if isinstance(config, ModelConfig):
        return SkipModal(config, audio, image, tokenizer)
    system: type[System] = import_module(f"skipmodal.comparators.{config.kind}").SYSTEM
    return system(config, audio, image, tokenizer)  # type: ignore[call-arg,arg-type]
