"""The commands that read a store: search, status, failures, runs, eval."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import typer

from penstock.index import document_ranking, evaluate, read_qrels, read_queries
from penstock.store import Hit, Manifest, Store
from penstock.store.files import all_files

_SNIPPET_LINES = 4


def show_hits(
    store: Path,
    query: str,
    k: int,
    where: str | None,
    mode: Any,
    fusion: Any,
    alpha: float,
    run: str | None,
    *,
    as_json: bool,
) -> None:
    """Search and print."""
    opened = Store.open(store, run)
    hits = opened.search(query, k, mode=mode, where=where, fusion=fusion, alpha=alpha)
    if as_json:
        found = [hit.to_json() for hit in hits]
        typer.echo(json.dumps({"query": query, "run": opened.manifest.run, "hits": found}))
    elif hits:
        typer.echo("\n\n".join(_hit_text(rank, hit, query) for rank, hit in enumerate(hits, 1)))
    else:
        typer.echo("Nothing found.")


def show_status(store: Path, run: str | None, *, as_json: bool) -> None:
    """Print what the store holds."""
    opened = Store.open(store, run)
    manifest = opened.manifest
    size = sum(Path(path).stat().st_size for path in all_files(store))
    if as_json:
        facts = {"run": manifest.run, "size_bytes": size, "flow": manifest.flow, **manifest.counts}
        typer.echo(json.dumps(facts))
        return
    counts = manifest.counts
    typer.echo(
        f"Run {manifest.run}, published {_when(manifest)}, {size / 1e6:,.1f} MB on disk\n"
        f"Source {manifest.flow['source']}\n"
        f"{counts['documents']:,} documents, {counts['kept']:,} kept; {counts['chunks']:,} chunks; "
        f"{counts['failures']:,} failures\n"
    )
    rows = [["step", "in", "kept", "dropped", "failed"]]
    for step in counts["funnel"]:
        numbers = (step[name] for name in ("rows_in", "kept", "dropped", "failed"))
        rows.append([step["step"], *(f"{number:,}" for number in numbers)])
    typer.echo(_columns(rows))


def show_failures(store: Path, run: str | None, *, as_json: bool) -> None:
    """Print the failures table."""
    rows = Store.open(store, run).failures().to_pylist()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        tries = "" if row["tries"] == 1 else f", tried {row['tries']} times"
        typer.echo(f"{row['doc_id']}\n  {row['step']}: {row['error']}: {row['message']}{tries}")
        typer.echo(f"  {row['advice']}")
    typer.echo(f"{len(rows):,} failures" if rows else "No failures.")


def show_runs(store: Path, *, as_json: bool) -> None:
    """Print the published runs."""
    manifests = Store.open(store).runs()
    if as_json:
        keys = ("run", "started", "finished", "penstock", "tables", "counts")
        typer.echo(json.dumps([{key: getattr(m, key) for key in keys} for m in manifests]))
        return
    rows = [["run", "published", "seconds", "read", "documents", "kept", "chunks", "failures"]]
    for manifest in manifests:
        counts = manifest.counts
        numbers = (
            counts["counts"]["items_read"],
            *(counts[name] for name in ("documents", "kept", "chunks", "failures")),
        )
        seconds = f"{manifest.finished - manifest.started:.1f}"
        rows.append([manifest.run, _when(manifest), seconds, *(f"{n:,}" for n in numbers)])
    typer.echo(_columns(rows))


def show_evaluation(
    store: Path,
    queries: Path,
    qrels: Path,
    mode: Any,
    fusion: Any,
    alpha: float,
    *,
    as_json: bool,
) -> None:
    """Search every judged query and print the metrics."""
    opened = Store.open(store)
    judged = read_qrels(qrels)
    started = time.perf_counter()
    rankings: dict[str, list[str]] = {}
    for query_id, text in read_queries(queries).items():
        if query_id in judged:
            # Several chunks of one document count once: ask for more than 100.
            hits = opened.rank(text, 500, mode=mode, fusion=fusion, alpha=alpha)
            rankings[query_id] = document_ranking(opened.doc_ids(hits))
    seconds = time.perf_counter() - started
    metrics = evaluate(rankings, judged)
    figures = {
        "ndcg@10": metrics.ndcg_at_10,
        "recall@100": metrics.recall_at_100,
        "mrr@10": metrics.mrr_at_10,
        "map": metrics.map,
    }
    if as_json:
        typer.echo(json.dumps({"queries": len(rankings), "seconds": seconds, **figures}))
        return
    typer.echo(f"{len(rankings)} queries in {seconds:.1f} s")
    typer.echo(_columns([[name, f"{value:.4f}"] for name, value in figures.items()]))


def _hit_text(rank: int, hit: Hit, query: str) -> str:
    width = shutil.get_terminal_size((100, 24)).columns - 4
    place = f" > {hit.heading_path}" if hit.heading_path else ""
    shown = [f"    {line[:width]}" for line in _snippet(hit.text, query)]
    scores = [
        f"{name} {score:.3f}"
        for name, score in (("vector", hit.vector_score), ("words", hit.words_score))
        if score is not None
    ]
    head = f"{rank:2}. {hit.score:.3f} {hit.doc_id}{place}  ({', '.join(scores)})"
    return "\n".join([head, *shown])


def _snippet(text: str, query: str) -> list[str]:
    """The few lines in a row that hold most of the query's words; the first of equals."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    words = set(_words(query))
    found = [words & set(_words(line)) for line in lines]
    starts = range(max(1, len(lines) - _SNIPPET_LINES + 1))
    best = max(starts, key=lambda at: len(set().union(*found[at : at + _SNIPPET_LINES])))
    return lines[best : best + _SNIPPET_LINES]


def _words(text: str) -> list[str]:
    # Letters and digits only, cut to a stem of sorts: "rows" is to find "row".
    return [word[:5].rstrip("s") for word in re.findall(r"[^\W_]+", text.lower()) if len(word) > 2]


def _when(manifest: Manifest) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.finished))


def _columns(rows: list[list[str]]) -> str:
    """Text in columns: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
