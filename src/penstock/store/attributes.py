"""The typed columns of one table at one run: which rows satisfy a condition, and counts of values.

A table's rows are numbered here by ascending row id. Columns are read when
first asked for and kept small: text as numbers of its distinct values, what
belongs to a document once per document.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import QueryError, StoreError
from penstock.index.facets import count_values
from penstock.index.metadata import metadata_columns
from penstock.index.where import BOOL, Column, Places, Where, unknown_column
from penstock.store.tables import take_rows

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_INTERNAL = frozenset(
    {"source_metadata", "has_blob", "fingerprint", "cut_key", "edit_key", "embedded_by"}
)

# Every chunk repeats these of its document.
_OF_DOCUMENTS = frozenset({"title", "media_type", "metadata"})
# Large, or of another value in each row: read anew each time, in pieces.
_STREAMED = frozenset({"text", "chunk_id"})

_KEPT_MASKS = 64
_KEPT_MASK_BYTES = 64 << 20
_BATCH_ROWS = 16_384
# Left to itself, a scan reads up to 2 GB ahead of a slow consumer.
_LITTLE_AHEAD = {"batch_readahead": 2, "fragment_readahead": 1, "io_buffer_size": 32 << 20}


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows by ascending id; `order` says which row of a scan each is, None if the same."""

    ids: U64
    order: Places | None


@dataclass(frozen=True, slots=True)
class _Documents:
    """`ids` of the documents; document `owners[row]` has the row, `first[document]` is one row."""

    ids: pa.Array
    owners: Places | None
    first: Places | None


def is_internal(column: str) -> bool:
    """Whether a column says how a row was computed, and by what: of use to the next run only."""
    return column in _INTERNAL or column.startswith("signature_")


class Attributes:
    """What a table's rows are selected and counted by: its columns and its metadata's fields.

    Safe to use from many threads.

    Args:
        dataset: A `lance.LanceDataset` at one version, with stable row ids.
        max_bytes: Most memory that columns are kept in; what exceeds it is read again.
    """

    def __init__(self, dataset: Any, *, max_bytes: int = 256 << 20) -> None:
        self._dataset = dataset
        self._max_bytes = max_bytes
        self._columns: OrderedDict[str, tuple[Column, int]] = OrderedDict()
        self._masks: OrderedDict[str, BOOL] = OrderedDict()
        self._fields: dict[str, pa.DataType] | None = None
        self._lock = threading.RLock()

    @property
    def row_ids(self) -> U64:
        """(num_rows,) the rows' stable ids, ascending; not to be written to."""
        return self._rows.ids

    def columns(self) -> dict[str, pa.DataType]:
        """Names and types of the columns, the table's first, then the metadata's fields."""
        own = {f.name: f.type for f in self._dataset.schema if not is_internal(f.name)}
        return own | {name: kind for name, kind in self._metadata().items() if name not in own}

    def mask(self, where: str) -> BOOL:
        """Which rows satisfy a SQL condition; see `Where` for what it may say.

        A name is a column of the table, else a field of the metadata;
        `metadata.x` is the field `x` even if the table has a column `x`.

        Returns:
            (num_rows,) bool, aligned with `row_ids`; not to be written to.

        Raises:
            QueryError: The condition cannot be understood, names an unknown
                column, or compares one with a value of another kind.

        Cost: 1 ms for 200k rows once its columns are in memory; the last
            conditions asked are remembered. A condition on `text` reads it all.
        """
        with self._lock:
            if where in self._masks:
                self._masks.move_to_end(where)
                return self._masks[where]
        mask = Where.parse(where).mask(len(self.row_ids), self._column)
        mask.setflags(write=False)
        kept = min(_KEPT_MASKS, max(1, _KEPT_MASK_BYTES // max(len(mask), 1)))
        with self._lock:
            self._masks[where] = mask
            while len(self._masks) > kept:
                self._masks.popitem(last=False)
        return mask

    def facet(
        self, column: str, rows: BOOL | U64 | None = None, limit: int | None = None
    ) -> list[tuple[Any, int]]:
        """How many rows have each value of a column, most frequent first, ties by value.

        A list counts once for each of its distinct elements. Rows without a
        value, or with an empty list, come last as None. Values of no row are left out.

        Args:
            column: A name as in a condition.
            rows: A mask aligned with `row_ids`, or ids of rows; None for all.
            limit: Most values wanted.

        Raises:
            QueryError: The column is unknown, or has no values worth counting, such as `text`.
        """
        found = self._column(column)
        if self._is_streamed(column):
            raise QueryError(f"facet {column!r}", "nearly every row has a value of its own here")
        at = None if rows is None else self._places(rows)
        return count_values(found, at, limit)

    def values(self, column: str, row_ids: U64 | None = None) -> pa.Array:
        """A column's values of these rows, or of all, in the order of the ids."""
        places = np.arange(len(self.row_ids)) if row_ids is None else self._places(row_ids)
        return self._column(column).take(places).array()

    def table(self, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """These columns, of the table or its metadata, of the rows that satisfy a condition.

        Raises:
            QueryError: A column is unknown, or the condition cannot be understood.
        """
        own = [name for name in dict.fromkeys(columns) if name in self._dataset.schema.names]
        fields = [name for name in dict.fromkeys(columns) if name not in own]
        if where is None:
            rows = self._dataset.to_table(columns=own, with_row_id=True)
        else:
            rows = take_rows(self._dataset, self.row_ids[self.mask(where)], own)
        places = rows["_rowid"].to_numpy()
        for name in fields:
            rows = rows.append_column(name, self.values(name, places))
        return rows.select(list(columns))

    def document_codes(self, row_ids: U64) -> I64:
        """(num_ids,) a number for the document of each row, the same for rows of one document."""
        at = self._places(row_ids)
        owners = self._documents.owners
        return (at if owners is None else owners[at]).astype(np.int64)

    def doc_ids(self, row_ids: U64) -> list[str]:
        """The document of each row."""
        names: list[str] = self._documents.ids.take(
            pa.array(self.document_codes(row_ids))
        ).to_pylist()
        return names

    # Rows

    @cached_property
    def _rows(self) -> _Rows:
        scanned = self._dataset.to_table(columns=[], with_row_id=True)["_rowid"].to_numpy()
        if len(scanned) < 2 or (scanned[1:] > scanned[:-1]).all():
            return _Rows(scanned, None)
        order = np.argsort(scanned)
        return _Rows(scanned[order], order.astype(np.int32))

    def _places(self, rows: BOOL | U64) -> I64:
        """Where these rows stand among all."""
        ids = self.row_ids
        if rows.dtype == np.bool_:
            return np.flatnonzero(rows)
        at = np.searchsorted(ids, rows)
        inside = at < len(ids)
        wrong = ~inside if not inside.all() else ids[at] != rows
        if wrong.any():
            raise StoreError(
                self._dataset.uri,
                f"row {rows[wrong][0]} of the index is not in the table, so the two do not belong "
                "together; build the index again: penstock index rebuild STORE",
            )
        return at

    @cached_property
    def _documents(self) -> _Documents:
        with self._lock:
            names = self._read("doc_id")
            # Rows of one document are neighbours, so only each run's first needs hashing.
            runs = pc.run_end_encode(names)
            encoded = runs.values.dictionary_encode()
            if len(encoded.dictionary) == len(names):
                return _Documents(names, None, None)
            ends = runs.run_ends.to_numpy()
            codes = encoded.indices.to_numpy()
            owners = np.repeat(codes, np.diff(ends, prepend=np.int32(0)))
            first = np.empty(len(encoded.dictionary), np.int32)
            first[codes[::-1]] = np.concatenate([[0], ends[:-1]])[::-1]
            return _Documents(encoded.dictionary, owners, first)

    # Columns

    def _column(self, name: str) -> Column:
        with self._lock:
            if name not in self._dataset.schema.names:
                return self._field_column(name)
            return self._kept(name) or self._own_column(name)

    def _kept(self, key: str) -> Column | None:
        if key not in self._columns:
            return None
        self._columns.move_to_end(key)
        return self._columns[key][0]

    def _own_column(self, name: str) -> Column:
        if name == "doc_id":
            return Column.of(self._documents.ids, owners=self._documents.owners)
        if self._is_streamed(name):
            kind = self._dataset.schema.field(name).type
            return Column(kind, lambda: self._stream(name), owners=self._rows.order)
        if name in _OF_DOCUMENTS:
            return self._keep(name, self._read_by_document(name), self._documents.owners)
        return self._keep(name, self._read(name), None)

    def _is_streamed(self, name: str) -> bool:
        schema = self._dataset.schema
        return name in schema.names and (
            name in _STREAMED or not _is_plain(schema.field(name).type)
        )

    def _metadata(self) -> dict[str, pa.DataType]:
        """Names and types of the metadata's fields, but for rare ones among very many."""
        with self._lock:
            if self._fields is None:
                table = self._parse_metadata(None)
                self._fields = {field.name: field.type for field in table.schema}
                for name in sorted(self._fields, key=lambda name: table[name].nbytes):
                    if self._used + table[name].nbytes <= self._max_bytes:
                        self._keep_field(name, table)
            return self._fields

    def _field_column(self, name: str) -> Column:
        known = self._metadata()
        names = list(dict.fromkeys([name, name.removeprefix("metadata.")]))
        names = [field for field in names if field in known][:1] or names
        kept = self._kept(f"metadata.{names[0]}")
        if kept is not None:
            return kept
        table = self._parse_metadata(names)
        if table.num_columns == 0:
            raise unknown_column(name, self.columns())
        return self._keep_field(table.column_names[0], table)

    def _parse_metadata(self, names: list[str] | None) -> pa.Table:
        if "metadata" not in self._dataset.schema.names:
            return pa.table({})
        return metadata_columns(self._read_by_document("metadata"), names)

    def _keep_field(self, name: str, table: pa.Table) -> Column:
        values = table[name].combine_chunks()
        return self._keep(f"metadata.{name}", values, self._documents.owners)

    def _keep(self, key: str, values: pa.Array, owners: Places | None) -> Column:
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            encoded = values.dictionary_encode()
            codes = encoded.indices.fill_null(-1).to_numpy()
            column = Column.of(encoded.dictionary, codes=codes, owners=owners)
            num_bytes = encoded.dictionary.nbytes + codes.nbytes
        else:
            column, num_bytes = Column.of(values, owners=owners), values.nbytes
        self._columns.pop(key, None)
        if num_bytes <= self._max_bytes:
            while self._used + num_bytes > self._max_bytes:
                self._columns.popitem(last=False)
            self._columns[key] = column, num_bytes
        return column

    @property
    def _used(self) -> int:
        return sum(num_bytes for _, num_bytes in self._columns.values())

    # Reading

    def _read(self, name: str) -> pa.Array:
        """A column by row."""
        values = self._dataset.to_table(columns=[name])[name].combine_chunks()
        return values if self._rows.order is None else values.take(pa.array(self._rows.order))

    def _read_by_document(self, name: str) -> pa.Array:
        """A column by document: that of each one's first row."""
        first = self._documents.first
        if first is None:
            return self._read(name)
        return take_rows(self._dataset, self.row_ids[first], [name])[name].combine_chunks()

    def _stream(self, name: str) -> Iterator[pa.Array]:
        """A column in the table's own order, some rows at a time."""
        scanner = self._dataset.scanner(columns=[name], batch_size=_BATCH_ROWS, **_LITTLE_AHEAD)
        for batch in scanner.to_batches():
            yield batch.column(0)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of a type can be compared or counted."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_temporal(kind)
        or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type))
    )
