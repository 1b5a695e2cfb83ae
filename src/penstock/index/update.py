"""Bring an index up to date: write what is new beside what is there, and name both.

Vectors live in immutable segments. A run adds at most one, which also takes
over the live rows of the newest older segments as long as those are not
several times larger than it, or mostly deleted: so sizes fall from old to new,
there are few segments, and a row is rewritten a logarithmic number of times.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import StoreError
from penstock.index.manifest import IndexManifest, SegmentManifest
from penstock.index.rows import is_among, row_set
from penstock.index.vectors import SegmentWriter, VectorSegment, write_deleted
from penstock.index.words import WordsWriter

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]

_NO_ROWS = np.empty(0, np.uint64)

_TIER = 4
"""A segment is merged while it has fewer live rows than this many times the newer ones."""
_MAX_DELETED_SHARE = 0.3
_MANY_ROWS = 5_000


def update_index(
    folder: Path,
    previous: IndexManifest | None,
    name: str,
    removed: npt.ArrayLike,
    added: Iterable[pa.RecordBatch],
) -> IndexManifest:
    """Write the index of a new run.

    Nothing that the previous manifest names is changed or deleted, and nothing
    is published: until the store publishes the manifest that is returned, the
    new files are leftovers, which the next call with this name clears away.

    Args:
        folder: The index's folder, made if absent.
        previous: The index to start from; None to build afresh.
        name: Name of the run, not used before by a published one.
        removed: Row ids to forget; those that are not there are ignored.
        added: Batches with `row_id` (uint64), `title`, `heading`, `text` and,
            unless the store is for words only, `embedding` (a fixed-size list
            of floats; null for a row that only words may find). An id that is
            there already is replaced.

    Raises:
        StoreError: Vectors differ in width from those that are there, or one
            id is added twice.

    Cost: memory for a few batches and 8 bytes a row; time for the rows added
        and removed and, now and then, a merge.
    """
    folder.mkdir(parents=True, exist_ok=True)
    previous = previous or IndexManifest()
    _clear(folder, name, previous)
    segments = [open_segment(folder, segment) for segment in previous.segments]
    live = row_set(np.concatenate([_NO_ROWS, *(segment.live_rows for segment in segments)]))
    removed = row_set(removed)
    batches, many = _peek(added)
    words = _LazyWords(folder, previous.words, name, many)
    gone = [removed[is_among(removed, live)]]
    # Once every row is gone, another model's vectors may come.
    stays = len(gone[0]) < len(live)
    vectors = _LazyVectors(folder, name, previous.dim if stays else None)
    with vectors:
        words.delete(gone[0])
        for batch in batches:
            rows, embeddings = _row_ids(batch), _embeddings(batch)
            replaced = rows[is_among(rows, live) & ~is_among(rows, removed)]
            words.delete(replaced)
            gone.append(replaced)
            vectors.add(rows, embeddings)
            words.add(rows, batch)
        vectors.check_unique()
        kept = _merge(
            [_without(segment, row_set(np.concatenate(gone))) for segment in segments], vectors
        )
    words.commit()
    names = zip(previous.segments, segments, kept, strict=False)
    manifests = (_manifest(folder, name, old, was, now) for old, was, now in names)
    return IndexManifest(
        dim=vectors.dim if vectors.dim is not None else previous.dim,
        segments=(*manifests, *vectors.manifest()),
        words=words.name,
    )


def open_segment(folder: Path, segment: SegmentManifest) -> VectorSegment:
    """Open a segment that a manifest names."""
    deleted = None if segment.deleted is None else folder / segment.deleted
    return VectorSegment.open(folder / segment.folder, deleted)


def _clear(folder: Path, name: str, previous: IndexManifest) -> None:
    """Delete what a crashed attempt of this name has left."""
    kept = set(previous.names())
    for path in sorted(folder.iterdir()):
        if path.name not in (f"vectors-{name}", f"words-{name}") and not path.name.startswith(
            f"deleted-{name}-of-"
        ):
            continue
        if path.name in kept:
            raise StoreError(str(path), "is already part of the index; a run needs a new name")
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _peek(added: Iterable[pa.RecordBatch]) -> tuple[Iterator[pa.RecordBatch], bool]:
    """The batches that hold rows, and whether they hold many."""
    batches = (batch for batch in added if batch.num_rows)
    first: list[pa.RecordBatch] = []
    num_rows = 0
    while num_rows < _MANY_ROWS and (batch := next(batches, None)) is not None:
        first.append(batch)
        num_rows += batch.num_rows
    return chain(first, batches), num_rows >= _MANY_ROWS


class _LazyWords:
    """The run's words; the previous folder goes on serving while nothing changes."""

    def __init__(self, folder: Path, previous: str | None, name: str, many: bool) -> None:
        self.name = previous
        self._folder, self._many = folder, many
        self._previous, self._new = previous, f"words-{name}"
        self._writer: WordsWriter | None = None

    def delete(self, rows: U64) -> None:
        if len(rows):
            self._open().delete(rows)

    def add(self, rows: U64, batch: pa.RecordBatch) -> None:
        columns = (batch.column(name).to_pylist() for name in ("title", "heading", "text"))
        self._open().add(rows, *columns)

    def commit(self) -> None:
        if self._writer is not None:
            self._writer.commit()
            self.name = self._new

    def _open(self) -> WordsWriter:
        if self._writer is None:
            previous = None if self._previous is None else self._folder / self._previous
            self._writer = WordsWriter(self._folder / self._new, previous, many=self._many)
        return self._writer


class _LazyVectors:
    """The run's segment of vectors, made when the first row comes."""

    def __init__(self, folder: Path, name: str, dim: int | None) -> None:
        self.dim = dim
        self._folder, self._name = folder, f"vectors-{name}"
        self._writer: SegmentWriter | None = None
        self._rows: list[U64] = []
        self._closing = contextlib.ExitStack()

    def add(self, rows: U64, embeddings: F32) -> None:
        dim = embeddings.shape[1]
        if self.dim is not None and self.dim != dim:
            raise StoreError(
                str(self._folder),
                f"the index holds vectors of width {self.dim}, the new rows {dim} (0 for none); "
                "build the index afresh",
            )
        if self._writer is None:
            writer = SegmentWriter(self._folder / self._name, dim)
            self.dim, self._writer = dim, self._closing.enter_context(writer)
        self._writer.add(rows, embeddings)
        self._rows.append(rows.copy())

    def check_unique(self) -> None:
        rows = np.concatenate([_NO_ROWS, *self._rows])
        if len(np.unique(rows)) != len(rows):
            raise StoreError(str(self._folder), "a row id was added twice in one update")

    @property
    def num_rows(self) -> int:
        return 0 if self._writer is None else self._writer.num_rows

    def manifest(self) -> list[SegmentManifest]:
        if self._writer is None:
            return []
        return [
            SegmentManifest(folder=self._name, deleted=None, num_rows=self.num_rows, num_deleted=0)
        ]

    def __enter__(self) -> None:
        self._closing.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._closing.__exit__(*error)


def _merge(segments: list[VectorSegment], vectors: _LazyVectors) -> list[VectorSegment]:
    """Take the live rows of the newest segments over into the new one; return the others."""
    live = [segment.num_live for segment in segments]
    sparse = (
        i
        for i, segment in enumerate(segments)
        if live[i] < (1 - _MAX_DELETED_SHARE) * len(segment.rows)
    )
    first = next(sparse, len(segments))
    newer = vectors.num_rows + sum(live[first:])
    while first > 0 and live[first - 1] < _TIER * newer:
        first -= 1
        newer += live[first]
    for segment in segments[first:]:
        for rows, embeddings in segment.live_blocks():
            vectors.add(rows, embeddings)
    return segments[:first]


def _without(segment: VectorSegment, gone: U64) -> VectorSegment:
    places = segment.locate(gone)
    if len(places) == 0:
        return segment
    deleted = np.zeros(len(segment.rows), np.bool_)
    if segment.deleted is not None:
        deleted |= segment.deleted
    deleted[places] = True
    return VectorSegment(segment.rows, segment.vectors, deleted)


def _manifest(
    folder: Path, name: str, old: SegmentManifest, was: VectorSegment, now: VectorSegment
) -> SegmentManifest:
    """Name a segment that stays, and write its deleted rows if there are new ones."""
    if now is was or now.deleted is None:
        return old
    deleted = f"deleted-{name}-of-{old.folder}.npy"
    write_deleted(folder / deleted, now.deleted)
    return replace(old, deleted=deleted, num_deleted=int(now.deleted.sum()))


def _row_ids(batch: pa.RecordBatch) -> U64:
    rows: U64 = batch.column("row_id").cast(pa.uint64()).to_numpy(zero_copy_only=False)
    return rows


def _embeddings(batch: pa.RecordBatch) -> F32:
    """(num_rows, dim) float32, NaN where null; dim is 0 without the column."""
    if "embedding" not in batch.schema.names:
        return np.empty((batch.num_rows, 0), np.float32)
    column = batch.column("embedding")
    dim = column.type.list_size
    values = column.values.slice(column.offset * dim, len(column) * dim)
    flat = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    embeddings: F32 = flat.reshape(len(column), dim)
    if column.null_count:
        embeddings = embeddings.copy()
        embeddings[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return embeddings
