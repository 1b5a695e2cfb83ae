"""The commands about a store's runs: tag, rollback, gc."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from penstock.cli.read import columns
from penstock.store import Store


def change_tags(
    store: Path, name: str | None, run: str | None, *, remove: bool, as_json: bool
) -> None:
    """Set, remove or list tags."""
    opened = Store.open(store)
    if name is None:
        if remove:
            raise typer.BadParameter("--remove needs the NAME of a tag")
    elif remove:
        opened.untag(name)
    else:
        opened.tag(name, run)
    tags = opened.tags()
    if as_json:
        typer.echo(json.dumps(tags))
    elif name is None:
        rows = [["tag", "run"], *([each, tags[each]] for each in tags)]
        typer.echo(columns(rows) if tags else "No tags.")
    else:
        typer.echo(f"Removed {name}." if remove else f"{name} is run {tags[name]}.")


def show_rollback(store: Path, run: str) -> None:
    """Publish an earlier run again."""
    manifest = Store.open(store).rollback(run).manifest
    earlier = manifest.counts["rolled_back_to"]
    typer.echo(f"Run {manifest.run} is published, with all that run {earlier} holds.")


def show_garbage(store: Path, keep: int, *, dry_run: bool, as_json: bool) -> None:
    """Collect, and print what is gone."""
    garbage = Store.open(store).gc(keep=keep, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(garbage.to_json()))
        return
    verb = "Would free" if dry_run else "Freed"
    runs = ", ".join(garbage.dropped) if garbage.dropped else "none"
    typer.echo(
        f"{verb} {garbage.bytes:,} bytes in {garbage.files:,} files.\n"
        f"Runs {'to drop' if dry_run else 'dropped'}: {runs}\n"
        f"Runs kept: {', '.join(garbage.kept)}"
    )
