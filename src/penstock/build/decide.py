"""Bring the verdicts table in step with the documents: every decision, over the whole corpus."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.plan import Plan
from penstock.records import VERDICTS
from penstock.store.tables import Table


def decide(plan: Plan, documents: Table) -> pa.Table:
    """The verdict on every document, sorted by `doc_id`.

    Each decision sees only what the decisions before it kept.

    Cost: reads `doc_id` and the signatures of every document, nothing else.
    """
    names = list(plan.decisions)
    left = documents.scan(["doc_id", *names]).sort_by("doc_id")
    texts = partial(_texts, documents, left.select(["doc_id", "_rowid"]))
    dropped: list[pa.Table] = []
    flagged: list[pa.Table] = []
    for name, decision in plan.decisions.items():
        more = {"texts": texts} if getattr(decision, "needs_texts", False) else {}
        found = decision.decide(left["doc_id"], left[name], **more).cast(VERDICTS)
        goes = pc.equal(found["verdict"], "dropped")
        gone = found.filter(goes)
        dropped.append(gone)
        flagged.append(found.filter(pc.invert(goes)))
        stays = pc.is_in(left["doc_id"], value_set=gone["doc_id"].combine_chunks())
        left = left.filter(pc.invert(stays))
    flags = pa.concat_tables([VERDICTS.empty_table(), *flagged]).combine_chunks()
    # A document flagged by several decisions shows the first.
    flag = pc.index_in(left["doc_id"], value_set=flags["doc_id"].combine_chunks())
    kept = pa.table(
        {
            "doc_id": left["doc_id"],
            "verdict": pa.array(["kept"] * left.num_rows, pa.string()),
            **{name: flags[name].take(flag) for name in ("rule", "score", "duplicate_of")},
        },
        schema=VERDICTS,
    )
    return pa.concat_tables([kept, *dropped]).sort_by("doc_id")


def _texts(documents: Table, rows: pa.Table, doc_ids: pa.Array) -> pa.Array:
    """The texts of these documents, in their order."""
    where = pc.index_in(doc_ids, value_set=rows["doc_id"].combine_chunks())
    found = documents.take(rows["_rowid"].take(where).to_numpy(), ["text"])
    return found["text"].combine_chunks()


def write_verdicts(table: Table, verdicts: pa.Table) -> None:
    """Put these verdicts in the table, rewriting only the rows that changed.

    Cost: reads the table once; writes what differs.
    """
    table.require(VERDICTS, keep_rows=False)
    before = table.scan(VERDICTS.names)
    old, new = _row_keys(before), _row_keys(verdicts)
    stale = before.filter(pc.invert(pc.is_in(old, value_set=new)))
    fresh = verdicts.filter(pc.invert(pc.is_in(new, value_set=old)))
    if len(stale):
        table.delete(stale["_rowid"].to_numpy())
    table.append(fresh)
    table.compact()


def kept_documents(verdicts: pa.Table) -> pa.Array:
    """`doc_id` of the documents that every decision kept, sorted."""
    return verdicts.filter(pc.equal(verdicts["verdict"], "kept"))["doc_id"].combine_chunks()


def _row_keys(rows: pa.Table) -> pa.Array:
    texts = [pc.fill_null(rows[name].cast(pa.string()), "\1") for name in VERDICTS.names]
    return pc.binary_join_element_wise(*texts, "\0").combine_chunks()
