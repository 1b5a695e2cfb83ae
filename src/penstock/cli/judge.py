"""The commands that judge searches by queries with known answers: eval, tune."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from penstock.cli.read import columns
from penstock.errors import QueryError
from penstock.index import read_qrels, read_queries
from penstock.index.compare import Difference, compare
from penstock.index.evaluate import MEASURES, Metrics
from penstock.index.requirements import missed, read_requirement
from penstock.index.tune import Tuned
from penstock.store import Store
from penstock.store.gate import measure_search, read_judged


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A way to search a store; None is the store's own default."""

    run: str | None = None
    mode: Any = None
    fusion: Any = None
    alpha: float | None = None

    def __str__(self) -> str:
        hybrid = self.mode in (None, "hybrid")  # elsewhere the last two do not count
        parts = [
            f"run {self.run}" if self.run else "",
            self.mode or "",
            self.fusion if hybrid and self.fusion else "",
            f"alpha {self.alpha:g}" if hybrid and self.alpha is not None else "",
        ]
        return ", ".join(part for part in parts if part) or "default"

    def but(self, **changes: str | float | None) -> System | None:
        """The same but for what is given here; None where nothing is."""
        given: Any = {name: value for name, value in changes.items() if value is not None}
        return replace(self, **given) if given else None

    def settings(self) -> dict[str, Any]:
        """What `Store.rank` is told."""
        named = {"mode": self.mode, "fusion": self.fusion, "alpha": self.alpha}
        return {name: value for name, value in named.items() if value is not None}


def show_evaluation(
    store: str,
    queries: Path,
    qrels: Path,
    new: System,
    other: System | None,
    per_query: Path | None,
    require: list[str],
    seed: int,
    *,
    as_json: bool,
) -> None:
    """Search every judged query, once or with both systems, and print the measures.

    Exits with 1 if what is required does not hold.
    """
    requirements = [read_requirement(text) for text in require]
    texts, judged = read_judged(queries, qrels)
    measured, seconds = _measure(store, new, texts, judged)
    against = None if other is None else _measure(store, other, texts, judged)[0]
    if per_query is not None:
        _write_per_query(per_query, texts, measured, against)
    facts: dict[str, Any] = {"queries": len(texts), "seconds": seconds, **measured.to_json()}
    failed = missed(requirements, measured)
    if requirements:
        facts["missed"] = [str(each) for each, _ in failed]
    if other is None or against is None:
        _print_one(facts, measured, as_json=as_json)
    else:
        _print_both(facts, measured, against, (new, other), seed, as_json=as_json)
    for each, value in failed:
        typer.echo(f"{each} does not hold: {each.least - value:.4f} below", err=True)
    if failed:
        raise typer.Exit(1)


def _print_one(facts: dict[str, Any], measured: Metrics, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"{facts['queries']} queries in {facts['seconds']:.1f} s")
    typer.echo(columns([[name, f"{value:.4f}"] for name, value in measured.to_json().items()]))


def _print_both(
    facts: dict[str, Any],
    measured: Metrics,
    against: Metrics,
    systems: tuple[System, System],
    seed: int,
    *,
    as_json: bool,
) -> None:
    new, other = map(str, systems)
    differences = compare(measured, against, seed=seed)
    if as_json:
        found = {name: each.to_json() for name, each in differences.items()}
        named = {"system": new, "against_system": other}
        typer.echo(
            json.dumps({**facts, **named, "against": against.to_json(), "difference": found})
        )
        return
    typer.echo(f"{facts['queries']} queries\nnew  {new}\nold  {other}\n")
    head = ["measure", "new", "old", "difference", "95 % interval", "p", "better", "worse", "equal"]
    rows = [
        _comparison(name, getattr(measured, field), getattr(against, field), differences[name])
        for name, field in MEASURES.items()
    ]
    typer.echo(columns([head, *rows]))


def show_tuning(
    store: str, queries: Path, qrels: Path, folds: int, seed: int, *, dry_run: bool, as_json: bool
) -> None:
    """Choose how to search, keep it unless it is a dry run, and print why."""
    opened = Store.open(store)
    tuned = opened.tune(
        read_queries(queries), read_qrels(qrels), folds=folds, seed=seed, keep=not dry_run
    )
    if as_json:
        typer.echo(json.dumps({**tuned.to_json(), "kept": not dry_run}))
    else:
        typer.echo(_tuning_text(tuned, dry_run=dry_run))


def _measure(
    store: str, system: System, texts: Mapping[str, str], judged: Mapping[str, dict[str, int]]
) -> tuple[Metrics, float]:
    opened = Store.open(store, system.run)
    started = time.perf_counter()
    measured = measure_search(opened, texts, judged, **system.settings())
    return measured, time.perf_counter() - started


def _write_per_query(
    file: Path, texts: Mapping[str, str], measured: Metrics, against: Metrics | None
) -> None:
    lines = []
    for query, metrics in measured.per_query.items():
        row: dict[str, Any] = {"_id": query, "text": texts[query], **metrics.to_json()}
        if against is not None:
            row["against"] = against.per_query[query].to_json()
        lines.append(json.dumps(row, ensure_ascii=False))
    try:
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as err:
        raise QueryError(str(file), f"cannot be written ({err.strerror})") from err


def _comparison(name: str, new: float, old: float, difference: Difference) -> list[str]:
    return [
        name,
        f"{new:.4f}",
        f"{old:.4f}",
        f"{difference.mean:+.4f}",
        f"{difference.low:+.4f} to {difference.high:+.4f}",
        f"{difference.p_value:.4f}",
        *(f"{count:,}" for count in (difference.better, difference.worse, difference.equal)),
    ]


def _tuning_text(tuned: Tuned, *, dry_run: bool) -> str:
    default, best = str(tuned.default), str(tuned.best)
    notes = {default: "the default"}
    notes[best] = "best, and the default" if best == default else "best"
    shown = [name for name in tuned.scores if _is_shown(name) or name in notes]
    table = columns([[name, f"{tuned.scores[name]:.4f}", notes.get(name, "")] for name in shown])
    gain = tuned.gain
    lines = [
        f"{tuned.num_queries} queries, {tuned.measure} of every setting\n\n{table}\n",
        f"On queries held out, {tuned.folds} folds: {tuned.held_out_score:.4f} against "
        f"{tuned.default_score:.4f}, a gain of {gain.mean:+.4f}",
        f"(95 % interval {gain.low:+.4f} to {gain.high:+.4f}, p {gain.p_value:.4f}; "
        f"{gain.better} queries better, {gain.worse} worse).",
    ]
    if not tuned.improved:
        why = "it is the best" if best == default else "the gain is not sure on queries held out"
        lines.append(f"The default stays: {why}.")
    elif dry_run:
        lines.append(f"Without --dry-run, searches would use {tuned.setting}.")
    else:
        lines.append(f"Searches use {tuned.setting} from now on.")
    return "\n".join(lines)


def _is_shown(name: str) -> bool:
    """One side alone, rank fusion, and a few mixtures on the way."""
    alpha = name.removeprefix("hybrid weighted ")
    return alpha == name or alpha in ("per query", "0.1", "0.3", "0.5", "0.7", "0.9")
