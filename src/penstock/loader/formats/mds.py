"""MDS, version 2: the shards of MosaicML Streaming, byte for byte as its writer makes them.

    uint32  n
    uint32  offset[n + 1]    from the start of the file; row i lies between two of them
    bytes   the columns, as JSON
    rows    a uint32 length for each column of variable size, then every column's bytes

`index.json` lists the shards; columns are in the order of their names.

Source: MosaicML Streaming 0.13, `streaming/base/format`. Differs: an array of
    length 0 can be written; its writer refuses one, its reader takes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import ConfigError
from penstock.kernels.ranges import copy_ranges
from penstock.loader.formats.units import Kind
from penstock.loader.formats.values import I64, U8, Values, column_values, offsets_of, one_chunk

MAX_SHARD_BYTES = 1 << 32
"""Offsets are 32 bits wide."""

_NUMBERS = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32"}
_NUMBERS |= {33: "int32", 34: "float32", 64: "uint64", 65: "int64", 66: "float64"}
_TEXT = frozenset({"str", "json", "str_int", "str_float", "str_decimal"})

JSON = {b"penstock:encoding": b"json"}
"""Metadata of an Arrow field of text that is JSON."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What a row of a shard holds, in the order of its bytes.

    Attributes:
        names: The columns, sorted where Streaming or we wrote the shard.
        encodings: Of each column, in MDS's words.
        sizes: Bytes of each column, None where they differ from row to row.
    """

    names: tuple[str, ...]
    encodings: tuple[str, ...]
    sizes: tuple[int | None, ...]

    def encoding(self, name: str) -> str:
        """Of one column."""
        return self.encodings[self.names.index(name)]


def columns_of(schema: pa.Schema) -> Columns:
    """How a table of this schema is written.

    Raises:
        ConfigError: MDS has no encoding for a column's type.
    """
    fields = sorted(schema, key=lambda field: str(field.name))
    encodings = [_encoding(field) for field in fields]
    return Columns(
        tuple(field.name for field in fields),
        tuple(encodings),
        tuple(_fixed_size(each) for each in encodings),
    )


def row_bytes(rows: pa.Table) -> I64:
    """Bytes that each row adds to a shard, its offset too; (num_rows,) int64."""
    columns = columns_of(rows.schema)
    total = np.full(rows.num_rows, 4, np.int64)
    for name, size in zip(columns.names, columns.sizes, strict=True):
        for piece in _pieces(one_chunk(rows[name])):
            total += piece.sizes
        total += 0 if size is not None else 4
    return total


def head_bytes(config: bytes) -> int:
    """Bytes of a shard besides its rows."""
    return 8 + len(config)


def config_json(
    columns: Columns, *, compression: str | None, hashes: Sequence[str], size_limit: int | None
) -> dict[str, Any]:
    """What a shard's head and its entry in `index.json` share."""
    return {
        "version": 2,
        "format": "mds",
        "compression": compression,
        "hashes": list(hashes),
        "size_limit": size_limit,
        "column_names": list(columns.names),
        "column_encodings": list(columns.encodings),
        "column_sizes": list(columns.sizes),
    }


def encode(rows: pa.Table, config: bytes) -> U8:
    """A shard of these rows.

    Args:
        rows: One row or more, without nulls.
        config: What `config_json` gives, as sorted JSON.

    Raises:
        ConfigError: The shard would have 4 GiB or more.

    Cost: 0.3 us a row of four columns, and a copy of the bytes.
    """
    columns = columns_of(rows.schema)
    pieces = [_pieces(one_chunk(rows[name])) for name in columns.names]
    variable = [i for i, size in enumerate(columns.sizes) if size is None]
    sizes = sum((piece.sizes for each in pieces for piece in each), np.int64(4) * len(variable))
    first = 8 + 4 * rows.num_rows + len(config)
    offsets = offsets_of(np.broadcast_to(sizes, rows.num_rows)) + first
    if offsets[-1] >= MAX_SHARD_BYTES:
        raise ConfigError(
            "shard_size", int(offsets[-1]), "a shard of MDS must be below 4 GiB; choose less"
        )
    shard = np.empty(int(offsets[-1]), np.uint8)
    head = np.uint32(rows.num_rows).tobytes() + offsets.astype("<u4").tobytes() + config
    shard[:first] = np.frombuffer(head, np.uint8)
    place = offsets[:-1].copy()
    for i in variable:
        _put_numbers(sum((piece.sizes for piece in pieces[i]), np.int64(0)), shard, place)
    for each in pieces:
        for piece in each:
            copy_ranges(piece.data, piece.starts, piece.sizes, shard, place)
            place += piece.sizes
    return shard


def read_offsets(shard: U8) -> I64:
    """Where the rows of a shard begin and the last one ends; (n + 1,) int64.

    Raises:
        ValueError: The head is not that of a shard of these many bytes.
    """
    if len(shard) < 8:
        raise ValueError(f"expected a shard of MDS, found {len(shard)} bytes")
    n = int(shard[:4].view("<u4")[0])
    first = 8 + 4 * n
    if first > len(shard):
        raise ValueError(f"expected {n} offsets, found {len(shard)} bytes in all")
    offsets = shard[4:first].view("<u4").astype(np.int64)
    if offsets[0] < first or (np.diff(offsets) < 0).any():
        raise ValueError("its offsets do not ascend")
    if offsets[-1] != len(shard):
        raise ValueError(f"expected {offsets[-1]} bytes, found {len(shard)}")
    return offsets


def read_values(shard: U8, columns: Columns, name: str) -> Values:
    """A column's values as they lie in a shard; of arrays the numbers alone.

    Raises:
        ValueError: The shard is damaged, or the column is an array of more than one axis.
    """
    rows = read_offsets(shard)
    place = rows[:-1].copy()
    lengths = []
    for size in columns.sizes:
        lengths.append(_read_numbers(shard, place, 4) if size is None else size)
        place += 4 if size is None else 0
    at = columns.names.index(name)
    for length in lengths[:at]:
        place += length
    sizes = np.broadcast_to(np.asarray(lengths[at], np.int64), place.shape)
    if (place + sizes > rows[1:]).any():
        raise ValueError(f"column {name!r} reaches beyond its row")
    return _numbers_in(shard, place, sizes, columns.encodings[at])


def read_table(shard: U8, columns: Columns, names: Sequence[str]) -> pa.Table:
    """These columns of a shard; what Arrow has no type for comes as its bytes.

    Raises:
        ValueError: The shard is damaged.
    """
    arrays = []
    for name in names:
        encoding = columns.encoding(name)
        values = read_values(shard, columns, name)
        if encoding in _TEXT:
            arrays.append(values.text())
        elif encoding.startswith("ndarray"):
            arrays.append(values.lists())
        elif _scalar(encoding) is not None:
            arrays.append(pa.array(values.joined()[0].view(values.dtype)))
        else:
            arrays.append(values.text().cast(pa.large_binary()))
    return pa.table(arrays, names=list(names))


def columns_from(config: dict[str, Any]) -> Columns:
    """The columns that a shard's entry in `index.json` names.

    Raises:
        ValueError: The entry is not one of MDS version 2.
    """
    try:
        if config["version"] != 2 or config["format"] != "mds":
            raise ValueError(
                f"expected MDS version 2, found {config['format']} version {config['version']}"
            )
        return Columns(
            tuple(config["column_names"]),
            tuple(config["column_encodings"]),
            tuple(size or None for size in config["column_sizes"]),
        )
    except (KeyError, TypeError) as err:
        raise ValueError(f"an entry of index.json is not as MDS has it ({err!r})") from err


def index_json(entries: Sequence[dict[str, Any]]) -> bytes:
    """The bytes of `index.json`."""
    return json.dumps({"version": 2, "shards": list(entries)}, sort_keys=True).encode()


def kind_of(encoding: str) -> Kind:
    """What a column of this encoding holds."""
    if encoding.startswith("ndarray"):
        return "numbers" if "," not in encoding else "other"
    if encoding in _TEXT:
        return "text"
    return "bytes" if encoding == "bytes" else "other"


def _encoding(field: pa.Field) -> str:
    kind = field.type
    if (field.metadata or {}).get(b"penstock:encoding") == b"json":
        return "json"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "str"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes"
    number = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if pa.types.is_integer(number) or pa.types.is_floating(number):
        name = np.dtype(number.to_pandas_dtype()).name
        return name if number is kind else f"ndarray:{name}"
    raise ConfigError(field.name, str(kind), "is a type that MDS has no encoding for; leave it out")


def _scalar(encoding: str) -> np.dtype[Any] | None:
    if encoding == "int":
        return np.dtype(np.int64)
    return np.dtype(encoding) if encoding in _NUMBERS.values() else None


def _fixed_size(encoding: str) -> int | None:
    scalar = _scalar(encoding)
    return None if scalar is None else scalar.itemsize


def _pieces(column: pa.Array) -> list[Values]:
    """What a row's bytes of this column are made of: of lists, the length and the numbers."""
    values = column_values(column)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return [values]
    lengths = values.sizes // values.dtype.itemsize
    width = np.searchsorted([1 << 8, 1 << 16, 1 << 32], lengths, side="right")
    heads = np.zeros((len(lengths), 9), np.uint8)
    heads[:, 0] = 4 + width  # one axis, and how many bytes its length takes
    heads[:, 1:] = lengths.astype("<i8")[:, None].view(np.uint8)
    starts = np.arange(len(lengths), dtype=np.int64) * 9
    return [Values(heads.reshape(-1), starts, 1 + (1 << width), np.dtype(np.uint8)), values]


def _numbers_in(shard: U8, starts: I64, sizes: I64, encoding: str) -> Values:
    scalar = _scalar(encoding)
    if not encoding.startswith("ndarray"):
        return Values(shard, starts, sizes, scalar or np.dtype(np.uint8))
    parts = encoding.split(":")
    starts = starts.copy()
    ends = starts + sizes
    name = parts[1] if len(parts) > 1 else _common(shard, starts, "number")
    starts += 0 if len(parts) > 1 else 1
    if len(parts) > 2:
        if "," in parts[2]:
            raise ValueError(f"expected arrays of one axis, found {encoding}")
    elif len(starts):
        head = _byte(shard, starts)
        if (head >> 2 != 1).any():
            raise ValueError("expected arrays of one axis, found more")
        starts += 1 + (1 << (head & 3))
    dtype = np.dtype(name)
    if (starts > ends).any() or ((ends - starts) % dtype.itemsize).any():
        raise ValueError("an array's length is not that of its row")
    return Values(shard, starts, ends - starts, dtype)


def _common(shard: U8, starts: I64, what: str) -> str:
    codes = np.unique(_byte(shard, starts))
    if len(codes) > 1 or (len(codes) == 1 and int(codes[0]) not in _NUMBERS):
        raise ValueError(f"expected arrays of one kind of {what}, found codes {codes.tolist()}")
    return _NUMBERS[int(codes[0])] if len(codes) else "uint8"


def _byte(shard: U8, places: I64) -> I64:
    return _read_numbers(shard, places, 1)


def _read_numbers(shard: U8, places: I64, width: int) -> I64:
    """The little-endian number of some bytes at each place."""
    if len(places) and (places.min() < 0 or places.max() + width > len(shard)):
        raise ValueError("a row reaches beyond the shard")
    found = np.zeros(len(places), np.int64)
    for byte in range(width):
        found |= shard[places + byte].astype(np.int64) << (8 * byte)
    return found


def _put_numbers(numbers: Any, shard: U8, place: I64) -> None:
    """Write a uint32 at each place, and move the places behind it."""
    for byte in range(4):
        shard[place] = (numbers >> (8 * byte)) & 255
        place += 1
