"""`penstock dedup-report`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import typer

from penstock.decisions import MinHashDedup
from penstock.decisions.near_report import dedup_report
from penstock.errors import QueryError
from penstock.store import Store


def show_dedup_report(
    store: str, examples: int, svg: Path | None, run: str | None, *, as_json: bool
) -> None:
    """Print what near-duplicate removal did, and what other thresholds would do."""
    opened = Store.open(store, run)
    decision, earlier = _decision(opened)
    column = f"signature_{decision.rule}"
    rows = opened.dataset("documents").to_table(columns=["doc_id", column]).sort_by("doc_id")
    verdicts = opened.verdicts(["doc_id", "rule"])
    gone = pa.array(
        [str(rule).partition(".")[0] in earlier for rule in verdicts["rule"].to_pylist()]
    )
    rows = rows.filter(pc.invert(gone))  # what an earlier decision dropped, this one never saw

    def texts(doc_ids: pa.Array) -> pa.Array:
        quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in doc_ids.to_pylist())
        found = opened.documents(["doc_id", "uncut_text"], where=f"doc_id IN ({quoted})")
        by_id = dict(zip(found["doc_id"].to_pylist(), found["uncut_text"].to_pylist(), strict=True))
        return pa.array([by_id[name] for name in doc_ids.to_pylist()], pa.large_string())

    report = dedup_report(decision, rows["doc_id"], rows[column], texts=texts, examples=examples)
    if svg is not None:
        svg.write_text(report.curve_svg(), encoding="utf-8")
    typer.echo(report.to_json() if as_json else report.to_text())


def _decision(store: Store) -> tuple[MinHashDedup, set[str]]:
    """The decision as the run's manifest describes it, and the rules of those before it."""
    earlier: set[str] = set()
    for step in store.manifest.flow["steps"]:
        if step["name"] == "MinHashDedup":
            return MinHashDedup(**_settings(step["settings"])), earlier
        earlier.add(str(step["rule"]))
    raise QueryError(
        "dedup-report", "this store's flow has no MinHashDedup; see the steps: penstock status"
    )


def _settings(shown: str) -> dict[str, Any]:
    """The settings of a step as its representation shows them; nothing of it is evaluated."""
    call = ast.parse(shown, mode="eval").body
    assert isinstance(call, ast.Call)
    return {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
