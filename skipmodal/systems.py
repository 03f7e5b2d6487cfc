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
    system: Any = system_class(config.kind)
    built: System = system(config, audio, image, tokenizer)
    return built


def system_class(kind: str) -> type[System]:
    """Ours, or the comparator that has a file of that name."""
    if kind not in comparators():
        return SkipModal
    found: type[System] = import_module(f"skipmodal.comparators.{kind}").SYSTEM
    return found
