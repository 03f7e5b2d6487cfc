"""Encoders, bottleneck, decoders and the models they make: one vector an item (the paper's), or tokens."""

from skipmodal.audio import AudioConfig
from skipmodal.config import ModelConfig
from skipmodal.image import ImageConfig
from skipmodal.models.skipmodal import SkipModal
from skipmodal.models.tokens import TokenSkipModal

Model = SkipModal | TokenSkipModal


def build_model(config: ModelConfig, audio: AudioConfig, image: ImageConfig) -> Model:
    """The model of a recipe, with fresh weights."""
    return (TokenSkipModal if config.tokens else SkipModal)(config, audio, image)
