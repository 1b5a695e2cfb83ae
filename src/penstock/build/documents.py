"""Bring the documents table in step with the source.

Three kinds of work flow through one pipeline: items that are new or changed are
read; rows that an earlier flow computed are computed again from the bytes that
the store keeps; what is gone is deleted. Each checkpoint is a consistent state,
so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.chain import Computed, Known, Work, chain_stages
from penstock.build.changes import (
    ITEMS_TABLE,
    Changes,
    OldRows,
    duplicate_id,
    empty_keys,
    find_changes,
)
from penstock.build.memory import give_back
from penstock.build.plan import Plan
from penstock.build.report import Counts
from penstock.cores import num_cores
from penstock.engine import Stage
from penstock.records import (
    BLOBS,
    DOCUMENTS,
    FAILURES,
    Failure,
    Listing,
    Read,
    failure_table,
    hash_column,
)
from penstock.store.forgotten import Forgotten
from penstock.store.tables import Table, take_rows

_FLUSH_BYTES = 32 << 20
"""Rows and raw bytes gathered before they are written: a fragment of each. Bounds memory and file
count. Besides, the pipeline goes on filling its queues while a fragment is written."""

CHECKPOINT_S = 30.0
"""Longest work that an interruption costs."""

_RECOMPUTE_ROWS = 512


class SeenIds:
    """The ids that a file has had so far, in 16 bytes each: a file may have millions.

    Sorted arrays of hashes, each at least twice as long as the next, so that an
    id is sorted a logarithmic number of times.
    """

    def __init__(self) -> None:
        self._runs: list[npt.NDArray[np.bytes_]] = []

    def add(self, ids: pa.Array) -> pa.Array:
        """Take in ids that differ from each other; which of them were there before, bool."""
        new = np.frombuffer(hash_column(ids).buffers()[1], "S16")
        again = np.zeros(len(new), bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, new), len(run) - 1)
            again |= run[places] == new
        new = np.sort(new[~again])
        while self._runs and len(self._runs[-1]) < 2 * len(new):
            new = np.sort(np.concatenate([self._runs.pop(), new]), kind="stable")
        if len(new):
            self._runs.append(new)
        return pa.array(again)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """What an earlier chain's columns are good for; see `Work`."""

    settled: bool = False
    known: tuple[Known, ...] = ()


@dataclass(slots=True)
class Documents:
    """The tables of this phase, and what is gathered for them.

    Attributes:
        plan: The flow.
        items: What the source held when it was last read.
        documents: One row per document.
        blobs: Raw bytes that differ from the text.
        failures: Rows that could not be processed.
        counts: Updated as the phase goes.
        previous: The flow of the last run, as its manifest describes it.
        forgotten: Documents that are left out.
    """

    plan: Plan
    items: Table
    documents: Table
    blobs: Table
    failures: Table
    counts: Counts
    previous: dict[str, Any]
    forgotten: Forgotten
    _changes: Changes | None = None
    _had: frozenset[str] = frozenset()
    _old: OldRows | None = None
    _failed_before: pa.Table | None = None
    _failed: list[Failure] = field(default_factory=list)
    _finished: list[pa.RecordBatch] = field(default_factory=list)
    _seen: dict[str, SeenIds] = field(default_factory=dict)
    _rows: list[pa.RecordBatch] = field(default_factory=list)
    _raw: list[pa.RecordBatch] = field(default_factory=list)
    _gathered_bytes: int = 0
    _deleted: set[int] = field(default_factory=set)
    _blobs_grew: bool = False
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _writing: Future[None] | None = None

    def prepare(self, listing: Listing, *, verify: bool) -> bool:
        """Find what there is to do; False if the source and the flow are as they were."""
        self.items.require(ITEMS_TABLE, keep_rows=False)
        self.failures.require(FAILURES, keep_rows=False)
        recorded = self.items.scan(ITEMS_TABLE.names).drop_columns(["_rowid"])
        self._failed_before = self.failures.scan(FAILURES.names).drop_columns(["_rowid"])
        self._failed = list(self.forgotten.left(listing.failures))
        verify = verify or self._has_restored()
        again = self._failed_before
        if self.previous.get("chain") == self.plan.chain_fingerprint:
            again = again.filter(again["transient"])
        retry = again["item"].combine_chunks()
        changes = find_changes(listing, recorded, self.plan.reader, retry=retry, verify=verify)
        self._changes = changes
        self.counts.items_listed = listing.items.num_rows
        self.counts.items_unchanged = changes.unchanged.num_rows
        self.counts.items_removed = len(changes.removed)
        listed_before = pc.equal(self._failed_before["step"], "list")
        return bool(
            len(changes.stale)
            or len(changes.removed)
            or self._failed
            or self._has_new_forgotten()
            or (pc.any(listed_before).as_py() or False)
            or self.documents.version is None
            or self.previous.get("unfinished")
            or self.previous.get("chain") != self.plan.chain_fingerprint
        )

    def open(self) -> None:
        """Load what the stale items had, and give the tables their columns."""
        assert self._changes is not None
        self._had = frozenset(self.documents.fitting(self.plan.documents_schema))
        self.documents.require(self.plan.documents_schema, keep_rows=True)
        self.blobs.require(BLOBS, keep_rows=False)
        if self._has_new_forgotten():
            self._delete_forgotten()
        touched = pa.concat_arrays([self._changes.stale, self._changes.removed])
        chain = self.plan.chain_fingerprint if self._complete() else None
        self._old = OldRows(self.documents, touched, chain)
        for item in self._changes.removed.to_pylist():
            self._forget_item(item)

    def _has_new_forgotten(self) -> bool:
        return bool(self.previous.get("forgotten", {}) != self.forgotten.state())

    def _has_restored(self) -> bool:
        """Whether documents were taken off the list: nothing tells which items hold them."""
        before = self.previous.get("forgotten", {}).get("restored", 0)
        return bool(before != self.forgotten.restored)

    def _delete_forgotten(self) -> None:
        """Take out what is on the list, at once: nothing may compute it again."""
        rows = self.documents.scan(["doc_id"])
        gone = rows["_rowid"].filter(self.forgotten.among(rows["doc_id"])).to_numpy()
        self.documents.delete(gone)
        self.counts.documents_removed += len(gone)

    def work(self) -> Iterator[Any]:
        """What the first stage gets: rows to compute again, then tasks of the source."""
        assert self._changes is not None
        yield from self._rows_of_another_chain()
        yield from self.plan.source.tasks(self._changes.stale.to_pylist())

    def stages(self) -> list[Stage]:
        """Read, then the chain."""
        read = Stage(name="read", function=self._read, width=num_cores(), count=_num_rows)
        return [read, *chain_stages(self.plan)]

    def add(self, computed: Computed) -> None:
        """Take in one batch, in order."""
        assert self._old is not None
        work = computed.work
        documents, replaces = self._without_doubles(computed)
        replaced = replaces.drop_null().to_pylist()
        self._deleted.update(replaced, work.recomputed)
        for item in set(work.keys["item"].to_pylist()):
            # What is left of an item's rows when it is done was not found again.
            self._old.row_ids.get(item, set()).difference_update(work.unchanged, replaced)
        self._rows.append(documents)
        self._raw.append(computed.blobs)
        self._gathered_bytes += documents.nbytes + computed.blobs.nbytes
        self._failed.extend(work.failures)
        if work.finished:
            self._finished.append(self._finished_rows(work.finished))
        for item, _ in work.finished:
            self._seen.pop(item, None)
            self._forget_item(item)
        changed = len(replaces) - replaces.null_count
        counts = self.counts
        counts.items_read += len(work.finished)
        counts.bytes_read += work.bytes_read
        counts.documents_forgotten += work.forgotten
        counts.documents_unchanged += len(work.unchanged)
        if work.recomputed:
            counts.documents_recomputed += documents.num_rows
        else:
            # Those that a step failed for do not come this far.
            updated = min(work.updated, changed)
            counts.documents_recomputed += updated
            counts.documents_changed += changed - updated
            counts.documents_new += documents.num_rows - changed
        if self._gathered_bytes > _FLUSH_BYTES:
            self._begin_flush()

    def flush(self) -> None:
        """Write what is gathered."""
        self._begin_flush()
        self._end_flush()

    def _begin_flush(self) -> None:
        """Have another thread write what is gathered, while the next rows are gathered."""
        self._end_flush()
        gathered = (self._deleted, self._rows, self._raw)
        self._deleted, self._rows, self._raw, self._gathered_bytes = set(), [], [], 0
        self._writing = self._writer.submit(self._write, *gathered)

    def _end_flush(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(
        self, deleted: set[int], rows: list[pa.RecordBatch], raw: list[pa.RecordBatch]
    ) -> None:
        if deleted:
            self.documents.delete(deleted)
        if rows:
            self.documents.append(pa.Table.from_batches(rows))
        blobs = pa.Table.from_batches(raw, BLOBS)
        if blobs.num_rows:
            self.blobs.append(blobs)
            self._blobs_grew = True

    def save(self) -> None:
        """Flush, and record which items are done and which rows failed: a consistent state."""
        self.flush()
        assert self._changes is not None
        done = pa.Table.from_batches(self._finished, ITEMS_TABLE)
        standing = self._changes.unchanged.cast(ITEMS_TABLE)
        self.items.replace(pa.concat_tables([standing, done, self._begun(done)]).sort_by("item"))
        self.failures.replace(self._failure_rows())

    def _begun(self, done: pa.Table) -> pa.Table:
        """Items to be read that are not done, under no version: they may have rows in the table.

        So the next run reads them, or forgets their rows should the source have lost them.
        """
        assert self._changes is not None
        stale = self._changes.stale
        items = stale.filter(pc.invert(pc.is_in(stale, value_set=_one(done["item"]))))
        nothing, reader = pa.array([""] * len(items)), pa.array([self.plan.reader] * len(items))
        return pa.Table.from_arrays([items, nothing, reader], schema=ITEMS_TABLE)

    def finish(self) -> None:
        """Settle what can be told only at the end: rows not seen again, ids and blobs."""
        assert self._old is not None
        for item in list(self._old.row_ids):
            self._forget_item(item)
        self.flush()
        self._drop_double_ids()
        counts = self.counts
        fewer = counts.documents_removed + counts.documents_changed + counts.documents_recomputed
        # What a run that was broken off has removed is not among this one's counts.
        if self._blobs_grew or fewer or self.previous.get("unfinished"):
            self._tidy_blobs()
        self.save()
        for table in (self.documents, self.blobs):
            table.compact()
        give_back()

    def close(self) -> None:
        """Wait for what is being written: nothing may touch the tables when the lease is gone."""
        self._writer.shutdown()

    def _read(self, task: Any) -> Work:
        if isinstance(task, Work):
            return task
        assert self._old is not None
        read = self.plan.source.read(task)
        left = self.forgotten.without(read)
        work = self._old.compare(left)
        return replace(work, forgotten=read.rows.num_rows - left.rows.num_rows)

    def _forget_item(self, item: str) -> None:
        """Delete the rows of an item that were not found again."""
        assert self._old is not None
        lost = self._old.row_ids.pop(item, set())
        self._deleted |= lost
        self.counts.documents_removed += len(lost)

    def _without_doubles(self, computed: Computed) -> tuple[pa.RecordBatch, pa.Array]:
        """Leave out rows whose `doc_id` an earlier batch of the same item had."""
        work, documents = computed.work, computed.documents
        done = {item for item, _ in work.finished}
        keep = pa.array(np.ones(documents.num_rows, bool))
        for item in pc.unique(work.keys["item"]).to_pylist():
            if item in done and item not in self._seen:
                continue  # all its rows are in this batch, which has each `doc_id` once
            doc_id = work.keys["doc_id"].filter(pc.equal(work.keys["item"], item))
            doubles = doc_id.filter(self._seen.setdefault(item, SeenIds()).add(doc_id))
            if len(doubles):
                self._failed.extend(duplicate_id(each, item) for each in doubles.to_pylist())
                double = pc.is_in(documents["doc_id"], value_set=doubles)
                mine = pc.equal(documents["item"], item)
                keep = pc.and_not(keep, pc.and_(double, mine))
        return documents.filter(keep), computed.replaces.filter(keep)

    def _finished_rows(self, finished: tuple[tuple[str, str], ...]) -> pa.RecordBatch:
        items, versions = zip(*finished, strict=True)
        readers = [self.plan.reader] * len(items)
        columns = [pa.array(column, pa.string()) for column in (items, versions, readers)]
        return pa.RecordBatch.from_arrays(columns, schema=ITEMS_TABLE)

    def _rows_of_another_chain(self) -> Iterator[Work]:
        """Batches of rows that another chain computed, with their raw bytes."""
        assert self._changes is not None
        if not self.documents.num_rows():
            return
        reuse = self._reuse()
        state = self.documents.scan(["fingerprint", "item"])
        other = pc.not_equal(state["fingerprint"], self.plan.chain_fingerprint)
        if not self._complete():  # a run of another flow, broken off, took columns away
            other = pa.chunked_array([pa.array(np.ones(len(state), bool))])
        away = pa.concat_arrays([self._changes.stale, self._changes.removed])
        other = pc.and_(other, pc.invert(pc.is_in(state["item"], value_set=away)))
        last = pc.equal(state["fingerprint"], self.previous.get("chain", ""))
        ids = state["_rowid"].filter(pc.and_(other, last)).to_numpy()
        # Rows that were on their way to yet another chain: nothing is known of their columns.
        odd = state["_rowid"].filter(pc.and_not(other, last)).to_numpy()
        if not len(ids) and not len(odd):
            return
        known = self.blobs.scan(["content_hash"])
        blob_rows = dict(
            zip(known["content_hash"].to_pylist(), known["_rowid"].to_pylist(), strict=True)
        )
        # Readers of their own: the tables change under this thread while it reads.
        documents, blobs = self.documents.reader(), self.blobs.reader()
        for rows, known in ((ids, reuse), (odd, Reuse())):
            for start in range(0, len(rows), _RECOMPUTE_ROWS):
                part = rows[start : start + _RECOMPUTE_ROWS]
                yield _recompute(documents, blobs, part, blob_rows, known)

    def _complete(self) -> bool:
        """Whether the table had every column of this chain before this run gave it them."""
        return self._had.issuperset(self.plan.documents_schema.names)

    def _reuse(self) -> Reuse:
        """What of the last run's columns this flow can use."""
        return reusable(self.previous, self.plan, self._had)

    def _failure_rows(self) -> pa.Table:
        """Failures that stand and those of this run, each place once, with its tries."""
        assert self._changes is not None
        assert self._failed_before is not None
        before = self._failed_before
        stands = pc.and_(
            pc.is_in(before["item"], value_set=self._changes.unchanged["item"].combine_chunks()),
            pc.not_equal(before["step"], "list"),
        )
        stands = pc.and_not(stands, self.forgotten.among(before["doc_id"]))
        places = zip(before["doc_id"].to_pylist(), before["step"].to_pylist(), strict=True)
        tries = dict(zip(places, before["tries"].to_pylist(), strict=True))
        now = {(failure.doc_id, failure.step, failure.item): failure for failure in self._failed}
        table = failure_table(now.values())
        counted = [tries.get((doc_id, step), 0) + 1 for doc_id, step, _ in now]
        where = table.schema.get_field_index("tries")
        table = table.set_column(where, FAILURES.field("tries"), pa.array(counted, pa.int32()))
        rows = pa.concat_tables([before.filter(stands).cast(FAILURES), table])
        return rows.sort_by([("doc_id", "ascending"), ("step", "ascending")])

    def _drop_double_ids(self) -> None:
        """Where two items hold the same `doc_id`, keep the row of the first item by name."""
        rows = self.documents.scan(["doc_id"])
        if pc.count_distinct(rows["doc_id"]).as_py() == rows.num_rows:
            return
        groups = rows.group_by("doc_id").aggregate([("_rowid", "count")])
        doubles = groups.filter(pc.greater(groups["_rowid_count"], 1))["doc_id"].combine_chunks()
        ids = rows.filter(pc.is_in(rows["doc_id"], value_set=doubles))["_rowid"].to_numpy()
        found = self.documents.take(ids, ["doc_id", "item"]).sort_by(
            [("doc_id", "ascending"), ("item", "ascending")]
        )
        last = None
        for row in found.to_pylist():
            if row["doc_id"] == last:
                self._deleted.add(row["_rowid"])
                self._failed.append(duplicate_id(row["doc_id"], row["item"]))
            last = row["doc_id"]
        self.flush()

    def _tidy_blobs(self) -> None:
        """Keep each needed blob once."""
        if not self.blobs.num_rows():
            return
        needed = self.documents.scan(["content_hash"], where="has_blob")["content_hash"]
        rows = self.blobs.scan(["content_hash"])
        first = rows.group_by("content_hash").aggregate([("_rowid", "min")])
        first = first.filter(pc.is_in(first["content_hash"], value_set=_one(needed)))
        keep = pc.is_in(rows["_rowid"], value_set=_one(first["_rowid_min"]))
        self.blobs.delete(rows["_rowid"].filter(pc.invert(keep)).to_numpy())


def reusable(previous: dict[str, Any], plan: Plan, had: frozenset[str]) -> Reuse:
    """What of an earlier flow's columns a plan can use.

    Args:
        previous: The flow, as its manifest describes it.
        plan: What is to be run.
        had: Columns of the plan that the table has, of the same type.
    """
    before, now = previous.get("signatures", {}), plan.signature_keys
    known = []
    for column, keys in now.items():
        old = before.get(column)
        if old is None or column not in had:
            continue
        certain = old["key"] == keys["key"]
        if certain or (old["step"] == keys["step"] and old["last"]):
            known.append(Known(column=column, certain=certain))
    certain_ones = {each.column for each in known if each.certain}
    wanting = (keys for column, keys in now.items() if column not in certain_ones)
    settled = previous.get("shaped") == plan.shaped_by
    return Reuse(settled=settled and all(k["last"] for k in wanting), known=tuple(known))


def _recompute(
    documents: Any, blobs: Any, ids: Any, blob_rows: dict[bytes, int], reuse: Reuse
) -> Work:
    """Rows of the table as if they had been read: raw bytes, and metadata before any step.

    With what can be used of their columns.
    """
    columns = [
        *(each.column for each in reuse.known),
        "text_hash",
        "doc_id",
        "item",
        "text",
        "content_hash",
        "media_type",
        "metadata",
        "source_metadata",
        "has_blob",
    ]
    rows = take_rows(documents, ids, columns)
    raw = rows["text"].cast(pa.large_binary()).combine_chunks()
    has_blob = rows["has_blob"].combine_chunks()
    if pc.any(has_blob).as_py():
        hashes = rows["content_hash"].filter(has_blob).to_pylist()
        wanted = np.array([blob_rows[name] for name in hashes], np.uint64)
        found = take_rows(blobs, wanted, ["raw"])["raw"].combine_chunks()
        raw = pc.replace_with_mask(raw, has_blob, found)
    size = len(rows)
    batch = pa.RecordBatch.from_pydict(
        {
            "doc_id": _one(rows["doc_id"]),
            "item": _one(rows["item"]),
            "raw": raw,
            "media_type": _one(rows["media_type"]),
            "metadata": _one(pc.coalesce(rows["source_metadata"], rows["metadata"])),
            "content_hash": _one(rows["content_hash"]),
            "replaces": pa.nulls(size, pa.uint64()),
        }
    )
    for each in reuse.known:
        batch = batch.append_column(f"known_{each.column}", _one(rows[each.column]))
    for name in ("text_hash", "metadata"):
        batch = batch.append_column(f"known_{name}", _one(rows[name]))
    if reuse.settled:
        batch = batch.append_column("source_metadata", batch["metadata"])
        where = batch.schema.get_field_index("metadata")
        batch = batch.set_column(where, "metadata", _one(rows["metadata"]))
        batch = batch.append_column("text", _one(rows["text"]))
        batch = batch.append_column(DOCUMENTS.field("text_hash"), _one(rows["text_hash"]))
    return Work(
        rows=batch,
        keys=empty_keys(),
        recomputed=tuple(ids.tolist()),
        settled=reuse.settled,
        known=reuse.known,
    )


def run_documents(
    phase: Documents,
    run: Callable[[Iterator[Any], list[Stage]], Iterator[Any]],
    checkpoint: Callable[[], None],
) -> None:
    """Pull every batch through the pipeline, saving progress at intervals.

    Args:
        phase: The tables.
        run: `run_stages` with the run's monitor and cancel token.
        checkpoint: Makes the saved state durable for the next writer.
    """
    phase.open()
    saved = time.monotonic()
    for computed in run(phase.work(), phase.stages()):
        phase.add(computed)
        if time.monotonic() - saved > CHECKPOINT_S:
            phase.save()
            checkpoint()
            saved = time.monotonic()


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _num_rows(work: Work | Read) -> int:
    return int(work.rows.num_rows)
