"""WebDataset: a tar file whose neighbouring members of one key are a sample.

Ours are plain ustar with no time in it, so the same rows give the same bytes. A
key is a hash without a dot, unique over all shards; each sample has

    KEY.json         {"doc_id": .., "metadata": {..}}
    KEY.tokens.npy   where there are tokens
    KEY.txt          the text

Source: the rules that `webdataset` 1.0 and Megatron-Energon 7.4 read by. Differs:
    a file must end with the two zero blocks of tar. Without them it was cut, at
    the border of a member, and both libraries read on without the rest.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ShardError
from penstock.kernels.ranges import copy_ranges
from penstock.kernels.tar import (
    BLOCK,
    COMPLETE,
    CUT,
    DATA,
    NO_END,
    NO_HEADER,
    SIZE,
    tar_members,
    tar_samples,
)
from penstock.loader.cache import Fetched
from penstock.loader.formats.checks import Expected
from penstock.loader.formats.units import Kind, Unit
from penstock.loader.formats.values import (
    I64,
    U8,
    Values,
    column_values,
    mapped,
    offsets_of,
    one_chunk,
)
from penstock.loader.places import Place

KEY = "__key__"
_TEXT = frozenset({"txt", "text", "transcript", "json", "cls", "cls2", "id", "index", "inx"})
_RECORD = 20 * BLOCK
END_BYTES = 2 * BLOCK
"""Bytes of a file besides its rows, before it is filled up to a whole record."""

_END = {
    CUT: "the file ends inside a member",
    NO_HEADER: "expected the header of a member, found something else",
    NO_END: "expected the two zero blocks that end a tar, found the file's end: it was cut",
}


def row_bytes(rows: pa.Table) -> I64:
    """Bytes that each row adds to a file; (num_rows,) int64."""
    total = np.zeros(rows.num_rows, np.int64)
    for _, pieces in _members(rows):
        size = sum((piece.sizes for piece in pieces), np.int64(0))
        total += BLOCK + _padded(np.broadcast_to(size, total.shape))
    return total


def encode(rows: pa.Table, hashes: pa.ChunkedArray) -> tuple[U8, Layout]:
    """A file of these rows, and where its parts are.

    Args:
        rows: With `doc_id`, `text`, `metadata` and maybe `tokens`.
        hashes: (num_rows,) binary: names, with `doc_id`, what a row holds.
    """
    keys = _keys(rows["doc_id"], hashes)
    members = _members(rows)
    sizes = np.stack(
        [
            np.broadcast_to(sum((p.sizes for p in pieces), np.int64(0)), len(keys))
            for _, pieces in members
        ],
        axis=1,
    )
    headers = offsets_of((BLOCK + _padded(sizes)).reshape(-1))
    end = int(headers[-1])
    data = np.zeros(-(-(end + END_BYTES) // _RECORD) * _RECORD, np.uint8)
    places = headers[:-1].reshape(sizes.shape)
    for column, (field, pieces) in enumerate(members):
        _put_headers(data, places[:, column], keys, field, sizes[:, column])
        place = places[:, column] + BLOCK
        for piece in pieces:
            copy_ranges(piece.data, piece.starts, piece.sizes, data, place)
            place = place + piece.sizes
    fields = tuple(field for field, _ in members)
    return data, Layout(keys, fields, places + BLOCK, sizes, end)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the members of a file are: what other libraries' indexes are made of.

    Attributes:
        keys: Of each sample.
        fields: In the order that each sample has them in.
        places: (num_samples, num_fields), the first byte of each member's content.
        sizes: (num_samples, num_fields), its bytes.
        end: Byte behind the last member.
    """

    keys: list[str]
    fields: tuple[str, ...]
    places: I64
    sizes: I64
    end: int

    def dali(self) -> bytes:
        """The index that NVIDIA DALI reads, version 1.2."""
        lines = [f"v1.2 {len(self.keys)}"]
        for key, places, sizes in zip(
            self.keys, self.places.tolist(), self.sizes.tolist(), strict=True
        ):
            parts = zip(self.fields, places, sizes, strict=True)
            lines.append(" ".join(f"{f} {place} {size} {key}.{f}" for f, place, size in parts))
        return ("\n".join(lines) + "\n").encode()

    def energon(self) -> bytes:
        """The `.tar.idx` that Energon reads: where each sample begins, and where the last ends."""
        return np.append(self.places[:, 0] - BLOCK, self.end).astype("<u8").tobytes()


@dataclass(frozen=True)
class OpenedTar:
    """A file's members, by sample and field; `fetched` keeps the file at hand."""

    data: U8
    name: str
    fetched: Fetched
    of_export: bool
    memory_bytes: int = 0

    @cached_property
    def _members(self) -> tuple[I64, I64, I64, I64, I64]:
        members, status, end = tar_members(self.data)
        if status != COMPLETE:
            raise ShardError(self.name, end, _END[status])
        return (members, *tar_samples(self.data, members))

    @property
    def num_rows(self) -> int:
        """Samples in it."""
        sample = self._members[1]
        return int(sample.max()) + 1 if len(sample) else 0

    @cached_property
    def fields(self) -> dict[str, I64]:
        """The members of each field, in the order of their samples."""
        _, sample, _, starts, sizes = self._members
        places: dict[str, I64] = {}
        used = np.flatnonzero(sample >= 0)
        # Fields are few, and nearly always as long as those of the sample before.
        names = Values(self.data, starts[used], sizes[used], np.dtype(np.uint8)).text()
        encoded = pc.utf8_lower(names).dictionary_encode()
        codes = encoded.indices.to_numpy()
        for code, name in enumerate(encoded.dictionary.to_pylist()):
            places[name] = used[codes == code]
            if len(np.unique(sample[places[name]])) != len(places[name]):
                raise ValueError(f"a sample has the field {name!r} twice")
        return places

    def values(self, column: str) -> Values:
        """A field's values; of `.npy` members the numbers alone.

        Raises:
            ValueError: A sample has no such field, or its arrays are of several types.
        """
        at = self.fields.get(self._field(column), np.zeros(0, np.int64))
        if len(at) != self.num_rows:
            raise ValueError(f"{self.num_rows - len(at)} samples have no field {column!r}")
        members = self._members[0][at]
        starts, sizes = members[:, DATA].copy(), members[:, SIZE].copy()
        if self._field(column).endswith("npy"):
            return _numbers(self.data, starts, sizes)
        return Values(self.data, starts, sizes, np.dtype(np.uint8))

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Fields as Arrow has them; `__key__` is the sample's key."""
        return pa.table([self._column(name) for name in columns], names=list(columns))

    def keys(self) -> pa.Array:
        """The key of each sample."""
        members, sample, sizes, _, _ = self._members
        first = np.unique(sample[sample >= 0], return_index=True)[1]
        at = np.flatnonzero(sample >= 0)[first]
        # A prefix of ustar lies apart from the name, so names are put together one by one.
        names = [_name(self.data, members[m])[: sizes[m]] for m in at.tolist()]
        return pa.array([name.decode("utf-8", "surrogateescape") for name in names], pa.string())

    def _field(self, column: str) -> str:
        if not self.of_export:
            return column
        return {"text": "txt", "tokens": "tokens.npy"}.get(column, column)

    def _column(self, name: str) -> pa.Array:
        if name == KEY:
            return self.keys()
        if self.of_export and name in ("doc_id", "metadata"):
            facts = [json.loads(text) for text in self.values("json").text().to_pylist()]
            if name == "doc_id":
                return pa.array([fact["doc_id"] for fact in facts], pa.string())
            return pa.array([json.dumps(fact["metadata"]) for fact in facts], pa.string())
        values = self.values(name)
        if self._field(name).endswith("npy"):
            return values.lists()
        kind = kind_of(self._field(name))
        return values.text() if kind == "text" else values.text().cast(pa.large_binary())


@dataclass(frozen=True, slots=True)
class TarReader:
    """A folder of tar files."""

    place: Place

    def units(self) -> list[Unit]:
        """One a file, in the order of their names; every file is walked to count its samples."""
        units = []
        for name, size in self.place.names().items():
            if name.endswith(".tar"):
                expected = Expected(name, size)
                units.append(Unit(expected, self._opened(expected).num_rows, detail=False))
        return units

    def columns(self, unit: Unit) -> dict[str, Kind]:
        """What each field of a file holds."""
        fields = self._opened(unit.file, unit.detail).fields
        found: dict[str, Kind] = {KEY: "text"}
        if unit.detail:
            found |= {"doc_id": "text", "text": "text", "metadata": "text"}
            return found | ({"tokens": "numbers"} if "tokens.npy" in fields else {})
        return found | {name: kind_of(name) for name in fields}

    def open(self, unit: Unit) -> OpenedTar:
        """Map a file and walk its members."""
        opened = self._opened(unit.file, unit.detail)
        if opened.num_rows != unit.num_rows:
            problem = f"expected {unit.num_rows} samples, found {opened.num_rows}"
            raise ShardError(unit.file.name, 0, problem)
        return opened

    def _opened(self, expected: Expected, of_export: bool = False) -> OpenedTar:
        fetched = self.place.fetch(expected)
        return OpenedTar(mapped(fetched.path), expected.name, fetched, of_export)


def kind_of(field: str) -> Kind:
    """What a field of this name holds."""
    ending = field.rpartition(".")[2]
    return "numbers" if ending == "npy" else "text" if ending in _TEXT else "bytes"


def _keys(doc_ids: pa.ChunkedArray, hashes: pa.ChunkedArray) -> list[str]:
    pairs = zip(doc_ids.to_pylist(), hashes.to_pylist(), strict=True)
    return [hashlib.sha256(name.encode() + b"\0" + each).hexdigest()[:32] for name, each in pairs]


def _members(rows: pa.Table) -> list[tuple[str, list[Values]]]:
    """Each field with what its content is made of, in the order of their names."""
    facts = pa.array(
        [
            f'{{"doc_id":{json.dumps(name, ensure_ascii=False)},"metadata":{metadata}}}'
            for name, metadata in zip(
                rows["doc_id"].to_pylist(), rows["metadata"].to_pylist(), strict=True
            )
        ],
        pa.large_string(),
    )
    members = [("json", [column_values(facts)])]
    if "tokens" in rows.column_names:
        values = column_values(one_chunk(rows["tokens"]))
        members.append(("tokens.npy", [_npy_heads(values), values]))
    return [*members, ("txt", [column_values(one_chunk(rows["text"]))])]


def _npy_heads(values: Values) -> Values:
    """The 128 bytes before the numbers of each array."""
    lengths = values.sizes // values.dtype.itemsize
    distinct, which = np.unique(lengths, return_inverse=True)
    heads = b"".join(_npy_head(values.dtype, length) for length in distinct.tolist())
    data = np.frombuffer(heads, np.uint8)
    return Values(data, which.astype(np.int64) * 128, np.full(len(lengths), 128), values.dtype)


def _npy_head(dtype: np.dtype[Any], length: int) -> bytes:
    facts = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({length},), }}"
    return b"\x93NUMPY\x01\x00v\x00" + facts.ljust(117).encode() + b"\n"


def _numbers(data: U8, starts: I64, sizes: I64) -> Values:
    """The numbers in `.npy` members of one type."""
    if not len(starts):
        return Values(data, starts, sizes, np.dtype(np.uint16))
    if (sizes < 10).any() or not (data[starts] == 0x93).all() or not (data[starts + 6] == 1).all():
        raise ValueError("expected .npy members of version 1")
    head = 10 + data[starts + 8].astype(np.int64) + (data[starts + 9].astype(np.int64) << 8)
    if (head > sizes).any():
        raise ValueError("a .npy member ends in its header")
    first = data[starts[0] + 10 : starts[0] + head[0]].tobytes().decode("latin-1")
    try:
        facts = ast.literal_eval(first.strip())
        dtype = np.dtype(facts["descr"])
    except (SyntaxError, KeyError, TypeError, ValueError) as err:
        raise ValueError(f"the header of a .npy member cannot be read ({err})") from err
    # All begin alike, up to the shape: the same type in the same order.
    same = first.find("'shape'")
    if same < 0 or len(facts["shape"]) != 1:
        raise ValueError("expected .npy members of one axis")
    window = starts[:, None] + 10 + np.arange(same)
    if (head < 10 + same).any() or (data[window] != data[window[0]]).any():
        raise ValueError("expected .npy members of one type")
    if ((sizes - head) % dtype.itemsize).any():
        raise ValueError("a .npy member does not hold whole numbers")
    return Values(data, starts + head, sizes - head, dtype)


def _padded(sizes: I64) -> I64:
    return -(-sizes // BLOCK) * BLOCK


def _put_headers(data: U8, places: I64, keys: list[str], field: str, sizes: I64) -> None:
    """Write a header of ustar at each place."""
    blank = np.zeros(BLOCK, np.uint8)
    for at, text in [(100, b"0000444\0"), (108, b"0000000\0"), (116, b"0000000\0")]:
        blank[at : at + 8] = np.frombuffer(text, np.uint8)
    blank[136:148] = np.frombuffer(b"00000000000\0", np.uint8)
    blank[148:157] = np.frombuffer(b"        0", np.uint8)
    blank[257:265] = np.frombuffer(b"ustar\x0000", np.uint8)
    for at in (265, 297):
        blank[at : at + 9] = np.frombuffer(b"bigdata\0\0", np.uint8)
    for at in (329, 337):
        blank[at : at + 8] = np.frombuffer(b"0000000\0", np.uint8)
    headers = np.tile(blank, (len(keys), 1))
    name = "".join(f"{key}.{field}" for key in keys).encode()
    headers[:, : 33 + len(field)] = np.frombuffer(name, np.uint8).reshape(len(keys), -1)
    headers[:, 124:136] = _octal(sizes, 11)
    sums = headers.sum(axis=1, dtype=np.int64)
    headers[:, 148:155] = _octal(sums, 6)
    rows = np.arange(len(keys), dtype=np.int64) * BLOCK
    copy_ranges(headers.reshape(-1), rows, np.full(len(keys), BLOCK), data, places)


def _octal(numbers: I64, digits: int) -> U8:
    """Each number in so many octal digits and a zero byte; (n, digits + 1)."""
    shifts = 3 * np.arange(digits - 1, -1, -1)
    found = np.zeros((len(numbers), digits + 1), np.uint8)
    found[:, :digits] = 48 + ((numbers[:, None] >> shifts) & 7)
    return found


def _name(data: U8, member: I64) -> bytes:
    prefix = data[member[3] : member[3] + member[4]].tobytes()
    name = data[member[5] : member[5] + member[6]].tobytes()
    return prefix + b"/" + name if prefix else name
