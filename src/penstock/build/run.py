"""One run, from the lease to the published manifest."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.chunks import Chunks, run_chunks
from penstock.build.decide import decide, kept_documents, write_verdicts
from penstock.build.documents import CHECKPOINT_S, Documents, run_documents
from penstock.build.edits import write_edits
from penstock.build.encoders import HeldEncoder
from penstock.build.index import bring_index
from penstock.build.memory import give_back
from penstock.build.plan import Plan, step_name
from penstock.build.report import Counts, FunnelStep, RunReport
from penstock.build.tokens import Tokens, run_tokens
from penstock.build.vectors import judge_vectors
from penstock.engine import Cancel, Stage, bottleneck, handle_interrupts, run_stages, show_progress
from penstock.errors import GateError, StoreError
from penstock.store.edits import Edits
from penstock.store.forgotten import read_forgotten
from penstock.store.garbage import trim
from penstock.store.gate import Gate
from penstock.store.lease import Lease, take_lease
from penstock.store.manifest import (
    Manifest,
    after_last_run,
    current_run,
    newest_versions,
    publish,
    read_manifest,
    save_checkpoint,
    starting_point,
)
from penstock.store.object_lease import ObjectLease
from penstock.store.objects import ObjectPath
from penstock.store.places import (
    Place,
    attempt_name,
    flush,
    known_files,
    make_folder,
    open_place,
)
from penstock.store.store import Store
from penstock.store.tables import Table, named_versions, open_table

Progress = Literal["auto", "rich", "plain", "json", "none"]

_PHASES = ("list", "documents", "decide", "chunks", "vectors", "tokens", "index", "publish")

_TABLES = ("items", "documents", "blobs", "failures", "verdicts", "edits", "chunks", "spare")


def run_plan(
    plan: Plan,
    store: str | os.PathLike[str],
    *,
    verify: bool,
    progress: Progress,
    gate: Gate | None = None,
) -> RunReport:
    """See `penstock.Flow.run`."""
    with HeldEncoder() as encoder:
        report = run_once(plan, store, encoder, verify=verify, progress=progress, gate=gate)
    assert report is not None
    return report


def run_once(
    plan: Plan,
    store: str | os.PathLike[str],
    encoder: HeldEncoder,
    *,
    verify: bool = False,
    progress: Progress = "none",
    only_changes: bool = False,
    gate: Gate | None = None,
) -> RunReport | None:
    """One run.

    Args:
        plan: The flow.
        store: The store's folder or URL.
        encoder: What opens the model; it stays open for the caller.
        verify: True reads every item.
        progress: How to show progress.
        only_changes: True publishes nothing, and returns None, where nothing changed.
        gate: Judges the run before it is published.
    """
    folder = open_place(store)
    with _explained(folder):
        make_folder(folder / "runs")
        cancel = Cancel()
        with (
            take_lease(folder) as lease,
            show_progress(_PHASES, progress) as shown,
            _told(shown),
            handle_interrupts(cancel, shown.message),
        ):
            run = _Run(plan, folder, lease, cancel, shown, encoder, verify=verify, gate=gate)
            return run.go(only_changes=only_changes)


def _starting_point(store: Place, plan: Plan) -> Manifest:
    """Where a run begins: at a checkpoint, unless the last run has the vectors and it has not."""
    start = starting_point(store)
    last = after_last_run(store)
    if _vectors_of(start.flow) != plan.embedded_by == _vectors_of(last.flow):
        return last
    return start


def _vectors_of(flow: dict[str, Any]) -> str:
    """The model whose vectors the chunks have, or are on the way to have."""
    embed = flow.get("embed") or {}
    return str(flow.get("towards", embed.get("fingerprint", "")))


class _Run:
    """The state of one run: its tables, what it counted, and how it shows itself."""

    def __init__(
        self,
        plan: Plan,
        folder: Place,
        lease: Lease | ObjectLease,
        cancel: Cancel,
        shown: Any,
        encoder: HeldEncoder,
        *,
        verify: bool,
        gate: Gate | None,
    ) -> None:
        self._plan, self._folder, self._lease = plan, folder, lease
        self._encoder, self._gate = encoder, gate
        self._cancel, self._shown, self._verify = cancel, shown, verify
        self._started, self._saved = time.time(), time.monotonic()
        self._durable = known_files(folder)
        self._start = _starting_point(folder, plan)
        self._newest = newest_versions(folder, _TABLES)
        self._tables = {
            name: Table(folder / f"{name}.lance", self._start.tables.get(name), newest)
            for name, newest in self._newest.items()
        }
        self._forgotten = read_forgotten(folder)
        self._tokens = self._start.tokens
        self._clear_tokens: Callable[[], None] = lambda: None
        self._counts = Counts()
        self._seconds: dict[str, float] = {}
        self._stages: dict[str, list[dict[str, Any]]] = {}
        self._bottleneck = ("", 0.0)
        self._reports = self._start.reports

    def go(self, *, only_changes: bool) -> RunReport | None:
        """Every phase in turn; nothing is visible to readers before the last line."""
        flow = self._start.flow
        tables = self._tables
        documents = Documents(
            plan=self._plan,
            items=tables["items"],
            documents=tables["documents"],
            blobs=tables["blobs"],
            failures=tables["failures"],
            counts=self._counts,
            previous=flow,
            forgotten=self._forgotten,
        )
        with self._phase("list"):
            listing = self._plan.source.list()
            work = documents.prepare(listing, verify=self._verify)
        if work:
            try:
                self._documents(documents)
            finally:
                documents.close()
        moved = self._version("documents") != self._start.tables.get("documents")
        verdicts: pa.Table | None = None
        same_decisions = (flow.get("chain"), flow.get("decisions")) == (
            self._plan.chain_fingerprint,
            self._plan.decided_by,
        )
        index = self._start.index
        described = self._plan.describe()
        same_cut = all(flow.get(name) == described[name] for name in ("cut", "embed", "index"))
        same_cut = same_cut and "chunks" in self._start.tables and index is not None
        by_vectors = bool(self._plan.vector_decisions)
        if moved or work or not same_decisions or (by_vectors and not same_cut):
            with self._phase("decide"):
                decided = decide(self._plan, tables["documents"], tables["edits"])
                write_edits(tables["edits"], decided.edits)
                verdicts, self._reports = decided.verdicts, decided.reports
                if not by_vectors:
                    write_verdicts(tables["verdicts"], verdicts)
        settled = same_cut or (self._plan.chunk is None and index is None)
        settled = settled and self._has_tokens() and self._is_published()
        if only_changes and verdicts is None and settled:
            return None
        moves = self._plan.chunk is not None and (verdicts is not None or not same_cut)
        if moves:
            self._make_chunks(verdicts)
        self._make_tokens(decided=verdicts is not None)
        if moves:
            with self._phase("index"):
                index = self._index()
        elif self._plan.chunk is None:
            index = None
        with self._phase("publish"):
            return self._publish(index)

    def _is_published(self) -> bool:
        """Whether the state that this run started from is that of the last published run."""
        current = current_run(self._folder)
        if current is None:
            return False
        last = read_manifest(self._folder / "runs" / f"{current}.json")
        start = self._start
        return (start.tables, start.index, start.tokens) == (last.tables, last.index, last.tokens)

    def _has_tokens(self) -> bool:
        """Whether the tokens are there that the plan asks for, or none if it asks for none."""
        if self._plan.tokenize is None:
            return self._tokens is None
        same = self._start.flow.get("tokens") == self._plan.tokenized_by
        return bool(same and self._tokens is not None)

    def _documents(self, documents: Documents) -> None:
        total = self._counts.items_listed - self._counts.items_unchanged
        # Whatever the next run's flow, it has documents to look at that are not decided on.
        unfinished = {**self._start.flow, "unfinished": True}
        with self._pipeline("documents", total) as run:
            run_documents(documents, run, lambda: self._checkpoint(unfinished))
        if self._cancel.is_set():
            documents.save()
            self._checkpoint(unfinished)
            raise KeyboardInterrupt
        documents.finish()
        if time.monotonic() - self._saved > CHECKPOINT_S:  # what follows saves after as long again
            self._checkpoint(unfinished)

    def _make_tokens(self, *, decided: bool) -> None:
        """Bring the tokens in step with the verdicts, which are written."""
        plan = self._plan
        if plan.tokenize is None:
            self._tokens = None
            return
        if not decided and self._has_tokens():
            return
        tokens = Tokens(
            step=plan.tokenize,
            documents=self._tables["documents"],
            edits=Edits(self._tables["edits"].reader()),
            place=self._folder / "tokens",
            previous=self._tokens,
            name=attempt_name(self._folder, self._start.run),
            counts=self._counts,
            tell=self._shown.message,
        )

        def save() -> None:
            self._tokens = tokens.progress()
            self._checkpoint(self._flow_so_far())

        total = tokens.prepare(kept_documents(self._verdicts()))
        with self._pipeline("tokens", total) as run:
            run_tokens(tokens, run, save)
        if self._cancel.is_set():
            tokens.flush()
            save()
            raise KeyboardInterrupt
        self._tokens = tokens.finish()
        self._clear_tokens = tokens.update.clear

    def _verdicts(self) -> pa.Table:
        return self._tables["verdicts"].scan(["doc_id", "verdict"]).sort_by("doc_id")

    def _make_chunks(self, verdicts: pa.Table | None) -> None:
        """Bring chunks in step; verdicts are given where they were found anew."""
        decided = verdicts
        if verdicts is None:
            verdicts = self._verdicts()
        embed = self._plan.embed
        open_model = self._encoder.open
        chunks = Chunks(
            plan=self._plan,
            documents=self._tables["documents"],
            edits=Edits(self._tables["edits"].reader()),
            chunks=self._tables["chunks"],
            spare=self._tables["spare"],
            encoder=None if embed is None else open_model(embed, self._plan.embedded_by),
            counts=self._counts,
        )
        total = chunks.prepare(kept_documents(verdicts))
        with self._pipeline("chunks", total) as run:
            run_chunks(chunks, run, lambda: self._checkpoint(self._flow_so_far()))
        if self._cancel.is_set():
            chunks.flush()
            self._checkpoint(self._flow_so_far())
            raise KeyboardInterrupt
        chunks.finish()
        if decided is not None:
            self._judge_vectors(decided)

    def _judge_vectors(self, verdicts: pa.Table) -> None:
        spare = self._tables["spare"]
        if self._plan.vector_decisions or spare.num_rows():
            with self._phase("vectors"):
                judged = judge_vectors(self._plan, verdicts, self._tables["chunks"], spare)
                if self._plan.vector_decisions:
                    write_verdicts(self._tables["verdicts"], judged)

    def _flow_so_far(self) -> dict[str, Any]:
        # The documents are of this plan, the chunks not yet all: the next run looks at them.
        done = self._plan.describe()
        known = {name: done[name] for name in ("reader", "chain")}
        return {**known, "towards": self._plan.embedded_by, **self._made_under()}

    def _made_under(self) -> dict[str, Any]:
        forgotten = self._forgotten.state()
        return {"forgotten": forgotten} if forgotten else {}

    def _index(self) -> dict[str, Any]:
        version = self._version("chunks")
        assert version is not None
        return bring_index(
            self._folder / "index",
            open_table(self._folder / "chunks.lance", version),
            self._start.index,
            attempt_name(self._folder, self._start.run),
            self._plan.index,
            self._shown.message,
        )

    def _publish(self, index: dict[str, Any] | None) -> RunReport:
        if self._plan.chunk is None:
            for name in ("spare", "chunks"):
                path = self._folder / f"{name}.lance"
                self._tables[name] = Table(path, None, self._newest[name])
        report = self._report()
        self._durable = flush(self._folder, self._durable)
        self._lease.check()
        report.seconds["total"] = time.time() - self._started
        manifest = self._manifest(self._plan.describe() | self._made_under())
        manifest = replace(manifest, index=index, counts=_counts(report))
        if self._gate is not None:
            self._judge(manifest, self._gate)
        publish(self._folder, manifest)
        self._clear_tokens()  # of pieces that a checkpoint has named until now
        garbage = trim(self._folder)
        return report if garbage is None else replace(report, runs_dropped=garbage.dropped)

    def _judge(self, manifest: Manifest, gate: Gate) -> None:
        """Search the run while it is a candidate; one that fails is kept as a checkpoint."""
        try:
            gate.check(Store(self._folder, manifest))
        except GateError:
            save_checkpoint(self._folder, manifest)
            raise
        self._lease.check()

    def _report(self) -> RunReport:
        verdicts = self._tables["verdicts"].scan(["verdict", "rule"])
        failures = self._tables["failures"].scan(["step"])
        return RunReport(
            run=self._start.run,
            counts=self._counts,
            funnel=_funnel(self._plan, verdicts, failures),
            documents=self._tables["documents"].num_rows(),
            kept=int(pc.sum(pc.equal(verdicts["verdict"], "kept")).as_py() or 0),
            chunks=self._tables["chunks"].num_rows(),
            tokens=0 if self._tokens is None else self._tokens["num_tokens"],
            failures=failures.num_rows,
            seconds=self._seconds,
            stages=self._stages,
            bottleneck=self._bottleneck[0],
            reports=self._reports,
        )

    def _checkpoint(self, flow: dict[str, Any]) -> None:
        self._durable = flush(self._folder, self._durable)
        self._lease.check()
        self._saved = time.monotonic()
        save_checkpoint(self._folder, replace(self._manifest(flow), index=self._start.index))

    def _manifest(self, flow: dict[str, Any]) -> Manifest:
        from penstock import __version__

        return Manifest(
            run=self._start.run,
            tables=named_versions(self._tables),
            flow=flow,
            tokens=self._tokens,
            started=self._started,
            finished=time.time(),
            penstock=__version__,
            reports=self._reports,
        )

    def _version(self, name: str) -> int | None:
        return self._tables[name].version

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        with self._shown.phase(name):
            yield
            give_back()
        self._seconds[name] = time.monotonic() - started

    @contextmanager
    def _pipeline(
        self, name: str, total: int
    ) -> Iterator[Callable[[Iterator[Any], list[Stage]], Iterator[Any]]]:
        started = time.monotonic()
        with self._shown.phase(name, total=total) as monitor:

            def run(items: Iterator[Any], stages: list[Stage]) -> Iterator[Any]:
                return run_stages(items, stages, monitor=monitor, cancel=self._cancel)

            yield run
        seconds = self._seconds[name] = time.monotonic() - started
        stats = monitor.snapshot()
        self._stages[name] = [asdict(stage) for stage in stats]
        if seconds > max(1.0, self._bottleneck[1]):  # a short phase says nothing of what is slow
            self._bottleneck = (bottleneck(stats), seconds)


class _Teller(logging.Handler):
    """Passes on what the library announces, such as that kernels are being compiled."""

    def __init__(self, shown: Any) -> None:
        super().__init__(logging.INFO)
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        """Show one announcement among the progress."""
        self._shown.message(record.getMessage())


@contextmanager
def _told(shown: Any) -> Iterator[None]:
    log = logging.getLogger("penstock")
    teller, level = _Teller(shown), log.level
    log.addHandler(teller)
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(teller)
        log.setLevel(level)


def _counts(report: RunReport) -> dict[str, Any]:
    """A report as the manifest keeps it, without the decisions' reports, which it has besides."""
    return {name: value for name, value in report.to_json().items() if name != "reports"}


def _funnel(plan: Plan, verdicts: pa.Table, failures: pa.Table) -> tuple[FunnelStep, ...]:
    """What became of every row at every step; the rows of one step are those the last one kept."""
    failed = dict(_value_counts(failures["step"]))
    dropped: dict[str, int] = {}
    gone = verdicts.filter(pc.equal(verdicts["verdict"], "dropped"))
    for reason, count in _value_counts(gone["rule"].drop_null()):
        decision = reason.partition(".")[0]
        dropped[decision] = dropped.get(decision, 0) + count
    before = [("list", None), ("read", None), ("decode", None)]
    steps = (*plan.chain, *plan.vector_decisions)
    named = [*before, *((step_name(s), getattr(s, "rule", None)) for s in steps)]
    rows_in = verdicts.num_rows + failures.num_rows
    funnel = []
    for name, rule in named:
        lost, gone = failed.pop(name, 0), dropped.pop(rule or "", 0)
        kept = rows_in - lost - gone
        funnel.append(FunnelStep(step=name, rows_in=rows_in, kept=kept, dropped=gone, failed=lost))
        rows_in = kept
    return tuple(funnel)


def _value_counts(column: pa.ChunkedArray) -> Iterator[tuple[str, int]]:
    for row in pc.value_counts(column).to_pylist():
        yield row["values"], row["counts"]


@contextmanager
def _explained(folder: Place) -> Iterator[None]:
    """Say what a full disk or a missing right means, in one clear error."""
    try:
        yield
    except OSError as err:
        # Lance reports without a number.
        if err.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(err):
            problem = "the disk is full; free some space and build again"
        elif err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            problem = f"it cannot be written ({err.strerror}); check the folder's owner and mode"
        elif err.errno == errno.EIO or "os error 5)" in str(err):
            problem = "the disk failed (an I/O error); look at the system's log, then build again"
        elif err.errno in (errno.ENOTDIR, errno.EEXIST):
            problem = "it is a file, not a folder; give the folder of a store"
        elif isinstance(folder, ObjectPath) and "LanceError" in str(err):
            problem = f"the object store failed ({err}); build again"
        else:
            raise
        raise StoreError(str(folder), f"{problem}. The last published run stands") from err
