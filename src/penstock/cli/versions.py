"""The commands about a store's runs: runs, sizes, tag, diff, rollback, gc."""

from __future__ import annotations

import json
from typing import Any

import typer

from penstock.cli.read import columns, when
from penstock.store import Store
from penstock.store.garbage import named_files
from penstock.store.places import file_sizes
from penstock.store.sizes import store_sizes


def show_runs(store: str, *, as_json: bool) -> None:
    """Print the published runs: their tags, what each changed, what it takes."""
    opened = Store.open(store)
    manifests = opened.runs()
    sizes = file_sizes(opened.path)
    named = named_files(opened.path, manifests, sizes)
    tags = opened.tags()
    facts = []
    for manifest, before, files in zip(manifests, [set(), *named], named, strict=False):
        facts.append(
            {
                **{name: getattr(manifest, name) for name in _OF_RUNS},
                "tags": [tag for tag, run in tags.items() if run == manifest.run],
                "bytes": sum(sizes.get(name, 0) for name in files),
                "new_bytes": sum(sizes.get(name, 0) for name in files - before),
            }
        )
    if as_json:
        typer.echo(json.dumps(facts))
        return
    rows = [[*_HEADS]]
    for run, manifest in zip(facts, manifests, strict=True):
        counts = manifest.counts
        did = counts["counts"]
        changed = [did[f"documents_{name}"] for name in ("new", "changed", "removed")]
        changed[1] += did["documents_recomputed"]
        kept = [counts[name] for name in ("documents", "kept", "chunks", "failures")]
        rows.append(
            [
                manifest.run,
                ",".join(run["tags"]),
                when(manifest),
                f"{manifest.finished - manifest.started:.1f}",
                *(f"{sign}{n:,}" for sign, n in zip("+~-", changed, strict=True)),
                *(f"{n:,}" for n in kept),
                *(f"{run[name] / 1e6:,.2f}" for name in ("bytes", "new_bytes")),
            ]
        )
    typer.echo(columns(rows))


_OF_RUNS = ("run", "started", "finished", "penstock", "tables", "counts")
_HEADS = (
    *("run", "tags", "published", "seconds", "new", "changed", "removed"),
    *("documents", "kept", "chunks", "failures", "MB", "new MB"),
)


def show_sizes(store: str, run: str | None, *, as_json: bool) -> None:
    """Print what each part of a run takes."""
    opened = Store.open(store, run)
    sizes = store_sizes(opened.path, opened.manifest)
    if as_json:
        typer.echo(json.dumps(sizes.to_json()))
        return
    rows = [["part", "bytes", "share"]]
    rows += [
        [part, f"{size:,}", f"{size / max(sizes.run, 1):.1%}"] for part, size in sizes.parts.items()
    ]
    rows += [["this run", f"{sizes.run:,}", ""], ["old runs, leftovers", f"{sizes.old:,}", ""]]
    typer.echo(columns(rows))
    if sizes.ratio is not None:
        typer.echo(
            f"\nThe run takes {sizes.ratio:.2f} times its text ({sizes.text:,} bytes) and vectors "
            f"({sizes.vectors:,} bytes as float32)."
        )


def change_tags(
    store: str, name: str | None, run: str | None, *, remove: bool, as_json: bool
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


def show_diff(store: str, a: str, b: str | None, size: int, *, as_json: bool) -> None:
    """Compare two runs, and print what differs."""
    found = Store.open(store).diff(a, b)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    kinds = (("+", "added"), ("~", "changed"), ("-", "removed"), ("*", "recomputed"))
    counts = [f"{len(getattr(found, name)):,} {name}" for _, name in kinds]
    typer.echo(f"Documents from run {found.a} to run {found.b}: {', '.join(counts)}")
    for sign, name in kinds:
        _list(size, [f"{sign} {doc_id}" for doc_id in getattr(found, name)])
    rows = [[each.rule, f"{each.before:,}", f"{each.after:,}"] for each in found.rules]
    typer.echo("\n" + columns([["rule", found.a, found.b], *rows]))
    reasons = ", ".join(f"{count:,} by {reason}" for reason, count in found.reasons().items())
    typer.echo(f"\nVerdicts changed: {len(found.verdicts):,}: {reasons}")
    _list(size, [_change_text(row) for row in found.verdicts.to_pylist()])


def _list(size: int, lines: list[str]) -> None:
    for line in lines[:size]:
        typer.echo(f"  {line}")
    if len(lines) > size:
        typer.echo(f"  ... and {len(lines) - size:,} more: -n, or --json for all")


def _change_text(row: dict[str, Any]) -> str:
    before, after = (
        row[f"rule{which}"] if row[f"verdict{which}"] == "dropped" else "kept"
        for which in ("_before", "")
    )
    near = "" if row["neighbour"] is None else f" {row['neighbour']}"
    return f"{row['doc_id']}: {before} -> {after}, by {row['reason']}{near}"


def show_rollback(store: str, run: str) -> None:
    """Publish an earlier run again."""
    manifest = Store.open(store).rollback(run).manifest
    earlier = manifest.counts["rolled_back_to"]
    typer.echo(f"Run {manifest.run} is published, with all that run {earlier} holds.")


def show_garbage(store: str, keep: int, *, dry_run: bool, as_json: bool) -> None:
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
