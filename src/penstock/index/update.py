"""Bring an index up to date: write what is new beside what is there, and name both.

A run adds at most one segment, which also takes over the live rows of the
newest older segments as long as those are not several times larger than it, or
mostly deleted: so sizes fall from old to new, there are few segments, and a row
is copied a logarithmic number of times.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.arrays import save_mask
from penstock.errors import StoreError
from penstock.index.manifest import IndexManifest, SegmentManifest
from penstock.index.rows import row_set
from penstock.index.segments import (
    Segment,
    SegmentWriter,
    finish_segment,
    merge_segments,
)
from penstock.index.settings import IndexSettings
from penstock.tiers import first_merged
from penstock.words.analysis import analysis_version

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]

_NO_ROWS = np.empty(0, np.uint64)


def update_index(
    folder: Path,
    previous: IndexManifest | None,
    name: str,
    removed: npt.ArrayLike,
    added: Iterable[pa.RecordBatch],
    settings: IndexSettings | None = None,
) -> IndexManifest:
    """Write the index of a new run.

    Nothing that the previous manifest names is changed or deleted, and nothing
    is published: until the store publishes the manifest that is returned, the
    new files are leftovers, which the next call with this name clears away.

    Args:
        folder: The index's folder, made if absent.
        previous: The index to start from, of the same settings; None to build afresh.
        name: Name of the run, not used before by a published one.
        removed: Row ids to forget; those that are not there are ignored.
        added: Batches with `row_id` (uint64), the columns of
            `penstock.index.passages.COLUMNS` and, unless the store is for words
            only, `embedding` (a fixed-size list of floats; null for a row that
            only words may find). An id that is there already is replaced.
        settings: How words are cut and vectors searched.

    Raises:
        StoreError: Vectors differ in width from those that are there, or one
            id is added twice.

    Cost: memory for a few batches and some 20 bytes a row; time for the rows
        added and removed and, now and then, a merge.
    """
    settings = settings or IndexSettings()
    folder.mkdir(parents=True, exist_ok=True)
    previous = previous or IndexManifest()
    new = folder / f"segment-{name}"
    _clear(folder, name, previous)
    segments = [open_segment(folder, segment) for segment in previous.segments]
    removed = row_set(removed)
    # Once every row is gone, another model's vectors may come.
    stays = any(segment.num_live > len(segment.locate(removed)) for segment in segments)
    dim = previous.dim if stays else None
    part = folder / f"segment-{name}.part"
    rows, dim = _write_part(part, added, dim, settings)
    gone = row_set(np.concatenate([removed, rows]))
    now = [segment.without(gone) for segment in segments]
    sizes = [len(segment.rows) for segment in now]
    kept = first_merged([segment.num_live for segment in now], sizes, len(rows))
    parts = [segment for segment in now[kept:] if segment.num_live]
    if len(rows) and not parts and _ascending(rows):
        part.rename(new)
    elif len(rows) or parts:
        merged = [*parts, Segment.open(part)] if len(rows) else parts
        merge_segments(new, merged)
    if part.exists():
        shutil.rmtree(part)
    manifests = [
        _manifest(folder, name, *each)
        for each in zip(previous.segments[:kept], segments, now, strict=False)
    ]
    if new.exists():
        finish_segment(new, settings)
        num_rows = len(rows) + sum(segment.num_live for segment in parts)
        manifests.append(
            SegmentManifest(folder=new.name, deleted=None, num_rows=num_rows, num_deleted=0)
        )
    return IndexManifest(
        dim=dim if dim is not None else previous.dim,
        segments=tuple(manifests),
        settings=settings,
        analysis=analysis_version(settings.language),
    )


def purge_index(folder: Path, previous: IndexManifest, name: str) -> IndexManifest:
    """Write every segment that holds deleted rows anew without them; see `update_index`.

    Cost: a copy of those segments, in bounded memory.
    """
    _clear(folder, name, previous)
    kept: list[SegmentManifest] = []
    for number, segment in enumerate(previous.segments):
        if segment.deleted is None:
            kept.append(segment)
        elif segment.num_live:
            new = folder / f"segment-{name}-{number}"
            merge_segments(new, [open_segment(folder, segment)])
            finish_segment(new, previous.settings)
            kept.append(
                SegmentManifest(
                    folder=new.name, deleted=None, num_rows=segment.num_live, num_deleted=0
                )
            )
    return replace(previous, segments=tuple(kept))


def open_segment(
    folder: Path, segment: SegmentManifest, known: Mapping[Path, Segment] | None = None
) -> Segment:
    """Open a segment that a manifest names, sharing the files of one that is open already."""
    deleted = None if segment.deleted is None else folder / segment.deleted
    opened = (known or {}).get(folder / segment.folder)
    if opened is None:
        return Segment.open(folder / segment.folder, deleted)
    return opened.with_deleted(deleted)


def _clear(folder: Path, name: str, previous: IndexManifest) -> None:
    """Delete what a crashed attempt of this name has left."""
    kept = set(previous.names())
    ours = (f"segment-{name}", f"segment-{name}.part")
    beginnings = (f"segment-{name}-", f"deleted-{name}-of-")
    for path in sorted(folder.iterdir()):
        if path.name not in ours and not path.name.startswith(beginnings):
            continue
        if path.name in kept:
            raise StoreError(str(path), "is already part of the index; a run needs a new name")
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_part(
    folder: Path, added: Iterable[pa.RecordBatch], dim: int | None, settings: IndexSettings
) -> tuple[U64, int | None]:
    """Write the new rows as they come; their ids in that order, and the width of vectors."""
    batches = (batch for batch in added if batch.num_rows)
    first = next(batches, None)
    if first is None:
        return _NO_ROWS, dim
    if dim is None:
        dim = _embeddings(first).shape[1]
    with SegmentWriter(folder, dim, settings) as writer:
        for batch, vectors in _with_vectors(chain([first], batches)):
            if vectors.shape[1] != dim:
                raise StoreError(
                    str(folder.parent),
                    f"the index holds vectors of width {dim}, the new rows {vectors.shape[1]} "
                    "(0 for none); build the index afresh",
                )
            writer.add(batch, vectors)
        rows = writer.rows
        if len(np.unique(rows)) != len(rows):
            raise StoreError(str(folder.parent), "a row id was added twice in one update")
    return rows, dim


def _with_vectors(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, F32]]:
    for batch in batches:
        yield batch, _embeddings(batch)


def _manifest(
    folder: Path, name: str, old: SegmentManifest, was: Segment, now: Segment
) -> SegmentManifest:
    """Name a segment that stays, and write its deleted rows if there are new ones."""
    if now is was or now.deleted is None:
        return old
    deleted = f"deleted-{name}-of-{old.folder}.npy"
    save_mask(folder / deleted, now.deleted)
    return replace(old, deleted=deleted, num_deleted=int(now.deleted.sum()))


def _ascending(rows: U64) -> bool:
    return bool(np.all(rows[1:] > rows[:-1]))


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
