"""A document's life: where it comes from, what each step made of it, and where it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import QueryError
from penstock.store.manifest import Manifest, read_manifest, run_names
from penstock.store.places import Place
from penstock.store.search import Searcher
from penstock.store.tables import open_table
from penstock.store.tags import read_tags
from penstock.tokens import StoredTokens

_MOST_OF_CLUSTER = 100


def document_life(
    store: Place, searcher: Searcher, doc_id: str, tokens: StoredTokens | None
) -> dict[str, Any]:
    """See `Store.explain`."""
    manifest = searcher.manifest
    runs = _runs(store, doc_id)
    document = _row(store, manifest, "documents", doc_id)
    failures = _rows(store, manifest, "failures", pc.field("doc_id") == doc_id)
    if document is None and not failures and not any(run["content_hash"] for run in runs):
        raise QueryError(
            f"doc_id={doc_id!r}", "no run that is kept has it; see store.documents(['doc_id'])"
        )
    life: dict[str, Any] = {"doc_id": doc_id, "run": manifest.run, "store": str(store)}
    life["source"] = _source(store, manifest, document, failures)
    life["runs"] = runs
    life["failures"] = failures
    if document is None:
        return life
    verdict = _row(store, manifest, "verdicts", doc_id) or {}
    life["document"] = {
        "media_type": document["media_type"],
        "metadata": json.loads(document["metadata"]),
        "text_bytes": len(document["text"].encode()),
        "content_hash": document["content_hash"].hex(),
        "text_hash": document["text_hash"].hex(),
        "has_blob": document["has_blob"],
    }
    life["steps"] = _steps(manifest, document, verdict)
    life["verdict"] = {name: value for name, value in verdict.items() if name != "doc_id"}
    life["cluster"] = _cluster(store, manifest, doc_id, verdict)
    edits = _rows(store, manifest, "edits", pc.field("doc_id") == doc_id)
    life["edits"] = [_shown(each) for each in edits]
    life["chunks"] = _chunks(store, searcher, doc_id)
    life["tokens"] = _tokens(tokens, doc_id)
    return life


def _source(
    store: Place,
    manifest: Manifest,
    document: dict[str, Any] | None,
    failures: list[dict[str, Any]],
) -> dict[str, Any]:
    item = document["item"] if document else failures[0]["item"] if failures else None
    rows = _rows(store, manifest, "items", pc.field("item") == item) if item else []
    version = rows[0]["version"] if rows else None
    return {"source": manifest.flow.get("source"), "item": item, "version": version}


def _runs(store: Place, doc_id: str) -> list[dict[str, Any]]:
    """What each kept run has of the document."""
    tags = read_tags(store)
    found = []
    seen: dict[tuple[str, int], dict[str, Any] | None] = {}
    for name in run_names(store):
        manifest = read_manifest(store / "runs" / f"{name}.json")
        rows = {}
        for table in ("documents", "verdicts"):
            version = manifest.tables.get(table)
            if version is not None and (table, version) not in seen:
                seen[table, version] = _row(store, manifest, table, doc_id, _RUN_COLUMNS[table])
            rows[table] = None if version is None else seen[table, version]
        document, verdict = rows["documents"] or {}, rows["verdicts"] or {}
        hashes = {key: document[key].hex() if document else None for key in _HASHES}
        judged = {key: verdict.get(key) for key in ("verdict", "rule", "score", "duplicate_of")}
        tagged = [tag for tag, run in tags.items() if run == name]
        found.append({"run": name, "tags": tagged, **hashes, **judged})
    return found


_HASHES = ("content_hash", "text_hash")
_RUN_COLUMNS: dict[str, tuple[str, ...]] = {
    "documents": _HASHES,
    "verdicts": ("verdict", "rule", "score", "duplicate_of"),
}


def _steps(
    manifest: Manifest, document: dict[str, Any], verdict: dict[str, Any]
) -> list[dict[str, Any]]:
    """Each step with its settings, and what it made of the document: the last one may drop it."""
    rule = (verdict.get("rule") or "").partition(".")[0]
    dropped = verdict.get("verdict") == "dropped"
    signatures = iter([name for name in document if name.startswith("signature_")])
    steps, over = [], False
    for step in manifest.flow.get("steps", []):
        facts: dict[str, Any] = {"step": step["name"], "settings": step["settings"]}
        if step.get("rule") is not None:
            column = next(signatures, None)
            if column is not None:
                facts["signature"] = _shown(document[column])
        mine = step.get("rule") is not None and step.get("rule") == rule
        facts["outcome"] = "not reached" if over else "passed"
        if mine and not over:
            facts["outcome"] = "dropped" if dropped else "flagged"
            facts["score"] = verdict.get("score")
            over = dropped
        steps.append(facts)
    return steps


def _shown(value: Any) -> Any:
    """A signature for people: numbers as they are, hashes by their first bytes."""
    if isinstance(value, bytes):
        return value[:16].hex() + ("..." if len(value) > 16 else "")
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value[:8]] + (["..."] if len(value) > 8 else [])
    return value


def _cluster(store: Place, manifest: Manifest, doc_id: str, verdict: dict[str, Any]) -> list[str]:
    """The documents that are taken for one with this: the one kept, then those dropped for it."""
    kept = verdict.get("duplicate_of") or doc_id
    wanted = pc.field("duplicate_of") == kept
    rows = _rows(store, manifest, "verdicts", wanted, ("doc_id",))
    others = sorted({row["doc_id"] for row in rows} - {kept})
    return [kept, *others[:_MOST_OF_CLUSTER]] if others or kept != doc_id else []


def _chunks(store: Place, searcher: Searcher, doc_id: str) -> list[dict[str, Any]]:
    version = searcher.manifest.tables.get("chunks")
    if version is None:
        return []
    columns = ["chunk_id", "ordinal", "start", "end", "heading_path", "num_tokens", "embedded_by"]
    rows = (
        open_table(store / "chunks.lance", version)
        .to_table(columns=columns, filter=pc.field("doc_id") == doc_id, with_row_id=True)
        .sort_by("ordinal")
    )
    segments = _segments(searcher, rows["_rowid"].to_numpy())
    return [
        {name: row[name] for name in columns} | {"segment": segments.get(row["_rowid"])}
        for row in rows.to_pylist()
    ]


def _segments(searcher: Searcher, row_ids: Any) -> dict[int, str]:
    """The segment of the index that each row is in."""
    if searcher.manifest.index is None or not len(row_ids):
        return {}
    wanted = np.sort(row_ids)
    found = {}
    for segment in searcher.index.segments:
        places = segment.locate(wanted)
        found.update(dict.fromkeys(segment.rows[places].tolist(), segment.folder.name))
    return found


def _tokens(tokens: StoredTokens | None, doc_id: str) -> dict[str, int] | None:
    if tokens is None:
        return None
    mine = tokens.only(pa.array([doc_id], pa.string()))
    return {"samples": mine.num_samples, "tokens": mine.num_tokens}


def _row(
    store: Place,
    manifest: Manifest,
    table: str,
    doc_id: str,
    columns: Iterable[str] | None = None,
) -> dict[str, Any] | None:
    rows = _rows(store, manifest, table, pc.field("doc_id") == doc_id, columns)
    return rows[0] if rows else None


def _rows(
    store: Place,
    manifest: Manifest,
    table: str,
    where: Any,
    columns: Iterable[str] | None = None,
) -> list[dict[str, Any]]:
    version = manifest.tables.get(table)
    if version is None:
        return []
    dataset = open_table(store / f"{table}.lance", version)
    names = None if columns is None else list(columns)
    rows: list[dict[str, Any]] = dataset.to_table(columns=names, filter=where).to_pylist()
    return rows
