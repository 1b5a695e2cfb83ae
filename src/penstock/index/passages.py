"""What a hit shows, beside the index: a segment's rows in small compressed blocks.

Taking ten rows out of the chunks table costs 4 ms and more; here a row costs
some 10 us: one block of 8 kB is decompressed. The price is a second copy of
the chunks' text, compressed by LZ4 to about a third (zstd packs to a quarter and
takes four times as long to open).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.arrays import map_array
from penstock.errors import StoreError

I64 = npt.NDArray[np.int64]

TEXTS = ("doc_id", "chunk_id", "title", "heading_path", "media_type", "metadata", "text")
NUMBERS = ("start", "end")
COLUMNS = (*TEXTS, *NUMBERS)
"""The columns that are kept of a chunk."""

_BLOCK_BYTES = 8 << 10
"""Bytes in a block: larger ones compress better, smaller ones open faster."""
_READ_ROWS = 4096
_HEAD = struct.Struct(f"<{len(TEXTS)}I{len(NUMBERS)}q")
"""Before a row's texts: the length of each in bytes, and the numbers."""


class PassagesWriter:
    """Write a segment's rows as a stream; `with` closes it.

    Args:
        folder: New folder, made here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._file: BinaryIO = open(folder / "blocks.lz4", "xb")  # noqa: SIM115 - `with` closes it
        self._codec = pa.Codec("lz4_raw")
        self._first: list[int] = [0]
        self._ends: list[int] = [0]
        self._sizes: list[int] = []
        self._open: list[bytes] = []
        self._open_bytes = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Append rows; columns other than `COLUMNS` are left out."""
        texts = [rows.column(name).cast(pa.large_binary()).to_pylist() for name in TEXTS]
        numbers = [rows.column(name).to_pylist() for name in NUMBERS]
        for *values, start, end in zip(*texts, *numbers, strict=True):
            self.add_record(_HEAD.pack(*map(len, values), start, end) + b"".join(values))

    def add_record(self, record: bytes) -> None:
        """Append one row as `Passages.records` gives it."""
        if self._open_bytes + len(record) > _BLOCK_BYTES:
            self._close_block()
        self._open.append(record)
        self._open_bytes += len(record)

    def _close_block(self) -> None:
        if not self._open:
            return
        ends = np.cumsum([len(record) for record in self._open], dtype=np.int64)
        block = ends.astype("<i8").tobytes() + b"".join(self._open)
        packed = self._codec.compress(block, asbytes=True)
        self._file.write(packed)
        self._first.append(self._first[-1] + len(self._open))
        self._ends.append(self._ends[-1] + len(packed))
        self._sizes.append(len(block))
        self._open, self._open_bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                self._close_block()
                table = [self._first, self._ends, [*self._sizes, 0]]
                np.save(self._folder / "blocks.npy", np.array(table, np.int64))


class Passages:
    """A segment's rows, open for any number of threads.

    Attributes:
        num_rows: How many.
    """

    def __init__(self, folder: Path, data: Any, table: npt.NDArray[np.int64]) -> None:
        self._path, self._data = folder / "blocks.lz4", data
        self._firsts, self._ends, self._sizes = table
        self.num_rows = int(self._firsts[-1])

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map the files.

        Raises:
            StoreError: A file is missing or is not what was written.
        """
        path = folder / "blocks.npy"
        try:
            table = map_array(path)
            path = folder / "blocks.lz4"
            empty = path.stat().st_size == 0  # nothing to map
            data = np.empty(0, np.uint8) if empty else np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as err:
            raise damaged(path, str(err)) from err
        if table.ndim != 2 or table.shape[0] != 3 or table[1, -1] != len(data):
            raise damaged(path, "its length is wrong")
        return cls(folder, data.view(np.ndarray), table)

    def get(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """The rows at these places, in their order, as plain values by column.

        Raises:
            StoreError: A block is damaged.
        """
        return [_decode(record) for record in self.records(places)]

    def records(self, places: Sequence[int]) -> list[bytes]:
        """The rows at these places, in their order, as they are kept; for copying.

        Raises:
            StoreError: A block is damaged.
        """
        from penstock.kernels import blocks as kernels

        wanted = np.array(places, np.int64)
        blocks = np.searchsorted(self._firsts, wanted, side="right") - 1
        out = np.empty(int(self._sizes[blocks].sum()), np.uint8)
        spans = np.empty(len(wanted) + 1, np.int64)
        if not kernels.records(
            self._data, self._firsts, self._ends, self._sizes, wanted, blocks, out, spans
        ):
            raise damaged(self._path, "a block does not decompress to what was written")
        data, ends = out[: spans[-1]].tobytes(), spans.tolist()
        return [data[start:end] for start, end in pairwise(ends)]

    def doc_ids(self) -> Iterator[str]:
        """The document of each row, in order."""
        for start in range(0, self.num_rows, _READ_ROWS):
            for record in self.records(range(start, min(start + _READ_ROWS, self.num_rows))):
                length = _HEAD.unpack_from(record)[0]
                yield record[_HEAD.size : _HEAD.size + length].decode()


def _decode(record: bytes) -> dict[str, Any]:
    *lengths, start, end = _HEAD.unpack_from(record)
    values: dict[str, Any] = {"start": start, "end": end}
    at = _HEAD.size
    for name, length in zip(TEXTS, lengths, strict=True):
        values[name] = record[at : at + length].decode()
        at += length
    return values


def damaged(path: Path, why: str) -> StoreError:
    """The error for a file of the index that cannot be read."""
    return StoreError(
        str(path),
        f"this file of the index cannot be read ({why}); rebuild it: penstock index rebuild STORE",
    )
