"""Writes a prepared dataset: append-only into OUT.partial, resumable, renamed to OUT when complete."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, Self

import numpy as np
import yaml
from pydantic import ValidationError

from skipmodal.audio import AudioConfig
from skipmodal.data.prepared import INDEX, SPLITS, DatasetMeta, array_layout
from skipmodal.data.shards import GrowingArray
from skipmodal.errors import UserError
from skipmodal.files import partial_path, sync, to_json
from skipmodal.image import ImageConfig
from skipmodal.plain_yaml import read_yaml

SHARD_BYTES = 2 << 30
DESCRIBED = ("kind", "source", "licence", "image", "views", "audio")  # settings that dataset.yaml repeats
EXAMPLES = 3  # rows shown for each reason
JOURNAL, SETTINGS, REPLACED = "journal.jsonl", "settings.yaml", "replaced"  # only in OUT.partial


@dataclass(frozen=True)
class Kept:
    """A row that becomes an item; `arrays` as in `array_layout`."""

    id: str
    split: str
    texts: list[str]
    arrays: tuple[np.ndarray, ...]
    dropped_texts: int = 0
    trimmed_seconds: float = 0.0


@dataclass(frozen=True)
class Dropped:
    """A row that is left out; `where` is file:line."""

    where: str
    reason: str
    detail: str


@dataclass
class PrepReport:
    """What a preparation kept and left out."""

    kept: Counter[str] = field(default_factory=Counter)  # items by split
    texts: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # rows by reason
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> its first rows, file:line
    dropped_texts: int = 0  # unusable captions of pictures that are kept
    seconds: float = 0.0  # audio kept
    trimmed: list[float] = field(default_factory=list)  # seconds of silence cut from each recording

    def add(self, record: dict[str, Any]) -> None:
        """Counts one record of a journal."""
        if "item" not in record:
            self.dropped[record["reason"]] += 1
            shown = self.examples.setdefault(record["reason"], [])
            if len(shown) < EXAMPLES:
                shown.append(": ".join(filter(None, (record["where"], record["detail"]))))
            return
        item = record["item"]
        self.kept[item["split"]] += 1
        self.texts += len(item["texts"])
        self.dropped_texts += record.get("dropped_texts", 0)
        self.seconds += item.get("seconds", 0.0)
        if "trimmed" in record:
            self.trimmed.append(record["trimmed"])

    def counts(self) -> dict[str, Any]:
        """The same for dataset.yaml."""
        return {
            "items": {split: self.kept[split] for split in SPLITS},
            "texts": self.texts,
            "dropped": dict(sorted(self.dropped.items())),
            "dropped_texts": self.dropped_texts,
            "seconds": round(self.seconds, 1),
            "trimmed_seconds": round(sum(self.trimmed), 1),
        }

    @property
    def trimmed_median(self) -> float:
        """Seconds of silence cut from the middle recording."""
        return median(self.trimmed) if self.trimmed else 0.0


class DatasetWriter:
    """Appends to OUT.partial and renames it to OUT in `finish`; a killed run goes on where it was.

    Rows are committed in blocks, in the order of the source. A block enters the journal only after its arrays
    are on disk, so what the journal doesn't name is cut off and done again. The first `done` rows are done.

    Args:
        settings: all that decides the content, in plain types; those in DESCRIBED also go into
            dataset.yaml.
        digests: one for each row of the source, to tell on resuming whether it is still the same.
        overwrite: replace a complete OUT in the end, and start anew where OUT.partial can't be resumed.

    Raises UserError where OUT exists, or where OUT.partial was begun with other settings or another source.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        digests: list[str],
        *,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.out, self.folder = Path(os.path.abspath(out)), partial_path(out)
        self.settings, self.digests = settings, digests
        image, audio = settings.get("image"), settings.get("audio")
        self._layout = array_layout(
            ImageConfig.model_validate(image) if image else None,
            AudioConfig.model_validate(audio) if audio else None,
            settings.get("views"),
        )
        self._shard_bytes = shard_bytes
        self._arrays: list[GrowingArray] = []
        with _writing(self.folder):
            _refuse_existing(out, self.folder, overwrite)
            self._open(overwrite)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def commit(self, block: Iterable[Kept | Dropped]) -> None:
        """Writes what became of the next rows: all of the block survives a crash, or nothing."""
        records: list[dict[str, Any]] = []
        with _writing(self.folder):
            for row in block:
                record = asdict(row) if isinstance(row, Dropped) else self._append(row)
                records.append({"digest": self.digests[self.done + len(records)]} | record)
            for array in self._arrays:
                array.flush()
            self._journal.write(f"{to_json(records)}\n".encode())
            sync(self._journal)
        self.done += len(records)

    def finish(self) -> PrepReport:
        """Writes index, items and dataset.yaml, and puts the folder in its place.

        Raises UserError, and leaves nothing behind, where no row was kept.
        """
        with _writing(self.folder):
            report = self._write_index()
            if not report.kept:
                self._close()
                shutil.rmtree(self.folder)
                raise no_usable_row(report)
            described = {key: self.settings.get(key) for key in DESCRIBED}
            meta = DatasetMeta.model_validate(described | report.counts()).model_dump(exclude_none=True)
            with (self.folder / "dataset.yaml").open("wb") as file:
                file.write(yaml.safe_dump(meta, sort_keys=False, allow_unicode=True).encode())
                sync(file)
            self._close()
            self._move()
        return report

    def _write_index(self) -> PrepReport:
        """index.npy, items.jsonl and dropped.jsonl, from the journal; completes the arrays."""
        report = PrepReport()
        index = GrowingArray(self.folder, "index", "<i8", (len(INDEX),), shard_bytes=None)
        items = (self.folder / "items.jsonl").open("wb")
        dropped = (self.folder / "dropped.jsonl").open("wb")
        with items, dropped:
            for record in self._records():
                report.add(record)
                del record["digest"]
                if item := record.get("item"):
                    first = item["offset"] if "offset" in item else item["row"]
                    media = (item.get(key, 0) for key in ("frames", "sample", "samples"))
                    index.append(np.array([[items.tell(), SPLITS.index(item["split"]), first, *media]]))
                    items.write(f"{to_json(item)}\n".encode())
                else:
                    dropped.write(f"{to_json(record)}\n".encode())
            for file in (items, dropped):
                sync(file)
        for array in (*self._arrays, index):
            array.finish()
        return report

    def _append(self, row: Kept) -> dict[str, Any]:
        firsts = [array.append(rows) for array, rows in zip(self._arrays, row.arrays, strict=True)]
        item: dict[str, Any] = {"id": row.id, "split": row.split, "texts": row.texts}
        record: dict[str, Any] = {"item": item, "dropped_texts": row.dropped_texts}
        if self.settings["kind"] == "image-text":
            item |= {"row": firsts[0]}
        else:
            frames, samples = map(len, row.arrays)
            item |= {"offset": firsts[0], "frames": frames, "sample": firsts[1], "samples": samples}
            item["seconds"] = round(samples / self.settings["audio"]["sample_rate"], 3)
            record["trimmed"] = round(row.trimmed_seconds, 4)
        return record

    def _open(self, overwrite: bool) -> None:
        """Locks OUT.partial, and resumes it or starts it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / SETTINGS).open("a+b")
        _lock(self._lock, self.folder)
        self._lock.seek(0)
        found = self._lock.read()
        text = yaml.safe_dump(self.settings | {"shard_bytes": self._shard_bytes}, allow_unicode=True).encode()
        self._journal = (self.folder / JOURNAL).open("a+b")
        problem = self._replay() if found in (b"", text) else "an unfinished preparation with other settings"
        if problem and not overwrite:
            self._close()
            raise UserError(f"{self.folder}: {problem}; --overwrite starts anew")
        if problem:
            for path in self.folder.iterdir():
                if path.name == REPLACED and not self.out.exists():
                    path.rename(self.out)  # a crash came between the two moves, and the new one is not wanted
                elif path.name == REPLACED:
                    shutil.rmtree(path)
                elif path.name not in (SETTINGS, JOURNAL):
                    path.unlink()
            self._journal.truncate(0)
            self._replay()
        if found != text:
            self._lock.truncate(0)
            self._lock.write(text)
            sync(self._lock)
        for array in self._arrays:
            array.reopen()

    def _replay(self) -> str:
        """Counts what the journal names, cuts its torn last line; returns why it can't be resumed, or ""."""
        self.done, good = 0, 0
        layout, limit = self._layout, self._shard_bytes
        self._arrays = [GrowingArray(self.folder, name, *layout[name], limit) for name in layout]
        self._journal.seek(0)
        try:
            for line in self._journal:
                if not line.endswith(b"\n"):
                    break
                good += len(line)
                for record in json.loads(line):
                    if self.digests[self.done : self.done + 1] != [record["digest"]]:
                        return f"row {self.done + 1} of the source has changed since"
                    self.done += 1
                    if item := record.get("item"):
                        counts = (item["frames"], item["samples"]) if "frames" in item else [1] * len(self._arrays)
                        for array, count in zip(self._arrays, counts, strict=True):
                            array.skip(count)
        except (ValueError, TypeError, KeyError):
            return "its journal is damaged"
        if short := [array.name for array in self._arrays if array.is_short()]:
            return f"{short[0]}.npy is shorter than the journal says"
        self._journal.truncate(good)
        return ""

    def _records(self) -> Iterator[dict[str, Any]]:
        """One record a row of the source: {digest, item, ...} or {digest, where, reason, detail}."""
        self._journal.seek(0)
        for line in self._journal:
            yield from json.loads(line)

    def _close(self) -> None:
        for close in (*(array.close for array in self._arrays), self._journal.close, self._lock.close):
            with suppress(OSError):  # a full disk was reported already; the journal doesn't name the rest
                close()

    def _move(self) -> None:
        """The old dataset makes way only now; the journal goes last, for it is what resuming needs."""
        if self.out.exists():
            self.out.rename(self.folder / REPLACED)
        self.folder.rename(self.out)
        _clear(self.out)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A full disk, say, is the user's to mend; what is done stays done."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _lock(file: BinaryIO, folder: Path) -> None:
    """Two commands preparing one folder would interleave; the lock goes when the process does."""
    try:
        import fcntl
    except ImportError:  # no such lock on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"{folder}: another command is preparing it now") from error


def _is_ours(out: Path) -> bool:
    try:
        DatasetMeta.model_validate(read_yaml(out / "dataset.yaml", "dataset"))
    except (UserError, ValidationError):
        return False
    return True


def _clear(out: Path) -> None:
    """Removes from a complete dataset what only its preparation needed. Two commands may do so at once."""
    for name in (JOURNAL, SETTINGS):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / REPLACED, ignore_errors=True)


def _refuse_existing(out: Path, partial: Path, overwrite: bool) -> None:
    """Nothing but datasets of our own is ever replaced or deleted."""
    if (out / "dataset.yaml").is_file():
        if _is_ours(out):
            _clear(out)  # a crash can come right after the move
        elif not all((out / name).is_file() for name in ("items.jsonl", "index.npy")):  # nor is it a damaged one
            raise UserError(f"{out}: exists and is not a prepared dataset; choose another name")
        if not overwrite:
            raise UserError(f"{out}: exists and is complete; --overwrite replaces it")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not a prepared dataset; choose another name")
    if partial.exists() and not (partial / SETTINGS).is_file() and any(partial.iterdir()):
        raise UserError(f"{partial}: in the way, and not a dataset being prepared; move it")


def no_usable_row(report: PrepReport) -> UserError:
    """What to say where nothing is kept: the reasons, each with its first row."""
    dropped = report.dropped.most_common()
    reasons = [f"{count} x {reason} ({report.examples[reason][0]})" for reason, count in dropped]
    return UserError(f"no usable row; left out: {'; '.join(reasons) or 'nothing, the source is empty'}")
