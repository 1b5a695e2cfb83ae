"""What a run has to read: the source's listing against what the store recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.chain import Work
from penstock.records import ITEMS, RAW, Failure, Listing, Read, hash_column
from penstock.store.tables import Table

ITEMS_TABLE = pa.schema([*ITEMS, pa.field("reader", pa.string(), nullable=False)])
"""What the store records of the source: `reader` is the fingerprint of what read the item."""

_OLD_COLUMNS = [
    *("doc_id", "item", "content_hash", "media_type", "metadata", "source_metadata", "fingerprint")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to read and what to forget.

    Attributes:
        stale: Items to read, sorted.
        unchanged: Recorded items that stand: rows of `ITEMS_TABLE`.
        removed: Recorded items that the source no longer holds.
    """

    stale: pa.Array
    unchanged: pa.Table
    removed: pa.Array


def find_changes(
    listing: Listing, recorded: pa.Table, reader: str, *, retry: pa.Array, verify: bool
) -> Changes:
    """Compare a listing with what was recorded.

    Args:
        listing: What the source holds now.
        recorded: Rows of `ITEMS_TABLE`.
        reader: Fingerprint of the source.
        retry: Items to read again although they are as recorded.
        verify: True reads every item again.

    Cost: one hash join over the items; no Python object per item.
    """
    items = listing.items
    same = _is_in(_keys(items, reader), _keys(recorded))
    stands = pc.and_(same, pc.invert(pc.is_in(items["item"], value_set=retry)))
    if verify:
        stands = pa.chunked_array([pa.array(np.zeros(len(items), bool))])
    gone = pc.invert(_is_in(recorded["item"], items["item"]))
    unchanged = items.filter(stands)
    return Changes(
        stale=items["item"].filter(pc.invert(stands)).combine_chunks(),
        unchanged=unchanged.append_column(
            ITEMS_TABLE.field("reader"), pa.array([reader] * len(unchanged), pa.string())
        ),
        removed=recorded["item"].filter(gone).combine_chunks(),
    )


def _keys(items: pa.Table, reader: str | None = None) -> Any:
    by = items["reader"] if reader is None else pa.scalar(reader)
    return pc.binary_join_element_wise(items["item"], items["version"], by, "\0")


def _is_in(values: pa.ChunkedArray, among: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(values, value_set=among.combine_chunks())


class OldRows:
    """The rows that stale and removed items have in the documents table.

    Args:
        documents: The table.
        items: The stale and the removed ones.
        chain: Fingerprint of the chain whose rows can stand; None if none can.
    """

    def __init__(self, documents: Table, items: pa.Array, chain: str | None) -> None:
        self._chain = chain
        if documents.version is None or not len(items):
            rows = None
        else:
            owners = documents.scan(["item"])
            mine = owners.filter(pc.is_in(owners["item"], value_set=items))
            rows = documents.take(mine["_rowid"].to_numpy(), _OLD_COLUMNS) if len(mine) else None
        self._where: dict[str, int] = {}
        self.row_ids: dict[str, set[int]] = {}
        if rows is None:
            return
        self._ids = rows["_rowid"].to_pylist()
        self._items = rows["item"].to_pylist()
        self._chains = rows["fingerprint"].to_pylist()
        self._where = {doc_id: i for i, doc_id in enumerate(rows["doc_id"].to_pylist())}
        read = pc.coalesce(rows["source_metadata"], rows["metadata"])
        self._states = list(
            zip(
                rows["content_hash"].to_pylist(),
                rows["media_type"].to_pylist(),
                read.to_pylist(),
                strict=True,
            )
        )
        for item, row_id in zip(self._items, self._ids, strict=True):
            self.row_ids.setdefault(item, set()).add(row_id)

    def compare(self, read: Read) -> Work:
        """Split what was read into rows to compute and rows that are as they were.

        A second row with a `doc_id` of the same batch becomes a failure.
        """
        rows, doubles = _without_doubles(read.rows)
        hashes = hash_column(rows["raw"])
        size = rows.num_rows
        replaces: list[int | None] = [None] * size
        unchanged: list[int] = []
        updated = 0
        keep = np.ones(size, bool)
        if self._where and size:
            columns = [rows[name].to_pylist() for name in ("doc_id", "item")]
            states = zip(
                hashes.to_pylist(),
                rows["media_type"].to_pylist(),
                rows["metadata"].to_pylist(),
                strict=True,
            )
            for i, (doc_id, item, state) in enumerate(zip(*columns, states, strict=True)):
                old = self._where.get(doc_id)
                if old is None or self._items[old] != item:
                    continue
                same = self._states[old] == state
                if same and self._chains[old] == self._chain:
                    unchanged.append(self._ids[old])
                    keep[i] = False
                else:
                    replaces[i] = self._ids[old]
                    updated += same
        work = rows.append_column("content_hash", hashes)
        work = work.append_column("replaces", pa.array(replaces, pa.uint64()))
        return Work(
            rows=work if keep.all() else work.filter(pa.array(keep)),
            keys=rows.select(["item", "doc_id"]),
            failures=read.failures + doubles,
            unchanged=tuple(unchanged),
            updated=updated,
            finished=read.finished,
            bytes_read=int(pc.sum(pc.binary_length(rows["raw"])).as_py() or 0),
        )


def duplicate_id(doc_id: str, item: str) -> Failure:
    """The failure of a row whose `doc_id` another row has already."""
    return Failure(
        doc_id=doc_id,
        item=item,
        step="read",
        error="duplicate-id",
        message=f"another row of the source has the doc_id {doc_id!r} already",
        advice="Give each row an id of its own, or choose another id column; "
        "the first item by name, and in it the first row, was kept",
        transient=True,
    )


def _without_doubles(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, tuple[Failure, ...]]:
    if pc.count_distinct(rows["doc_id"]).as_py() == rows.num_rows:
        return rows, ()
    seen: set[tuple[str, str]] = set()
    keep: list[bool] = []
    failures: list[Failure] = []
    for item, doc_id in zip(rows["item"].to_pylist(), rows["doc_id"].to_pylist(), strict=True):
        first = (item, doc_id) not in seen
        seen.add((item, doc_id))
        keep.append(first)
        if not first:
            failures.append(duplicate_id(doc_id, item))
    return rows.filter(pa.array(keep)), tuple(failures)


def empty_keys() -> pa.RecordBatch:
    """Keys of a batch that was not read from the source."""
    return pa.RecordBatch.from_pylist(
        [], schema=pa.schema([RAW.field("item"), RAW.field("doc_id")])
    )
