"""`penstock build` and `penstock init`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import typer

from penstock.build.report import RunReport
from penstock.cli.decontaminate import report_lines
from penstock.cli.presets import PRESETS
from penstock.errors import ConfigError, GateError
from penstock.flow import Flow
from penstock.protocols import Source
from penstock.sources import files, jsonl, parquet

_FLOW_MODULE = "penstock_user_flow"


def run_build(
    source: str,
    store: str,
    flow: Path | None,
    gate: tuple[list[str], Path | None],
    *,
    verify: bool,
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build and print what was done.

    Exits with 1 if `strict` and a row failed, or if the run misses what is required.
    """
    chosen = Flow(source=guess_source(source)) if flow is None else load_flow(flow, source)
    shown = "none" if quiet else "json" if as_json else "auto"
    require, judgements = gate
    try:
        report = chosen.run(
            store,
            verify=verify,
            progress=shown,  # type: ignore[arg-type]
            require=require,
            judgements=judgements,
        )
    except GateError as err:
        typer.echo(f"penstock: {err}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        typer.echo(summary(report, store))
    if strict and report.failures:
        raise typer.Exit(1)


def guess_source(source: str) -> Source:
    """The source that a path's name tells: JSON lines, Parquet, or files of text."""
    name = source.lower()
    for ending in (".gz", ".zst"):
        name = name.removesuffix(ending)
    if name.endswith((".jsonl", ".ndjson")):
        return jsonl(source)
    if name.endswith(".parquet"):
        return parquet(source)
    return files(source)


def load_flow(path: Path, source: str) -> Flow:
    """Run a flow.py and call its `flow(source)`.

    Raises:
        ConfigError: There is no such file, or it has no function `flow` that returns a Flow.
    """
    if not path.is_file():
        raise ConfigError("--flow", str(path), "is not a file; write one with `penstock init`")
    spec = importlib.util.spec_from_file_location(_FLOW_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of what it defines look the module up by name.
    sys.modules[_FLOW_MODULE] = module
    spec.loader.exec_module(module)
    make = getattr(module, "flow", None)
    found = make(source) if callable(make) else make
    if not isinstance(found, Flow):
        raise ConfigError(
            "--flow",
            str(path),
            "must define `def flow(source: str) -> ps.Flow`; see one with `penstock init`",
        )
    return found


def write_flow(path: Path, preset: str) -> None:
    """Write a preset; an existing file stays."""
    if path.exists():
        raise ConfigError("FILE", str(path), "exists already; name another file")
    path.write_text(PRESETS[preset], encoding="utf-8")
    typer.echo(f"Wrote {path}. Edit it, then: penstock build SOURCE STORE --flow {path}")


def summary(report: RunReport, store: str) -> str:
    """What a run did, in a few lines."""
    counts = report.counts
    dropped = report.documents - report.kept
    lines = [
        f"Run {report.run} of {store}, in {report.seconds['total']:.1f} s:",
        f"  items      {counts.items_listed:,} listed, {counts.items_read:,} read, "
        f"{counts.items_unchanged:,} unchanged, {counts.items_removed:,} removed",
        f"  documents  {report.documents:,} in the store: {report.kept:,} kept, {dropped:,} dropped"
        f" ({counts.documents_new:,} new, {counts.documents_changed:,} changed, "
        f"{counts.documents_recomputed:,} recomputed, {counts.documents_removed:,} removed)",
        f"  chunks     {report.chunks:,} in the store "
        f"({counts.chunks_cut:,} cut, {counts.chunks_embedded:,} embedded, "
        f"{counts.vectors_reused:,} vectors reused, {counts.chunks_removed:,} removed)",
    ]
    if report.tokens:
        lines.append(
            f"  tokens     {report.tokens:,} in the store "
            f"({counts.documents_tokenized:,} documents tokenized, "
            f"{counts.tokens_reused:,} known by their text, {counts.tokens_removed:,} removed)"
        )
    if report.failures:
        lines.append(f"  failures   {report.failures:,}; see: penstock failures {store}")
    if report.runs_dropped:
        first, last = report.runs_dropped[0], report.runs_dropped[-1]
        lines.append(
            f"  old runs   {len(report.runs_dropped):,} of {first} to {last} dropped, as they took "
            f"more than the last; to keep one: penstock tag {store} NAME RUN"
        )
    for text in report_lines(report.reports):
        lines += [f"  {line}" for line in text.splitlines()]
    if report.bottleneck:
        lines.append(f"  bottleneck {report.bottleneck}")
    return "\n".join(lines)
