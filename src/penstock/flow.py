"""A flow: where rows come from and what becomes of them, as plain Python values."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.build.explain import Explanation, explain_run
from penstock.build.plan import Plan, make_plan
from penstock.build.report import RunReport
from penstock.build.run import Progress, run_plan
from penstock.build.watch import Batch, watch_plan
from penstock.decisions import ExactDedup
from penstock.index import IndexSettings
from penstock.protocols import Decision, DocumentStep, Source, VectorDecision
from penstock.steps import Chunk, Embed, Normalize, Tokenize
from penstock.store.gate import open_gate
from penstock.store.places import open_place

Step: TypeAlias = DocumentStep | Decision | Chunk | Embed | VectorDecision | Tokenize


def default_steps() -> tuple[Step, ...]:
    """The steps of a flow that names none: normalise, drop exact duplicates, chunk, embed."""
    return (Normalize(), ExactDedup(), Chunk(), Embed())


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A source and the steps that its documents go through.

    Document steps and decisions come first, in any order, then `Chunk`, then
    `Embed`; both may be left out. Decisions by vectors (`SemanticDedup`) stand
    behind `Embed`. `Tokenize` stands before or after these, or alone. A decision
    sees only what the decisions before it kept.

    Args:
        source: `ps.files`, `ps.jsonl`, `ps.parquet`, or a `penstock.protocols.Source`.
        steps: What happens to the documents.
        index: How the chunks are indexed for searching.

    Raises:
        ConfigError: The steps make no flow.
    """

    source: Source
    steps: Sequence[Step] = field(default_factory=default_steps)
    index: IndexSettings = field(default_factory=IndexSettings)

    def __post_init__(self) -> None:
        self.plan()

    def plan(self) -> Plan:
        """The flow, checked, with the fingerprints of all that its results depend on."""
        return make_plan(self.source, self.steps, self.index)

    def run(
        self,
        store: str | os.PathLike[str],
        *,
        verify: bool = False,
        progress: Progress = "none",
        require: str | Sequence[str] = (),
        judgements: str | os.PathLike[str] | None = None,
    ) -> RunReport:
        """Bring a store in step with the source, and publish the result as a new run.

        Reads, computes and embeds only what is new or changed since the last
        run, and removes what is gone. Ctrl-C finishes what is under way, keeps
        it for the next run and raises `KeyboardInterrupt`; a second one stops
        at once. Old runs are dropped where they take more than the last, but for
        the newest two, those with a tag and those that a reader has open.

        Args:
            store: Folder of the store, made if it is not there, or a URL such as
                ``s3://bucket/corpus``.
            verify: True reads every item, also those whose size and time of
                change are as recorded.
            progress: How to show progress on standard error: ``"auto"`` (live on
                a terminal, else log lines), ``"rich"``, ``"plain"``, ``"json"``, ``"none"``.
            require: What search must be worth for the run to be published, such as
                ``"ndcg@10>=0.40"``, or several.
            judgements: The judged queries for that: a folder in BEIR's layout, of
                ``queries.jsonl`` and ``qrels/test.tsv``.

        Returns:
            What the run did, and what the store holds.

        Raises:
            GateError: The run misses what is required, so the one before stands. What
                was computed is kept for another try with this flow.
            SourceError: The source cannot be listed at all.
            ModelError: The model cannot be found.
            LeaseError: Another process is writing this store.
            StoreError: The store cannot be written, or is of a newer format.

        Guarantees: a reader sees the store before this run or after it, never
        between; after an error, an interrupt or a power cut the last published
        run stands. The store equals what a first run over today's source gives.

        Cost: listing, plus what changed. Memory does not grow with the corpus
        but for about 100 bytes a document and 60 a chunk.
        """
        gate = open_gate(require, judgements)
        return run_plan(self.plan(), store, verify=verify, progress=progress, gate=gate)

    def watch(
        self, store: str | os.PathLike[str], *, stop: threading.Event | None = None
    ) -> Iterator[Batch]:
        """Bring a store in step, then keep it so: what changes in the source is a run soon after.

        A run that fails is tried again, at the next change or after a while;
        only the first one's error is raised. Ends when `stop` is set, or by Ctrl-C.

        Args:
            store: As for `run`. If it lies in the source, it is not watched.
            stop: Set it from another thread to end.

        Yields:
            The runs, the first one too unless the store was in step already.

        Raises:
            ConfigError: The source is not a folder or file of this machine.
            MissingExtra: The extra `watch` is not installed.

        Cost: 0.3 to 0.5 s from saving a file to where it is found, in a store of
            10,000 documents; the source is listed, and all signatures are decided on.
        """
        return watch_plan(self.plan, store, stop)

    def explain(self, store: str | os.PathLike[str], *, verify: bool = False) -> Explanation:
        """What `run` would do now, and why; changes nothing.

        Counts of documents and chunks are told where they can be known without
        reading the source's content.

        Args:
            store: Folder or URL of the store; it need not exist.
            verify: As of `run`.

        Raises:
            SourceError: The source cannot be listed at all.
            StoreError: The store is damaged, or of a newer format.

        Cost: listing, and three narrow columns of the store.
        """
        return explain_run(self.plan(), open_place(store), verify=verify)
