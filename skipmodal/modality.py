"""The three modalities, in the order of the classifier's classes."""

from typing import Literal

Modality = Literal["image", "text", "speech"]
MODALITIES: tuple[Modality, ...] = ("image", "text", "speech")
