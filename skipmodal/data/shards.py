"""One long array in the files `name.npy`, `name.1.npy`, ...: mapped for reading, or appended to."""

import io
import math
import os
from bisect import bisect_right
from pathlib import Path
from typing import BinaryIO

import numpy as np

from skipmodal.files import sync


class ShardedArray:
    """Read access by row number. A file that is damaged or not of the expected kind fails in many ways."""

    def __init__(self, folder: Path, name: str, dtype: str, row: tuple[int, ...]) -> None:
        self.maps: list[np.ndarray] = []
        self.starts: list[int] = []
        total = 0
        while (path := shard_path(folder, name, len(self.maps))).exists() or not self.maps:
            array = np.lib.format.open_memmap(path, mode="r")
            if array.dtype.str != dtype or array.shape[1:] != row:
                raise ValueError(f"{path.name} is {array.dtype.str} {array.shape}, not {dtype} (..., *{row})")
            self.maps.append(array)
            self.starts.append(total)
            total += len(array)
        self.total = total

    def __len__(self) -> int:
        return self.total

    def holds(self, first: np.ndarray, counts: np.ndarray | int) -> bool:
        """Whether each of some blocks, which lie one after the other, is in one shard."""
        shards = [np.searchsorted(self.starts, at, side="right") for at in (first, first + counts - 1)]
        return bool((shards[0] == shards[1]).all())

    def rows(self, first: int, count: int) -> np.ndarray:
        shard = bisect_right(self.starts, first) - 1
        start = first - self.starts[shard]
        return np.asarray(self.maps[shard][start : start + count])


class GrowingArray:
    """Append-only; a block of rows never straddles two shards.

    After a crash, `skip` goes over the rows that are known to be there, and `reopen` cuts off the others.
    """

    def __init__(self, folder: Path, name: str, dtype: str, row: tuple[int, ...], shard_bytes: int | None) -> None:
        self.folder, self.name, self.dtype, self.row = folder, name, dtype, row
        self.row_bytes = math.prod(row) * np.dtype(dtype).itemsize
        self.limit = max(shard_bytes // self.row_bytes, 1) if shard_bytes else None
        self.shards = [0]  # rows of each; the last one is being written
        self.total = 0
        self.file: BinaryIO | None = None

    def append(self, block: np.ndarray) -> int:
        """Number of the block's first row, counted over all shards."""
        shard = len(self.shards) - 1
        first = self.skip(len(block))
        if self.file and shard < len(self.shards) - 1:
            self._close_shard(shard)
        if self.file is None:
            self.file = self._path(len(self.shards) - 1).open("w+b")
            self.file.write(self._header(0))
        self.file.write(np.ascontiguousarray(block, dtype=self.dtype).tobytes())
        return first

    def skip(self, count: int) -> int:
        """The bookkeeping of `append` alone, for rows that are on disk already."""
        if self.limit and self.shards[-1] and self.shards[-1] + count > self.limit:
            self.shards.append(0)
        self.shards[-1] += count
        self.total += count
        return self.total - count

    def is_short(self) -> bool:
        """Whether rows that were skipped are not on disk after all."""
        paths = [(self._path(i), self._size(rows)) for i, rows in enumerate(self.shards) if rows]
        return any(not path.exists() or path.stat().st_size < size for path, size in paths)

    def reopen(self) -> None:
        """Goes on after the rows that were skipped; what lies behind them is cut off."""
        rows, later = self.shards[-1], len(self.shards)
        if rows:
            self.file = self._path(later - 1).open("r+b")
            self.file.truncate(self._size(rows))
            self.file.seek(0, os.SEEK_END)
        else:
            later = 0
        while (path := self._path(later)).exists():
            path.unlink()
            later += 1

    def flush(self) -> None:
        if self.file:
            sync(self.file)

    def finish(self) -> None:
        if self.file:
            self._close_shard(len(self.shards) - 1)

    def close(self) -> None:
        if self.file:
            self.file.close()

    def _close_shard(self, shard: int) -> None:
        """The header has room for any number of rows; the true one goes in last."""
        assert self.file
        self.file.seek(0)
        self.file.write(self._header(self.shards[shard]))
        sync(self.file)
        self.file.close()
        self.file = None

    def _path(self, shard: int) -> Path:
        return shard_path(self.folder, self.name, shard)

    def _size(self, rows: int) -> int:
        return len(self._header(rows)) + rows * self.row_bytes

    def _header(self, rows: int) -> bytes:
        header = io.BytesIO()
        shape = (rows, *self.row)
        np.lib.format.write_array_header_1_0(header, {"descr": self.dtype, "fortran_order": False, "shape": shape})
        return header.getvalue()


def shard_path(folder: Path, name: str, shard: int) -> Path:
    return folder / (f"{name}.{shard}.npy" if shard else f"{name}.npy")
