"""`penstock dedup-report`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import typer

from penstock.cli.decided import rows_seen, settings_of
from penstock.decisions import MinHashDedup
from penstock.decisions.near_report import dedup_report
from penstock.store import Store


def show_dedup_report(
    store: str, examples: int, svg: Path | None, run: str | None, *, as_json: bool
) -> None:
    """Print what near-duplicate removal did, and what other thresholds would do."""
    opened = Store.open(store, run)
    decision = MinHashDedup(**settings_of(opened, "MinHashDedup", "dedup-report"))
    rows = rows_seen(opened, "MinHashDedup", decision.rule)

    def texts(doc_ids: pa.Array) -> pa.Array:
        quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in doc_ids.to_pylist())
        found = opened.documents(["doc_id", "uncut_text"], where=f"doc_id IN ({quoted})")
        by_id = dict(zip(found["doc_id"].to_pylist(), found["uncut_text"].to_pylist(), strict=True))
        return pa.array([by_id[name] for name in doc_ids.to_pylist()], pa.large_string())

    def values(name: str, doc_ids: pa.Array) -> pa.Array:
        found = opened.documents(["doc_id", name])
        return found[name].take(pc.index_in(doc_ids, value_set=found["doc_id"].combine_chunks()))

    signature = rows[f"signature_{decision.rule}"]
    report = dedup_report(
        decision, rows["doc_id"], signature, texts=texts, values=values, examples=examples
    )
    if svg is not None:
        svg.write_text(report.curve_svg(), encoding="utf-8")
    typer.echo(report.to_json() if as_json else report.to_text())
