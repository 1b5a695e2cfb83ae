"""Parquet: row groups small enough to stream, one of them a unit of reading.

A file's size and hash are checked when its first row group is opened. Numbers
are stored plain: token ids hardly repeat, so a dictionary of them costs time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import ShardError
from penstock.loader.cache import Fetched
from penstock.loader.formats.checks import Expected
from penstock.loader.formats.units import Kind, Unit
from penstock.loader.formats.values import I64, U8, Values, column_values, one_chunk
from penstock.loader.places import Place

GROUP_BYTES = 4 << 20
"""Bytes of a row group before compression, at most, unless one row has more."""


def row_bytes(rows: pa.Table) -> I64:
    """Bytes of each row before compression; (num_rows,) int64."""
    total = np.full(rows.num_rows, 4 * rows.num_columns, np.int64)
    for column in rows.columns:
        total += column_values(one_chunk(column)).sizes
    return total


def encode(rows: pa.Table) -> tuple[U8, tuple[int, ...]]:
    """A file of these rows, and the number of rows of each of its row groups."""
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    text = [f.name for f in rows.schema if not pa.types.is_nested(f.type)]
    groups = tuple(_groups(row_bytes(rows)))
    with pq.ParquetWriter(
        sink, rows.schema, compression="zstd", use_dictionary=text, write_page_checksum=True
    ) as writer:
        first = 0
        for num_rows in groups:
            writer.write_table(rows.slice(first, num_rows), row_group_size=num_rows)
            first += num_rows
    return np.frombuffer(sink.getvalue(), np.uint8), groups


@dataclass(frozen=True, slots=True)
class OpenedParquet:
    """One row group; columns are decoded when asked for."""

    file: Any
    group: int
    fetched: Fetched
    memory_bytes: int

    def values(self, column: str) -> Values:
        """A column's values, decoded."""
        return column_values(one_chunk(self.table([column])[column]))

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Columns as Arrow has them."""
        try:
            return self.file.read_row_group(self.group, columns=list(columns), use_threads=False)
        except (pa.ArrowException, OSError) as err:
            raise ValueError(f"row group {self.group} cannot be read ({err})") from err


@dataclass(frozen=True, slots=True)
class ParquetReader:
    """A folder of Parquet files of one schema."""

    place: Place

    def units(self) -> list[Unit]:
        """One a row group; files in the order of their names."""
        units = []
        for name, size in self.place.names().items():
            parts = name.split("/")
            if name.endswith(".parquet") and not any(part.startswith(("_", ".")) for part in parts):
                units += units_of(Expected(name, size), self._group_rows(name))
        return units

    def _group_rows(self, name: str) -> list[int]:
        """Rows of each row group; of a remote file its footer alone is fetched."""
        import pyarrow.parquet as pq

        with self.place.open(name) as opened:
            try:
                facts = pq.ParquetFile(opened).metadata
            except (pa.ArrowException, OSError) as err:
                raise ShardError(name, 0, f"is no Parquet file ({err})") from err
        return [facts.row_group(i).num_rows for i in range(facts.num_row_groups)]

    def columns(self, unit: Unit) -> dict[str, Kind]:
        """What each column holds."""
        file, _ = self._file(unit.file)
        return {field.name: kind_of(field.type) for field in file.schema_arrow}

    def open(self, unit: Unit) -> OpenedParquet:
        """Bring a row group's file at hand."""
        file, fetched = self._file(unit.file)
        group = int(unit.detail)
        found = file.metadata.num_row_groups
        num_rows = file.metadata.row_group(group).num_rows if group < found else 0
        if num_rows != unit.num_rows:
            problem = f"expected {unit.num_rows} rows in row group {group}, found {num_rows}"
            raise ShardError(unit.file.name, 0, problem)
        return OpenedParquet(file, group, fetched, file.metadata.row_group(group).total_byte_size)

    def _file(self, expected: Expected) -> tuple[Any, Fetched]:
        import pyarrow.parquet as pq

        fetched = self.place.fetch(expected)
        try:
            file = pq.ParquetFile(fetched.path, memory_map=True, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as err:
            raise ShardError(expected.name, 0, f"is no Parquet file ({err})") from err
        return file, fetched


def units_of(file: Expected, groups: Sequence[int], dead: Sequence[int] = ()) -> list[Unit]:
    """A unit for each row group of a file."""
    units, first = [], 0
    for number, num_rows in enumerate(groups):
        gone = tuple(row - first for row in dead if first <= row < first + num_rows)
        units.append(Unit(file, num_rows, first, gone, number))
        first += num_rows
    return units


def kind_of(kind: pa.DataType) -> Kind:
    """What an Arrow column of this type holds."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        number = kind.value_type
        return "numbers" if pa.types.is_integer(number) else "other"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "bytes" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else "other"


def _groups(sizes: I64) -> list[int]:
    """Rows of each group: as many as fit."""
    ends = np.cumsum(sizes)
    groups, first = [], 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + GROUP_BYTES, side="right")))
        groups.append(last - first)
        first = last
    return groups
