"""The Arrow schemas that flow, and what names a row.

    source --RAW--> decode --> document steps --DOCUMENTS--> decisions --VERDICTS, EDITS-->
        Chunk --CHUNKS--> Embed --> index

Text is `large_string` throughout, so that a batch never overflows 32-bit
offsets. Hashes are the first 16 bytes of SHA-256, which processors compute in hardware.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

HASH = pa.binary(16)

# A column's text is compressed on disk; Lance reads the wish from the field. Level 1 took
# 3.7 ms/MB for Python source, and level 3, the default, 4.1 ms/MB for 4 % less.
_ZSTD = {b"lance-encoding:compression": b"zstd", b"lance-encoding:compression-level": b"1"}

ITEMS = pa.schema(
    [
        pa.field("item", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)
"""What a source lists: a file and its size and mtime, or an object and its tag."""

RAW = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("raw", pa.large_binary(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
"""What a source yields: a document's raw bytes; `metadata` is canonical JSON of one object."""

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("content_hash", HASH, nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False, metadata=_ZSTD),
        pa.field("text", pa.large_string(), nullable=False, metadata=_ZSTD),
        pa.field("text_hash", HASH, nullable=False),
        pa.field("source_metadata", pa.string(), metadata=_ZSTD),
        pa.field("has_blob", pa.bool_(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
    ]
)
"""A document after the document steps; each decision adds its signature column.

`source_metadata` is the metadata as read, where a step changed it; `has_blob`
says that the raw bytes differ from `text` and lie in `BLOBS`; `fingerprint`
names the chain of steps that computed the row.
"""

BLOBS = pa.schema(
    [
        pa.field("content_hash", HASH, nullable=False),
        pa.field("raw", pa.large_binary(), nullable=False, metadata=_ZSTD),
    ]
)
"""Raw bytes by their hash, for documents whose text is not those bytes already."""

VERDICTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("rule", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("duplicate_of", pa.string()),
    ]
)
"""`kept`, or `dropped` with a rule, a score and, for duplicates, the document kept instead."""

CUTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("places", pa.large_list(pa.uint32()), nullable=False),
        pa.field("duplicate_of", pa.large_list(pa.string()), nullable=False),
    ]
)
"""What a decision cuts out of documents that stay: places in its own numbering, and whose they are.

`duplicate_of` has an entry for each place: the document, or the item of an
evaluation set, that has the same; null where none is named.
"""

SPANS = pa.list_(
    pa.struct(
        [
            pa.field("start", pa.int64()),
            pa.field("end", pa.int64()),
            pa.field("duplicate_of", pa.string()),
        ]
    )
)
"""Bytes `start` to `end` of a text in UTF-8, in order, and who has the same."""

EDITS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("spans", SPANS),
        pa.field("edit_key", HASH, nullable=False),
    ]
)
"""What a rule cuts out of a document's `text`; a document has a row for each rule that cuts it.

`spans` is null where so little was left that the document is dropped. `edit_key`
names all that the spans depend on.
"""

CHUNKS = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("chunk_hash", HASH, nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("heading_path", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False, metadata=_ZSTD),
    ]
)
"""What `Chunk` cuts: bytes `start` to `end` of a document's final text in UTF-8.

`chunk_id` is `doc_id#ordinal`; `heading_path` joins the headings above the
chunk's start with ` > `. The table adds the document's `title`, `media_type`
and `metadata`, `cut_key` (hash of all that the row depends on), `embedded_by`
(the model's fingerprint) and `embedding`, (dim,) float16 of length 1 (`Store.chunks`
gives it as float32).
"""

FAILURES = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("advice", pa.string(), nullable=False),
        pa.field("transient", pa.bool_(), nullable=False),
        pa.field("tries", pa.int32(), nullable=False),
    ]
)
"""Rows that raised: where, why, what to do, and how often it was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row that could not be processed: a row of `FAILURES` but for its tries.

    Attributes:
        doc_id: The document, or the closest name for it (a path, ``path:line``).
        item: The source item that it came from.
        step: Where it failed: ``list``, ``read``, ``decode`` or a step's name.
        error: A short stable name for the kind of failure, such as ``binary-file``.
        message: What was expected and what was found.
        advice: What the user can do about it.
        transient: True if trying again may help although nothing changed (an
            I/O error, a user's function); False if the outcome is a function of
            the item's bytes, so that only a change of them warrants a new try.
    """

    doc_id: str
    item: str
    step: str
    error: str
    message: str
    advice: str
    transient: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds now.

    Attributes:
        items: Table of `ITEMS`, sorted by item, each item once.
        failures: Places that could not be listed.
    """

    items: pa.Table
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """What one task of a source read.

    Attributes:
        rows: Batch of `RAW`.
        failures: Rows that could not be read.
        finished: Items whose last row is in this or an earlier task, with the
            version that was found while reading (a file may have changed since
            it was listed).
    """

    rows: pa.RecordBatch
    failures: tuple[Failure, ...] = ()
    finished: tuple[tuple[str, str], ...] = ()


to_json = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str
).encode
"""Canonical JSON: sorted keys, no spaces, as the store keeps a document's metadata."""


def content_hash(data: bytes | memoryview | pa.Buffer) -> bytes:
    """16 bytes of SHA-256: what names raw bytes, a text or a chunk."""
    return hashlib.sha256(data).digest()[:16]


def hash_column(column: pa.Array) -> pa.Array:
    """Hash each value of a binary or string column; (num_rows,) `HASH`.

    Cost: 1.5 GB/s on one core with SHA instructions, 0.4 without, plus 1 us a row; no copy.
    """
    large = column.cast(pa.large_binary())  # strings and bytes share their layout
    _, offsets, data = large.buffers()
    ends = memoryview(offsets).cast("q")[large.offset : large.offset + len(large) + 1]
    view = memoryview(data) if data is not None else memoryview(b"")
    sha256 = hashlib.sha256
    digests = b"".join(sha256(view[ends[i] : ends[i + 1]]).digest()[:16] for i in range(len(large)))
    return pa.Array.from_buffers(HASH, len(large), [None, pa.py_buffer(digests)])


def failure_table(failures: Iterable[Failure], tries: int = 1) -> pa.Table:
    """Table of `FAILURES` in the order given."""
    rows = [
        {name: getattr(failure, name) for name in FAILURES.names if name != "tries"}
        | {"tries": tries}
        for failure in failures
    ]
    return pa.Table.from_pylist(rows, schema=FAILURES)
