"""Read a store: its tables, its runs, and searches over it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import ConfigError, ModelError, QueryError, StoreError
from penstock.index import Hit as IndexHit
from penstock.index import Index, IndexManifest, metadata_columns, parse_where, where_columns
from penstock.models import open_encoder
from penstock.records import CHUNKS, DOCUMENTS, FAILURES, VERDICTS
from penstock.store.manifest import Manifest, current_run, read_manifest, run_name, run_names
from penstock.store.tables import open_table, take_rows

Mode = Literal["hybrid", "vector", "words"]
Fusion = Literal["weighted", "rrf"]
TableName = Literal["documents", "verdicts", "chunks", "failures"]

_SCHEMAS = {"documents": DOCUMENTS, "verdicts": VERDICTS, "chunks": CHUNKS, "failures": FAILURES}
_SORTED_BY = {
    "documents": ("doc_id",),
    "verdicts": ("doc_id",),
    "chunks": ("doc_id", "ordinal"),
    "failures": ("doc_id", "step"),
}
# How a row was computed, and by what: of use to the next run only.
_INTERNAL = {"source_metadata", "has_blob", "fingerprint", "cut_key", "embedded_by"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One chunk that a search found.

    Attributes:
        doc_id: Its document.
        chunk_id: `doc_id#ordinal`.
        score: What the hits are ordered by; larger is better. Comparable within one search only.
        vector_score: Cosine of query and chunk; None if that side was not asked or knows no score.
        words_score: BM25; None likewise.
        text: The chunk.
        start: First byte of the chunk in the document's text in UTF-8.
        end: Byte after its last.
        title: The document's title, or its file's name.
        heading_path: Headings above the chunk's start, joined by ` > `.
        metadata: The document's metadata.
    """

    doc_id: str
    chunk_id: str
    score: float
    vector_score: float | None
    words_score: float | None
    text: str
    start: int
    end: int
    title: str
    heading_path: str
    metadata: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The hit in JSON types."""
        return asdict(self)


class Store:
    """A store as one run left it.

    Reading takes no lock and is never blocked; what a `Store` shows does not
    change while it is open, whatever writers do. Safe to use from many threads.

    Attributes:
        path: The store's folder.
        manifest: The run that is shown.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = threading.Lock()
        self._allowed: dict[str, npt.NDArray[np.uint64]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], run: str | int | None = None) -> Store:
        """Open the last published run of a store, or the run named.

        Raises:
            StoreError: There is no store, or no such run.
            FormatError: A newer Penstock wrote it.
        """
        folder = Path(path)
        current = current_run(folder)
        if current is None:
            what = "an unfinished build" if (folder / "runs").is_dir() else "no store"
            raise StoreError(
                str(folder), f"there is {what} here; build one: penstock build SOURCE {folder}"
            )
        return cls(folder, _manifest(folder, current if run is None else run))

    def at(self, run: str | int) -> Store:
        """The store as an earlier run left it.

        Raises:
            StoreError: There is no such run.
        """
        return Store.open(self.path, run)

    def runs(self) -> list[Manifest]:
        """Every published run, oldest first."""
        return [_manifest(self.path, name) for name in run_names(self.path)]

    def documents(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """One row per document, dropped ones too, sorted by `doc_id`.

        Args:
            columns: Names of the columns wanted, also of metadata; all of the table by default.
            where: A SQL condition over the columns and the metadata's fields, such as
                ``"extension = 'md' AND num_bytes > 1000"``.

        Raises:
            QueryError: The condition cannot be understood, or names an unknown column.
        """
        return self._table("documents", columns, where)

    def verdicts(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """One row per document: `verdict` (kept or dropped), `rule`, `score`, `duplicate_of`."""
        return self._table("verdicts", columns, where)

    def chunks(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """One row per chunk of a kept document, sorted by document and place in it."""
        return self._table("chunks", columns, where)

    def failures(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """One row per row that could not be processed: where, why, what to do, how often tried."""
        return self._table("failures", columns, where)

    def dataset(self, table: TableName) -> Any:
        """The `lance.LanceDataset` of a table at this run, for scans larger than memory.

        DuckDB, Polars and LanceDB read it as it is.

        Raises:
            StoreError: This run has no such table.
        """
        version = self.manifest.tables.get(table)
        if version is None:
            raise StoreError(str(self.path), f"run {self.manifest.run} has no table {table!r}")
        return open_table(self.path / f"{table}.lance", version)

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        mode: Mode | None = None,
        where: str | None = None,
        fusion: Fusion = "weighted",
        alpha: float = 0.5,
    ) -> list[Hit]:
        """The chunks that answer a query best.

        Args:
            query: Plain text.
            k: Hits wanted.
            mode: ``"hybrid"`` (default where chunks have embeddings), ``"vector"`` or ``"words"``.
            where: A SQL condition over the chunks' columns and the metadata's fields. It holds
                before the best `k` are taken, so `k` hits come back if `k` chunks satisfy it.
            fusion: How hybrid search mixes its two sides: ``"weighted"``, a convex
                combination of normalised scores, or ``"rrf"``, reciprocal rank fusion.
            alpha: Weight of the vector side in ``"weighted"``, in [0, 1].

        Returns:
            At most `k` hits, best first; ties go to the older chunk.

        Raises:
            QueryError: An argument or the condition cannot be understood.
            ModelError: The model that embedded the chunks is not at hand.
        """
        found = self.rank(query, k, mode=mode, where=where, fusion=fusion, alpha=alpha)
        columns = [name for name in Hit.__slots__ if not name.endswith("score")]
        ids = np.array([hit.row_id for hit in found], np.uint64)
        rows = take_rows(self._chunks, ids, columns).drop_columns(["_rowid"]) if found else None
        hits = []
        for hit, row in zip(found, rows.to_pylist() if rows is not None else [], strict=True):
            row["metadata"] = json.loads(row["metadata"])
            hits.append(
                Hit(
                    score=hit.score,
                    vector_score=hit.vector_score,
                    words_score=hit.words_score,
                    **row,
                )
            )
        return hits

    def rank(
        self,
        query: str,
        k: int,
        *,
        mode: Mode | None = None,
        where: str | None = None,
        fusion: Fusion = "weighted",
        alpha: float = 0.5,
    ) -> list[IndexHit]:
        """As `search`, but only the chunks' row ids and scores: no text is fetched."""
        if mode is None:
            mode = "hybrid" if self.manifest.flow.get("embed") else "words"
        vector = None
        if mode != "words":
            vector = self._encoder.encode([query])[0]
        return self._index.search(
            query,
            vector,
            mode=mode,
            k=k,
            allowed=None if where is None else self._rows_where(where),
            fusion=fusion,
            alpha=alpha,
        )

    def doc_ids(self, hits: Sequence[IndexHit]) -> list[str]:
        """The documents of these hits, in their order."""
        where = np.searchsorted(self._owners[0], np.array([hit.row_id for hit in hits], np.uint64))
        found: list[str] = self._owners[1].take(pa.array(where)).to_pylist()
        return found

    @cached_property
    def _chunks(self) -> Any:
        return self.dataset("chunks")

    @cached_property
    def _owners(self) -> tuple[npt.NDArray[np.uint64], pa.Array]:
        rows = self._chunks.to_table(columns=["doc_id"], with_row_id=True).sort_by("_rowid")
        return rows["_rowid"].to_numpy(), rows["doc_id"].combine_chunks()

    @cached_property
    def _index(self) -> Index:
        if self.manifest.index is None:
            raise QueryError(
                "search",
                f"run {self.manifest.run} has no chunks to search; add Chunk() to its flow",
            )
        return Index.open(self.path / "index", IndexManifest.from_json(self.manifest.index))

    @cached_property
    def _encoder(self) -> Any:
        with self._lock:
            embed = self.manifest.flow.get("embed")
            if embed is None:
                raise QueryError(
                    "mode", "this store has no embeddings; search it with mode 'words'"
                )
            encoder = open_encoder(embed["model"], embed["precision"])
            if encoder.fingerprint != embed["fingerprint"]:
                raise ModelError(
                    embed["model"],
                    "it is not the model that embedded this store (its weights, tokenizer or "
                    "settings differ), so its vectors cannot be compared. Build again, or put "
                    "the earlier model back",
                )
            return encoder

    def _rows_where(self, where: str) -> npt.NDArray[np.uint64]:
        if where not in self._allowed:
            rows = _filtered(self._chunks, where, [], "chunks")
            if len(self._allowed) >= 16:
                self._allowed.clear()
            self._allowed[where] = np.sort(rows["_rowid"].to_numpy())
        return self._allowed[where]

    def _table(self, name: TableName, columns: Sequence[str] | None, where: str | None) -> pa.Table:
        if name not in self.manifest.tables:
            rows = _SCHEMAS[name].empty_table()
            return rows if columns is None else rows.select(columns)
        dataset = self.dataset(name)
        shown = [c for c in dataset.schema.names if c not in _INTERNAL and "signature_" not in c]
        wanted = shown if columns is None else list(columns)
        order = _SORTED_BY[name]
        fetch = [*wanted, *(key for key in order if key not in wanted)]
        rows = _filtered(dataset, where, fetch, name)
        rows = rows.sort_by([(key, "ascending") for key in order]).select(wanted)
        return rows.cast(pa.schema([field.remove_metadata() for field in rows.schema]))


def _filtered(dataset: Any, where: str | None, columns: Sequence[str], name: str) -> pa.Table:
    """These columns, of the table or its metadata, and `_rowid`, where the condition holds."""
    own = set(dataset.schema.names)
    asked = [*columns, *(where_columns(where) if where is not None else ())]
    derived = [column for column in dict.fromkeys(asked) if column not in own]
    if derived and "metadata" not in own:
        raise _unknown(derived[0], sorted(own))
    fetch = [column for column in dict.fromkeys(asked) if column in own]
    if derived and "metadata" not in fetch:
        fetch.append("metadata")
    rows = dataset.to_table(columns=fetch, with_row_id=True)
    if derived:
        fields = metadata_columns(rows["metadata"].combine_chunks(), derived)
        for column in derived:
            if column not in fields.schema.names:
                known = metadata_columns(rows["metadata"].combine_chunks()).schema.names
                raise _unknown(column, sorted((own - _INTERNAL) | set(known)))
            rows = rows.append_column(column, fields[column])
    if where is not None:
        types = {field.name: field.type for field in rows.schema}
        rows = rows.filter(parse_where(where, types))
    return rows.select([*columns, "_rowid"])


def _unknown(column: str, known: list[str]) -> QueryError:
    return QueryError(column, f"there is no such column; there are {', '.join(known)}")


def _manifest(folder: Path, run: str | int) -> Manifest:
    try:
        name = run_name(run)
    except ValueError as err:
        raise ConfigError("run", run, "must be the number of a run; see penstock runs") from err
    if name not in run_names(folder):
        raise StoreError(
            str(folder), f"there is no run {name}; there are {', '.join(run_names(folder))}"
        )
    return read_manifest(folder / "runs" / f"{name}.json")
