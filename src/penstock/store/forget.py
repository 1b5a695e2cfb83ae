"""Take documents out of a store although their source still lists them, and keep them out.

The list is written first, then the receipt, then a run without the documents is
published. Wherever this stops, the documents are on the list, and the next
build, or another `forget`, takes out what is left of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConfigError, QueryError, StoreError
from penstock.index import IndexManifest, update_index
from penstock.records import EDITS, SPANS
from penstock.store.attributes import Attributes
from penstock.store.forgotten import Forgotten, add_forgotten, drop_forgotten, read_forgotten
from penstock.store.lease import take_lease
from penstock.store.manifest import (
    Manifest,
    current_run,
    newest_versions,
    publish,
    read_manifest,
    starting_point,
)
from penstock.store.places import Place, attempt_name, flush, known_files, local_files
from penstock.store.receipts import Receipt, write_receipt
from penstock.store.tables import Table, named_versions, open_table
from penstock.store.traces import is_in, published, receipt_of, rows_of
from penstock.tokens import TokensManifest, forget_tokens

U64 = npt.NDArray[np.uint64]

_SHOWN = 5


def forget(
    store: Place, doc_ids: Sequence[str] = (), *, where: str | None = None, reason: str = ""
) -> Receipt:
    """See `Store.forget`."""
    if bool(doc_ids) == (where is not None):
        raise ConfigError("forget", list(doc_ids), "expected ids of documents or a condition")
    with take_lease(store) as lease:
        last = _last(store)
        ids = _chosen(store, last, doc_ids, where)
        started = time.time()
        known = known_files(store)
        start = starting_point(store)
        tables = open_tables(store, last)
        receipt = receipt_of(store, last, start.run, ids, reason)
        forgotten = add_forgotten(store, ids, receipt.run)
        fates = _fates(last, tables, ids)
        rows = {name: _delete_rows(table, ids) for name, table in tables.items()}
        rows["blobs"] = _delete_blobs(tables)
        receipt = replace(receipt, rows={name: len(gone) for name, gone in rows.items()})
        write_receipt(store, receipt)
        index = last.index
        if index is not None and len(rows.get("chunks", ())):
            index = _without_rows(store, index, start.run, rows["chunks"])
        tokens = last.tokens
        if tokens is not None:
            tokens = _without_tokens(store, tokens, start.run, ids)
        flush(store, known)
        lease.check()
        publish(
            store,
            replace(
                last,
                run=start.run,
                tables=named_versions(tables),
                flow=_flow(last, forgotten),
                index=index,
                tokens=tokens,
                counts=_counts(last, start.run, fates, rows)
                | ({} if tokens is None else {"tokens": tokens["num_tokens"]}),
                started=started,
                finished=time.time(),
            ),
        )
    return receipt


def restore(store: Place, doc_ids: Sequence[str]) -> None:
    """See `Store.restore`."""
    if not doc_ids:
        raise ConfigError("restore", [], "expected ids of documents")
    with take_lease(store):
        known = read_forgotten(store).among(pa.array(doc_ids, pa.string()))
        unknown = [
            name for name, there in zip(doc_ids, known.to_pylist(), strict=True) if not there
        ]
        if unknown:
            raise QueryError(
                f"doc_id={unknown[0]!r}", "the store was not told to forget it; see its receipts"
            )
        drop_forgotten(store, pa.array(doc_ids, pa.string()))


def open_tables(store: Place, last: Manifest) -> dict[str, Table]:
    """The tables of the last run, for writing."""
    newest = newest_versions(store, last.tables)
    return {
        name: Table(store / f"{name}.lance", version, newest[name])
        for name, version in last.tables.items()
    }


def find_documents(store: Place, doc_ids: Sequence[str], where: str | None) -> pa.Array:
    """The ids that `forget` would take out, sorted; reads only.

    Raises:
        QueryError: No run has one of these documents, or the condition cannot be understood.
    """
    return _chosen(store, _last(store), doc_ids, where)


def _last(store: Place) -> Manifest:
    current = current_run(store)
    if current is None:
        raise StoreError(str(store), "there is no store here")
    return read_manifest(store / "runs" / f"{current}.json")


def _chosen(store: Place, last: Manifest, doc_ids: Sequence[str], where: str | None) -> pa.Array:
    if where is not None:
        documents = open_table(store / "documents.lance", last.tables["documents"])
        found = Attributes(documents).table(["doc_id"], where)["doc_id"].combine_chunks()
        return found.cast(pa.string()).sort()
    ids = pc.unique(pa.array(doc_ids, pa.string())).sort()
    missing = ids.filter(pc.invert(read_forgotten(store).among(ids)))
    for manifest in (last, *published(store)):
        for name in ("documents", "failures"):
            if len(missing) and name in manifest.tables:
                there = open_table(store / f"{name}.lance", manifest.tables[name])
                have = there.to_table(columns=["doc_id"])["doc_id"]
                missing = missing.filter(pc.invert(is_in(missing, have)))
    if len(missing):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise QueryError(
            f"doc_id={missing[0].as_py()!r}{more}",
            "no run has such a document; see store.documents(['doc_id'])",
        )
    return ids


def _delete_rows(table: Table, ids: pa.Array) -> U64:
    """Take out the rows of these documents; their row ids. What names them names them no more."""
    found = rows_of(table.reader(), ids)
    if len(found):
        table.delete(found)
    assert table.schema is not None
    if "duplicate_of" in table.schema.names:
        rows = table.scan(table.schema.names)
        rows = rows.filter(is_in(rows["duplicate_of"], ids))
        if len(rows):
            where = rows.schema.get_field_index("duplicate_of")
            none = pa.nulls(len(rows), pa.string())
            table.delete(rows["_rowid"].to_numpy())
            table.append(rows.set_column(where, "duplicate_of", none).drop_columns(["_rowid"]))
    if "spans" in table.schema.names:
        _unname_spans(table, ids)
    return found


def _unname_spans(edits: Table, ids: pa.Array) -> None:
    """Name these documents no more as those that have what others had cut."""
    rows = edits.scan(EDITS.names)
    gone = frozenset(ids.to_pylist())
    spans = rows["spans"].to_pylist()
    named = [any(span["duplicate_of"] in gone for span in each or ()) for each in spans]
    if not any(named):
        return
    less = [
        [span | {"duplicate_of": None} if span["duplicate_of"] in gone else span for span in each]
        for each, names in zip(spans, named, strict=True)
        if names
    ]
    rows = rows.filter(pa.array(named))
    where = rows.schema.get_field_index("spans")
    edits.delete(rows["_rowid"].to_numpy())
    edits.append(rows.set_column(where, EDITS.field("spans"), pa.array(less, SPANS)))


def _without_rows(store: Place, index: dict[str, Any], run: str, rows: U64) -> dict[str, Any]:
    before = IndexManifest.from_json(index)
    files = local_files(store / "index", before.names())
    name = attempt_name(store, run)
    return update_index(files.path, before, name, rows, (), before.settings).to_json()


def _without_tokens(
    store: Place, tokens: dict[str, Any], run: str, ids: pa.Array
) -> dict[str, Any]:
    before = TokensManifest.from_json(tokens)
    files = local_files(store / "tokens", before.names())
    return forget_tokens(files.path, before, attempt_name(store, run), ids).to_json()


def _delete_blobs(tables: dict[str, Table]) -> U64:
    """Take out the bytes that no document has any more; their row ids."""
    if "blobs" not in tables or "documents" not in tables:
        return np.empty(0, np.uint64)
    needed = tables["documents"].scan(["content_hash"], where="has_blob")["content_hash"]
    rows = tables["blobs"].scan(["content_hash"])
    gone: U64 = rows["_rowid"].filter(pc.invert(is_in(rows["content_hash"], needed))).to_numpy()
    if len(gone):
        tables["blobs"].delete(gone)
    return gone


def _flow(last: Manifest, forgotten: Forgotten) -> dict[str, Any]:
    """What the run was made with; the next build decides anew, as its decisions saw more."""
    flow = {name: value for name, value in last.flow.items() if name != "decisions"}
    return flow | {"forgotten": forgotten.state()}


def _fates(last: Manifest, tables: dict[str, Table], ids: pa.Array) -> list[tuple[str, str]]:
    """The step at which each of the documents left the flow, and how; two "" for those kept."""
    fates: list[tuple[str, str]] = []
    steps = {step["rule"]: step["name"] for step in reversed(last.flow.get("steps", []))}
    if "verdicts" in tables:
        rows = tables["verdicts"].scan(["doc_id", "verdict", "rule"])
        for row in rows.filter(is_in(rows["doc_id"], ids)).to_pylist():
            step = steps.get((row["rule"] or "").partition(".")[0], "")
            fates.append((step, "dropped") if row["verdict"] == "dropped" else ("", ""))
    if "failures" in tables:
        rows = tables["failures"].scan(["doc_id", "step"])
        failed = rows["step"].filter(is_in(rows["doc_id"], ids)).to_pylist()
        fates += [(step, "failed") for step in failed]
    return fates


def _counts(
    last: Manifest, run: str, fates: Iterable[tuple[str, str]], rows: dict[str, U64]
) -> dict[str, Any]:
    """The report of the last run, less what went."""
    left = list(fates)
    funnel = []
    for step in last.counts.get("funnel", []):
        changed = step | {"rows_in": step["rows_in"] - len(left)}
        for how in ("dropped", "failed"):
            changed[how] -= left.count((step["step"], how))
        left = [fate for fate in left if fate[0] != step["step"]]
        changed["kept"] -= len(left)
        funnel.append(changed)
    gone = {name: len(each) for name, each in rows.items()}
    did = dict.fromkeys(last.counts.get("counts", {}), 0)
    did |= {
        "documents_removed": gone.get("documents", 0),
        "chunks_removed": gone.get("chunks", 0),
    }
    counts = last.counts | {"run": run, "funnel": funnel, "counts": did, "seconds": {}}
    for name, table in (("documents", "documents"), ("chunks", "chunks"), ("failures", "failures")):
        counts[name] = counts.get(name, 0) - gone.get(table, 0)
    return counts | {"kept": counts.get("kept", 0) - len(left), "stages": {}, "bottleneck": ""}
