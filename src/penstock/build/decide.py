"""Bring the verdicts table in step with the documents: every decision, over the whole corpus."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.edits import KnownEdits, Rows, find_edits
from penstock.build.plan import Plan
from penstock.protocols import Cutting, Decision
from penstock.records import EDITS, VERDICTS
from penstock.store.attributes import Attributes
from penstock.store.tables import Table


@dataclass(frozen=True, slots=True)
class Decided:
    """What becomes of the corpus.

    Attributes:
        verdicts: `VERDICTS` of every document, sorted by `doc_id`.
        edits: `EDITS`: what is cut out of documents.
        reports: What decisions that have a `report` tell, in JSON types, by signature's name.
    """

    verdicts: pa.Table
    edits: pa.Table
    reports: dict[str, Any]


def decide(plan: Plan, documents: Table, edits: Table) -> Decided:
    """The verdict on every document, and what is cut out of those that stay.

    Each decision sees only what the decisions before it kept, as it was before any cut.

    Args:
        plan: The flow.
        documents: The documents, as of this run.
        edits: What the run before cut, from which spans are known.

    Cost: reads `doc_id` and the signatures of every document, and the texts of
        those that a decision asks for or cuts anew.
    """
    names = list(plan.decisions)
    left = documents.scan(["doc_id", *names]).sort_by("doc_id")
    rows = partial(_rows, documents, left.select(["doc_id", "_rowid"]))
    known = KnownEdits.of(edits)
    dropped: list[pa.Table] = []
    flagged: list[pa.Table] = []
    cut: list[pa.Table] = [EDITS.empty_table()]
    reports: dict[str, Any] = {}
    for name, decision in plan.decisions.items():
        if getattr(decision, "cut_by", None) is not None:
            assert isinstance(decision, Cutting)
            found, places = decision.cut(left["doc_id"], left[name])
            cut.append(find_edits(decision, places, rows, known))
            found = _without_remains(found, cut[-1])
        else:
            more = _wanted(decision, documents, rows)
            found = decision.decide(left["doc_id"], left[name], **more)
        if hasattr(decision, "report"):
            told = decision.report(left["doc_id"], left[name])
            reports[name.removeprefix("signature_")] = asdict(told)
        found = found.cast(VERDICTS)
        goes = pc.equal(found["verdict"], "dropped")
        gone = found.filter(goes)
        dropped.append(gone)
        flagged.append(found.filter(pc.invert(goes)))
        stays = pc.is_in(left["doc_id"], value_set=gone["doc_id"].combine_chunks())
        left = left.filter(pc.invert(stays))
    verdicts = pa.concat_tables([_kept(left["doc_id"], flagged), *dropped]).sort_by("doc_id")
    return Decided(verdicts, pa.concat_tables(cut), reports)


def _kept(doc_id: pa.ChunkedArray, flagged: list[pa.Table]) -> pa.Table:
    """The verdicts on the documents that stay; one flagged several times shows the first."""
    flags = pa.concat_tables([VERDICTS.empty_table(), *flagged]).combine_chunks()
    flag = pc.index_in(doc_id, value_set=flags["doc_id"].combine_chunks())
    return pa.table(
        {
            "doc_id": doc_id,
            "verdict": pa.array(["kept"] * len(doc_id), pa.string()),
            **{name: flags[name].take(flag) for name in ("rule", "score", "duplicate_of")},
        },
        schema=VERDICTS,
    )


def _without_remains(found: pa.Table, edits: pa.Table) -> pa.Table:
    """The verdicts, with those documents dropped of which a cut leaves too little."""
    gone = edits.filter(edits["spans"].is_null())["doc_id"].combine_chunks()
    where = found.schema.get_field_index("verdict")
    goes = pc.is_in(found["doc_id"], value_set=gone)
    return found.set_column(where, "verdict", pc.if_else(goes, "dropped", found["verdict"]))


def _wanted(decision: Decision, documents: Table, rows: Rows) -> dict[str, Any]:
    """What a decision asks for besides signatures."""
    more: dict[str, Any] = {}
    if getattr(decision, "needs_texts", False):
        more["texts"] = lambda doc_id: rows(doc_id, ["text"])["text"].combine_chunks()
    if getattr(decision, "needs_values", False):
        columns = Attributes(documents.reader())

        def values(name: str, doc_id: pa.Array) -> pa.Array:
            return columns.values(name, rows(doc_id, [])["_rowid"].to_numpy())

        more["values"] = values
    return more


def _rows(documents: Table, ids: pa.Table, doc_id: pa.Array, columns: list[str]) -> pa.Table:
    """Columns of these documents, in their order."""
    where = pc.index_in(doc_id, value_set=ids["doc_id"].combine_chunks())
    return documents.take(ids["_rowid"].take(where).to_numpy(), columns)


def write_verdicts(table: Table, verdicts: pa.Table) -> None:
    """Put these verdicts in the table, rewriting only the rows that changed.

    Cost: reads the table once; writes what differs.
    """
    table.require(VERDICTS, keep_rows=False)
    table.replace(verdicts)


def kept_documents(verdicts: pa.Table) -> pa.Array:
    """`doc_id` of the documents that every decision kept, sorted."""
    return verdicts.filter(pc.equal(verdicts["verdict"], "kept"))["doc_id"].combine_chunks()
