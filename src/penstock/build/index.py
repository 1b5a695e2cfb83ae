"""Bring the index in step with the chunks table: its row ids against the table's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import StoreError
from penstock.index import Index, IndexManifest, IndexSettings, update_index
from penstock.index.passages import COLUMNS
from penstock.store.files import all_files, fsync_new
from penstock.store.lease import Lease
from penstock.store.manifest import (
    current_run,
    publish,
    read_manifest,
    run_name,
    save_checkpoint,
    starting_point,
)
from penstock.store.tables import open_table, take_rows
from penstock.words.analysis import analysis_version

_ROWS = 4096
"""Chunks handed to the index at a time."""

U64 = npt.NDArray[np.uint64]


def bring_index(
    folder: Path,
    chunks: Any,
    previous: dict[str, Any] | None,
    run: str,
    settings: IndexSettings,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Write the index of a run, from that of the run before as far as it goes.

    Args:
        folder: The store's index.
        chunks: The `lance.LanceDataset` of its chunks as of now.
        previous: The manifest of the index to start from; None to build it afresh.
        run: The run's name.
        settings: How it is to be.
        tell: Told when the earlier index is of no use.
    """
    folder.mkdir(exist_ok=True)
    has_vectors = "embedding" in chunks.schema.names
    dim = chunks.schema.field("embedding").type.list_size if has_vectors else 0
    before, have = _usable(folder, previous, dim, settings, tell)
    now = np.sort(chunks.to_table(columns=["ordinal"], with_row_id=True)["_rowid"].to_numpy())
    added = np.setdiff1d(now, have, assume_unique=True)
    removed = np.setdiff1d(have, now, assume_unique=True)
    if before is not None and not len(added) and not len(removed):
        return before.to_json()
    rows = _rows(chunks, added, has_vectors=has_vectors)
    return update_index(folder, before, run, removed, rows, settings).to_json()


def rebuild_index(store: Path, tell: Callable[[str], None] = lambda message: None) -> int:
    """Build a store's index afresh from its chunks, and publish it as a new run.

    Nothing else of the run changes. Readers of earlier runs go on as they can.

    Returns:
        How many chunks were indexed.

    Raises:
        StoreError: There is no store, or it holds no chunks.
        LeaseError: Another process is writing the store.
    """
    current = current_run(store)
    if current is None:
        raise StoreError(str(store), "there is no store here")
    with Lease(store) as lease:
        durable = all_files(store)
        start = starting_point(store)
        last = read_manifest(store / "runs" / f"{current}.json")
        if last.index is None:
            raise StoreError(str(store), "its last run has no chunks; add Chunk() to its flow")
        chunks = open_table(store / "chunks.lance", last.tables["chunks"])
        settings = IndexSettings(**last.flow.get("index", {}))
        started = time.time()
        index = bring_index(store / "index", chunks, None, start.run, settings, tell)
        fsync_new(store, durable)
        lease.check()
        rebuilt = replace(last, index=index, started=started, finished=time.time(), run=start.run)
        publish(store, rebuilt)
        if start.flow != last.flow or start.tables != last.tables:
            # An interrupted run's progress is good for the run after this one.
            following = run_name(int(start.run) + 1)
            save_checkpoint(store, replace(start, index=index, run=following))
        return int(chunks.count_rows())


def _usable(
    folder: Path,
    previous: dict[str, Any] | None,
    dim: int,
    settings: IndexSettings,
    tell: Callable[[str], None],
) -> tuple[IndexManifest | None, U64]:
    """The earlier index and its row ids, unless it is damaged or of another kind."""
    nothing = None, np.empty(0, np.uint64)
    if previous is None:
        return nothing
    try:
        manifest = IndexManifest.from_json(previous)
        same_words = manifest.analysis == analysis_version(settings.language)
        if manifest.dim not in (None, dim) or manifest.settings != settings or not same_words:
            return nothing
        return manifest, Index.open(folder, manifest).row_ids
    except StoreError as err:
        tell(f"building the index afresh: {err}")
        return nothing


def _rows(chunks: Any, row_ids: U64, *, has_vectors: bool) -> Iterator[pa.RecordBatch]:
    columns = [*COLUMNS, *(["embedding"] if has_vectors else [])]
    for start in range(0, len(row_ids), _ROWS):
        rows = take_rows(chunks, row_ids[start : start + _ROWS], columns)
        yield from rows.rename_columns({"_rowid": "row_id"}).combine_chunks().to_batches()
