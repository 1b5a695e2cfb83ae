"""What an export has to do: documents that the store keeps, against rows that the shards hold.

States are compared, not histories: a row of a shard counts while the store keeps
a document of that id with that `row_hash`. So it makes no difference whether the
shards come from an earlier run, from several, or from an export that was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.loader.formats.manifest import Manifest, Shard, rows_of
from penstock.loader.formats.mds import JSON
from penstock.loader.places import Folder
from penstock.records import hash_column
from penstock.store.attributes import Attributes
from penstock.store.search import Searcher
from penstock.store.tables import take_rows
from penstock.tokens import StoredTokens

Changed = Literal["tombstone", "rewrite"]
"""What is done about a document that changed or went: mark its row, or write its shard anew."""

_BATCH_ROWS = 2048

BOOL = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The documents to export, by `doc_id`.

    Attributes:
        rows: `doc_id`, `row_hash`, which names all that is exported of one, and `_rowid`.
        searcher: The run that they are of.
        tokens: Their tokens; None where the run has none.
    """

    rows: pa.Table
    searcher: Searcher
    tokens: StoredTokens | None

    @classmethod
    def of(cls, searcher: Searcher, tokens: StoredTokens | None, where: str | None) -> Wanted:
        """The kept documents of a run that satisfy a condition.

        Raises:
            QueryError: The condition cannot be understood, or names an unknown column.
        """
        dataset = searcher.dataset("documents")
        verdicts = searcher.dataset("verdicts")
        kept = verdicts.to_table(columns=["doc_id"], filter=pc.field("verdict") == "kept")["doc_id"]
        columns = ["doc_id", "text_hash", "metadata"]
        if where is None:
            rows = dataset.to_table(columns=columns, with_row_id=True)
        else:
            attributes = Attributes(dataset)
            chosen = attributes.row_ids[attributes.mask(where)]
            rows = take_rows(dataset, chosen, columns)
        rows = rows.filter(pc.is_in(rows["doc_id"], value_set=kept.combine_chunks()))
        rows = searcher.edits.final(rows.sort_by("doc_id").combine_chunks())
        made_by = "" if tokens is None else tokens.manifest.made_by
        parts = [rows["text_hash"].cast(pa.binary()), rows["metadata"].cast(pa.binary())]
        joined = pc.binary_join_element_wise(*parts, made_by.encode(), b"\0")
        hashes = hash_column(joined.combine_chunks())
        return cls(
            rows.select(["doc_id", "_rowid"]).append_column("row_hash", hashes), searcher, tokens
        )

    def batches(self, missing: BOOL) -> Iterator[pa.Table]:
        """What shards hold of these documents, in their order, some at a time."""
        rows = self.rows.filter(pa.array(missing))
        positions = None
        if self.tokens is not None and rows.num_rows:
            names = self.tokens.doc_ids(np.arange(self.tokens.num_samples))
            positions = pc.index_in(rows["doc_id"], value_set=names).to_numpy().astype(np.int64)
        for first in range(0, rows.num_rows, _BATCH_ROWS):
            some = rows.slice(first, _BATCH_ROWS)
            at = None if positions is None else positions[first : first + _BATCH_ROWS]
            yield self._content(some.combine_chunks(), at)

    def _content(self, rows: pa.Table, positions: npt.NDArray[np.int64] | None) -> pa.Table:
        dataset = self.searcher.dataset("documents")
        ids = rows["_rowid"].to_numpy()
        found = take_rows(dataset, ids, ["doc_id", "text", "metadata"])
        found = self.searcher.edits.final(found)
        columns = {
            "doc_id": found["doc_id"],
            "text": found["text"],
            "metadata": found["metadata"],
        }
        fields = [
            pa.field("doc_id", pa.string()),
            pa.field("text", pa.large_string()),
            pa.field("metadata", pa.string(), metadata=JSON),
        ]
        if positions is not None and self.tokens is not None:
            tokens, offsets = self.tokens.gather(positions)
            kind = pa.large_list(pa.from_numpy_dtype(tokens.dtype))
            columns["tokens"] = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens))
            fields.append(pa.field("tokens", kind))
        columns["row_hash"] = rows["row_hash"]
        fields.append(pa.field("row_hash", pa.binary(16)))
        return pa.table(list(columns.values()), schema=pa.schema(fields))


def compare(
    wanted: Wanted, base: Manifest, out: Path, changed: Changed
) -> tuple[tuple[Shard, ...], tuple[str, ...], BOOL]:
    """Which shards stay, which files go, and which documents have to be written.

    Args:
        wanted: What the export is to hold.
        base: What it holds now.
        out: Its folder.
        changed: What is done about rows that count no longer.

    Returns:
        The shards that stay, with the rows in them that are dead; the files of those
        that go; and a mask over `wanted.rows` of what no shard holds.
    """
    missing = np.ones(wanted.rows.num_rows, np.bool_)
    stay: list[Shard] = []
    go: list[str] = []
    # The newest first: of two rows of one document the later one counts.
    for shard in reversed(base.shards):
        places = _places(wanted.rows, rows_of(Folder(out), shard))
        places[places >= 0] = np.where(missing[places[places >= 0]], places[places >= 0], -1)
        dead = np.flatnonzero(places < 0)
        if len(dead) == shard.num_rows or (len(dead) and changed == "rewrite"):
            go += [shard.name, shard.rows[0], *shard.beside]
            continue
        missing[places[places >= 0]] = False
        stay.append(replace(shard, dead=tuple(dead.tolist())))
    return tuple(reversed(stay)), tuple(go), missing


def _places(wanted: pa.Table, rows: pa.Table) -> npt.NDArray[np.int64]:
    """Where each row of a shard stands among the wanted ones; -1 where it counts no longer."""
    if not wanted.num_rows:
        return np.full(rows.num_rows, -1, np.int64)
    found = pc.index_in(rows["doc_id"], value_set=wanted["doc_id"].combine_chunks())
    places = found.fill_null(-1).to_numpy().astype(np.int64)
    hashes = wanted["row_hash"].take(pa.array(np.maximum(places, 0)))
    same = pc.equal(hashes.combine_chunks(), rows["row_hash"].combine_chunks())
    return np.where(same.to_numpy(zero_copy_only=False), places, -1)
