"""A user's own function as a step: `Map` changes documents, `Keep` says which stay.

    ps.Map(lambda doc: {"text": doc["text"].lower()})
    ps.Keep(lambda doc: len(doc["text"]) > 200, rule="too_short")

Row-wise, the function takes one document as a dictionary with `doc_id`,
`media_type`, `text` and `metadata` (a dictionary). Batch-wise it takes a
`pyarrow.RecordBatch` of the same columns, `metadata` being JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConfigError, RowError
from penstock.records import VERDICTS, to_json

Workers = Literal["threads", "processes"]


@dataclass(frozen=True, slots=True)
class Map:
    """Replace each document's text or metadata by what a function returns.

    The function must be pure: the same document always gives the same result,
    whatever came before. A document for which it raises goes to the failures,
    and is tried again in the next run; the others go on. Its code, the values
    it closes over and the functions of its module that it calls are part of
    the flow's fingerprint, so editing it recomputes.

    Args:
        function: Row-wise, returns a dictionary with `text` (str) and/or
            `metadata` (dict) to replace. Batch-wise, returns a batch of as many
            rows with `text` and/or `metadata` (JSON) to replace.
        batch: True calls the function with whole batches.
        workers: ``"threads"`` for a function that releases the GIL or is quick;
            ``"processes"`` for one that computes in Python for long.
    """

    function: Callable[[Any], Any]
    batch: bool = field(default=False, kw_only=True)
    workers: Workers = field(default="threads", kw_only=True)

    def __post_init__(self) -> None:
        _check("Map", self.function, self.workers)

    def apply(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with what the function replaced; see `penstock.protocols.DocumentStep`."""
        if self.batch:
            return _replace(documents, self.function(documents))
        text, metadata = [], []
        for document in rows(documents):
            change = _checked_change(self.function(document))
            text.append(change.get("text", document["text"]))
            metadata.append(to_json(change.get("metadata", document["metadata"])))
        changed = {"text": pa.array(text, pa.large_string()), "metadata": pa.array(metadata)}
        return _replace(documents, pa.RecordBatch.from_pydict(changed))


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep the documents for which a function is true; drop the others under a rule's name.

    Args:
        function: Row-wise, returns a bool; batch-wise, a boolean array.
        rule: Name in the verdicts; the function's own name by default.
        batch: True calls the function with whole batches.
        workers: As for `Map`.
    """

    function: Callable[[Any], Any]
    rule: str = field(default="", kw_only=True)
    batch: bool = field(default=False, kw_only=True)
    workers: Workers = field(default="threads", kw_only=True)

    signature_type: ClassVar[pa.DataType] = pa.bool_()

    def __post_init__(self) -> None:
        _check("Keep", self.function, self.workers)
        name = self.rule or getattr(self.function, "__name__", "keep").strip("<>")
        object.__setattr__(self, "rule", name)

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """What the function said of each document; (num_rows,) bool."""
        if self.batch:
            return pa.array(self.function(documents), pa.bool_())
        return pa.array([bool(self.function(document)) for document in rows(documents)], pa.bool_())

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """The documents for which the function was false, with score 0."""
        dropped = doc_id.filter(pc.invert(signature))
        count = len(dropped)
        return pa.table(
            {
                "doc_id": dropped,
                "verdict": pa.array(["dropped"] * count, pa.string()),
                "rule": pa.array([self.rule] * count, pa.string()),
                "score": pa.array([0.0] * count, pa.float64()),
                "duplicate_of": pa.nulls(count, pa.string()),
            },
            schema=VERDICTS,
        )


def rows(documents: pa.RecordBatch) -> list[dict[str, Any]]:
    """The documents of a batch as a user's function sees them."""
    names = ("doc_id", "media_type", "text", "metadata")
    columns = [documents.column(name).to_pylist() for name in names]
    return [
        {"doc_id": doc_id, "media_type": kind, "text": text, "metadata": json.loads(metadata)}
        for doc_id, kind, text, metadata in zip(*columns, strict=True)
    ]


def _check(step: str, function: object, workers: object) -> None:
    if not callable(function):
        raise ConfigError(f"{step}.function", function, "must be callable")
    if workers not in ("threads", "processes"):
        raise ConfigError(f"{step}.workers", workers, "must be 'threads' or 'processes'")


def _checked_change(change: object) -> Mapping[str, Any]:
    advice = "Return a dict with 'text' (str) and/or 'metadata' (dict); use Keep to drop documents"
    if not isinstance(change, Mapping) or not set(change) <= {"text", "metadata"}:
        keys = (
            f"the keys {sorted(map(str, change))}" if isinstance(change, Mapping) else repr(change)
        )
        raise RowError("bad-return-value", f"Map's function returned {keys}", advice)
    if not isinstance(change.get("text", ""), str) or not isinstance(
        change.get("metadata", {}), Mapping
    ):
        raise RowError(
            "bad-return-value", "Map's function returned a value of a wrong type", advice
        )
    return change


def _replace(documents: pa.RecordBatch, change: pa.RecordBatch) -> pa.RecordBatch:
    if change.num_rows != documents.num_rows:
        raise ConfigError(
            "Map.function",
            change.num_rows,
            f"must return as many rows as it is given, here {documents.num_rows}; "
            "use Keep to drop documents",
        )
    for name in ("text", "metadata"):
        if name in change.schema.names:
            where = documents.schema.get_field_index(name)
            column = change.column(name).cast(documents.schema.field(name).type)
            documents = documents.set_column(where, documents.schema.field(name), column)
    return documents
