"""`penstock decontaminate-report`."""

from __future__ import annotations

import json
from typing import Any

import typer

from penstock.cli.decided import rows_seen, settings_of
from penstock.decisions import Decontaminate
from penstock.decisions.overlap_report import OverlapReport
from penstock.errors import QueryError
from penstock.fingerprint import fingerprint
from penstock.store import Manifest, Store

_SHOWN_CHARS = 300


def show_decontaminate_report(store: str, examples: int, run: str | None, *, as_json: bool) -> None:
    """Print what decontamination loaded, indexed, scanned and found, with some evidence."""
    opened = Store.open(store, run)
    told = opened.manifest.reports.get("decontaminate")
    if told is None:
        settings_of(opened, "Decontaminate", "decontaminate-report")
        raise QueryError("decontaminate-report", "this run has no report; build once more")
    found = _evidence(opened, examples) if examples and told["documents_hit"] else []
    if as_json:
        typer.echo(json.dumps({**told, "examples": found}, ensure_ascii=False))
        return
    typer.echo("\n\n".join([OverlapReport.of(told).to_text(), *map(_example_text, found)]))


def report_lines(manifest_reports: dict[str, Any]) -> list[str]:
    """The reports of all decontaminating steps of a run, as text."""
    found = manifest_reports.items()
    return [OverlapReport.of(told).to_text() for name, told in found if _is_ours(name)]


def _is_ours(name: str) -> bool:
    return name.startswith("decontaminate")


def _evidence(store: Store, examples: int) -> list[dict[str, Any]]:
    """The best item of some documents that hold one, and the words in common."""
    settings = settings_of(store, "Decontaminate", "decontaminate-report")
    settings.pop("digests")
    decision = Decontaminate(**settings)
    if fingerprint(decision) != _fingerprint(store.manifest):
        problem = "the evaluation sets have changed since; build once more, or --examples 0"
        raise QueryError("decontaminate-report", problem)
    rows = rows_seen(store, "Decontaminate", decision.rule)
    signature = rows[f"signature_{decision.rule}"]
    hits = decision.hits(rows["doc_id"], signature)
    common = decision.common_runs(signature).to_pylist()
    found = []
    for doc_id in list(dict.fromkeys(hits["doc_id"].to_pylist()))[:examples]:
        quoted = doc_id.replace("'", "''")
        text = store.documents(["uncut_text"], where=f"doc_id = '{quoted}'")["uncut_text"][0]
        (best,) = decision.evidence(text.as_py(), common, limit=1)
        facts = {"set": best.set, "item": best.item, "coverage": best.coverage}
        longest = max(best.spans, key=lambda span: span.num_words)
        at = {"document": longest.document, "item_at": longest.item, "words": longest.num_words}
        found.append({"doc_id": doc_id, **facts, **at, "text": longest.text})
    return found


def _fingerprint(manifest: Manifest) -> str:
    steps = manifest.flow["steps"]
    return str(next(step["fingerprint"] for step in steps if step["name"] == "Decontaminate"))


def _example_text(example: dict[str, Any]) -> str:
    text = " ".join(example["text"].split())[:_SHOWN_CHARS]
    start, end = example["document"]
    return (
        f"{example['doc_id']}, characters {start:,} to {end:,}: {example['words']} words of "
        f"{example['set']}#{example['item']} in a row, {example['coverage']:.0%} of it covered\n"
        f"    {text}"
    )
