"""The three modalities, in the order of the classifier's classes, and the files that hold them."""

import os
from typing import Literal

Modality = Literal["image", "text", "speech"]
MODALITIES: tuple[Modality, ...] = ("image", "text", "speech")
SUFFIXES: dict[Modality, tuple[str, ...]] = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    "text": (".txt",),
    "speech": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"),
}


def modality_of(name: str) -> Modality | None:
    """What a file of that name holds."""
    suffix = os.path.splitext(name)[1].lower()
    return next((modality for modality, suffixes in SUFFIXES.items() if suffix in suffixes), None)
