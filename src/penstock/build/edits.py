"""What decisions cut out of documents: spans of texts, found once for a text and its places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.protocols import Cutting
from penstock.records import CUTS, EDITS, HASH, SPANS, content_hash
from penstock.store.tables import Table

_ROWS = 256
"""Documents whose texts are read at a time."""

Rows = Callable[[pa.Array, list[str]], pa.Table]
"""Gives columns of the documents table by `doc_id`, in the order asked for."""


@dataclass(frozen=True, slots=True)
class KnownEdits:
    """The spans of an earlier run, by all that they depend on."""

    keys: pa.Array
    spans: pa.Array

    @classmethod
    def of(cls, edits: Table) -> KnownEdits:
        """Those of a table, which may not be there yet."""
        if edits.version is None:
            return cls(pa.array([], HASH), pa.array([], SPANS))
        rows = edits.scan(["edit_key", "spans"])
        return cls(rows["edit_key"].combine_chunks(), rows["spans"].combine_chunks())


def find_edits(decision: Cutting, cuts: pa.Table, rows: Rows, known: KnownEdits) -> pa.Table:
    """The spans of what a decision cuts; `EDITS`, in the order of `cuts`.

    Cost: 20 us a document; reads the texts of those whose spans are not known.
    """
    batches = [
        _edits(decision, cuts.slice(start, _ROWS), rows, known)
        for start in range(0, len(cuts), _ROWS)
    ]
    return pa.Table.from_batches([b for t in batches for b in t.to_batches()], EDITS)


def _edits(decision: Cutting, cuts: pa.Table, rows: Rows, known: KnownEdits) -> pa.Table:
    doc_id = cuts["doc_id"].combine_chunks()
    keys = _keys(decision, cuts, rows(doc_id, ["text_hash"])["text_hash"])
    have = pc.index_in(keys, value_set=known.keys)
    new = np.flatnonzero(have.is_null().to_numpy(zero_copy_only=False))
    spans = known.spans.take(have)
    if len(new):
        wanted = cuts.take(pa.array(new)).combine_chunks()
        text = rows(wanted["doc_id"].combine_chunks(), ["text"])["text"].combine_chunks()
        found = decision.spans(text, wanted).cast(SPANS)
        place: npt.NDArray[np.int64] = np.arange(len(doc_id))
        place[new] = len(doc_id) + np.arange(len(new))
        spans = pa.concat_arrays([spans, found]).take(pa.array(place))
    columns = [doc_id, pa.repeat(pa.scalar(decision.rule), len(doc_id)), spans, keys]
    return pa.Table.from_arrays(columns, schema=EDITS)


def _keys(decision: Cutting, cuts: pa.Table, text_hash: pa.ChunkedArray) -> pa.Array:
    """16 bytes a row that change when its spans may."""
    by = f"{decision.rule}\0{decision.cut_by}\0"
    parts = zip(
        *(cuts[name].to_pylist() for name in CUTS.names), text_hash.to_pylist(), strict=True
    )
    return pa.array([content_hash(f"{by}{each!r}".encode()) for each in parts], HASH)


def write_edits(table: Table, edits: pa.Table) -> None:
    """Put these rows in the table, writing only what is new; no table is made for none."""
    if table.version is None and not len(edits):
        return
    table.require(EDITS, keep_rows=False)
    before = table.scan(["edit_key"])
    old, new = before["edit_key"].combine_chunks(), edits["edit_key"].combine_chunks()
    table.delete(before["_rowid"].filter(pc.invert(pc.is_in(old, value_set=new))).to_numpy())
    table.append(edits.filter(pc.invert(pc.is_in(new, value_set=old))))
    table.compact()
