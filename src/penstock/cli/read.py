"""The commands that read a store: search, status, failures, runs."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from typing import Any

import pyarrow.compute as pc
import typer

from penstock.cli.decontaminate import report_lines
from penstock.errors import QueryError
from penstock.index import Plan
from penstock.records import content_hash
from penstock.store import Hit, Manifest, Store
from penstock.store.places import file_sizes

_SNIPPET_LINES = 4
_FACET_VALUES = 20


def show_hits(
    store: str, query: str, k: int, run: str | None, options: dict[str, Any], *, as_json: bool
) -> None:
    """Search and print."""
    opened = Store.open(store, run)
    hits = opened.search(query, k, highlight=True, **options)
    if as_json:
        facts: dict[str, Any] = {"query": query, "run": hits.run}
        facts["hits"] = [hit.to_json() for hit in hits]
        if hits.facets:
            facts["facets"] = hits.facets
        if hits.plan is not None:
            facts["plan"] = asdict(hits.plan)
        typer.echo(json.dumps(facts, default=str))
        return
    first = options["offset"] + 1
    blocks = [_hit_text(rank, hit) for rank, hit in enumerate(hits, first)] or ["Nothing found."]
    for column, counts in hits.facets.items():
        rows = [[f"  {value}", f"{count:,}"] for value, count in counts[:_FACET_VALUES]]
        blocks.append("\n".join([column, *([columns(rows)] if rows else [])]))
    if hits.plan is not None:
        blocks.append(_plan_text(hits.plan))
    typer.echo("\n\n".join(blocks))


def show_status(store: str, run: str | None, *, as_json: bool) -> None:
    """Print what the store holds."""
    opened = Store.open(store, run)
    manifest = opened.manifest
    size = sum(file_sizes(opened.path).values())
    if as_json:
        facts = {"run": manifest.run, "size_bytes": size, "flow": manifest.flow, **manifest.counts}
        facts["rules"] = dict(_rules(opened, "dropped"))
        facts["rules_of_kept"] = dict(_rules(opened, "kept"))
        facts["reports"] = manifest.reports
        typer.echo(json.dumps(facts))
        return
    counts = manifest.counts
    typer.echo(
        f"Run {manifest.run}, published {when(manifest)}, {size / 1e6:,.1f} MB on disk\n"
        f"Source {manifest.flow['source']}\n"
        f"{counts['documents']:,} documents, {counts['kept']:,} kept; {counts['chunks']:,} chunks; "
        f"{_tokens(counts)}"
        f"{counts['failures']:,} failures\n"
    )
    rows = [["step", "in", "kept", "dropped", "failed"]]
    for step in counts["funnel"]:
        numbers = (step[name] for name in ("rows_in", "kept", "dropped", "failed"))
        rows.append([step["step"], *(f"{number:,}" for number in numbers)])
    typer.echo(columns(rows))
    for verdict, head in (("dropped", "dropped"), ("kept", "kept, but flagged or cut")):
        rules = _rules(opened, verdict)
        if rules:
            typer.echo("\n" + columns([["rule", head], *([r, f"{n:,}"] for r, n in rules)]))
    for text in report_lines(manifest.reports):
        typer.echo(f"\n{text}")


def _tokens(counts: dict[str, Any]) -> str:
    """How many tokens, with a separator; nothing where there are none."""
    return f"{counts['tokens']:,} tokens; " if counts.get("tokens") else ""


def _rules(store: Store, verdict: str) -> list[tuple[str, int]]:
    """How many documents of a verdict each rule names, most first."""
    rules = store.verdicts(["rule"], where=f"verdict = '{verdict}'")["rule"].drop_null()
    counts = [(row["values"], row["counts"]) for row in pc.value_counts(rules).to_pylist()]
    return sorted(counts, key=lambda each: (-each[1], each[0]))


def show_sample(store: str, rule: str | None, size: int, run: str | None, *, as_json: bool) -> None:
    """Print some dropped documents of a rule, the same ones each time."""
    opened = Store.open(store, run)
    verdicts = opened.verdicts(where="verdict = 'dropped'").to_pylist()
    rules = sorted({row["rule"] for row in verdicts})
    chosen = [r for r in rules if rule is None or r == rule or r.startswith(f"{rule}.")]
    if rule is not None and not chosen:
        known = f"there are {', '.join(rules)}" if rules else "nothing was dropped"
        raise QueryError(f"--rule {rule}", f"no document was dropped by it; {known}")
    found = [row for row in verdicts if row["rule"] in chosen]
    found.sort(key=lambda row: content_hash(row["doc_id"].encode()))
    found = found[:size]
    texts = {row["doc_id"]: row["uncut_text"] for row in _documents(opened, found)}
    for row in found:
        row["text"] = texts[row["doc_id"]]
        row["duplicate_text"] = texts.get(row["duplicate_of"])
    if as_json:
        typer.echo(json.dumps(found))
        return
    blocks = []
    for row in found:
        score = "" if row["score"] is None else f"  score {row['score']:.4g}"
        head = f"{row['doc_id']}  {row['rule']}{score}"
        blocks.append("\n".join([head, *_first_lines(row["text"])]))
        if row["duplicate_of"] is not None:
            blocks[-1] += f"\n  kept instead: {row['duplicate_of']}"
            blocks[-1] += "".join(f"\n{line}" for line in _first_lines(row["duplicate_text"] or ""))
    typer.echo("\n\n".join(blocks) if blocks else "No document was dropped.")


def _documents(store: Store, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {row["doc_id"] for row in rows} | {row["duplicate_of"] for row in rows} - {None}
    if not names:
        return []
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in sorted(names))
    found: list[dict[str, Any]]
    found = store.documents(["doc_id", "uncut_text"], where=f"doc_id IN ({quoted})").to_pylist()
    return found


def _first_lines(text: str) -> list[str]:
    width = shutil.get_terminal_size((100, 24)).columns - 4
    lines = [line for line in text.splitlines() if line.strip()]
    return [f"    {line[:width]}" for line in lines[:_SNIPPET_LINES]]


def show_failures(store: str, run: str | None, *, as_json: bool) -> None:
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


def _hit_text(rank: int, hit: Hit) -> str:
    width = shutil.get_terminal_size((100, 24)).columns - 4
    place = f" > {hit.heading_path}" if hit.heading_path else ""
    shown = [f"    {line[:width]}" for line in _snippet(hit)]
    scores = [
        f"{name} {score:.3f}"
        for name, score in (("vector", hit.vector_score), ("words", hit.words_score))
        if score is not None
    ]
    head = f"{rank:2}. {hit.score:.3f} {hit.doc_id}{place}  ({', '.join(scores)})"
    return "\n".join([head, *shown])


def _snippet(hit: Hit) -> list[str]:
    """The few lines in a row that hold most of the query's words; the first of equals."""
    lines: list[str] = []
    found: list[set[str]] = []
    start = 0
    for line in hit.text.splitlines(keepends=True):
        end = start + len(line)
        if line.strip():
            lines.append(line.rstrip())
            spans = (span for span in hit.highlights if start <= span[0] < end)
            found.append({hit.text[low:high].lower() for low, high in spans})
        start = end
    starts = range(max(1, len(lines) - _SNIPPET_LINES + 1))
    best = max(starts, key=lambda at: len(set().union(*found[at : at + _SNIPPET_LINES])))
    return lines[best : best + _SNIPPET_LINES]


def _plan_text(plan: Plan) -> str:
    lines = [
        f"{plan.mode}: {plan.allowed:,} of {plan.rows:,} chunks allowed ({plan.selectivity:.2%}), "
        f"{plan.candidates:,} candidates"
    ]
    if plan.fusion is not None:
        lines[0] += f", {plan.fusion}" + (f" with alpha {plan.alpha:g}" if plan.alpha else "")
    if plan.estimated_recall is not None:
        lines.append(f"estimated recall of the vector side: {plan.estimated_recall:.3f}")
    lines += [
        f"  segment of {part.rows:,}: {part.kind}"
        + (f", {part.probes} of {part.lists} lists" if part.lists else "")
        + f", {part.codes_scanned:,} codes, {part.rescored:,} scored exactly"
        for part in plan.segments
    ]
    return "\n".join(lines)


def when(manifest: Manifest) -> str:
    """When a run was published, in the local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.finished))


def columns(rows: list[list[str]]) -> str:
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
