"""The values of one column in a shard's bytes: where each begins, how long it is, what it holds."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.kernels.buffers import text_buffers, text_from_buffers
from penstock.kernels.ranges import copy_ranges

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Values:
    """One column's values of some rows, wherever they lie; no Python object per row.

    Attributes:
        data: (num_bytes,) uint8: a mapped shard, or what was decoded from one.
        starts: (num_rows,) int64, each row's first byte in `data`.
        sizes: (num_rows,) int64, each row's bytes.
        dtype: What the bytes are; uint8 for text.
    """

    data: U8
    starts: I64
    sizes: I64
    dtype: np.dtype[Any]

    def joined(self, rows: I64 | None = None) -> tuple[U8, I64]:
        """The bytes of these rows, or of all, one after another, and where each begins."""
        starts = self.starts if rows is None else self.starts[rows]
        sizes = self.sizes if rows is None else self.sizes[rows]
        offsets = offsets_of(sizes)
        joined = np.empty(int(offsets[-1]), np.uint8)
        copy_ranges(self.data, starts, sizes, joined, offsets[:-1])
        return joined, offsets

    def text(self) -> pa.Array:
        """As a `large_string` column."""
        data, offsets = self.joined()
        return text_from_buffers(offsets, data)

    def lists(self) -> pa.Array:
        """As a column of `large_list`, one list of numbers a row."""
        data, offsets = self.joined()
        numbers = pa.array(data.view(self.dtype))
        return pa.LargeListArray.from_arrays(pa.array(offsets // self.dtype.itemsize), numbers)


def offsets_of(sizes: I64) -> I64:
    """Where each of some pieces begins when they lie one after another; (n + 1,) int64."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def column_values(column: pa.Array) -> Values:
    """The values of an Arrow column of text, bytes, numbers or lists of numbers, without a copy."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lists = column.cast(pa.large_list(kind.value_type)) if pa.types.is_list(kind) else column
        numbers = lists.values.to_numpy(zero_copy_only=False)
        offsets = lists.offsets.to_numpy() * numbers.dtype.itemsize
        data = np.ascontiguousarray(numbers).view(np.uint8)
        return Values(data, offsets[:-1], np.diff(offsets), numbers.dtype)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = np.ascontiguousarray(column.to_numpy(zero_copy_only=False))
        size = numbers.dtype.itemsize
        starts = np.arange(len(numbers), dtype=np.int64) * size
        return Values(numbers.view(np.uint8), starts, np.full(len(starts), size), numbers.dtype)
    offsets, data = text_buffers(column)
    return Values(data, offsets[:-1], np.diff(offsets), np.dtype(np.uint8))


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A table's column as one array."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def mapped(path: Path) -> U8:
    """A file's bytes, mapped and read-only."""
    with open(path, "rb") as file:
        if file.seek(0, 2) == 0:
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
