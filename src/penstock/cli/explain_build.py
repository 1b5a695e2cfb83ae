"""`penstock explain SOURCE STORE`: what a build would do, and why."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from penstock.cli.build import guess_source, load_flow
from penstock.flow import Flow


def explain_build(
    source: str, store: str, flow: Path | None, *, verify: bool, as_json: bool
) -> None:
    """Print what a build would do; nothing is changed."""
    chosen = Flow(source=guess_source(source)) if flow is None else load_flow(flow, source)
    found = chosen.explain(store, verify=verify)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    head = f"{store}, run {found.run}" if found.run else f"{store} is not there yet"
    if found.interrupted:
        head += "; the progress of an interrupted run is taken up"
    typer.echo(f"{head}. A build of {source} would have to do:\n{found.to_text()}")
