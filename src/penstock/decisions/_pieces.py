"""Signatures that are lists of hashes, and which of them occur in several documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.kernels import I64, text_buffers
from penstock.records import VERDICTS

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SIGNATURE = pa.large_binary()
"""12 bytes a piece, little-endian: a 64-bit hash, and a size or place in 32 bits."""

_RECORD = np.dtype([("hash", "<u8"), ("value", "<u4")])


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of many documents.

    Attributes:
        ids: (num_documents,) ascending.
        rows: (num_documents + 1,) offsets of their pieces.
        hashes: (num_pieces,); 0 where a piece is not to be compared.
        values: (num_pieces,).
    """

    ids: pa.Array
    rows: I64
    hashes: U64
    values: U32

    @property
    def documents(self) -> I64:
        """The document of each piece, as its place."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.rows))


def pack(rows: I64, hashes: U64, values: U32) -> pa.Array:
    """The signatures of documents whose pieces lie from `rows[i]` to `rows[i + 1]`."""
    records = np.empty(len(hashes), _RECORD)
    records["hash"], records["value"] = hashes, values
    buffers = [None, pa.py_buffer(rows * _RECORD.itemsize), pa.py_buffer(records.tobytes())]
    return pa.Array.from_buffers(SIGNATURE, len(rows) - 1, buffers)


def unpack(doc_id: pa.ChunkedArray | pa.Array, signature: pa.ChunkedArray | pa.Array) -> Pieces:
    """The pieces of these documents, in the order of their identifiers."""
    ids, packed = _whole(doc_id).cast(pa.large_string()), _whole(signature)
    if len(ids) > 1 and not pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py():
        order = pc.sort_indices(ids)
        ids, packed = ids.take(order), packed.take(order)
    offsets, data = text_buffers(packed)
    records = data[offsets[0] : offsets[-1]].view(_RECORD)
    rows = (offsets - offsets[0]) // _RECORD.itemsize
    hashes = np.ascontiguousarray(records["hash"])
    return Pieces(ids, rows, hashes, np.ascontiguousarray(records["value"]))


def group(hashes: U64) -> tuple[I64, int]:
    """A number for each hash that occurs several times, -1 for others; and how many numbers.

    Cost: 50 bytes and 0.2 us a hash, most of it to sort them.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    begins = np.ones(len(hashes) + 1, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:-1])
    several = begins[:-1] & ~begins[1:] & (ordered != 0)
    numbers = np.cumsum(several) - 1
    numbers[(begins[:-1] & begins[1:]) | (ordered == 0)] = -1
    groups = np.empty(len(hashes), np.int64)
    groups[order] = numbers
    return groups, int(several.sum())


def sums(rows: I64, values: npt.NDArray[np.generic]) -> I64:
    """The sum of each document's values."""
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    result: I64 = ends[rows[1:]] - ends[rows[:-1]]
    return result


def judge(
    pieces: Pieces, starts: I64, ends: I64, totals: I64, max_share: float
) -> tuple[F64, I64, Flags]:
    """What of each document those before it that stay had already.

    Returns:
        Per document the share, and a document that had some of it or -1; per piece
        whether it is a repetition.
    """
    from penstock.kernels.paragraphs import judge_in_order

    groups, num_groups = group(pieces.hashes)
    shares, others = np.zeros(len(totals)), np.zeros(len(totals), np.int64)
    repeated = np.zeros(len(groups), np.bool_)
    first = np.full(num_groups, -1, np.int64)
    judge_in_order(
        pieces.rows, groups, starts, ends, totals, max_share, first, shares, others, repeated
    )
    return shares, others, repeated


def share_verdicts(
    rule: str, ids: pa.Array, shares: F64, max_share: float, others: I64 | None
) -> pa.Table:
    """`VERDICTS` on the documents of a greater share, with the documents kept instead."""
    dropped = np.flatnonzero(shares > max_share)
    kept = pa.nulls(len(dropped), pa.string())
    if others is not None:
        kept = ids.take(pa.array(others[dropped])).cast(pa.string())
    return pa.table(
        {
            "doc_id": ids.take(pa.array(dropped)).cast(pa.string()),
            "verdict": pa.repeat("dropped", len(dropped)),
            "rule": pa.repeat(rule, len(dropped)),
            "score": pa.array(shares[dropped], pa.float64()),
            "duplicate_of": kept,
        },
        schema=VERDICTS,
    )


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
