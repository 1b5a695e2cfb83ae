"""Turn documents' metadata, one JSON object a row, into typed columns for a `where`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_MAX_AT_ONCE = 1 << 30  # offsets of Arrow's reader have 32 bits
_INT64 = range(-(2**63), 2**63)

# Fields times documents. Where every document has keys of its own, as in {"user 17": 3}, their
# product grows as the square: 2,000 documents with ten such keys took 16 s and 0.7 GB.
_MAX_CELLS = 20_000_000
_FEWEST_FIELDS = 100
_SAMPLE = 512
_MAX_DEPTH = 50


def metadata_columns(metadata: pa.Array, names: Iterable[str] | None = None) -> pa.Table:
    """Typed columns from metadata, a pure function of all its values together.

    Integers give int64, with floats among them float64; booleans bool; text
    string; lists of text list<string>. Anything mixed, other lists and
    integers beyond int64 give string: text as it is, the rest as its JSON.
    Keys of nested objects are joined by dots; a key that itself has the
    dotted name wins; objects nested deeper than 50 levels are kept as JSON.
    Missing is null; a key with no value anywhere has type null.

    Args:
        metadata: (num_rows,) string or large_string, canonical JSON objects.
        names: Columns wanted; those that do not occur are left out. None gives
            all, or the most frequent where fields times documents exceed 20 million.

    Returns:
        Table of num_rows rows; columns in the order of `names`, or sorted.

    Cost: each distinct string is parsed once, so chunks cost no more than
        their documents; about 1 us a row plus 3 us a distinct string.
    """
    if isinstance(metadata, pa.ChunkedArray):
        metadata = metadata.combine_chunks()
    encoded = metadata.dictionary_encode()
    distinct = encoded.dictionary
    columns = None if _is_wide(distinct) else _parse_at_once(distinct)
    if columns is None:
        columns = _parse_each(distinct, names)
    wanted = sorted(columns) if names is None else [n for n in dict.fromkeys(names) if n in columns]
    if not wanted:
        # A table of no columns still has to know its number of rows.
        return pa.Table.from_struct_array(pa.array([{}] * len(metadata), pa.struct([])))
    return pa.table({name: columns[name].take(encoded.indices) for name in wanted})


def _parse_at_once(distinct: pa.Array) -> dict[str, pa.Array] | None:
    """Parse with Arrow's reader; None where its rules of typing are not ours."""
    import pyarrow.json as pajson

    if len(distinct) == 0:
        return {}
    if distinct.nbytes > _MAX_AT_ONCE:
        return None
    values = distinct.cast(pa.string())
    lines = pc.binary_join(pa.ListArray.from_arrays([0, len(values)], values), "\n")[0].as_buffer()
    options = pajson.ReadOptions(use_threads=False, block_size=max(lines.size + 1, 1))

    def read(schema: pa.Schema | None) -> pa.Table:
        parse = pajson.ParseOptions(explicit_schema=schema)
        return pajson.read_json(pa.BufferReader(lines), read_options=options, parse_options=parse)

    try:
        table = read(None)
        kept = pa.schema([field.with_type(_untimed(field.type)) for field in table.schema])
        if kept != table.schema:  # it takes text that looks like a time for a time
            table = read(kept)
        # It gives some lists that hold null as arrays that are not valid.
        table.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, RecursionError):
        return None
    if table.num_rows != len(distinct) or not all(map(_is_ours, table.schema)):
        return None
    columns = dict(_flat(table))
    return None if any(map(_has_rounded, columns.values())) else columns


def _untimed(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_date(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_untimed(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_untimed(kind.value_type))
    return kind


def _flat(table: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    pending = [(f.name, table.column(i).combine_chunks()) for i, f in enumerate(table.schema)]
    while pending:
        name, array = pending.pop()
        if pa.types.is_struct(array.type):
            children = zip(array.type, array.flatten(), strict=True)
            pending += [(f"{name}.{field.name}", child) for field, child in children]
        else:
            yield name, array


def _is_ours(field: pa.Field, depth: int = 1) -> bool:
    """Whether Arrow's type and name for a key are sure to be ours."""
    if "." in field.name:  # another key's path may have the same name
        return False
    if pa.types.is_struct(field.type):
        return depth < _MAX_DEPTH and all(_is_ours(inner, depth + 1) for inner in field.type)
    if pa.types.is_list(field.type):
        return bool(pa.types.is_string(field.type.value_type))
    return field.type in (pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.null())


def _has_rounded(array: pa.Array) -> bool:
    """Whether an integer beyond int64 may have become a float: ours keeps its digits."""
    if not pa.types.is_floating(array.type):
        return False
    largest = pc.max(pc.abs(array)).as_py()
    return largest is not None and largest >= 2.0**63


def _is_wide(distinct: pa.Array) -> bool:
    """Whether a sample says that there are too many fields to hold all of them by document."""
    sample = distinct.drop_null()[:: max(1, len(distinct) // _SAMPLE)]
    seen: Counter[str] = Counter()
    for text in sample.to_pylist():
        seen.update(name for name, _ in _flat_items(json.loads(text)))
    # A name of one sampled document stands for as many as there are documents for each sampled.
    rare = sum(count == 1 for count in seen.values())
    num_fields = len(seen) + rare * (len(distinct) // max(len(sample), 1) - 1)
    return num_fields > max(_FEWEST_FIELDS, _MAX_CELLS // max(len(distinct), 1))


def _parse_each(distinct: pa.Array, names: Iterable[str] | None = None) -> dict[str, pa.Array]:
    wanted = None if names is None else set(names)
    values: dict[str, dict[int, Any]] = {}
    for row, text in enumerate(distinct.to_pylist()):
        for name, value in _flat_items(json.loads(text) if text is not None else {}):
            if wanted is None or name in wanted:
                values.setdefault(name, {})[row] = value
    most = max(_FEWEST_FIELDS, _MAX_CELLS // max(len(distinct), 1))
    if wanted is None and len(values) > most:
        chosen = sorted(values, key=lambda name: (-len(values[name]), name))[:most]
        values = {name: values[name] for name in chosen}
    columns: dict[str, pa.Array] = {}
    for name, found in values.items():
        plain = {row: value for row, value in found.items() if not _is_object(value)}
        # Null beside objects only says that the object is missing.
        if len(plain) == len(found) or any(value is not None for value in plain.values()):
            columns[name] = _column(plain, len(distinct))
    return columns


class _Deep(dict[str, Any]):
    """An object nested so deeply that it is kept as JSON."""


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not isinstance(value, _Deep)


def _flat_items(
    value: dict[str, Any], prefix: str = "", depth: int = 1
) -> Iterator[tuple[str, Any]]:
    """Every key by its dotted name; a nested object comes itself, then its keys."""
    # Nested objects first, so that a key with the dotted name itself comes last and wins.
    for key, item in sorted(value.items(), key=lambda pair: not isinstance(pair[1], dict)):
        if isinstance(item, dict) and depth >= _MAX_DEPTH:
            yield prefix + key, _Deep(item)
            continue
        yield prefix + key, item
        if isinstance(item, dict):
            yield from _flat_items(item, f"{prefix}{key}.", depth + 1)


def _column(found: dict[int, Any], num_rows: int) -> pa.Array:
    kinds = {_kind(value) for value in found.values() if value is not None}
    kind = _common(kinds)
    if pa.types.is_string(kind) and kinds != {pa.string()}:
        found = {row: _as_text(value) for row, value in found.items()}
    elif pa.types.is_floating(kind):
        found = {row: None if v is None else float(v) for row, v in found.items()}
    return pa.array([found.get(row) for row in range(num_rows)], kind)


def _kind(value: Any) -> pa.DataType | None:
    """Type of one value; None where it can only be kept as its JSON."""
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if value in _INT64 else None
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, list) and all(item is None or isinstance(item, str) for item in value):
        return pa.list_(pa.string())
    return None


def _common(kinds: set[pa.DataType | None]) -> pa.DataType:
    if not kinds:
        return pa.null()
    if kinds == {pa.int64(), pa.float64()}:
        return pa.float64()
    kind = next(iter(kinds))
    return kind if len(kinds) == 1 and kind is not None else pa.string()


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
