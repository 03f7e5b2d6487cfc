"""An index of pictures, sentences and recordings by their u, to be asked by any of them (paper, figure 8).

    index.yaml    what it is: format, checkpoint, width, counts, sources; written last
    vectors.npy   float32 (N, d_k) of length 1: pictures, then texts, then speech
    items.jsonl   one line a vector: what it is of, see Item
    lines.npy     int64 (N,): the byte at which each line begins

Opening reads the description alone; a search looks at one block of the vectors after the other.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skipmodal.config import describe
from skipmodal.data.shards import GrowingArray
from skipmodal.errors import UserError
from skipmodal.files import new_partial, sync
from skipmodal.modality import Modality
from skipmodal.plain_yaml import read_description
from skipmodal.progress import progress
from skipmodal.retrieval.nearest import top_k
from skipmodal.retrieval.sources import Count, DatasetSource, Item, Source, Tell, open_source
from skipmodal.translate import Translator

FORMAT: Final = 1
FILES = {"index.yaml", "vectors.npy", "items.jsonl", "lines.npy"}
ORDER: tuple[Modality, ...] = ("image", "text", "speech")
STRICT = ConfigDict(extra="forbid", frozen=True)
Split = Literal["train", "val", "test"]


class SourceMeta(BaseModel):
    """A folder or prepared dataset that was indexed, and the split of the dataset."""

    model_config = STRICT

    path: str
    split: Split | None = None


class IndexMeta(BaseModel):
    """index.yaml."""

    model_config = STRICT

    format: Literal[1] = FORMAT
    checkpoint: str = Field(description="see `identity`")
    d_k: Annotated[int, Field(gt=0)]
    counts: dict[Modality, Count]
    sources: list[SourceMeta]


@dataclass(frozen=True)
class Hit:
    """An item that was found."""

    rank: int  # from 1, among those of its modality
    score: float  # cosine
    item: Item


class Index:
    """Read access. Raises UserError where the folder is missing, no index, half-written, of another format, damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meta = _read_meta(path)
        self._opened: dict[int, Source] = {}
        try:
            self._vectors = np.lib.format.open_memmap(path / "vectors.npy", mode="r")
            self._lines = np.lib.format.open_memmap(path / "lines.npy", mode="r")
            self._items = np.memmap(path / "items.jsonl", dtype=np.uint8, mode="r")
        except Exception as error:  # a damaged header fails in many ways
            raise self._damaged(str(error)) from error
        total = sum(self.meta.counts.values())
        for name, array, dtype, shape in (
            ("vectors", self._vectors, "<f4", (total, self.meta.d_k)),
            ("lines", self._lines, "<i8", (total,)),
        ):
            if (array.dtype.str, array.shape) != (dtype, shape):
                raise self._damaged(f"{name}.npy is {array.dtype.str} {array.shape}, not {dtype} {shape}")
        if self._items[-1] != ord("\n"):
            raise self._damaged("items.jsonl is cut short")

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def present(self) -> list[Modality]:
        """The modalities it has items of."""
        return [name for name in ORDER if self.meta.counts.get(name)]

    def check(self, checkpoint: str) -> None:
        """Raises UserError unless the index was built with the checkpoint of that identity."""
        if checkpoint != self.meta.checkpoint:
            built, given = self.meta.checkpoint[:12], checkpoint[:12]
            raise UserError(
                f"{self.path}: built with another checkpoint (weights {built}, not {given}); give that one, or rebuild"
            )

    def search(self, queries: np.ndarray, modality: Modality, k: int) -> list[list[Hit]]:
        """The k items of one modality that are nearest to each query; queries are unit vectors float32 (Q, d_k).

        Raises UserError where the vectors are of another width, or no numbers.
        """
        if queries.shape[1] != self.meta.d_k:
            raise self._damaged(f"its vectors are {self.meta.d_k} wide, those of the checkpoint {queries.shape[1]}")
        counts = [self.meta.counts.get(name, 0) for name in ORDER]
        number = ORDER.index(modality)
        first = sum(counts[:number])
        scores, places = top_k(queries, self._vectors[first : first + counts[number]], k)
        if not np.isfinite(scores).all():
            raise self._damaged("vectors.npy has what is no number")
        return [
            [
                Hit(rank, score, self.item(first + place))
                for rank, score, place in zip(range(1, k + 1), *found, strict=False)
            ]
            for found in zip(scores.tolist(), places.tolist(), strict=True)
        ]

    def item(self, i: int) -> Item:
        """What vector i is of."""
        end = self._lines[i + 1] if i + 1 < len(self) else len(self._items)
        try:
            item = Item.model_validate_json(self._items[self._lines[i] : end].tobytes())
            if item.modality != self._modality(i) or item.source >= len(self.meta.sources):
                raise IndexError
        except (ValidationError, IndexError) as error:
            raise self._damaged(f"line {i + 1} of items.jsonl") from error
        return item

    def _modality(self, i: int) -> Modality:
        """What vector i is of, by its place."""
        ends = np.cumsum([self.meta.counts.get(name, 0) for name in ORDER])
        return ORDER[int(np.searchsorted(ends, i, side="right"))]

    def where(self, item: Item) -> str:
        """The item's file, with the line of a text, or its dataset and id."""
        root = self.meta.sources[item.source].path
        if item.path is None:
            return f"{root}#{item.id}"
        return os.path.join(root, item.path) + (f":{item.line}" if item.line else "")

    def source(self, item: Item) -> Source:
        """Where the item's picture or sound is. Raises UserError where that is gone."""
        if item.source not in self._opened:
            meta = self.meta.sources[item.source]
            self._opened[item.source] = open_source(Path(meta.path), item.source, False, meta.split)
        return self._opened[item.source]

    def _damaged(self, detail: str) -> UserError:
        return UserError(f"{self.path}: damaged ({' '.join(detail.split())}); build it again")


def build_index(
    out: Path, paths: Sequence[Path], translator: Translator, checkpoint: str, *, split: Split | None = None,
    recursive: bool = False, batch_size: int = 32, skip: Tell = lambda reason: None,
) -> IndexMeta:  # fmt: skip
    """Writes an index of folders and prepared datasets, complete or not at all.

    `checkpoint` is the translator's `identity`; `split` is of the datasets, by default all of them; `recursive` takes
    the folders in folders too; `skip` hears why a file or a line is left out. Raises UserError where `out` exists, a
    source can't be opened or is given twice, or there is nothing to index.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; give a new folder")
    features = translator.image.encoder != "none"
    names = [os.path.realpath(path) for path in paths]
    if twice := [path for path, name in zip(paths, names, strict=True) if names.count(name) > 1]:
        raise UserError(f"{twice[0]}: is given twice")
    sources = [open_source(path, number, features, split, recursive) for number, path in enumerate(paths)]
    given = [
        SourceMeta(path=os.path.abspath(path), split=split if isinstance(source, DatasetSource) else None)
        for path, source in zip(paths, sources, strict=True)
    ]
    partial = new_partial(out, FILES)
    try:
        meta = _write(partial, sources, given, translator, checkpoint, batch_size, skip)
        partial.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return meta


def _write(
    folder: Path, sources: list[Source], given: list[SourceMeta], translator: Translator, checkpoint: str,
    batch_size: int, skip: Tell,
) -> IndexMeta:  # fmt: skip
    counts: dict[Modality, int] = dict.fromkeys(ORDER, 0)
    width = translator.model.d_k
    if width is None:
        raise UserError(f"a model of kind {translator.model.kind} has no space that all modalities share")
    rows = GrowingArray(folder, "vectors", "<f4", (width,), shard_bytes=None)
    lines = GrowingArray(folder, "lines", "<i8", (), shard_bytes=None)
    total = sum(source.steps(modality) for source in sources for modality in ORDER)
    with (folder / "items.jsonl").open("wb") as file, progress(total) as advance:
        try:
            for modality in ORDER:
                for source in sources:
                    for found, items in source.embed(translator, modality, batch_size, advance, skip):
                        vectors = found.float().cpu().numpy()
                        if not np.isfinite(vectors).all():
                            raise UserError("the checkpoint gives vectors that are not finite numbers; train another")
                        rows.append(vectors)
                        for item in items:
                            lines.append(np.array([file.tell()]))
                            file.write(item.model_dump_json(exclude_none=True).encode() + b"\n")
                        counts[modality] += len(items)
        finally:
            rows.finish()
            lines.finish()
        sync(file)
    if not rows.total:
        where = ", ".join(meta.path for meta in given)
        raise UserError(f"{where}: nothing to index; pictures, recordings and .txt files are known by their suffix")
    meta = IndexMeta(checkpoint=checkpoint, d_k=width, counts=counts, sources=given)
    with (folder / "index.yaml").open("wb") as file:
        file.write(yaml.safe_dump(meta.model_dump(exclude_none=True), sort_keys=False).encode())
        sync(file)
    return meta


def _read_meta(path: Path) -> IndexMeta:
    file = path / "index.yaml"
    if not os.path.isfile(file):  # unlike Path's, these never raise
        problem = "is no complete index (no index.yaml)" if os.path.exists(path) else "no such index"
        raise UserError(f"{path}: {problem}; `skipmodal retrieve build` makes one")
    try:
        return IndexMeta.model_validate(read_description(file, FORMAT, "build it again"))
    except ValidationError as error:
        raise UserError(f"{file}: {describe(error)}") from error
