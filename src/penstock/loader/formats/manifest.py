"""The manifest of an export: which shards there are, what they hold, and how each is checked.

    OUT/_penstock/manifest.json          what this module reads and writes
    OUT/_penstock/rows/<shard>.arrow     documents of a shard: doc_id, row_hash, num_tokens
    OUT/_penstock/tokenizer.json         what made the tokens
    OUT/_penstock/checkpoint.json        a manifest that is not published yet

It stands beside whatever index the format has, which other libraries read.
Their rules are strict (Streaming refuses a key that it does not know), so what
we need besides is here. Folders whose name begins with `_` are passed over by
readers of Parquet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa

from penstock.errors import ShardError
from penstock.loader.formats.checks import Expected
from penstock.loader.places import Place

FORMAT = 1
FOLDER = "_penstock"
MANIFEST = f"{FOLDER}/manifest.json"
CHECKPOINT = f"{FOLDER}/checkpoint.json"
TOKENIZER = f"{FOLDER}/tokenizer.json"

FormatName = Literal["lance", "mds", "parquet", "webdataset"]
FORMATS = get_args(FormatName)

ROWS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("row_hash", pa.binary(16), nullable=False),
        pa.field("num_tokens", pa.int32()),
    ]
)
"""The rows of one shard in its order; `row_hash` names all that was exported of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One shard.

    Attributes:
        name: Its file, below the folder of the export.
        num_bytes: Of the file.
        sha256: Of the file.
        num_rows: Rows in it.
        dead: Rows of documents that have changed or gone since.
        rows: Name, bytes and SHA-256 of the file with its documents.
        groups: Rows of each row group, where the format has such.
        entry: What the format's own index says of it.
        beside: Other files that belong to it.
    """

    name: str
    num_bytes: int
    sha256: str
    num_rows: int
    dead: tuple[int, ...] = ()
    rows: tuple[str, int, str]
    groups: tuple[int, ...] = ()
    entry: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def file(self) -> Expected:
        """How its file is checked."""
        return Expected(self.name, self.num_bytes, {"sha256": self.sha256})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An export as published.

    Attributes:
        kind: Its format.
        store: The store that it came from.
        run: The run of that store.
        where: The condition that documents satisfy; None for every kept one.
        tokens: Fingerprint of what made the tokens; None without any.
        tokenizer: Name, bytes and SHA-256 of the file with its tokenizer.
        shards: In the order of their numbers.
        next_number: Of the next shard; a name is never used again.
        retired: Files that the export before had and this one has not.
        indexes: Name, bytes and SHA-256 of each index of the format.
        format: Version of this layout.
    """

    kind: FormatName
    store: str
    run: str
    where: str | None = None
    tokens: str | None = None
    tokenizer: tuple[str, int, str] | None = None
    shards: tuple[Shard, ...] = ()
    next_number: int = 0
    retired: tuple[str, ...] = ()
    indexes: tuple[tuple[str, int, str], ...] = ()
    format: int = FORMAT

    @property
    def num_rows(self) -> int:
        """Documents that count."""
        return sum(shard.num_rows - len(shard.dead) for shard in self.shards)

    def to_bytes(self) -> bytes:
        """As JSON with a digest of itself: flipped bits show."""
        facts = asdict(self)
        return _dump(facts | {"sha256": _digest(facts)})


def manifest_from(data: bytes, name: str = MANIFEST) -> Manifest:
    """What `Manifest.to_bytes` wrote.

    Raises:
        ShardError: It is damaged, or a newer Penstock wrote it.
    """
    try:
        facts = json.loads(data)
        if facts["format"] > FORMAT:
            problem = f"it has format {facts['format']}, and this Penstock reads up to {FORMAT}"
            raise ShardError(name, 0, f"{problem}: pip install -U penstock")
        digest = facts.pop("sha256")
        # The bytes are compared, too: another spelling of the same is none of ours.
        if digest != _digest(facts) or data != _dump(facts | {"sha256": digest}):
            raise ValueError("its digest is not that of its content")
        facts["shards"] = tuple(_shard(shard) for shard in facts["shards"])
        facts["retired"] = tuple(facts["retired"])
        facts["tokenizer"] = facts["tokenizer"] and tuple(facts["tokenizer"])
        facts["indexes"] = tuple(tuple(index) for index in facts["indexes"])
        return Manifest(**facts)
    except (ValueError, KeyError, TypeError) as err:
        raise ShardError(name, 0, f"the export's manifest is damaged ({err})") from err


def read_manifest(place: Place) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        ShardError: It is damaged.
    """
    data = place.read(MANIFEST)
    return None if data is None else manifest_from(data)


def rows_to_bytes(rows: pa.Table) -> bytes:
    """A table of `ROWS` as a file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, ROWS) as writer:
        writer.write_table(rows.cast(ROWS))
    return bytes(sink.getvalue())


def rows_of(place: Place, shard: Shard) -> pa.Table:
    """The documents of a shard.

    Raises:
        ShardError: The file is missing or damaged.
    """
    return pa.ipc.open_file(pa.py_buffer(read_file(place, shard.rows))).read_all()


def read_file(place: Place, file: tuple[str, int, str]) -> bytes:
    """A small file that a manifest names, checked.

    Raises:
        ShardError: It is missing or damaged.
    """
    name, num_bytes, digest = file
    data = place.read(name)
    if data is None:
        raise ShardError(name, 0, "expected a file of the export, but it is missing")
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        problem = f"expected {num_bytes} bytes of SHA-256 {digest}, found {len(data)} of {found}"
        raise ShardError(name, min(num_bytes, len(data)), problem)
    return data


def named(name: str, data: bytes) -> tuple[str, int, str]:
    """A file as a manifest names it."""
    return name, len(data), hashlib.sha256(data).hexdigest()


def _shard(facts: Mapping[str, Any]) -> Shard:
    lists: Sequence[str] = ("dead", "rows", "groups", "beside")
    return Shard(**{**facts, **{name: tuple(facts[name]) for name in lists}})


def _dump(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dump(facts)).hexdigest()
