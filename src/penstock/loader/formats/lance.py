"""Lance: each data file of a data set is a unit, read by itself.

A file is fetched, checked and read like any other shard; which of its rows count
comes from the export's manifest. Of data sets of others, a unit is a fragment,
read through the data set, as its rows may be spread over files and partly deleted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.errors import ShardError
from penstock.loader.cache import Fetched
from penstock.loader.formats.checks import Expected
from penstock.loader.formats.parquet import kind_of
from penstock.loader.formats.units import Kind, Unit
from penstock.loader.formats.values import Values, column_values, one_chunk
from penstock.loader.places import Place

_STORAGE = "2.1"


def encode(rows: pa.Table, name: str) -> tuple[bytes, dict[str, Any]]:
    """A data file of these rows, and what Lance has to know of it under this name."""
    import lance
    from lance.fragment import write_fragments

    with tempfile.TemporaryDirectory() as folder:
        # Into a data set that is there: into none, Lance warns that it makes one.
        scratch = lance.write_dataset(
            rows.schema.empty_table(), folder, data_storage_version=_STORAGE
        )
        fragments = write_fragments(
            rows, scratch, max_rows_per_file=rows.num_rows, data_storage_version=_STORAGE
        )
        facts: dict[str, Any] = fragments[0].to_json()
        data = Path(folder, "data", facts["files"][0]["path"]).read_bytes()
    facts["files"][0]["path"] = Path(name).name
    return data, facts


@dataclass(frozen=True, slots=True)
class OpenedLance:
    """A unit's rows, read when asked for."""

    source: Any
    fetched: Fetched | None
    memory_bytes: int

    def values(self, column: str) -> Values:
        """A column's values, decoded."""
        return column_values(one_chunk(self.table([column])[column]))

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Columns as Arrow has them."""
        try:
            if self.fetched is None:
                return self.source.to_table(columns=list(columns))
            reader = _file_reader(self.fetched.path, list(columns))
            return reader.read_all().to_table().select(list(columns))
        except Exception as err:  # Lance raises many kinds of errors
            raise ValueError(f"the Lance file cannot be read ({err})") from err


@dataclass(frozen=True, slots=True)
class LanceReader:
    """A Lance data set: an export's, by its files, or another's, by its fragments."""

    place: Place

    def units(self) -> list[Unit]:
        """One a fragment of the newest version."""
        units = []
        dataset = self._dataset(None)
        for fragment in dataset.get_fragments():
            name = f"data/{fragment.data_files()[0].path}"
            detail = (dataset.version, fragment.fragment_id)
            units.append(Unit(Expected(name), fragment.count_rows(), detail=detail))
        return units

    def columns(self, unit: Unit) -> dict[str, Kind]:
        """What each column holds."""
        source = self.open(unit).source
        schema = self.schema(unit.file) if source is None else source.schema
        return {field.name: kind_of(field.type) for field in schema}

    def schema(self, file: Expected) -> pa.Schema:
        """The columns of a file of an export."""
        return _file_reader(self.place.fetch(file).path, None).metadata().schema

    def open(self, unit: Unit) -> OpenedLance:
        """Bring a unit at hand."""
        if unit.detail is not None:
            version, number = unit.detail
            fragment = self._dataset(version).get_fragment(number)
            return OpenedLance(
                fragment, None, sum(f.file_size_bytes or 0 for f in _files(fragment))
            )
        fetched = self.place.fetch(unit.file)
        try:
            num_rows = _file_reader(fetched.path, None).num_rows()
        except Exception as err:
            raise ShardError(unit.file.name, 0, f"is no Lance file ({err})") from err
        if num_rows != unit.num_rows:
            problem = f"expected {unit.num_rows} rows, found {num_rows}"
            raise ShardError(unit.file.name, 0, problem)
        return OpenedLance(None, fetched, unit.file.num_bytes or 0)

    def _dataset(self, version: int | None) -> Any:
        import lance

        try:
            return lance.dataset(self.place.url, version=version)
        except Exception as err:
            raise ShardError("_versions", 0, f"the data set cannot be opened ({err})") from err


def _files(fragment: Any) -> list[Any]:
    return list(fragment.data_files())


def _file_reader(path: Path, columns: list[str] | None) -> Any:
    from lance.file import LanceFileReader

    return LanceFileReader(str(path), columns=columns)
