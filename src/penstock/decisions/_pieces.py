"""Signatures that are lists of hashes, and which of them occur in several documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConfigError
from penstock.kernels import I64, text_buffers
from penstock.records import CUTS, SPANS, VERDICTS

Action: TypeAlias = Literal["drop", "cut", "flag"]
"""What becomes of documents that repeat others."""

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


@dataclass(frozen=True, slots=True)
class Judged:
    """What of each document others have already.

    Attributes:
        shares: (num_documents,) how much of it.
        others: (num_documents,) a document that has some of it, -1 for none.
        repeated: (num_pieces,) whether it is a repetition.
        holders: (num_pieces,) the document that a repetition is of, -1 for none in particular.
    """

    shares: F64
    others: I64
    repeated: Flags
    holders: I64


def judge(pieces: Pieces, starts: I64, ends: I64, totals: I64, max_share: float) -> Judged:
    """What of each document those before it that stay had already.

    Args:
        pieces: Of all documents.
        starts: (num_pieces,) ascending in each document.
        ends: (num_pieces,).
        totals: (num_documents,) of which the share is taken.
        max_share: A document of a greater share does not stay.
    """
    from penstock.kernels.paragraphs import judge_in_order

    groups, num_groups = group(pieces.hashes)
    shares, others = np.zeros(len(totals)), np.zeros(len(totals), np.int64)
    repeated = np.zeros(len(groups), np.bool_)
    first = np.full(num_groups + 1, -1, np.int64)  # one more, for what is in no group
    judge_in_order(
        pieces.rows, groups, starts, ends, totals, max_share, first, shares, others, repeated
    )
    return Judged(shares, others, repeated, np.where(repeated, first[groups], -1))


def share_verdicts(
    rule: str, ids: pa.Array, judged: Judged, max_share: float, action: Action
) -> pa.Table:
    """`VERDICTS` on documents that have something in common with others.

    Those of a greater share are dropped, or flagged; to cut, those of which nothing
    would be left are dropped too, and the others of which something goes are flagged.
    """
    over = judged.shares > max_share
    goes = over if action == "drop" else np.zeros(len(over), np.bool_)
    told = over
    if action == "cut":
        goes, told = over | (judged.shares >= 1.0), judged.shares > 0.0
    rows = np.flatnonzero(told)
    others = judged.others[rows]
    return pa.table(
        {
            "doc_id": ids.take(pa.array(rows)).cast(pa.string()),
            "verdict": pc.if_else(pa.array(goes[rows]), "dropped", "kept"),
            "rule": pa.repeat(rule, len(rows)),
            "score": pa.array(judged.shares[rows], pa.float64()),
            "duplicate_of": _names(ids, others),
        },
        schema=VERDICTS,
    )


def piece_cuts(found: Pieces, judged: Judged, verdicts: pa.Table) -> pa.Table:
    """`CUTS`: the repeated pieces of the documents that are kept; a place is a piece's number."""
    kept = verdicts.filter(pc.equal(verdicts["verdict"], "kept"))["doc_id"]
    stays = pc.is_in(found.ids.cast(pa.string()), value_set=kept.combine_chunks())
    documents = found.documents
    chosen = np.flatnonzero(judged.repeated & stays.to_numpy(zero_copy_only=False)[documents])
    documents = documents[chosen]
    changed = np.unique(documents)
    ends = np.searchsorted(documents, changed, side="right")
    offsets = pa.array(np.concatenate([np.zeros(1, np.int64), ends]).astype(np.int64))
    places = pa.array((chosen - found.rows[documents]).astype(np.uint32))
    twins = _names(found.ids, judged.holders[chosen])
    return pa.table(
        {
            "doc_id": found.ids.take(pa.array(changed)).cast(pa.string()),
            "places": pa.LargeListArray.from_arrays(offsets, places),
            "duplicate_of": pa.LargeListArray.from_arrays(offsets, twins),
        },
        schema=CUTS,
    )


def span_array(rows: Iterable[Iterable[tuple[int, int, str | None]] | None]) -> pa.Array:
    """`SPANS` of spans in order; those that touch and are of the same document are joined."""
    joined: list[list[dict[str, int | str | None]] | None] = []
    for spans in rows:
        if spans is None:
            joined.append(None)
            continue
        found: list[dict[str, int | str | None]] = []
        for start, end, other in spans:
            if found and found[-1]["end"] == start and found[-1]["duplicate_of"] == other:
                found[-1]["end"] = end
            else:
                found.append({"start": start, "end": end, "duplicate_of": other})
        joined.append(found)
    return pa.array(joined, SPANS)


def check_action(setting: str, action: object) -> None:
    """Raise `ConfigError` unless this is one of the three actions."""
    if action not in ("drop", "cut", "flag"):
        raise ConfigError(setting, action, "must be one of drop, cut, flag")


def staying_share(max_share: float, action: Action) -> float:
    """The greatest share of a document that stays: any, where documents are only flagged."""
    return 2.0 if action == "flag" else max_share


def _names(ids: pa.Array, documents: I64) -> pa.Array:
    """The ids of documents, null for -1."""
    return ids.take(pa.array(documents, mask=documents < 0)).cast(pa.string())


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
