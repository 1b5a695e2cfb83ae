"""Lance tables, opened by the version that a manifest names, never by "latest".

A manifest that a power cut left empty breaks Lance's "latest" and every append,
while each named version still opens. So a reader names its version, and a
writer first discards the versions after the newest that a manifest names. Where
it is to start from an older one, it makes that the newest again: a copy of the
version's own small file, so that the versions between stay good.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import LeaseError
from penstock.store.merging import merge_options
from penstock.store.objects import ObjectPath
from penstock.store.places import Place, lance_options

# Version n is named by 2**64 - 1 - n, so that the newest sorts first.
_LAST_VERSION = 2**64 - 1

_BATCH_ROWS = 4096

# Left to itself, a scan reads up to 2 GB ahead of a slow consumer.
_LITTLE_AHEAD = {"batch_readahead": 2, "fragment_readahead": 1, "io_buffer_size": 32 << 20}

# What compaction commits: the numbers of new fragments, which Lance names so in Python, and those.
_MERGES = ("BaseOperation", "Rewrite")

# What Lance says where ours does not go on top of another's.
_CONFLICT = re.compile(r"[Ii]ncompatible transaction|[Cc]ommit conflict|concurrent")

_RowIds = npt.NDArray[np.uint64]


def open_table(path: Place, version: int) -> Any:
    """The `lance.LanceDataset` of a table at one version, for reading."""
    import lance

    return lance.dataset(str(path), version=version, storage_options=lance_options(path))


def version_file(version: int) -> str:
    """The file, below a table's folder, that makes one of its versions."""
    return f"_versions/{_LAST_VERSION - version}.manifest"


def files_by_version(path: Place, versions: Collection[int]) -> dict[int, set[str]]:
    """Every file of these versions of a table, as a path below its folder.

    Cost: reads the small file of each version from the oldest of these on.
    """
    if not versions:
        return {}
    files: dict[int, set[str]] = {version: set() for version in versions}
    tracked = open_table(path, max(versions)).tracked_files(min_version=min(versions)).read_all()
    for version, name in zip(
        tracked["version"].to_pylist(), tracked["path"].to_pylist(), strict=True
    ):
        if version in files:
            files[version].add(name)
    return files


class Table:
    """A table that a run writes; each change is a new version, none is published by itself."""

    def __init__(self, path: Place, version: int | None, newest: int = 0) -> None:
        """Open a table for writing.

        Args:
            path: Its folder.
            version: What to start from; None for no rows.
            newest: The newest version that a published run names, which stays good.
        """
        self._path = path
        self._dataset: Any = None
        self._newest = max(newest, version or 0)
        if isinstance(path, Path):
            _discard_after(path, self._newest)
        if version is not None:
            self._dataset = _restored(path, version)

    @property
    def version(self) -> int | None:
        """The version that holds every change so far; None before the first."""
        return None if self._dataset is None else int(self._dataset.version)

    @property
    def schema(self) -> pa.Schema | None:
        """The table's columns; None before it exists."""
        return None if self._dataset is None else self._dataset.schema

    def fitting(self, schema: pa.Schema) -> list[str]:
        """Names of the columns that are there already, of the type wanted."""
        return [field.name for field in self.schema or () if _fits(field, schema)]

    def num_rows(self) -> int:
        """Rows in the table now."""
        return 0 if self._dataset is None else int(self._dataset.count_rows())

    def require(self, schema: pa.Schema, *, keep_rows: bool) -> None:
        """Create the table, or give it exactly these columns.

        Args:
            schema: The columns wanted.
            keep_rows: True adds a missing column as nulls and drops the others,
                touching no data file; False empties the table when columns differ.
        """
        import lance

        have = self.schema
        if have is not None and keep_rows:
            # A nullable twin of a required column cannot be added; our callers
            # only ever change nullable columns when they keep the rows.
            extra = [f.name for f in have if f.name not in schema.names or not _fits(f, schema)]
            if extra:
                with self._one_version():
                    self._dataset.drop_columns(extra)
                    self._dataset.checkout_latest()
            missing = [f for f in schema if f.name not in self._dataset.schema.names]
            if missing:
                with self._one_version():
                    self._dataset.add_columns(pa.schema([f.with_nullable(True) for f in missing]))
                    self._dataset.checkout_latest()
        elif (
            have is None
            or set(have.names) != set(schema.names)
            or any(not _fits(field, schema) for field in have)
        ):
            # On an object store, an earlier writer may have left one that nothing names.
            there = isinstance(self._path, ObjectPath) and self._path.is_dir()
            new = have is None and not self._newest and not there
            with self._one_version():
                self._dataset = lance.write_dataset(
                    schema.empty_table(),
                    str(self._path),
                    mode="create" if new else "overwrite",
                    enable_stable_row_ids=True,
                    data_storage_version="2.1",
                    storage_options=lance_options(self._path),
                )

    def append(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows; one new version and one new fragment."""
        if rows.num_rows:
            import lance

            if isinstance(rows, pa.RecordBatch):
                rows = pa.Table.from_batches([rows])
            columns = self._dataset.schema.names
            with self._one_version():
                self._dataset = lance.write_dataset(
                    rows.select(columns), self._dataset, mode="append"
                )

    def replace(self, rows: pa.Table) -> None:
        """Have these rows, all different, in place of all there are, in any order.

        Cost: reads the table once; writes only what differs.
        """
        before = self.scan(rows.schema.names)
        old, new = _row_keys(before), _row_keys(rows)
        stale = before.filter(pc.invert(pc.is_in(old, value_set=new)))
        self.delete(stale["_rowid"].to_numpy())
        self.append(rows.filter(pc.invert(pc.is_in(new, value_set=old))))
        self.compact()

    def delete(self, row_ids: Iterable[int] | _RowIds) -> None:
        """Remove rows by their stable ids."""
        ids = np.unique(np.fromiter(row_ids, np.uint64))
        # One predicate holds this many ids: 20,000 took 0.15 s, and its size grows with them.
        for start in range(0, len(ids), 50_000):
            with self._one_version():
                some = ",".join(map(str, ids[start : start + 50_000]))
                self._dataset.delete(f"_rowid IN ({some})")

    def scan(self, columns: Iterable[str] = (), where: str | None = None) -> pa.Table:
        """These columns and `_rowid` of every row."""
        return self._dataset.to_table(columns=list(columns), filter=where, with_row_id=True)

    def batches(self, columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        """These columns and `_rowid` of every row in the table's order, some rows at a time."""
        if self._dataset is not None:
            scanner = self._dataset.scanner(
                columns=list(columns), with_row_id=True, batch_size=_BATCH_ROWS, **_LITTLE_AHEAD
            )
            yield from scanner.to_batches()

    def scan_last_append(self, columns: Iterable[str]) -> pa.Table:
        """These columns and `_rowid` of the rows that the last `append` added."""
        newest = max(self._dataset.get_fragments(), key=lambda fragment: fragment.fragment_id)
        return self._dataset.scanner(
            columns=list(columns), fragments=[newest], with_row_id=True
        ).to_table()

    def reader(self) -> Any:
        """A `lance.LanceDataset` of the table as it is now, that later changes do not move.

        None before the table exists.
        """
        return None if self.version is None else open_table(self._path, self.version)

    def take(self, row_ids: _RowIds, columns: Iterable[str]) -> pa.Table:
        """These columns and `_rowid` of the rows named, in the order of the ids."""
        return take_rows(self._dataset, row_ids, columns)

    def compact(self) -> None:
        """Merge small fragments where there are many, and rid others of deleted rows; ids stay.

        Cost: reads and writes what is merged, in bounded memory. A row is merged about
            once for each tier of `merging`, so many small runs cost no more than their rows.
        """
        from lance.optimize import Compaction

        if self._dataset is None:
            return
        merging = merge_options(self._dataset.get_fragments())
        if merging is None:
            return
        before = self._dataset.version
        little = {"batch_size": _BATCH_ROWS, "io_buffer_size": _LITTLE_AHEAD["io_buffer_size"]}
        Compaction.execute(self._dataset, {**merging, **little, "num_threads": 1})
        self._dataset.checkout_latest()
        self._check_merges(before)

    @contextmanager
    def _one_version(self) -> Iterator[None]:
        """Refuse to go on if more than our one version came: Lance puts ours on top of others'."""
        before = self.version
        try:
            yield
        except OSError as err:
            if isinstance(self._path, Path) or not _CONFLICT.search(str(err)):
                raise
            self._refuse(err)
        if before is not None and self._dataset.version > before + 1:
            self._refuse()

    def _check_merges(self, before: int) -> None:
        """Refuse to go on if anything but merges of fragments came after a version."""
        if isinstance(self._path, Path):
            return
        for version in range(before + 1, self._dataset.version + 1):
            kind = type(self._dataset.read_transaction(version).operation).__name__
            if kind not in _MERGES:
                self._refuse()

    def _refuse(self, reason: OSError | None = None) -> None:
        rival = "another writer" if isinstance(self._path, Path) else self._path.bucket.rival()
        raise LeaseError(
            str(self._path),
            f"{rival} wrote to this table while this one did, so this one publishes "
            "nothing. Make sure that only one build runs, then build again",
        ) from reason

    def purge(self) -> None:
        """Write every fragment anew that still holds deleted rows; row ids stay."""
        if self._dataset is not None and any(
            f.num_deletions for f in self._dataset.get_fragments()
        ):
            before = self._dataset.version
            self._dataset.optimize.compact_files(
                target_rows_per_fragment=1 << 20, materialize_deletions_threshold=0.0
            )
            self._dataset.checkout_latest()
            self._check_merges(before)


def named_versions(tables: Mapping[str, Table]) -> dict[str, int]:
    """What a manifest says of the tables that exist."""
    versions = {name: table.version for name, table in tables.items()}
    return {name: version for name, version in versions.items() if version is not None}


def take_rows(dataset: Any, row_ids: _RowIds, columns: Iterable[str]) -> pa.Table:
    """These columns and `_rowid` of the rows named by stable ids, in the order of the ids."""
    names = list(columns)
    if not len(row_ids):
        return dataset.scanner(columns=names, with_row_id=True, limit=0).to_table()
    rows = dataset._take_rows(row_ids.tolist(), columns=[*names, "_rowid"])
    found = rows["_rowid"].to_numpy()
    if np.array_equal(found, row_ids):
        return rows
    order = np.argsort(found, kind="stable")
    return rows.take(pa.array(order[np.searchsorted(found, row_ids, sorter=order)]))


def _row_keys(rows: pa.Table) -> pa.Array:
    names = [name for name in sorted(rows.schema.names) if name != "_rowid"]
    texts = [pc.fill_null(rows[name].cast(pa.string()), "\1") for name in names]
    return pc.binary_join_element_wise(*texts, "\0").combine_chunks()


def _restored(path: Place, version: int) -> Any:
    """The table as it was at a version, which becomes the newest one.

    Nothing is deleted: a writer that has lost its lease may still be at work, and
    what it takes for unpublished may be published by now.
    """
    dataset = open_table(path, version)
    if dataset.latest_version != version:
        dataset.restore()
    return dataset


def _fits(field: pa.Field, schema: pa.Schema) -> bool:
    return bool(field.name in schema.names and schema.field(field.name).type == field.type)


def _discard_after(path: Path, version: int) -> None:
    """Remove the versions after this one: an earlier writer left them unpublished.

    Their data files are left: they are garbage that nothing names.
    """
    folder = path / "_versions"
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        stem, _, kind = entry.name.partition(".")
        if kind == "json" or not stem.isdigit() or _LAST_VERSION - int(stem) > version:
            os.unlink(entry.path)  # the hint names a version that may be gone
