"""Parquet: a document a row, streamed by row group."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.records import RAW, Failure, Listing, Read
from penstock.sources._columns import (
    Columns,
    checked_columns,
    checked_media_type,
    metadata_rows,
    raw_rows,
    titled,
)
from penstock.sources._place import Place, checked_path, list_items, locate
from penstock.sources._trouble import Trouble, from_os_error

_TASK_BYTES = 4 << 20
_TASK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class RowsTask:
    """Rows of a file, to be made documents.

    Attributes:
        item: The file.
        rows: The columns in use; None if there are none.
        first_row: Number of the first row in the file, from 1.
        failures: What went wrong before.
        finished: The file and its version, once its last row is here.
    """

    item: str
    rows: pa.RecordBatch | None
    first_row: int
    failures: tuple[Failure, ...] = ()
    finished: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parquet:
    """Parquet files; made by `parquet`, which says what the settings mean."""

    path: str
    id: str | None = "id"
    title: str | None = None
    text: str = "text"
    metadata: tuple[str, ...] | None = None
    media_type: str = "text/plain"

    def __post_init__(self) -> None:
        checked_path("parquet.path", self.path)
        checked_columns("parquet", self.id, self.title, self.text, self.metadata)
        checked_media_type("parquet", self.media_type)

    def list(self) -> Listing:
        """Every file.

        Raises:
            SourceError: The path does not exist, or the glob matches nothing.
        """
        return list_items(self.path, endings=(".parquet", ".pq"))

    def tasks(self, items: Sequence[str]) -> Iterator[RowsTask]:
        """Batches of about 4 MB; memory for one row group's compressed columns."""
        place = locate(self.path).place
        for item, (_, version) in zip(items, place.stat_items(items), strict=True):
            yield from _file_tasks(place, item, version, self._columns)

    def read(self, task: RowsTask) -> Read:
        """The rows' documents; a row without id or text becomes a failure."""
        if task.rows is None:
            return Read(pa.RecordBatch.from_pylist([], schema=RAW), task.failures, task.finished)
        rows, failures = _documents(task, task.rows, self._columns, self.media_type)
        return Read(rows, failures + task.failures, task.finished)

    @property
    def _columns(self) -> Columns:
        return Columns(self.id, self.title, self.text, self.metadata)


def parquet(
    path: str | os.PathLike[str],
    *,
    id: str | None = "id",  # noqa: A002 - the column's usual name
    title: str | None = None,
    text: str = "text",
    metadata: Sequence[str] | None = None,
    media_type: str = "text/plain",
) -> Parquet:
    """A document for each row of Parquet files.

    Args:
        path: A file, a folder (all `.parquet` and `.pq` below it), a glob or a URL.
        id: Column of the `doc_id`, of any type that can be written as text; None
            names a row by its file and number (`a.parquet:12`).
        title: Column of a title to go before the text, with an empty line between.
        text: Column of the text: strings, or the bytes of a text in any encoding.
        metadata: Columns to keep as metadata; None keeps all others and the
            title, under `title`. Lists and structs become JSON, dates and times
            ISO 8601; a null is as if the column were absent, and so are bytes,
            which no `where` could compare.
        media_type: Media type of every document.

    Raises:
        ConfigError: A setting is not of the form above.
    """
    columns = checked_columns("parquet", id, title, text, metadata)
    return Parquet(
        path=checked_path("parquet.path", path),
        id=id,
        title=title,
        text=text,
        metadata=columns.metadata,
        media_type=media_type,
    )


def _file_tasks(place: Place, item: str, known: str, columns: Columns) -> Iterator[RowsTask]:
    try:
        file, version = place.open(item, known)
    except Trouble as trouble:
        done = () if trouble.version is None else ((item, trouble.version),)
        yield RowsTask(item, None, 1, (trouble.failure(item),), done)
        return
    finished = ((item, version),)
    first_row = 1
    failures: tuple[Failure, ...] = ()
    with file:
        try:
            for rows in _batches(file, columns):
                yield RowsTask(item, rows, first_row)
                first_row += rows.num_rows
        except Trouble as trouble:
            failures = (trouble.failure(item),)
        except OSError as err:
            # Arrow's own complaints about a file's content have no errno.
            known_error = from_os_error(err) if err.errno else _malformed(err, first_row)
            failures = (known_error.failure(item),)
        except (pa.ArrowException, ValueError, OverflowError) as err:
            failures = (_malformed(err, first_row).failure(item),)
        except Exception as err:  # every file system behind a URL has errors of its own
            unreadable = from_os_error(OSError(f"{type(err).__name__}: {err}"))
            failures = (unreadable.failure(item),)
    yield RowsTask(item, None, first_row, failures, finished)


def _batches(file: Any, columns: Columns) -> Iterator[pa.RecordBatch]:
    """The columns in use, in batches of bounded size; raises `Trouble`."""
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(file)
    names = _used(table.schema_arrow, columns)
    for group in range(table.num_row_groups):
        about = table.metadata.row_group(group)
        if not about.num_rows:
            continue
        row_bytes = max(1, about.total_byte_size // about.num_rows)
        size = max(1, min(_TASK_ROWS, _TASK_BYTES // row_bytes))
        yield from table.iter_batches(
            batch_size=size, row_groups=[group], columns=names, use_threads=False
        )


def _used(schema: pa.Schema, columns: Columns) -> list[str]:
    """Names of the columns to read."""
    needed = [name for name in (columns.id, columns.title, columns.text) if name is not None]
    wanted = [*needed, *(columns.metadata or ())]
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        raise Trouble(
            "missing-column",
            f"expected the columns {_listed(missing)}, found {_listed(schema.names)}",
            "Name the columns that the file has with id=, title=, text= and metadata=.",
        )
    twice = [name for name in wanted if schema.names.count(name) > 1]
    if twice:
        raise Trouble(
            "malformed-parquet",
            f"expected each column once, found {_listed(twice)} more than once",
            "Write the file again with a name of its own for each column.",
        )
    for name in (columns.title, columns.text):
        if name is not None and not _is_text(schema.field(name).type):
            raise Trouble(
                "missing-column",
                f"expected strings in column {name!r}, found {schema.field(name).type}",
                "Name the column of the text with text= (of the title with title=).",
            )
    if columns.metadata is not None:
        return list(dict.fromkeys(wanted))
    return [
        name
        for name in schema.names
        if name in needed or not _is_bytes(schema.field(name).type)
        if schema.names.count(name) == 1
    ]


def _documents(
    task: RowsTask, rows: pa.RecordBatch, columns: Columns, media_type: str
) -> tuple[pa.RecordBatch, tuple[Failure, ...]]:
    numbers = pa.array(np.arange(task.first_row, task.first_row + rows.num_rows))
    text = _as_bytes(rows[columns.text])
    if columns.id is None:
        prefix = pa.scalar(task.item + ":")
        doc_id = pc.binary_join_element_wise(prefix, numbers.cast(pa.string()), pa.scalar(""))
    else:
        doc_id = _as_id(rows[columns.id])
    no_id = pc.fill_null(pc.equal(pc.binary_length(doc_id), 0), True)
    no_text = text.is_null()
    bad = pc.or_(no_id, no_text)
    failures: tuple[Failure, ...] = ()
    if pc.any(bad).as_py():
        failures = tuple(
            _row_failure(task.item, number, columns, missing_id)
            for number, missing_id in zip(
                numbers.filter(bad).to_pylist(), no_id.filter(bad).to_pylist(), strict=True
            )
        )
        good = pc.invert(bad)
        rows, doc_id, text = rows.filter(good), doc_id.filter(good), text.filter(good)
    title = None if columns.title is None else _as_bytes(rows[columns.title])
    batch = raw_rows(
        task.item, media_type, doc_id, titled(title, text), metadata_rows(columns, rows)
    )
    return batch, failures


def _as_id(column: pa.Array) -> pa.Array:
    """Ids as strings; null where there is none or it is no text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if _is_bytes(kind):  # a UUID or a hash
            return pa.array([v if v is None else v.hex() for v in column.to_pylist()], pa.string())
        values = column.to_pylist()
        return pa.array([v if v is None else str(v) for v in values], pa.string())


def _as_bytes(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.large_binary())


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or _is_bytes(kind)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _row_failure(item: str, number: int, columns: Columns, missing_id: bool) -> Failure:
    name = f"{item}:{number}"
    if missing_id:
        trouble = Trouble(
            "missing-id",
            f"expected an id in column {columns.id!r}, found null or an empty string",
            "Add the id, name its column with id=, or number the rows with id=None.",
        )
    else:
        trouble = Trouble(
            "missing-text",
            f"expected a text in column {columns.text!r}, found null",
            "Add the text, remove the row, or name the text's column with text=.",
        )
    return trouble.failure(item, doc_id=name)


def _malformed(err: Exception, first_row: int) -> Trouble:
    return Trouble(
        "malformed-parquet",
        f"expected a whole Parquet file: {err}; the rows before row {first_row} were kept",
        "Fetch or write the file again.",
    )


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:20]] + (["..."] if len(names) > 20 else [])
    return ", ".join(shown) or "(none)"
