"""Which columns of a table hold the id, the title, the text and the metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConfigError
from penstock.records import RAW
from penstock.sources._metadata import json_objects


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns.

    Attributes:
        id: Column of the `doc_id`; None names rows by item and number.
        title: Column of a title that goes before the text; None if there is none.
        text: Column of the text.
        metadata: Columns kept as metadata; None keeps all others.
    """

    id: str | None
    title: str | None
    text: str
    metadata: tuple[str, ...] | None


def checked_columns(
    source: str,
    id: str | None,  # noqa: A002 - the name that the user writes
    title: str | None,
    text: str,
    metadata: Sequence[str] | None,
) -> Columns:
    """Columns with one metadata name taken as a list of one.

    Raises:
        ConfigError: A name is not a non-empty string, or id and text are the same.
    """
    names = (metadata,) if isinstance(metadata, str) else metadata
    names = None if names is None else tuple(names)
    for setting, name in (("id", id), ("title", title), ("text", text)):
        optional = setting != "text" and name is None
        if not optional and (not isinstance(name, str) or not name):
            raise ConfigError(f"{source}.{setting}", name, "must be the name of a column")
    if any(not isinstance(name, str) or not name for name in names or ()):
        raise ConfigError(f"{source}.metadata", metadata, "must be names of columns, or None")
    if text in (id, title):
        raise ConfigError(f"{source}.text", text, "must be another column than id and title")
    return Columns(id, title, text, names)


def checked_media_type(source: str, media_type: str) -> str:
    """The media type.

    Raises:
        ConfigError: It is not of the form `text/plain`.
    """
    if not isinstance(media_type, str) or media_type.count("/") != 1:
        raise ConfigError(f"{source}.media_type", media_type, "must be such as 'text/markdown'")
    return media_type


def raw_rows(
    item: str, media_type: str, doc_id: pa.Array, raw: pa.Array, metadata: pa.Array
) -> pa.RecordBatch:
    """A batch of `RAW` whose rows come from one item."""
    size = len(doc_id)
    columns = [
        doc_id,
        pa.repeat(pa.scalar(item), size),
        raw.cast(pa.large_binary()),
        pa.repeat(pa.scalar(media_type), size),
        metadata,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RAW)


def titled(title: pa.Array | None, text: pa.Array) -> pa.Array:
    """The title, an empty line and the text; only the text where the title is empty.

    Cost: no copy where there are no titles at all.
    """
    if title is None or title.null_count == len(title):
        return text
    title = pc.fill_null(title.cast(text.type), pa.scalar("", text.type))
    is_empty = pc.equal(pc.binary_length(title), 0)
    if pc.all(is_empty).as_py():
        return text
    nothing, line = pa.scalar("", text.type), pa.scalar("\n\n", text.type)
    before = pc.binary_join_element_wise(title, pc.if_else(is_empty, nothing, line), nothing)
    return pc.binary_join_element_wise(before, text, nothing)


def numbered(item: str, first: int, num_rows: int) -> pa.Array:
    """`item:number` for each row, numbers from `first` on; (num_rows,) string."""
    numbers = pa.array(np.arange(first, first + num_rows)).cast(pa.string())
    return pc.binary_join_element_wise(pa.scalar(item + ":"), numbers, pa.scalar(""))


def metadata_rows(columns: Columns, table: pa.RecordBatch | pa.Table) -> pa.Array:
    """Metadata of each row of a table that holds the columns; (num_rows,) string."""
    names = table.schema.names
    if columns.metadata is not None:
        chosen = {name: name for name in columns.metadata if name in names}
    else:
        special = (columns.id, columns.title, columns.text)
        chosen = {name: name for name in names if name not in special}
        if columns.title is not None and columns.title in names:
            chosen["title"] = columns.title
    found = {key: _flat(table[name]) for key, name in chosen.items()}
    # A null is as if the column were absent; a title that no row has is a column of them.
    used = {key: column for key, column in found.items() if column.null_count < len(column)}
    return json_objects(used, table.num_rows)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
