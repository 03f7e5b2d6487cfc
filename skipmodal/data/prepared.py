"""The prepared dataset: a folder of flat memory-mapped arrays with an index. Its format and its reader.

    dataset.yaml   what it is: format, kind, settings, source, licence, counts
    items.jsonl    one line an item: id, split, texts, and where its media lie
    index.npy      int64 (N, 6): see INDEX; opening reads nothing else
    images.npy     uint8 (N, H, W, 3)                     kind image-text
    features.npy   float16 (N, places, width)             the same, where a frozen image encoder is cached; of regions,
                                                          whose rows beyond a picture's own are zeros
    views.npy      float16 (N, views, places, width)      of parts of the pictures, mirrored or not, where they are
                                                          cached, too; zeros outside the training split
    mel.npy        float16 (frames, n_mels)               kind text-speech
    wav.npy        int16 (samples,), trimmed, x / 32768   kind text-speech
    dropped.jsonl  one line a row that was left out: where, reason, detail

An array above 2 GB continues in `wav.1.npy`, `wav.2.npy`, ... (see shards.py); row numbers go on counting.
While being written the folder is OUT.partial, whose journal says which source rows are done.
"""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from skipmodal.audio import AudioConfig
from skipmodal.data.shards import ShardedArray
from skipmodal.errors import UserError
from skipmodal.files import partial_path
from skipmodal.image import MAX_VIEWS, ImageConfig
from skipmodal.plain_yaml import read_description
from skipmodal.text import known

FORMAT: Final = 2
Kind = Literal["image-text", "text-speech"]
SPLITS = ("train", "val", "test")
INDEX = ("byte offset in items.jsonl", "split", "first row", "frames", "first sample", "samples")
LINE, SPLIT, ROW, FRAMES, SAMPLE, SAMPLES = range(len(INDEX))
CHECKED_ITEMS = 1 << 16  # of the index, at once
_ID = re.compile(r"\w[\w.-]{0,199}")  # a name of a file, in its folder: see `sources.safe_id`


class DatasetMeta(BaseModel):
    """dataset.yaml: what a prepared dataset is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = FORMAT
    kind: Kind
    source: str
    licence: str
    image: ImageConfig | None = None
    views: Annotated[int, Field(ge=1, le=MAX_VIEWS)] | None = None  # of each training picture, beside itself
    audio: AudioConfig | None = None
    items: dict[Literal["train", "val", "test"], int]
    texts: int = Field(description="texts of all items together")
    dropped: dict[str, int] = Field(description="rows left out, by reason")
    dropped_texts: int = Field(default=0, description="unusable captions of items that are kept")
    seconds: float = Field(default=0.0, description="audio kept")
    trimmed_seconds: float = Field(default=0.0, description="silence cut at both ends of the items")

    @model_validator(mode="after")
    def _one_medium(self) -> Self:
        pictures = self.kind == "image-text"
        if (self.image is not None, self.audio is not None) != (pictures, not pictures):
            raise ValueError("image-text needs `image` settings, text-speech needs `audio` settings")
        return self


ArrayLayout = dict[str, tuple[str, tuple[int, ...]]]


def array_layout(image: ImageConfig | None, audio: AudioConfig | None, views: int | None = None) -> ArrayLayout:
    """Name -> (dtype, shape of one row) of the arrays of a dataset."""
    if image:
        layout: ArrayLayout = {"images": ("|u1", (image.size, image.size, 3))}
        if image.cached is not None:
            layout["features"] = ("<f2", image.cached)
            if views is not None:
                layout["views"] = ("<f2", (views, *image.cached))
        return layout
    assert audio
    return {"mel": ("<f2", (audio.n_mels,)), "wav": ("<i2", ())}


class PreparedDataset:
    """Read access by item number; arrays come back as read-only views of the files.

    Without `features`, those that were cached are as if they were not there.
    Raises UserError where the folder is missing, no dataset, half-written, of another format, or damaged.
    """

    def __init__(self, path: Path | str, features: bool = True) -> None:
        self.path, self._features = Path(path), features
        self.meta = _read_meta(self.path)
        if self.meta.image is not None and not features:
            image = self.meta.image.model_copy(update={"encoder": "none", "regions": None})
            self.meta = self.meta.model_copy(update={"image": image, "views": None})
        try:
            self._index = np.lib.format.open_memmap(self.path / "index.npy", mode="r")
            self._lines = np.memmap(self.path / "items.jsonl", dtype=np.uint8, mode="r")
            layout = array_layout(self.meta.image, self.meta.audio, self.meta.views)
            self._arrays = {name: ShardedArray(self.path, name, *layout[name]) for name in layout}
        except Exception as error:  # a damaged header fails in many ways
            raise _damaged(self.path, str(error)) from error
        self._check()

    def __len__(self) -> int:
        return len(self._index)

    def __reduce__(self) -> tuple[type, tuple[Path, bool]]:
        return type(self), (self.path, self._features)  # a worker maps the files again instead of copying them

    @property
    def frames(self) -> np.ndarray:
        """Mel frames of each item, int64 (N,); zeros where the items are pictures."""
        return np.asarray(self._index[:, FRAMES])

    def indices(self, split: str) -> np.ndarray:
        """Item numbers of a split, int64, ascending."""
        return np.flatnonzero(self._index[:, SPLIT] == SPLITS.index(split))

    def item(self, i: int) -> dict[str, Any]:
        """The item's line of items.jsonl: at least an `id` and `texts`. Raises UserError where it is damaged."""
        i = range(len(self))[i]
        end = self._index[i + 1, LINE] if i + 1 < len(self) else len(self._lines)
        try:
            line = json.loads(self._lines[self._index[i, LINE] : end].tobytes())
        except (ValueError, RecursionError):
            line = None
        if not _is_item(line):
            raise _damaged(self.path, f"line {i + 1} of items.jsonl")
        return line  # type: ignore[no-any-return]

    def texts(self, i: int) -> list[str]:
        """Normalised texts: all captions of a picture, or the one transcript of a recording."""
        texts: list[str] = self.item(i)["texts"]
        return texts

    def image(self, i: int) -> np.ndarray:
        """uint8 RGB of shape (size, size, 3)."""
        return self._arrays["images"].rows(self._index[i, ROW], 1)[0]

    def features(self, i: int, view: int = 0) -> np.ndarray:
        """float16 of shape (places, width): the grid of the frozen image encoder, or regions, then zeros.

        `view` 0 is the picture itself, the others are the `meta.views` views of it.
        """
        row = self._index[i, ROW]
        return self._arrays["views"].rows(row, 1)[0][view - 1] if view else self._arrays["features"].rows(row, 1)[0]

    def mel(self, i: int) -> np.ndarray:
        """float16 in [0, 1] of shape (frames, n_mels)."""
        return self._arrays["mel"].rows(self._index[i, ROW], self._index[i, FRAMES])

    def wav(self, i: int) -> np.ndarray:
        """int16 of shape (samples,), without the silence at both ends; divide by 32768 for [-1, 1]."""
        return self._arrays["wav"].rows(self._index[i, SAMPLE], self._index[i, SAMPLES])

    def _check(self) -> None:
        """The index must describe what the arrays hold: a truncated copy is found here, not in epoch 3."""
        index, items = self._index, sum(self.meta.items.values())
        if index.dtype != np.int64 or index.ndim != 2 or index.shape[1] != len(INDEX):
            raise _damaged(self.path, f"index.npy is {index.dtype} {index.shape}")
        if len(index) != items or items == 0:
            raise _damaged(self.path, f"index.npy has {len(index)} items, dataset.yaml {items}")
        last = index[-1]
        if self._lines[-1] != ord("\n") or last[LINE] >= len(self._lines):
            raise _damaged(self.path, "items.jsonl is cut short")
        pictures = last[ROW] + 1
        rows = {
            "images": pictures,
            "features": pictures,
            "views": pictures,
            "mel": last[ROW] + last[FRAMES],
            "wav": last[SAMPLE] + last[SAMPLES],
        }
        for name, array in self._arrays.items():
            if len(array) != rows[name]:
                raise _damaged(self.path, f"{name}.npy has {len(array)} rows, the index {rows[name]}")
        for start in range(0, items, CHECKED_ITEMS):
            part = index[start : start + CHECKED_ITEMS + 1]
            here, after = part[:-1], part[1:]
            audio = self.meta.audio
            rows_each, samples_each = (here[:, FRAMES], here[:, SAMPLES]) if audio else (1, 0)
            if (
                part.min() < 0
                or part[:, SPLIT].max() >= len(SPLITS)
                or (after[:, LINE] <= here[:, LINE]).any()
                or (after[:, ROW] != here[:, ROW] + rows_each).any()
                or (after[:, SAMPLE] != here[:, SAMPLE] + samples_each).any()
                or (audio and part[:, SAMPLES].min() < 1)
                or (audio and (part[:, FRAMES] != 1 + part[:, SAMPLES] // audio.hop_length).any())
            ):
                raise _damaged(self.path, f"index.npy contradicts itself near item {start}")
            for name, array in self._arrays.items():
                first, count = (SAMPLE, SAMPLES) if name == "wav" else (ROW, FRAMES)
                if not array.holds(part[:, first], part[:, count] if audio else 1):
                    raise _damaged(self.path, f"the files of {name}.npy end elsewhere than the index says")


def _read_meta(path: Path) -> DatasetMeta:
    file = path / "dataset.yaml"
    if not os.path.isfile(file):  # unlike Path's, these never raise
        if os.path.isdir(partial_path(path)) or os.path.isfile(path / "journal.jsonl"):
            raise UserError(f"{path}: half-written; run the same `skipmodal prep` command again, it resumes")
        problem = "is not a prepared dataset (no dataset.yaml)" if os.path.exists(path) else "no such folder"
        raise UserError(f"{path}: {problem}; `skipmodal prep` makes one")
    data = read_description(file, FORMAT, "prepare it again")
    try:
        return DatasetMeta.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _is_item(line: Any) -> bool:
    """Whether a line of items.jsonl has what training and evaluation count on; files are named by its id."""
    if not isinstance(line, dict) or not isinstance(line.get("id"), str) or not isinstance(line.get("texts"), list):
        return False
    texts = line["texts"]
    return bool(_ID.fullmatch(line["id"]) and texts and all(isinstance(text, str) and known(text) for text in texts))


def _damaged(path: Path, detail: str) -> UserError:
    return UserError(f"{path}: damaged ({detail}); prepare it again with --overwrite")
