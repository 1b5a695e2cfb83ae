"""Bring the index in step with the chunks table: its row ids against the table's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.build.rebuild import rebuild
from penstock.errors import StoreError
from penstock.index import Index, IndexManifest, IndexSettings, update_index
from penstock.index.passages import COLUMNS
from penstock.store.manifest import Manifest
from penstock.store.places import LocalFiles, Place, local_files
from penstock.store.tables import open_table, take_rows
from penstock.words.analysis import analysis_version

_ROWS = 4096
"""Chunks handed to the index at a time."""

U64 = npt.NDArray[np.uint64]


def bring_index(
    folder: Place,
    chunks: Any,
    previous: dict[str, Any] | None,
    name: str,
    settings: IndexSettings,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Write the index of a run, from that of the run before as far as it goes.

    Args:
        folder: The store's index.
        chunks: The `lance.LanceDataset` of its chunks as of now.
        previous: The manifest of the index to start from; None to build it afresh.
        name: What to name its new files by, from `attempt_name`.
        settings: How it is to be.
        tell: Told when the earlier index is of no use.
    """
    has_vectors = "embedding" in chunks.schema.names
    dim = chunks.schema.field("embedding").type.list_size if has_vectors else 0
    before, have, files = _usable(folder, previous, dim, settings, tell)
    now = np.sort(chunks.to_table(columns=["ordinal"], with_row_id=True)["_rowid"].to_numpy())
    added = np.setdiff1d(now, have, assume_unique=True)
    removed = np.setdiff1d(have, now, assume_unique=True)
    if before is not None and not len(added) and not len(removed):
        return before.to_json()
    rows = _rows(chunks, added, has_vectors=has_vectors)
    return update_index(files.path, before, name, removed, rows, settings).to_json()


def rebuild_index(
    store: str | os.PathLike[str], tell: Callable[[str], None] = lambda message: None
) -> int:
    """Build a store's index afresh from its chunks, and publish it as a new run.

    Nothing else of the run changes. Readers of earlier runs go on as they can.

    Returns:
        How many chunks were indexed.

    Raises:
        StoreError: There is no store, or it holds no chunks.
        LeaseError: Another process is writing the store.
    """

    def make(place: Place, last: Manifest, name: str) -> tuple[dict[str, Any], int]:
        chunks = open_table(place / "chunks.lance", last.tables["chunks"])
        settings = IndexSettings(**last.flow.get("index", {}))
        index = bring_index(place / "index", chunks, None, name, settings, tell)
        return index, int(chunks.count_rows())

    missing = "its last run has no chunks; add Chunk() to its flow"
    return rebuild(store, "index", missing, make)


def _usable(
    folder: Place,
    previous: dict[str, Any] | None,
    dim: int,
    settings: IndexSettings,
    tell: Callable[[str], None],
) -> tuple[IndexManifest | None, U64, LocalFiles]:
    """The earlier index, unless it is damaged or of another kind; its row ids, and its files."""
    nothing = None, np.empty(0, np.uint64), local_files(folder)
    if previous is None:
        return nothing
    try:
        manifest = IndexManifest.from_json(previous)
        same_words = manifest.analysis == analysis_version(settings.language)
        if manifest.dim not in (None, dim) or manifest.settings != settings or not same_words:
            return nothing
        files = local_files(folder, manifest.names())
        return manifest, Index.open(files.path, manifest).row_ids, files
    except StoreError as err:
        tell(f"building the index afresh: {err}")
        return nothing


def _rows(chunks: Any, row_ids: U64, *, has_vectors: bool) -> Iterator[pa.RecordBatch]:
    columns = [*COLUMNS, *(["embedding"] if has_vectors else [])]
    for start in range(0, len(row_ids), _ROWS):
        rows = take_rows(chunks, row_ids[start : start + _ROWS], columns)
        yield from rows.rename_columns({"_rowid": "row_id"}).combine_chunks().to_batches()
