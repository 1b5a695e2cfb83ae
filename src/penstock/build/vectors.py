"""Decisions by the documents' vectors: what they drop is put aside, with its vectors.

The table `spare` holds the chunks of documents that only such a decision
dropped. So `chunks` has the chunks of kept documents alone, for the index and
every reader, and a document that comes back brings its vectors with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.chunks import vectors_of
from penstock.build.plan import Plan
from penstock.records import VERDICTS
from penstock.store.tables import Table

F32 = npt.NDArray[np.float32]

_ROWS = 2048
"""Chunks read at a time, with their vectors and texts."""


def judge_vectors(plan: Plan, verdicts: pa.Table, chunks: Table, spare: Table) -> pa.Table:
    """The verdicts after the decisions by vectors; chunks of what they drop are put aside.

    Each sees what all before it kept. A document's vector is the mean of its
    chunks' vectors, all of length 1; a document without chunks has none.

    Args:
        plan: The flow.
        verdicts: `VERDICTS` of every document, after all other decisions.
        chunks: Chunks of documents that those kept.
        spare: More of them.

    Cost: reads every vector; memory, one vector a document and what the decision needs.
    """
    places = _places(chunks, spare)
    gone = verdicts.slice(0, 0)
    if plan.vector_decisions and len(places):
        ids, vectors = _document_vectors(places, chunks, spare)
        for decision in plan.vector_decisions:
            found = decision.decide_vectors(ids, vectors).cast(VERDICTS)
            gone = pa.concat_tables([gone, found])
            stays = pc.invert(pc.is_in(ids, value_set=found["doc_id"].combine_chunks()))
            ids, vectors = ids.filter(stays), vectors[stays.to_numpy(zero_copy_only=False)]
    dropped = gone["doc_id"].combine_chunks()
    _put_aside(places, dropped, chunks, spare)
    others = verdicts.filter(pc.invert(pc.is_in(verdicts["doc_id"], value_set=dropped)))
    return pa.concat_tables([others, gone]).sort_by("doc_id")


def _places(chunks: Table, spare: Table) -> pa.Table:
    """`doc_id`, `ordinal`, `_rowid` and `is_spare` of every chunk, by document and ordinal."""
    parts = []
    for table, is_spare in ((chunks, False), (spare, True)):
        if table.version is not None:
            rows = table.scan(["doc_id", "ordinal"])
            parts.append(rows.append_column("is_spare", pa.repeat(is_spare, len(rows))))
    return pa.concat_tables(parts).sort_by([("doc_id", "ascending"), ("ordinal", "ascending")])


def _document_vectors(places: pa.Table, chunks: Table, spare: Table) -> tuple[pa.Array, F32]:
    """The documents, sorted, and the mean of each one's vectors, (num_documents, dim) float32."""
    runs = pc.run_end_encode(places["doc_id"].combine_chunks())
    ends = runs.run_ends.to_numpy().astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    row_ids, is_spare = places["_rowid"].to_numpy(), places["is_spare"].to_numpy()
    means: list[F32] = []
    # Whole documents at a time, so that sums do not depend on where a batch ends.
    for low, high in _windows(ends):
        rows = slice(starts[low], ends[high - 1])
        vectors = _vectors(row_ids[rows], is_spare[rows], chunks, spare).astype(np.float64)
        sums = np.add.reduceat(vectors, starts[low:high] - starts[low], axis=0)
        sizes = (ends[low:high] - starts[low:high])[:, None]
        means.append((sums / sizes).astype(np.float32))
    return runs.values, np.concatenate(means)


def _windows(ends: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of documents with about so many rows each, one document at least."""
    low = 0
    while low < len(ends):
        first = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, first + _ROWS, side="right")))
        yield low, high
        low = high


def _vectors(
    row_ids: npt.NDArray[np.uint64], is_spare: npt.NDArray[np.bool_], chunks: Table, spare: Table
) -> F32:
    found = None
    for table, mine in ((chunks, ~is_spare), (spare, is_spare)):
        if mine.any():
            part = vectors_of(table.take(row_ids[mine], ["embedding"])["embedding"])
            if found is None:
                found = np.empty((len(row_ids), part.shape[1]), np.float32)
            found[mine] = part
    assert found is not None
    return found


def _put_aside(places: pa.Table, dropped: pa.Array, chunks: Table, spare: Table) -> None:
    """Move chunks of dropped documents to `spare`, and those of others back."""
    goes = pc.is_in(places["doc_id"], value_set=dropped).to_numpy()
    row_ids, is_spare = places["_rowid"].to_numpy(), places["is_spare"].to_numpy()
    aside, back = row_ids[goes & ~is_spare], row_ids[~goes & is_spare]
    if len(aside) and spare.version is None:
        assert chunks.schema is not None
        spare.require(chunks.schema, keep_rows=False)
    for source, target, ids in ((chunks, spare, aside), (spare, chunks, back)):
        for start in range(0, len(ids), _ROWS):
            rows = source.take(ids[start : start + _ROWS], source.schema.names)  # type: ignore[union-attr]
            target.append(rows.drop_columns(["_rowid"]))
        if len(ids):
            source.delete(ids)
            source.compact()
            target.compact()
