"""`penstock watch`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import typer

from penstock.build.watch import Batch
from penstock.cli.build import guess_source, load_flow
from penstock.flow import Flow


def run_watch(source: str, store: str, flow: Path | None, *, as_json: bool) -> None:
    """Watch until Ctrl-C, a line for each batch."""
    chosen = Flow(source=guess_source(source)) if flow is None else load_flow(flow, source)
    if not as_json:
        typer.echo(f"Watching {source}; Ctrl-C ends it.")
    try:
        for batch in chosen.watch(store):
            typer.echo(json.dumps(batch.to_json()) if as_json else _line(batch))
    except KeyboardInterrupt:
        # The usual way to end it; a run that was under way has kept what it did.
        typer.echo("Stopped.", err=True)


def _line(batch: Batch) -> str:
    at = time.strftime("%H:%M:%S")
    report = batch.report
    if report is None:
        return f"{at}  failed after {batch.seconds:.2f} s, tried again soon: {batch.error}"
    counts = report.counts
    parts = [
        f"{counts.documents_new:,} new",
        f"{counts.documents_changed:,} changed",
        f"{counts.documents_removed:,} removed",
        f"{counts.chunks_cut:,} chunks",
    ]
    if report.failures:
        parts.append(f"{report.failures:,} failures")
    return f"{at}  run {report.run} in {batch.seconds:.2f} s: {', '.join(parts)}"
