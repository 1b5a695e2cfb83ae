"""What a store was told to forget: a list of documents that no run takes in again.

The list stands beside the runs, not in one, so that going back to an earlier
run does not bring a document back: a build compares the list with the one that
its starting point was made under, and takes out what is on it. It holds hashes
of ids, as an id may be what has to be forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import StoreError
from penstock.records import HASH, Failure, Read, content_hash, hash_column
from penstock.store.places import Place, replace_file

_NAME = "forgotten.arrow"
_RESTORED = b"restored"

FORGOTTEN = pa.schema(
    [
        pa.field("id_hash", HASH, nullable=False),
        pa.field("receipt", pa.string(), nullable=False),
    ]
)
"""A document by the hash of its `doc_id`, and the receipt that says when and why."""


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """The list.

    Attributes:
        rows: Table of `FORGOTTEN`, sorted by hash.
        restored: How often something was taken off the list again.
    """

    rows: pa.Table = field(default_factory=FORGOTTEN.empty_table)
    restored: int = 0

    def state(self) -> dict[str, Any]:
        """What a run's manifest says of the list that it was made under; {} before the first."""
        if not len(self.rows) and not self.restored:
            return {}
        hashes = self.rows["id_hash"].to_pylist()
        digest = hashlib.sha256(b"".join(hashes)).hexdigest()[:32]
        return {"documents": len(hashes), "digest": digest, "restored": self.restored}

    def among(self, doc_id: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Which of these documents are on the list, (num_rows,) bool."""
        ids = doc_id.combine_chunks() if isinstance(doc_id, pa.ChunkedArray) else doc_id
        if not len(self.rows):
            return pa.array([False] * len(ids), pa.bool_())
        return pc.is_in(hash_column(ids.cast(pa.large_string())), value_set=self._hashes)

    def without(self, read: Read) -> Read:
        """What a source read, but for documents on the list."""
        if not len(self.rows):
            return read
        rows = read.rows.filter(pc.invert(self.among(read.rows["doc_id"])))
        return Read(rows, self.left(read.failures), read.finished)

    def left(self, failures: Iterable[Failure]) -> tuple[Failure, ...]:
        """Failures, but for those of documents on the list."""
        if not len(self.rows):
            return tuple(failures)
        known = set(self._hashes.to_pylist())
        return tuple(each for each in failures if content_hash(each.doc_id.encode()) not in known)

    @property
    def _hashes(self) -> pa.Array:
        return self.rows["id_hash"].combine_chunks()


def read_forgotten(store: Place) -> Forgotten:
    """The list of a store; an empty one where nothing was forgotten.

    Raises:
        StoreError: The file is not what was written. No build may go on without it.
    """
    path = store / _NAME
    try:
        rows = pa.ipc.open_file(path.read_bytes()).read_all()
        restored = int(rows.schema.metadata[_RESTORED])
        return Forgotten(rows=rows.cast(FORGOTTEN), restored=restored)
    except FileNotFoundError:
        return Forgotten()
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise StoreError(
            str(path),
            f"cannot be read ({err}), and without it a build would bring back what was forgotten. "
            "Restore it from a backup, or delete it and forget again what its receipts name",
        ) from err


def add_forgotten(store: Place, doc_ids: pa.Array, receipt: str) -> Forgotten:
    """Put documents on the list; atomic and durable. The caller holds the lease."""
    known = read_forgotten(store)
    new = doc_ids.filter(pc.invert(known.among(doc_ids)))
    rows = pa.table(
        {
            "id_hash": hash_column(new.cast(pa.large_string())),
            "receipt": pa.array([receipt] * len(new), pa.string()),
        },
        schema=FORGOTTEN,
    )
    return _write(store, pa.concat_tables([known.rows, rows]), known.restored)


def drop_forgotten(store: Place, doc_ids: pa.Array) -> Forgotten:
    """Take documents off the list; atomic and durable. The caller holds the lease."""
    known = read_forgotten(store)
    hashes = hash_column(doc_ids.cast(pa.large_string()))
    stays = pc.invert(pc.is_in(known.rows["id_hash"], value_set=hashes))
    return _write(store, known.rows.filter(stays), known.restored + 1)


def _write(store: Place, rows: pa.Table, restored: int) -> Forgotten:
    rows = rows.sort_by("id_hash").combine_chunks()
    sink = pa.BufferOutputStream()
    schema = FORGOTTEN.with_metadata({_RESTORED: str(restored)})
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(rows.cast(schema))
    replace_file(store / _NAME, sink.getvalue().to_pybytes())
    return Forgotten(rows=rows, restored=restored)
