"""What a source, a step and a decision offer: the contracts that the flow relies on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from penstock.records import Listing, Read


@runtime_checkable
class Source(Protocol):
    """Where rows come from.

    Guarantees asked of every source: `list` is cheap (no content is read), and
    `tasks` followed by `read` yields the rows of the items in the order of the
    items, whatever thread reads which task.
    """

    def list(self) -> Listing:
        """Every item that the source holds now, with a version that changes when it does.

        Raises:
            SourceError: The source as a whole cannot be listed.
        """
        ...

    def tasks(self, items: Sequence[str]) -> Iterator[Any]:
        """Cut the reading of these items into tasks of a few megabytes each.

        Runs in one thread, lazily, a few tasks ahead of the readers.
        """
        ...

    def read(self, task: Any) -> Read:
        """Read one task. Runs in many threads at once; a bad row becomes a failure."""
        ...


@runtime_checkable
class DocumentStep(Protocol):
    """A pure function of each document by itself.

    `columns` in: `doc_id`, `media_type`, `metadata` (canonical JSON) and `text`.
    """

    def apply(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows in the same order, with `text` and/or `metadata` replaced.

        Raises:
            Exception: Some row cannot be processed. The runner halves the batch
                until it has found which, records those and keeps the rest.
        """
        ...


@runtime_checkable
class Decision(Protocol):
    """A step that looks at the whole corpus and says which documents stay.

    Its costly part is a pure function of one document and is remembered; its
    global part is cheap and computed afresh in every run. So settings that only
    `decide` uses are declared with `metadata={"fingerprint": False}`: changing one
    computes nothing but the verdicts. Rules are named `rule`, or `rule.reason`.
    One that has a method `report(doc_id, signature)`, of the arguments of `decide`,
    tells more of the whole: its dataclass of JSON types is kept with the run.

    `columns` in: those of a `DocumentStep`, and `text_hash`.
    """

    @property
    def rule(self) -> str:
        """Name of the rule in the verdicts, such as ``exact_duplicate``."""
        ...

    @property
    def signature_type(self) -> pa.DataType:
        """Type of the signature's column."""
        ...

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """What is remembered of each document for `decide`; (num_rows,) of one fixed type."""
        ...

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which of these documents go.

        A decision whose attribute `needs_texts` is true is also given `texts`, a function
        from an array of `doc_id` to the array of their texts: for the few that it must see.
        One whose `needs_values` is true is given `values`, which takes the name of a column or
        a field of the metadata before that array.

        Args:
            doc_id: Documents that earlier steps kept, sorted.
            signature: Their signatures, in the same order.

        Returns:
            Table of `VERDICTS` with one row per dropped document, and one with the verdict
            ``kept`` for each that is only flagged, sorted by `doc_id`.
        """
        ...


@runtime_checkable
class Cutting(Decision, Protocol):
    """A decision that can also cut pieces out of documents that stay.

    What is cut is remembered as spans of the text that the signatures are of: the
    document's text behind every document step. So decisions, later ones too, see
    texts before any cut; what is made of a kept document (chunks, tokens, exports)
    is made of its final text.
    """

    @property
    def cut_by(self) -> str | None:
        """All that `spans` depends on but for text and places; None: this one cuts nothing."""
        ...

    def cut(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
        """What `decide` returns, and `CUTS`, sorted by `doc_id`, of documents that stay.

        The former has a row with the verdict ``kept`` for each document of the latter.
        """
        ...

    def spans(self, text: pa.Array, cuts: pa.Table) -> pa.Array:
        """Where the places of some rows of `CUTS` lie in their texts.

        A pure function of one text and its places, computed once.

        Returns:
            (num_rows,) `SPANS`; null where too little would be left, so that the document goes.
        """
        ...


@runtime_checkable
class VectorDecision(Protocol):
    """A decision that looks at the vectors of all documents; it stands behind `Embed`.

    It has no signature, for vectors are remembered with the chunks; `rule` and
    settings are as of a `Decision`.
    """

    @property
    def rule(self) -> str:
        """Name of the rule in the verdicts."""
        ...

    def decide_vectors(self, doc_id: pa.Array, vectors: Any) -> pa.Table:
        """Which of these documents go.

        Args:
            doc_id: Documents that all steps before kept and that have a chunk, sorted.
            vectors: (num_documents, dim) float32; the mean of the chunks' vectors.

        Returns:
            Table of `VERDICTS` with one row per dropped document, sorted by `doc_id`.
        """
        ...
