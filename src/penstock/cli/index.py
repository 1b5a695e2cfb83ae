"""The commands about a store's index: check, rebuild."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import typer

from penstock.build.index import rebuild_index
from penstock.errors import QueryError
from penstock.index import read_queries
from penstock.index.check import Recall, least_effort, measure_recall, sample_queries
from penstock.store import Store
from penstock.store.settings import change_settings, read_settings


def rebuild(store: str) -> None:
    """Build the index afresh."""
    num_rows = rebuild_index(store, lambda message: typer.echo(message, err=True))
    typer.echo(f"Indexed {num_rows:,} chunks; published as run {Store.open(store).manifest.run}.")


def check(
    store: str, queries: Path | None, samples: int, target: float, *, repair: bool, as_json: bool
) -> None:
    """Measure recall, raise or lower the effort, and print what was found."""
    opened = Store.open(store)
    index = opened.searcher.index
    if not index.manifest.dim:
        raise QueryError("index check", "this store has no vectors, and words are always exact")
    vectors = _vectors(opened, queries, samples)
    before = read_settings(opened.path).effort
    measured = measure_recall(index, vectors, before)
    after = before
    if repair:
        after, best = least_effort(index, vectors, target)
        if after != before:
            measured = best
            change_settings(opened.path, effort=after)
    good = all(each.recall >= target for each in measured)
    if as_json:
        facts = {"queries": len(vectors), "target": target, "effort": after, "reached": good}
        typer.echo(json.dumps({**facts, "recall": [asdict(each) for each in measured]}))
    else:
        typer.echo(_table(measured, len(vectors)))
        typer.echo(_verdict(before, after, target, good=good, repair=repair))
    if not good:
        raise typer.Exit(1)


def _vectors(store: Store, queries: Path | None, samples: int) -> Any:
    if queries is None:
        return sample_queries(store.searcher.index, samples)
    texts = list(read_queries(queries).values())
    chosen = np.random.default_rng(0).permutation(len(texts))[:samples]
    return store.searcher.encoder.encode([texts[i] for i in chosen.tolist()])


def _table(measured: list[Recall], num_queries: int) -> str:
    lines = [
        f"{num_queries} queries, 10 nearest",
        "rows allowed      recall@10   worst   median ms",
    ]
    lines += [
        f"{each.share:7.1%} {each.rows:9,}  {each.recall:9.4f}  {each.worst:6.2f}"
        f"  {each.milliseconds:10.3f}"
        for each in measured
    ]
    return "\n".join(lines)


def _verdict(before: float, after: float, target: float, *, good: bool, repair: bool) -> str:
    if after != before:
        change = f"Effort changed from {before:g} to {after:g}; searches use it from now on. "
    else:
        change = f"Effort {after:g} stays. "
    if good:
        return f"{change}Recall is at least {target:g} throughout."
    advice = "rebuild the index" if repair else "run again without --no-repair"
    return f"{change}Recall is below {target:g}: {advice}."
