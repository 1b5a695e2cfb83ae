"""Where documents are in a store's files: in rows that count, and in those that were deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.index import IndexManifest
from penstock.index.passages import Passages
from penstock.records import hash_column
from penstock.store.exports import exported_shards
from penstock.store.manifest import Manifest, read_manifest, run_names
from penstock.store.places import Place, local_files
from penstock.store.receipts import Receipt
from penstock.store.tables import open_table
from penstock.tokens import TokensManifest
from penstock.tokens.segments import Segment as TokenSegment
from penstock.tokens.segments import rows_among
from penstock.tokens.write import name_hashes, row_order

U64 = npt.NDArray[np.uint64]


def receipt_of(store: Place, last: Manifest, run: str, ids: pa.Array, reason: str) -> Receipt:
    """Where documents are now and were in earlier runs.

    Cost: reads the ids of every version of every table, and the index's passages,
    10 us a chunk.
    """
    traces = _Traces(store, ids)
    for manifest in published(store):
        traces.look(manifest)
    hashes = hash_column(ids.cast(pa.large_string())).to_pylist()
    return Receipt(
        run=run,
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        reason=reason,
        documents=[each.hex() for each in hashes],
        versions={name: sorted(found) for name, found in sorted(traces.versions.items())},
        runs=sorted(traces.runs, key=int),
        segments={name: count for name, count in sorted(traces.segments.items()) if count},
        exports=_exports(store, ids),
        same_content=_same_content(store, last, ids),
    )


class _Traces:
    """What is known so far of where some documents are.

    Attributes:
        versions: Versions with rows of theirs, by table.
        runs: Runs that name a file with a trace.
        segments: Rows of theirs in each segment, by its path in the store.
    """

    def __init__(self, store: Place, ids: pa.Array) -> None:
        self._store, self._ids = store, ids
        hashes = name_hashes(ids)
        self._hashes = np.ascontiguousarray(hashes[:, row_order(hashes)])
        self._names = set(ids.to_pylist())
        self._tables: dict[tuple[str, int], bool] = {}
        self.versions: dict[str, list[int]] = {}
        self.runs: set[str] = set()
        self.segments: dict[str, int] = {}

    def look(self, manifest: Manifest) -> None:
        """Look through what a run names and no run before named."""
        found = [self._in_table(*each) for each in manifest.tables.items()]
        if manifest.index is not None:
            found.append(self._in_index(IndexManifest.from_json(manifest.index)))
        if manifest.tokens is not None:
            found.append(self._in_tokens(TokensManifest.from_json(manifest.tokens)))
        if any(found):
            self.runs.add(manifest.run)

    def _in_table(self, name: str, version: int) -> bool:
        if (name, version) not in self._tables:
            dataset = open_table(self._store / f"{name}.lance", version)
            found = "doc_id" in dataset.schema.names
            if found:
                rows = dataset.scanner(
                    columns=["doc_id"], with_row_id=True, include_deleted_rows=True
                ).to_table()
                found = bool(pc.any(is_in(rows["doc_id"], self._ids)).as_py())
            if found:
                self.versions.setdefault(name, []).append(version)
            self._tables[name, version] = found
        return self._tables[name, version]

    def _in_index(self, index: IndexManifest) -> bool:
        files = local_files(self._store / "index", index.names())
        held = False
        for segment in index.segments:
            key = f"index/{segment.folder}"
            if key not in self.segments:
                passages = Passages.open(files.path / segment.folder / "passages")
                self.segments[key] = sum(name in self._names for name in passages.doc_ids())
            held |= self.segments[key] > 0
        return held

    def _in_tokens(self, tokens: TokensManifest) -> bool:
        files = local_files(self._store / "tokens", tokens.names())
        held = False
        for facts in tokens.segments:
            key = f"tokens/{facts.folder}"
            if key not in self.segments:
                segment = TokenSegment.open(files.path, facts, tokens.dtype)
                self.segments[key] = int(rows_among(segment.hashes, self._hashes).sum())
            held |= self.segments[key] > 0
        return held


def published(store: Place) -> Iterator[Manifest]:
    """Every published run, the newest first."""
    for name in reversed(run_names(store)):
        yield read_manifest(store / "runs" / f"{name}.json")


def rows_of(dataset: Any, ids: pa.Array) -> U64:
    """Row ids of the rows of these documents."""
    if "doc_id" not in dataset.schema.names:
        return np.empty(0, np.uint64)
    rows = dataset.to_table(columns=["doc_id"], with_row_id=True)
    found: U64 = rows["_rowid"].filter(is_in(rows["doc_id"], ids)).to_numpy()
    return found


def is_in(values: Any, among: Any) -> Any:
    """Which of the values are among others, which may come in pieces."""
    chosen = among.combine_chunks() if isinstance(among, pa.ChunkedArray) else among
    return pc.is_in(values, value_set=chosen)


def _exports(store: Place, ids: pa.Array) -> list[dict[str, Any]]:
    """Folders of exports that hold some of the documents, and in which shards."""
    shards: dict[str, set[str]] = {}
    for each in exported_shards(store, ids.to_pylist()):
        shards.setdefault(each.path, set()).add(each.shard)
    return [{"path": path, "shards": sorted(names)} for path, names in sorted(shards.items())]


def _same_content(store: Place, last: Manifest, ids: pa.Array) -> int:
    """Documents that hold the same bytes and stay."""
    version = last.tables.get("documents")
    if version is None:
        return 0
    rows = open_table(store / "documents.lance", version).to_table(
        columns=["doc_id", "content_hash"]
    )
    gone = is_in(rows["doc_id"], ids)
    theirs = rows["content_hash"].filter(gone)
    stays = rows["content_hash"].filter(pc.invert(gone))
    return int(pc.sum(is_in(stays, theirs)).as_py() or 0)
