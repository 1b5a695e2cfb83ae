"""Read a folder of MDS shards, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from penstock.errors import ShardError
from penstock.loader.cache import Fetched
from penstock.loader.formats.checks import Expected
from penstock.loader.formats.compression import checked_compression, decompress
from penstock.loader.formats.mds import (
    Columns,
    columns_from,
    kind_of,
    read_offsets,
    read_table,
    read_values,
)
from penstock.loader.formats.units import Kind, Unit
from penstock.loader.formats.values import U8, Values, mapped
from penstock.loader.places import Place

INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Detail:
    """How a shard's file becomes its bytes, and what they hold."""

    columns: Columns
    compression: str | None
    raw: Expected


@dataclass(frozen=True, slots=True)
class OpenedMds:
    """A shard's bytes; `fetched` keeps the file at hand."""

    shard: U8
    columns: Columns
    fetched: Fetched | None
    memory_bytes: int

    def values(self, column: str) -> Values:
        """A column's values as they lie in the shard."""
        return read_values(self.shard, self.columns, column)

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Columns as Arrow has them."""
        return read_table(self.shard, self.columns, columns)


@dataclass(frozen=True, slots=True)
class MdsReader:
    """A folder with an `index.json` of MDS version 2."""

    place: Place

    def units(self) -> list[Unit]:
        """One a shard, in the order of the index."""
        data = self.place.read(INDEX)
        if data is None:
            raise ShardError(INDEX, 0, f"expected the index of {self.place.url}, but it is missing")
        try:
            return [unit_of(entry) for entry in json.loads(data)["shards"]]
        except (ValueError, KeyError, TypeError) as err:
            raise ShardError(INDEX, 0, f"the index is damaged ({err!r})") from err

    def columns(self, unit: Unit) -> dict[str, Kind]:
        """What each column of a shard holds."""
        columns: Columns = unit.detail.columns
        pairs = zip(columns.names, columns.encodings, strict=True)
        return {name: kind_of(encoding) for name, encoding in pairs}

    def open(self, unit: Unit) -> OpenedMds:
        """Map the shard, or decompress it."""
        detail: Detail = unit.detail
        try:
            fetched: Fetched | None = self.place.fetch(unit.file)
        except ShardError:
            # Streaming leaves the decompressed files beside, or in place of, what it fetched.
            if detail.compression is None or not self._has_raw(detail):
                raise
            fetched = self.place.fetch(detail.raw)
            detail = Detail(detail.columns, None, detail.raw)
        assert fetched is not None
        shard, memory = mapped(fetched.path), 0
        try:
            if detail.compression is not None:
                raw = decompress(detail.compression, shard.tobytes(), detail.raw.num_bytes or 0)
                shard, memory, fetched = _array(raw), len(raw), None
            num_rows = len(read_offsets(shard)) - 1
        except ValueError as err:
            raise ShardError(unit.file.name, 0, str(err)) from err
        if num_rows != unit.num_rows:
            problem = f"expected {unit.num_rows} rows, found {num_rows}"
            raise ShardError(unit.file.name, 0, problem)
        return OpenedMds(shard, detail.columns, fetched, memory)

    def _has_raw(self, detail: Detail) -> bool:
        try:
            self.place.check(detail.raw)
        except ShardError:
            return False
        return True


def unit_of(entry: dict[str, Any], dead: tuple[int, ...] = ()) -> Unit:
    """The unit that an entry of `index.json` describes.

    Raises:
        ValueError, KeyError, TypeError: It is not as MDS has it.
    """
    columns, compression = columns_from(entry), entry["compression"]
    raw = _expected(entry["raw_data"])
    checked_compression(compression)
    file = raw if entry["zip_data"] is None else _expected(entry["zip_data"])
    detail = Detail(columns, compression if entry["zip_data"] else None, raw)
    return Unit(file, int(entry["samples"]), dead=dead, detail=detail)


def _expected(file: dict[str, Any]) -> Expected:
    return Expected(str(file["basename"]), int(file["bytes"]), dict(file["hashes"]))


def _array(data: bytes) -> U8:
    import numpy as np

    return np.frombuffer(data, np.uint8)
