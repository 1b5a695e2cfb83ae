"""The final text of a document: its `text` without what decisions cut out of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.records import content_hash, hash_column
from penstock.store.tables import take_rows

_U64 = npt.NDArray[np.uint64]
_Spans = list[tuple[int, int]]


class Edits:
    """What is cut out of which documents; finds a document's rows by a hash of its id.

    Immutable; safe to use from many threads. Memory: 16 bytes a row.

    Args:
        dataset: The `lance.LanceDataset` of the table `edits`; None where nothing was ever cut.
    """

    def __init__(self, dataset: Any | None) -> None:
        self._dataset = dataset
        self._hashes, self._row_ids = np.empty(0, np.uint64), np.empty(0, np.uint64)
        if dataset is not None:
            rows = dataset.to_table(columns=["doc_id"], with_row_id=True)
            hashes = _hashes(rows["doc_id"].combine_chunks())
            order = np.argsort(hashes, kind="stable")
            self._hashes, self._row_ids = hashes[order], rows["_rowid"].to_numpy()[order]

    def final(self, rows: pa.Table) -> pa.Table:
        """Rows of the documents table with their final texts.

        This is how anything is made of a kept document's text: take its rows, by
        row id or any other way, and pass them through here.

        Args:
            rows: Columns of the documents table, with `doc_id`; `text` and `text_hash`
                are replaced where they are there, other columns stay.

        Returns:
            The same rows in the same order. `text` is the final one; `text_hash`
            changes whenever it does, so keys made of it stay true (of a text that
            was cut it is a hash of what it was and of what was cut).

        Cost: nothing where nothing is cut; else 10 us for each document that is.
        """
        spans = self.spans(rows["doc_id"])
        if not spans:
            return rows
        at = np.fromiter(spans, np.int64)
        mask = np.zeros(len(rows), np.bool_)
        mask[at] = True
        for name, change in (("text", _texts), ("text_hash", _text_hashes)):
            if name in rows.schema.names:
                column = rows[name].combine_chunks()
                new = change(column.take(pa.array(at)), spans.values())
                column = pc.replace_with_mask(column, pa.array(mask), new)
                where = rows.schema.get_field_index(name)
                rows = rows.set_column(where, rows.schema.field(where), column)
        return rows

    def spans(self, doc_id: pa.Array | pa.ChunkedArray) -> dict[int, _Spans]:
        """By place among these documents, ascending, the bytes that are cut out of those cut."""
        if not len(self._hashes) or not len(doc_id):
            return {}
        ids = doc_id.combine_chunks() if isinstance(doc_id, pa.ChunkedArray) else doc_id
        wanted = _hashes(ids)
        low = np.searchsorted(self._hashes, wanted, side="left")
        count = np.searchsorted(self._hashes, wanted, side="right") - low
        if not count.any():
            return {}
        # Every row of every document that was asked for.
        ends = np.cumsum(count)
        rows = np.arange(ends[-1]) + np.repeat(low - (ends - count), count)
        found = take_rows(self._dataset, np.unique(self._row_ids[rows]), ["doc_id", "spans"])
        cut: dict[str, _Spans] = {}
        for name, spans in zip(
            found["doc_id"].to_pylist(), found["spans"].to_pylist(), strict=True
        ):
            if spans:  # null: too little was left, and the document went
                cut.setdefault(name, []).extend((span["start"], span["end"]) for span in spans)
        places = np.flatnonzero(count)
        names = ids.take(pa.array(places)).to_pylist()
        return {
            place: _union(cut[name])
            for place, name in zip(places.tolist(), names, strict=True)
            if name in cut
        }


def without(data: bytes | memoryview, spans: _Spans) -> bytes:
    """A text's bytes without these, which are in order and apart."""
    whole = memoryview(data)
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(whole)]
    return b"".join(whole[start:end] for start, end in zip(starts, ends, strict=True))


def _union(spans: _Spans) -> _Spans:
    """The bytes that are in any of the spans, as spans in order and apart."""
    merged: _Spans = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _texts(text: pa.Array, spans: Iterable[_Spans]) -> pa.Array:
    parts = [without(whole.as_buffer(), cut) for whole, cut in zip(text, spans, strict=True)]
    return pa.array(parts, pa.large_binary()).cast(text.type)


def _text_hashes(text_hash: pa.Array, spans: Iterable[_Spans]) -> pa.Array:
    parts = [
        content_hash(whole.as_py() + np.array(cut, "<i8").tobytes())
        for whole, cut in zip(text_hash, spans, strict=True)
    ]
    return pa.array(parts, text_hash.type)


def _hashes(doc_id: pa.Array) -> _U64:
    """The first 8 bytes of each id's hash, (num_rows,)."""
    if not len(doc_id):
        return np.empty(0, np.uint64)
    data = np.frombuffer(hash_column(doc_id.cast(pa.large_string())).buffers()[1], np.uint64)
    return np.ascontiguousarray(data[::2])
