"""Bring the chunks table in step with the kept documents: cut, embed, forget.

A document is cut again only when its text, its metadata or the way of cutting
changed; a chunk's vector is looked up by the chunk's text before it is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.documents import CHECKPOINT_S
from penstock.build.memory import give_back
from penstock.build.plan import Plan
from penstock.build.report import Counts
from penstock.cores import num_cores
from penstock.engine import Stage
from penstock.records import hash_column
from penstock.store.edits import Edits
from penstock.store.tables import Table, take_rows

_WINDOW_BYTES = 128 << 10
"""Text cut and embedded at a time: enough to sort by length, and some seconds of a model's time,
so that Ctrl-C is answered soon."""

_WINDOW_ROWS = 512

_FLUSH_BYTES = 32 << 20
"""Chunks gathered before they are written as a fragment. Bounds memory and file count."""

_WANTED = pa.schema({"doc_id": pa.string(), "place": pa.large_binary(), "_rowid": pa.uint64()})
_PRESENT = pa.schema({"place": pa.large_binary(), "_rowid": pa.uint64(), "current": pa.bool_()})


class KnownVectors:
    """Where the table holds the vector of a text, by the first 8 bytes of the text's hash.

    Immutable, so that threads look up while the table grows. Memory: 16 bytes a chunk.
    """

    def __init__(
        self, dataset: Any, hashes: npt.NDArray[np.uint64], row_ids: npt.NDArray[np.uint64]
    ) -> None:
        order = np.argsort(hashes, kind="stable")
        self._dataset = dataset
        self._hashes, self._row_ids = hashes[order], row_ids[order]

    @classmethod
    def of(cls, chunks: Table, embedded_by: str) -> KnownVectors:
        """Every vector that this model computed."""
        rows = chunks.scan(["chunk_hash"], where=f"embedded_by = '{embedded_by}'")
        hashes = _prefixes(rows["chunk_hash"].combine_chunks())
        return cls(chunks.reader(), hashes, rows["_rowid"].to_numpy())

    def grown(self, chunks: Table) -> KnownVectors:
        """These and the vectors of the rows appended last."""
        rows = chunks.scan_last_append(["chunk_hash"])
        hashes = _prefixes(rows["chunk_hash"].combine_chunks())
        return type(self)(
            chunks.reader(),
            np.concatenate([self._hashes, hashes]),
            np.concatenate([self._row_ids, rows["_rowid"].to_numpy()]),
        )

    def find(self, chunk_hash: pa.Array) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Which of these chunks have a vector, and those vectors, (num_found, dim) float32."""
        wanted = _prefixes(chunk_hash)
        where = np.searchsorted(self._hashes, wanted)
        inside = where < len(self._hashes)
        found = np.zeros(len(wanted), bool)
        found[inside] = self._hashes[where[inside]] == wanted[inside]
        if not found.any():
            return found, np.empty((0, 0), np.float32)
        ids, back = np.unique(self._row_ids[where[found]], return_inverse=True)
        rows = take_rows(self._dataset, ids, ["chunk_hash", "embedding"]).take(pa.array(back))
        asked = chunk_hash.filter(pa.array(found))
        same = pc.equal(rows["chunk_hash"].combine_chunks(), asked)
        # Where it is not the same, another text has the same 8 bytes.
        found[np.flatnonzero(found)[~same.to_numpy(zero_copy_only=False)]] = False
        return found, vectors_of(rows.filter(same)["embedding"])


@dataclass(slots=True)
class Chunks:
    """The chunks table and what is gathered for it.

    Attributes:
        plan: The flow.
        documents: The documents, as of this run.
        edits: What is cut out of them.
        chunks: One row per chunk.
        spare: Chunks of documents that a decision by vectors dropped.
        encoder: The opened model; None for a flow without `Embed`.
        counts: Updated as the phase goes.
    """

    plan: Plan
    documents: Table
    edits: Edits
    chunks: Table
    spare: Table
    encoder: Any
    counts: Counts
    _known: KnownVectors | None = None
    _known_aside: KnownVectors | None = None
    _missing: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    _stale: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    _rows: list[pa.RecordBatch] = field(default_factory=list)
    _gathered_bytes: int = 0

    def prepare(self, kept: pa.Array) -> int:
        """Find the documents that need cutting, and how many they are."""
        schema = self.plan.chunks_schema(None if self.encoder is None else self.encoder.dim)
        self.chunks.require(schema, keep_rows=False)
        if self.spare.version is not None:
            self.spare.require(schema, keep_rows=False)
        if self.encoder is not None:
            self._known = KnownVectors.of(self.chunks, self.plan.embedded_by)
            if self.spare.num_rows():
                self._known_aside = KnownVectors.of(self.spare, self.plan.embedded_by)
        documents = self._wanted_chunks(kept)
        wanted = _one(documents["place"])
        have: list[pa.Array] = []
        for table in (self.chunks, self.spare):
            rows = self._present_chunks(table)
            stands = pc.and_(rows["current"], pc.is_in(rows["place"], value_set=wanted))
            have.append(_one(rows["place"].filter(stands)))
            # Their vectors may be wanted by their text, so they stay until the end.
            self._stale.append(rows["_rowid"].filter(pc.invert(stands)).to_numpy())
        missing = pc.invert(pc.is_in(wanted, value_set=pa.concat_arrays(have)))
        self._missing = documents["_rowid"].filter(missing).to_numpy()
        self.counts.chunks_removed = sum(len(row_ids) for row_ids in self._stale)
        return len(self._missing)

    def _wanted_chunks(self, kept: pa.Array) -> pa.Table:
        """`place`, which the document's chunks should have, and `_rowid` of each kept document.

        Cost: some 50 bytes a document; metadata passes through a batch at a time.
        """
        batches = []
        for batch in self.documents.batches(["doc_id", "text_hash", "media_type", "metadata"]):
            final = self.edits.final(pa.Table.from_batches([batch]))
            keys = cut_keys(self.plan.cut_fingerprint, final)
            places = _places(batch["doc_id"], keys)
            columns = [_copy(batch["doc_id"]), places, _copy(batch["_rowid"])]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=_WANTED))
        wanted = pa.Table.from_batches(batches, _WANTED)
        return wanted.filter(pc.is_in(wanted["doc_id"], value_set=kept)).drop_columns(["doc_id"])

    def _present_chunks(self, table: Table) -> pa.Table:
        """`place`, `_rowid` and whether this model embedded it, of each chunk in a table."""
        batches = []
        for batch in table.batches(["doc_id", "cut_key", "embedded_by"]):
            current = pc.equal(batch["embedded_by"], self.plan.embedded_by)
            places = _places(batch["doc_id"], batch["cut_key"])
            columns = [places, _copy(batch["_rowid"]), current]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=_PRESENT))
        return pa.Table.from_batches(batches, _PRESENT)

    def work(self) -> Iterator[pa.Table]:
        """Batches of documents to cut."""
        columns = ["doc_id", "media_type", "metadata", "text", "text_hash"]
        return text_batches(self.documents, self.edits, self._missing, columns, _WINDOW_BYTES)

    def stages(self) -> list[Stage]:
        """Cut, then embed."""
        # Rates count documents, as the number of chunks to come is not known.
        stages = [Stage(name="Chunk", function=self._cut, width=num_cores(), count=_num_documents)]
        if self.encoder is not None:
            # Two windows at once keep the model busy while one is being laid out.
            stages.append(Stage(name="Embed", function=self._embed, width=2, count=_num_documents))
        return stages

    def add(self, rows: pa.RecordBatch) -> None:
        """Take in one batch, in order."""
        self.counts.chunks_cut += rows.num_rows
        self._rows.append(rows)
        self._gathered_bytes += rows.nbytes
        if self._gathered_bytes > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        if self._rows:
            self.chunks.append(pa.Table.from_batches(self._rows))
            self._rows, self._gathered_bytes = [], 0
            if self._known is not None:
                self._known = self._known.grown(self.chunks)

    def finish(self) -> None:
        """Write the rest, and delete the chunks that nothing wants any more."""
        self.flush()
        for table, row_ids in zip((self.chunks, self.spare), self._stale, strict=True):
            if len(row_ids):
                table.delete(row_ids)
            table.compact()
        give_back()

    def _cut(self, documents: pa.Table) -> pa.RecordBatch:
        assert self.plan.chunk is not None
        batch = documents.combine_chunks().to_batches()[0]
        rows = self.plan.chunk.cut(batch.select(["doc_id", "media_type", "text"]))
        keys = cut_keys(self.plan.cut_fingerprint, documents)
        owner = pc.index_in(rows["doc_id"], value_set=batch["doc_id"])
        extra = {
            "title": titles(batch["metadata"]).take(owner),
            "media_type": batch["media_type"].take(owner),
            "metadata": batch["metadata"].take(owner),
            "cut_key": keys.take(owner),
            "embedded_by": pa.array([self.plan.embedded_by] * rows.num_rows, pa.string()),
        }
        for name, column in extra.items():
            rows = rows.append_column(name, column)
        return rows

    def _embed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        vectors = np.empty((rows.num_rows, self.encoder.dim), np.float32)
        found = np.zeros(rows.num_rows, np.bool_)
        for known in (self._known, self._known_aside):
            asked = np.flatnonzero(~found)
            if known is not None and len(asked):
                here, values = known.find(rows["chunk_hash"].take(pa.array(asked)))
                vectors[asked[here]] = values if here.any() else 0.0
                found[asked[here]] = True
        texts = rows["text"].filter(pa.array(~found))
        if len(texts):
            vectors[~found] = self.encoder.encode(texts.to_pylist())
        halves = pa.array(vectors.astype(np.float16).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(halves, self.encoder.dim)
        self.counts.vectors_reused += int(found.sum())
        self.counts.chunks_embedded += len(texts)
        return rows.append_column("embedding", column)


def run_chunks(
    phase: Chunks,
    run: Callable[[Iterator[Any], list[Stage]], Iterator[Any]],
    checkpoint: Callable[[], None],
) -> None:
    """Pull every batch through the pipeline, saving progress at intervals."""
    saved = time.monotonic()
    for rows in run(phase.work(), phase.stages()):
        phase.add(rows)
        if time.monotonic() - saved > CHECKPOINT_S:
            phase.flush()
            checkpoint()
            saved = time.monotonic()


def text_batches(
    documents: Any,
    edits: Edits,
    row_ids: npt.NDArray[np.uint64],
    columns: list[str],
    num_bytes: int,
) -> Iterator[pa.Table]:
    """These columns of these documents, their texts final, in batches of so many bytes of it."""
    for start in range(0, len(row_ids), _WINDOW_ROWS):
        rows = edits.final(documents.take(row_ids[start : start + _WINDOW_ROWS], columns))
        sizes = pc.binary_length(rows["text"]).to_numpy()
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // num_bytes)) + 1
        for low, high in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            yield rows.slice(low, high - low)


def cut_keys(cut_fingerprint: str, documents: pa.Table | pa.RecordBatch) -> pa.Array:
    """16 bytes per document that change when its chunks may.

    They cover the text, the kind, the metadata (chunks carry it) and the way of cutting.
    """
    hashes = documents["text_hash"].cast(pa.binary())
    parts = [hashes, documents["media_type"], documents["metadata"]]
    joined = pc.binary_join_element_wise(
        *[part.cast(pa.large_binary()) for part in parts],
        pa.scalar(cut_fingerprint.encode(), pa.large_binary()),
        pa.scalar(b"\0", pa.large_binary()),
    )
    return hash_column(joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined)


def titles(metadata: pa.Array) -> pa.Array:
    """Each document's title for the index: its metadata's `title`, else a file's `name`."""
    import json

    def title(text: str) -> str:
        facts = json.loads(text)
        return str(facts.get("title") or facts.get("name") or "")

    return pa.array([title(text) for text in metadata.to_pylist()], pa.string())


def vectors_of(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float32]:
    """An embedding column as (num_rows, dim) float32."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(len(array), -1), np.float32)


def _places(doc_id: pa.Array, cut_key: pa.Array) -> pa.Array:
    """What names a document and the way that it is cut."""
    parts = [column.cast(pa.large_binary()) for column in (doc_id, cut_key)]
    return pc.binary_join_element_wise(*parts, pa.scalar(b"\0", pa.large_binary()))


def _copy(column: pa.Array) -> pa.Array:
    """The column in memory of its own: one from Lance keeps all columns of its batch alive."""
    return column.take(pa.array(np.arange(len(column))))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _prefixes(hashes: pa.Array) -> npt.NDArray[np.uint64]:
    raw = hashes.buffers()[1]
    if raw is None or not len(hashes):
        return np.empty(0, np.uint64)
    data = np.frombuffer(raw, np.uint8)[hashes.offset * 16 : (hashes.offset + len(hashes)) * 16]
    return np.ascontiguousarray(data.reshape(-1, 16)[:, :8]).view(np.uint64).ravel()


def _num_documents(rows: pa.RecordBatch) -> int:
    return int(pc.count_distinct(rows["doc_id"]).as_py())
