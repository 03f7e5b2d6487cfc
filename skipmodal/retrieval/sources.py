"""What an index is made of, and where its media are found again: a prepared dataset, or a folder of plain files."""

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from skipmodal.audio import read_audio
from skipmodal.data.prepared import PreparedDataset
from skipmodal.data.sources import inside, read_lines
from skipmodal.errors import UserError
from skipmodal.files import files_in
from skipmodal.image import read_photo
from skipmodal.items import embed_items
from skipmodal.modality import SUFFIXES, Modality, modality_of
from skipmodal.translate import Translator, unit_vectors

SHOWN_SIDE = 256  # pixels of the longer side of a picture that is shown
SHOWN_RATE = 16000  # Hz of a recording that is played
Count = Annotated[int, Field(ge=0)]
Tell = Callable[[str], None]
Embedded = Iterator[tuple[Tensor, list["Item"]]]


class Item(BaseModel):
    """What a vector is of: {item, id, text} of a dataset, {path} or {path, line, text} in a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: Modality
    source: Count = Field(description="number of the index's source")
    item: Count | None = None
    id: str | None = None
    path: str | None = None
    line: Count | None = None
    text: str | None = Field(default=None, description="the sentence; of a picture or recording its first text")


class Source(Protocol):
    """What both kinds offer."""

    def steps(self, modality: Modality) -> int:
        """How often `embed` advances."""

    def embed(
        self, translator: Translator, modality: Modality, batch_size: int, advance: Callable[[int], None], skip: Tell
    ) -> Embedded:
        """Unit vectors (B, d_k) and what each is of, batch after batch; `skip` gets why an item is left out."""

    def picture(self, item: Item) -> np.ndarray:
        """RGB uint8 (H, W, 3), to be shown. Raises UserError where it's gone or damaged."""

    def sound(self, item: Item) -> tuple[np.ndarray, int]:
        """Samples float32 (n,) and their rate, to be played. Raises UserError where it's gone or damaged."""


def open_source(path: Path, number: int, features: bool, split: str | None = None, recursive: bool = False) -> Source:
    """A prepared dataset, all of it or one split, or a folder. Raises UserError where it's neither.

    `number` is its place among the index's sources, `features` as in PreparedDataset.
    """
    if os.path.isfile(path / "dataset.yaml") or os.path.isfile(path / "journal.jsonl"):  # unlike Path's, never raising
        return DatasetSource(PreparedDataset(path, features), number, split)
    if not os.path.isdir(path):
        raise UserError(f"{path}: {'is a file; give its folder' if os.path.exists(path) else 'no such folder'}")
    return FolderSource(path, number, recursive)


class DatasetSource:
    """The pictures or recordings of a prepared dataset, and all of its texts."""

    def __init__(self, dataset: PreparedDataset, number: int, split: str | None) -> None:
        self.dataset, self.number = dataset, number
        self.items = np.arange(len(dataset)) if split is None else dataset.indices(split)

    def steps(self, modality: Modality) -> int:
        return len(self.items) if modality in self.dataset.meta.kind.split("-") else 0

    def embed(
        self, translator: Translator, modality: Modality, batch_size: int, advance: Callable[[int], None], skip: Tell
    ) -> Embedded:
        for start in range(0, self.steps(modality), batch_size):
            batch = self.items[start : start + batch_size]
            found, named = embed_items(translator, self.dataset, batch, modality)
            names = {int(i): self.dataset.item(i)["id"] for i in batch}
            yield (
                found,
                [Item(modality=modality, source=self.number, item=i, id=names[i], text=text) for i, text in named],
            )
            advance(len(batch))

    def picture(self, item: Item) -> np.ndarray:
        return self.dataset.image(self._row(item))

    def sound(self, item: Item) -> tuple[np.ndarray, int]:
        wav = self.dataset.wav(self._row(item))
        assert self.dataset.meta.audio
        return wav.astype(np.float32) / 32768, self.dataset.meta.audio.sample_rate

    def _row(self, item: Item) -> int:
        i = item.item
        known = i is not None and i < len(self.dataset) and self.steps(item.modality)
        if i is None or not known or self.dataset.item(i)["id"] != item.id:
            raise UserError(f"{self.dataset.path}: is not what was indexed; build the index again")
        return i


class FolderSource:
    """Pictures, recordings and .txt files, a sentence a line, of a folder, known by suffix."""

    def __init__(self, path: Path, number: int, recursive: bool = False) -> None:
        """With `recursive` also those of the folders in it."""
        self.path, self.number, self.recursive = path, number, recursive

    @cached_property
    def files(self) -> dict[str, list[str]]:
        """Modality -> paths in the folder, in order."""
        found: dict[str, list[str]] = {modality: [] for modality in SUFFIXES}
        for path in files_in(self.path, self.recursive):
            if modality := modality_of(path):
                found[modality].append(path)
        return found

    def steps(self, modality: Modality) -> int:
        return len(self.files[modality])

    def embed(
        self, translator: Translator, modality: Modality, batch_size: int, advance: Callable[[int], None], skip: Tell
    ) -> Embedded:
        read: list[Tensor] = []
        items: list[Item] = []
        for name in self.files[modality]:
            for item in self._items(name, modality, skip):
                try:
                    read.append(translator.read(self.path / name if item.text is None else item.text, modality))
                    items.append(item)
                except UserError as error:
                    skip(f"{self.path / name}:{item.line}: {error}" if item.line else str(error))
                if len(items) == batch_size:
                    yield unit_vectors(translator.encode(read, modality)), items
                    read, items = [], []
            advance(1)
        if items:
            yield unit_vectors(translator.encode(read, modality)), items

    def picture(self, item: Item) -> np.ndarray:
        return read_photo(self._file(item), SHOWN_SIDE)

    def sound(self, item: Item) -> tuple[np.ndarray, int]:
        return read_sound(self._file(item))

    def _items(self, name: str, modality: Modality, skip: Tell) -> Iterator[Item]:
        """The file, or the lines of a text that say something."""
        try:
            name.encode()
            if modality != "text":
                yield Item(modality=modality, source=self.number, path=name)
                return
            for number, line in read_lines(self.path / name):
                if line is None:
                    skip(f"{self.path / name}:{number}: is not UTF-8")
                elif text := line.strip():
                    yield Item(modality=modality, source=self.number, path=name, line=number, text=text)
        except UnicodeEncodeError:
            skip(f"{self.path / name}: its name is not UTF-8; rename it")
        except UserError as error:
            skip(str(error))

    def _file(self, item: Item) -> Path:
        file = inside(self.path, item.path or "")
        if file is None or not os.path.isfile(file):
            raise UserError(f"{self.path / (item.path or '')}: no such file any more; build the index again")
        return file


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Samples float32 (n,) of any recording, to be played, and their rate."""
    return read_audio(path, SHOWN_RATE), SHOWN_RATE
