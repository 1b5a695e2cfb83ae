"""Lines of JSON to rows: clean blocks by a kernel and Arrow, others line by line.

The kernel takes out each line's text, which is most of the bytes, and Arrow
parses the rest; neither holds the GIL or makes an object per value. But one bad
line fails the block, Arrow guesses types over all of it, and very deep nesting
overflows its stack. So the fast path takes only what it provably reads as the
slow path does; the tests hold the two against each other.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.kernels import text_from_buffers
from penstock.records import Failure, to_json
from penstock.sources._columns import Columns, metadata_rows, numbered, raw_rows, titled
from penstock.sources._metadata import is_whole
from penstock.sources._trouble import Trouble

# Arrow's parser recurses (200,000 levels overflow its stack) and its type
# inference takes seconds from 500 levels on.
_MAX_DEPTH = 64
# Shorter blocks are read sooner line by line than the kernel is loaded.
_MIN_BLOCK_BYTES = 64 << 10
# Longer blocks hold a very long line, which the slow path copies less often.
_MAX_BLOCK_BYTES = 64 << 20
_CONSTANT = re.compile(rb"(?:NaN|Inf(?:inity)?)[\s,}\]]")


def parse_block(
    item: str, data: bytes, first_line: int, columns: Columns, media_type: str
) -> tuple[pa.RecordBatch, tuple[Failure, ...]]:
    """Parse whole lines.

    Args:
        item: The file they are from.
        data: The lines.
        first_line: Number of the first one, from 1.
        columns: What to take from each.
        media_type: Media type of each row.

    Returns:
        Batch of `RAW` in the order of the lines, and a failure for each line
        that gives none; blank lines give nothing.

    Cost: 1 ms/MB for clean blocks of long texts, 2 to 3 for texts of 1 kB, 4 to 10
        for other blocks.
    """
    if first_line == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    if len(data) >= _MIN_BLOCK_BYTES:
        rows = parse_clean(item, data, first_line, columns, media_type)
        if rows is not None:
            return rows, ()
    return parse_lines(item, data, first_line, columns, media_type)


def parse_lines(
    item: str, data: bytes, first_line: int, columns: Columns, media_type: str
) -> tuple[pa.RecordBatch, tuple[Failure, ...]]:
    """The slow path of `parse_block`, which says what the result is."""
    rows: list[tuple[str, bytes, str]] = []
    failures: list[Failure] = []
    for number, line in enumerate(data.split(b"\n"), first_line):
        if not line or line.isspace():
            continue
        name = f"{item}:{number}"
        try:
            rows.append(_parse_line(line, name, columns))
        except Trouble as trouble:
            failures.append(trouble.failure(item, doc_id=name))
    doc_id, raw, metadata = zip(*rows, strict=True) if rows else ((), (), ())
    batch = raw_rows(
        item,
        media_type,
        pa.array(doc_id, pa.string()),
        pa.array(raw, pa.large_binary()),
        pa.array(metadata, pa.string()),
    )
    return batch, tuple(failures)


def parse_clean(
    item: str, data: bytes, first_line: int, columns: Columns, media_type: str
) -> pa.RecordBatch | None:
    """The fast path of `parse_block`; None where the slow one must decide."""
    lifted = _lifted(data, columns.text)
    if lifted is None:
        return None
    text, rest = lifted
    table = _read_json(rest, columns)
    if table is None or table.num_rows != len(text):
        return None
    table = table.set_column(table.schema.get_field_index(columns.text), columns.text, text)
    if columns.id is None:
        doc_id = numbered(item, first_line, len(text))
    else:
        doc_id = table[columns.id].cast(pa.string())
    if doc_id.null_count or pc.any(pc.equal(doc_id, "")).as_py():
        return None
    title = None if columns.title is None else table[columns.title]
    raw = titled(title, text)
    return raw_rows(item, media_type, doc_id, raw, metadata_rows(columns, table))


def _lifted(data: bytes, name: str) -> tuple[pa.Array, bytes] | None:
    """(texts, lines with "" in their place) if Arrow may read them; None if not.

    Each line is then `{...}` in UTF-8 and has one text, and what is left has no
    deep nesting, NUL or NaN.
    """
    if not 0 < len(data) < _MAX_BLOCK_BYTES or not _is_utf8(data):
        return None
    from penstock.kernels.json_lines import lift

    codes, key = np.frombuffer(data, np.uint8), np.frombuffer(name.encode(), np.uint8)
    num_lines, offsets, text, rest = lift(codes, key, _MAX_DEPTH)
    if not num_lines:
        return None
    left = rest.tobytes()
    return None if _has_constant(left) else (text_from_buffers(offsets, text), left)


def _is_utf8(data: bytes) -> bool:
    ends = pa.py_buffer(np.array([0, len(data)]))
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(data)])
    try:
        whole.cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _has_constant(data: bytes) -> bool:
    """Whether NaN or an infinity may stand where a value does: Arrow takes what JSON has not."""
    for name in (b"NaN", b"Inf"):
        at = data.find(name)
        while at >= 0:
            before = data[max(0, at - 64) : at].rstrip(b" \t\r\n-+")
            if before[-1:] in (b":", b",", b"[", b"") and _CONSTANT.match(data, at):
                return True
            at = data.find(name, at + 1)
    return False


def _read_json(data: bytes, columns: Columns) -> pa.RecordBatch | None:
    special = [name for name in (columns.id, columns.title, columns.text) if name is not None]
    schema = dict.fromkeys(special, pa.string())
    for _ in range(3):
        try:
            table = _arrow_json(data, schema, infer=columns.metadata != ())
        except pa.ArrowInvalid as err:
            # Numbers for ids are common enough to be worth a second try.
            if f"Column(/{columns.id}) changed from string to number" not in str(err):
                return None
            schema[str(columns.id)] = pa.int64()
            continue
        dates = {
            field.name: _dates_as_text(field.type)
            for field in table.schema
            if _dates_as_text(field.type) != field.type
        }
        if not dates:
            return table if _is_faithful(table, columns) else None
        schema |= dates
    return None


def _arrow_json(data: bytes, schema: dict[str, pa.DataType], infer: bool) -> pa.RecordBatch:
    import pyarrow.json

    table = pyarrow.json.read_json(
        pa.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(schema.items()),
            unexpected_field_behavior="infer" if infer else "ignore",
        ),
    ).combine_chunks()
    return pa.RecordBatch.from_arrays(
        [column.chunk(0) for column in table.columns], schema=table.schema
    )


def _is_faithful(table: pa.RecordBatch, columns: Columns) -> bool:
    """Whether the columns in use hold what the slow path would find."""
    used = table.schema.names if columns.metadata is None else columns.metadata
    return all(_is_plain(table[name]) for name in used if name in table.schema.names)


def _is_plain(column: pa.Array) -> bool:
    kind = column.type
    if pa.types.is_struct(kind):  # Arrow makes absent fields of an object null
        return is_whole(column) and all(map(_is_plain, column.flatten()))
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_int64(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    )


def _dates_as_text(kind: pa.DataType) -> pa.DataType:
    """The type with strings in place of the timestamps that Arrow guessed from strings."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_dates_as_text(field.type)) for field in kind])
    return kind


def _parse_line(line: bytes, name: str, columns: Columns) -> tuple[str, bytes, str]:
    """(doc_id, raw, metadata) of one line; raises `Trouble`."""
    found = _object(line)
    doc_id = name if columns.id is None else _doc_id(found, columns.id)
    text = found.get(columns.text)
    if not isinstance(text, str):
        raise _no_text(found, columns.text)
    title = None if columns.title is None else found.get(columns.title)
    whole = f"{title}\n\n{text}" if isinstance(title, str) and title else text
    if columns.metadata is None:
        special = (columns.id, columns.title, columns.text)
        metadata = {key: value for key, value in found.items() if key not in special}
        if columns.title is not None:
            metadata["title"] = metadata.get("title") if title is None else title
    else:
        metadata = {key: found.get(key) for key in columns.metadata}
    try:
        known = to_json({k: v for k, v in metadata.items() if v is not None})
        known.encode()
        doc_id.encode()
        return doc_id, whole.encode(), known
    except UnicodeEncodeError as err:
        half = f"\\u{ord(err.object[err.start]):04x}"
        raise Trouble(
            "broken-encoding",
            f"expected Unicode text, found {half}, half of a surrogate pair",
            "Write the line again with whole characters.",
        ) from err
    except RecursionError as err:
        raise _malformed("it is nested too deeply") from err


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = _DECODER.decode(line.decode())
    except UnicodeDecodeError as err:
        raise Trouble(
            "broken-encoding",
            f"expected UTF-8, found byte 0x{line[err.start]:02x} at byte {err.start} of the line",
            "Write the file in UTF-8 (iconv -f ... -t utf-8).",
        ) from err
    except json.JSONDecodeError as err:
        raise _malformed(f"{err.msg} at character {err.pos} of the line") from err
    except _ConstantError as err:
        raise _malformed(f"{err} is not JSON") from err
    except RecursionError as err:
        raise _malformed("it is nested too deeply") from err
    if not isinstance(found, dict):
        raise _malformed(f"it is {_kind(found)}")
    return found


def _doc_id(found: dict[str, Any], column: str) -> str:
    value = found.get(column)
    if isinstance(value, str) and value:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    what = _kind(value) if column in found else f"only the columns {_listed(found)}"
    raise Trouble(
        "missing-id",
        f"expected an id in column {column!r}, found {what}",
        "Add the id, name its column with id=, or number the rows with id=None.",
    )


def _no_text(found: dict[str, Any], column: str) -> Trouble:
    what = _kind(found[column]) if column in found else f"the columns {_listed(found)}"
    return Trouble(
        "missing-column",
        f"expected a string in column {column!r}, found {what}",
        "Name the column of the text with text=, or repair the line.",
    )


def _malformed(problem: str) -> Trouble:
    return Trouble(
        "malformed-json",
        f"expected one JSON object on the line: {problem}",
        "Repair or remove the line.",
    )


def _listed(found: dict[str, Any]) -> str:
    names = [ascii(name)[:80] for name in found]
    return ", ".join(names[:20] + (["..."] if len(names) > 20 else [])) or "(none)"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if value == "":
        return "an empty string"
    kinds = {str: "a string", bool: "true or false", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


class _ConstantError(Exception):
    pass


def _refuse_constant(text: str) -> None:
    raise _ConstantError(text)


def _float(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None  # 1e999 has no other JSON form


def _int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # Python refuses thousands of digits
        return None


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_float, parse_int=_int)
