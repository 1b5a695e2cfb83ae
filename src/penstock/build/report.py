"""What a run did, counted: nothing vanishes between two steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Counts:
    """What one run did.

    Attributes:
        items_listed: Files or objects that the source holds.
        items_read: Items that were read in this run.
        items_unchanged: Items that were as recorded and not read.
        items_removed: Items that the source no longer holds.
        documents_new: Documents computed that the store did not hold.
        documents_changed: Documents computed again as their content changed.
        documents_recomputed: Documents computed again as the flow changed.
        documents_unchanged: Documents read again and found as they were.
        documents_removed: Documents taken out.
        documents_forgotten: Documents read and left out, as the store was told to forget them.
        bytes_read: Raw bytes of the documents read.
        chunks_cut: Chunks cut in this run.
        chunks_removed: Chunks taken out.
        chunks_embedded: Vectors computed in this run.
        vectors_reused: Chunks cut whose vector was known by their text.
        documents_tokenized: Documents whose tokens were made in this run.
        tokens_reused: Documents that came and whose tokens were known by their text.
        tokens_removed: Documents whose tokens were taken out.
    """

    items_listed: int = 0
    items_read: int = 0
    items_unchanged: int = 0
    items_removed: int = 0
    documents_new: int = 0
    documents_changed: int = 0
    documents_recomputed: int = 0
    documents_unchanged: int = 0
    documents_removed: int = 0
    documents_forgotten: int = 0
    bytes_read: int = 0
    chunks_cut: int = 0
    chunks_removed: int = 0
    chunks_embedded: int = 0
    vectors_reused: int = 0
    documents_tokenized: int = 0
    tokens_reused: int = 0
    tokens_removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """What became of the documents at one step, over the whole corpus.

    `rows_in` = `kept` + `dropped` + `failed`.
    """

    step: str
    rows_in: int
    kept: int
    dropped: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The outcome of `Flow.run`.

    Attributes:
        run: Name of the published run.
        counts: What this run did.
        funnel: The corpus after it, step by step.
        documents: Documents in the store.
        kept: Documents that every decision kept.
        chunks: Chunks in the store.
        tokens: Tokens in the store.
        failures: Rows in the failures table.
        seconds: Wall time by phase.
        stages: Accounting of each phase's stages, as `penstock.engine` gives it.
        bottleneck: A sentence on what the longest phase waited for; "" if it ran no stages.
        runs_dropped: Old runs without a tag that were dropped, as they took more than the last.
        reports: What decisions tell of the whole corpus, such as `Decontaminate`'s report.
    """

    run: str
    counts: Counts
    funnel: tuple[FunnelStep, ...]
    documents: int
    kept: int
    chunks: int
    tokens: int
    failures: int
    seconds: dict[str, float] = field(default_factory=dict)
    stages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    bottleneck: str = ""
    runs_dropped: tuple[str, ...] = ()
    reports: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report in JSON types."""
        return asdict(self)
