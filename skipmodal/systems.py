"""From a recipe to its network: ours, or that of a comparator."""

from importlib import import_module
from typing import Any

from skipmodal.audio import AudioConfig
from skipmodal.config import AnyModel
from skipmodal.image import ImageConfig
from skipmodal.models.base import System
from skipmodal.models.system import SkipModal
from skipmodal.recipe import comparators
from skipmodal.tokenizer import Tokenizer


def build(config: AnyModel, audio: AudioConfig, image: ImageConfig, tokenizer: Tokenizer) -> System:
    """Raises UserError for settings that don't fit the data."""
    system: Any = SkipModal
    if config.kind in comparators():
        system = import_module(f"skipmodal.comparators.{config.kind}").SYSTEM
    built: System = system(config, audio, image, tokenizer)
    return built
