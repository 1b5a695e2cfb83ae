"""From raw bytes to a document's row: decode, the document steps, the signatures.

Everything here is a pure function of one document, so it may run in any thread
or process, in any batch. A document for which a step raises leaves the batch
with a `Failure`; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.plan import Plan, step_name
from penstock.cores import num_cores
from penstock.engine import Kind, Stage, apply_rows
from penstock.errors import RowError
from penstock.protocols import DocumentStep
from penstock.records import BLOBS, DOCUMENTS, Failure, hash_column
from penstock.steps.decode import decode

_STEP_COLUMNS = ["doc_id", "media_type", "metadata", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A batch of documents on its way through the chain.

    Attributes:
        rows: `RAW`, `content_hash`, `replaces` (uint64, the row id of the document's row in the
            table, null if new), then `source_metadata`, `text` and signatures as they come.
        keys: `item` and `doc_id` of every document read, also of unchanged ones.
        failures: Documents that left the batch.
        unchanged: Row ids whose document was read and found as it was.
        updated: Documents read and found as they were, whose row an earlier chain computed.
        finished: Items whose last row is in this or an earlier batch, and their version.
        recomputed: Row ids that were computed again from the store as the flow changed.
        settled: Whether text and metadata are final already: only signatures are wanting.
        known: Signatures' columns of the store that may be of use again, see `Known`.
        bytes_read: Raw bytes read.
        forgotten: Documents that were read and left out.
    """

    rows: pa.RecordBatch
    keys: pa.RecordBatch
    failures: tuple[Failure, ...] = ()
    unchanged: tuple[int, ...] = ()
    updated: int = 0
    finished: tuple[tuple[str, str], ...] = ()
    recomputed: tuple[int, ...] = ()
    settled: bool = False
    known: tuple[Known, ...] = ()
    bytes_read: int = 0
    forgotten: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A signature's column as an earlier chain computed it.

    Its values lie in the column `known_<column>` of the rows, and what they were
    computed from in `known_metadata` and, as a hash, `known_text_hash`.

    Attributes:
        column: Its name.
        certain: Whether it holds whatever the text is now: the steps before it
            are the same. Otherwise it holds for rows of the same text and metadata.
    """

    column: str
    certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What the chain made of a batch: rows to write."""

    documents: pa.RecordBatch
    replaces: pa.Array
    blobs: pa.RecordBatch
    work: Work


def chain_stages(plan: Plan) -> list[Stage]:
    """The chain as stages of the engine; neighbours that may share a thread share a stage."""
    groups: list[tuple[Kind, list[tuple[str, Callable[[Work], Any]]]]] = [
        ("threads", [("decode", decode_work)])
    ]
    signatures = {id(step): name for name, step in plan.decisions.items()}
    workers: Kind
    for step in plan.chain:
        function: Callable[[Work], Work]
        if isinstance(step, DocumentStep):
            function = partial(_apply, step)
        else:
            function = partial(_sign, step, signatures[id(step)])
        workers = getattr(step, "workers", "threads")
        if workers != groups[-1][0]:
            groups.append((workers, []))
        groups[-1][1].append((step_name(step), function))
    if groups[-1][0] != "threads":
        groups.append(("threads", []))
    finish = partial(finish_work, plan.chain_fingerprint, plan.documents_schema)
    groups[-1][1].append(("hash", finish))
    return [
        Stage(
            name=" + ".join(name for name, _ in group),
            function=partial(_run_all, [function for _, function in group]),
            width=num_cores(),
            kind=workers,
            count=_num_rows,
        )
        for workers, group in groups
    ]


def decode_work(work: Work) -> Work:
    """Add the column `text`; what is not text leaves."""
    if work.settled:
        return work
    text, keep, failures = decode(work.rows)
    rows = work.rows if failures == () else work.rows.filter(keep)
    rows = rows.append_column("source_metadata", rows["metadata"]).append_column("text", text)
    return replace(work, rows=rows, failures=work.failures + failures)


def finish_work(fingerprint: str, schema: pa.Schema, work: Work) -> Computed:
    """Hash the final text and lay the rows out as the table has them."""
    rows = _with_text_hash(work.rows)
    size = rows.num_rows
    same_metadata = pc.equal(rows["source_metadata"], rows["metadata"])
    # Hashes tell as much as bytes, and are at hand.
    has_blob = pc.not_equal(rows["text_hash"], rows["content_hash"])
    columns = {
        **{name: rows[name] for name in rows.schema.names},
        "source_metadata": pc.if_else(
            same_metadata, pa.scalar(None, pa.string()), rows["source_metadata"]
        ),
        "has_blob": has_blob,
        "fingerprint": pa.array([fingerprint] * size, pa.string()),
    }
    documents = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
    return Computed(
        documents=documents,
        replaces=rows["replaces"],
        blobs=pa.RecordBatch.from_arrays(
            [rows[name].filter(has_blob) for name in BLOBS.names], schema=BLOBS
        ),
        work=replace(work, rows=rows.slice(0, 0)),
    )


def _run_all(functions: list[Callable[[Any], Any]], work: Any) -> Any:
    for function in functions:
        work = function(work)
    return work


def _apply(step: DocumentStep, work: Work) -> Work:
    if work.settled:
        return work
    done, work = _isolated(step, step.apply, work)
    if done is None:
        return work
    rows = work.rows
    for name in ("metadata", "text"):
        where = rows.schema.get_field_index(name)
        rows = rows.set_column(where, rows.schema.field(name), done[name])
    if "text_hash" in rows.schema.names:  # a decision before this step had it computed
        rows = rows.drop_columns(["text_hash"])
    return replace(work, rows=rows)


def _sign(step: Any, column: str, work: Work) -> Work:
    def sign(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([step.signature(batch)], names=[column])

    work = replace(work, rows=_with_text_hash(work.rows))
    holds = _still_holds(column, work)
    if holds is None:
        return _signed(step, sign, column, work)
    # The rows are split, those without a signature get one, and all go on in their order.
    known = work.rows.filter(holds)
    kept = known[f"known_{column}"].cast(step.signature_type)
    known = known.append_column(column, kept)
    rest = replace(work, rows=work.rows.filter(pc.invert(holds)))
    rest = _signed(step, sign, column, rest)
    rows = pa.Table.from_batches([known, rest.rows]).combine_chunks()
    return replace(rest, rows=rows.sort_by("doc_id").to_batches()[0] if len(rows) else rest.rows)


def _signed(
    step: object, sign: Callable[[pa.RecordBatch], pa.RecordBatch], column: str, work: Work
) -> Work:
    done, work = _isolated(step, sign, work, [*_STEP_COLUMNS, "text_hash"])
    signature = pa.array([], step.signature_type) if done is None else done[column]  # type: ignore[attr-defined]
    return replace(work, rows=work.rows.append_column(column, signature))


def _still_holds(column: str, work: Work) -> pa.Array | None:
    """For which rows the store's signature is that of their text now; None for no row."""
    for known in work.known:
        if known.column == column:
            if known.certain:
                return pa.array(np.ones(work.rows.num_rows, np.bool_))
            same_text = pc.equal(work.rows["text_hash"], work.rows["known_text_hash"])
            return pc.and_(same_text, pc.equal(work.rows["metadata"], work.rows["known_metadata"]))
    return None


def _with_text_hash(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with the hash of their text; a text that is the raw bytes is not hashed again."""
    if "text_hash" in rows.schema.names:
        return rows
    hashes = rows["content_hash"]
    changed = pc.not_equal(rows["text"].cast(pa.large_binary()), rows["raw"])
    if pc.any(changed).as_py():
        hashes = pc.replace_with_mask(hashes, changed, hash_column(rows["text"].filter(changed)))
    return rows.append_column(DOCUMENTS.field("text_hash"), hashes)


def _isolated(
    step: object,
    function: Callable[[pa.RecordBatch], pa.RecordBatch],
    work: Work,
    columns: list[str] = _STEP_COLUMNS,
) -> tuple[pa.RecordBatch | None, Work]:
    """Call a function on the batch; rows for which it raises leave with a failure."""
    if not work.rows.num_rows:
        return None, work
    done, kept, errors = apply_rows(function, work.rows.select(columns))
    if not errors:
        return done, work
    failures = tuple(_failure(step, work.rows, row, error) for row, error in errors)
    rows = work.rows.take(pa.array(np.asarray(kept, np.int64)))
    return done, replace(work, rows=rows, failures=work.failures + failures)


def _failure(step: object, rows: pa.RecordBatch, row: int, error: Exception) -> Failure:
    told = error if isinstance(error, RowError) else RowError(type(error).__name__, str(error))
    return Failure(
        doc_id=rows["doc_id"][row].as_py(),
        item=rows["item"][row].as_py(),
        step=step_name(step),
        error=told.error,
        message=told.message,
        advice=told.advice or "Correct the document or the step; the next build tries again",
        transient=True,
    )


def _num_rows(done: Work | Computed) -> int:
    return int((done.documents if isinstance(done, Computed) else done.rows).num_rows)
