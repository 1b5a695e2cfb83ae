"""Write segments: rows as they come, or the live rows of other segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.arrays import write_array
from penstock.kernels import I64, text_buffers
from penstock.records import hash_column
from penstock.tokens.ragged import Ragged, ends, gather, row_lengths
from penstock.tokens.segments import Segment

U64 = npt.NDArray[np.uint64]
Tokens = npt.NDArray[Any]

_COPY_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows on their way into a segment.

    Attributes:
        doc_id: (num_rows,) string.
        text_hash: (num_rows,) `HASH`.
        tokens: Of all rows, one after another.
        offsets: (num_rows + 1,) int64.
    """

    doc_id: pa.Array
    text_hash: pa.Array
    tokens: Tokens
    offsets: I64

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.doc_id)


def row_hashes(doc_id: pa.Array, text_hash: pa.Array) -> U64:
    """(4, num_rows) uint64: the hash of each name in two halves, then that of its text."""
    return np.concatenate([name_hashes(doc_id), _halves(text_hash)])


def name_hashes(doc_id: pa.Array) -> U64:
    """(2, num_rows) uint64: the hash of each name in two halves."""
    return _halves(hash_column(doc_id))


def row_order(hashes: U64) -> I64:
    """The order of rows by the hash of their document's name; (num_rows,)."""
    order = np.argsort(hashes[0], kind="stable")
    first = hashes[0][order]
    if (first[1:] == first[:-1]).any():
        return np.lexsort((hashes[1], hashes[0]))
    return order


def write_segment(folder: Path, batches: Sequence[Rows]) -> None:
    """Write rows, in whatever order they come, as a new segment."""
    hashes = np.concatenate([row_hashes(rows.doc_id, rows.text_hash) for rows in batches], axis=1)
    tokens = [(rows.tokens, rows.offsets) for rows in batches]
    names = [text_buffers(rows.doc_id)[::-1] for rows in batches]
    places = [np.arange(rows.num_rows) for rows in batches]
    _write(folder, hashes, tokens, names, places)


def merge_segments(folder: Path, parts: Sequence[Segment]) -> None:
    """Write the live rows of some segments as one new segment.

    Cost: a copy, in bounded memory but for some 60 bytes a row.
    """
    places = [np.flatnonzero(part.live) for part in parts]
    hashes = np.concatenate([p.hashes[:, at] for p, at in zip(parts, places, strict=True)], axis=1)
    tokens = [(part.tokens, part.offsets) for part in parts]
    names = [(part.id_bytes, part.id_offsets) for part in parts]
    _write(folder, hashes, tokens, names, places)


def _write(
    folder: Path,
    hashes: U64,
    tokens: Sequence[Ragged],
    names: Sequence[Ragged],
    places: Sequence[I64],
) -> None:
    """Write rows of several parts, whose hashes lie part after part, in their order."""
    folder.mkdir(parents=True)
    order = row_order(hashes)
    np.save(folder / "hashes.npy", np.ascontiguousarray(hashes[:, order]))
    part = np.repeat(np.arange(len(places), dtype=np.int64), [len(at) for at in places])[order]
    place = np.concatenate(places)[order]
    for values, offsets, parts in (
        ("tokens", "offsets", tokens),
        ("id_bytes", "id_offsets", names),
    ):
        begins = ends(row_lengths(parts, part, place))
        np.save(folder / f"{offsets}.npy", begins)
        kind = parts[0][0].dtype
        with write_array(folder / f"{values}.npy", kind, (int(begins[-1]),)) as file:
            for some in _pieces(begins, kind.itemsize):
                file.write(gather(parts, part[some], place[some])[0].data)


def _pieces(begins: I64, item_bytes: int) -> list[slice]:
    """The rows in pieces of bounded size."""
    cuts = np.flatnonzero(np.diff(begins[:-1] * item_bytes // _COPY_BYTES)) + 1
    bounds = [0, *cuts.tolist(), len(begins) - 1]
    return [slice(low, high) for low, high in pairwise(bounds)]


def _halves(hashes: pa.Array) -> U64:
    """Hashes of 16 bytes as (2, num_rows); the first half orders as the bytes do."""
    data = hashes.buffers()[1]
    if data is None or not len(hashes):
        return np.empty((2, 0), np.uint64)
    pairs = np.frombuffer(data, ">u8")[2 * hashes.offset : 2 * (hashes.offset + len(hashes))]
    return np.ascontiguousarray(pairs.reshape(-1, 2).T.astype(np.uint64))
