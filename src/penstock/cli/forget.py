"""`penstock forget`: take documents out and keep them out, let them in again, list receipts."""

from __future__ import annotations

import json
import sys

import typer

from penstock.cli.read import columns
from penstock.store import Receipt, Store
from penstock.store.forget import find_documents

_NAMED = 5


def run_forget(
    store: str, doc_ids: list[str], where: str | None, reason: str, *, yes: bool, as_json: bool
) -> None:
    """Forget and print the receipt; a condition on a terminal is asked about first."""
    opened = Store.open(store)
    if where is not None and not doc_ids:
        found = find_documents(opened.path, (), where).to_pylist()
        if not found:
            typer.echo("[]" if as_json else "No document satisfies the condition.")
            return
        if not yes and sys.stdin.isatty():
            more = ", ..." if len(found) > _NAMED else ""
            typer.confirm(
                f"Forget {len(found):,} documents ({', '.join(found[:_NAMED])}{more})?", abort=True
            )
    receipt = opened.forget(doc_ids, where=where, reason=reason)
    typer.echo(json.dumps(receipt.to_json()) if as_json else _text(receipt, store))


def run_restore(store: str, doc_ids: list[str]) -> None:
    """Take documents off the list."""
    Store.open(store).restore(doc_ids)
    typer.echo(f"The next build reads the whole source and lets {', '.join(doc_ids)} in again.")


def show_receipts(store: str, *, as_json: bool) -> None:
    """Print what was forgotten."""
    receipts = Store.open(store).receipts()
    if as_json:
        typer.echo(json.dumps([receipt.to_json() for receipt in receipts]))
        return
    rows = [["receipt", "at", "documents", "on disk", "reason"]]
    rows += [
        [each.run, each.at, f"{len(each.documents):,}", _remains(each), each.reason]
        for each in receipts
    ]
    typer.echo(columns(rows) if receipts else "Nothing was forgotten.")


def _remains(receipt: Receipt) -> str:
    return "until gc" if receipt.purged is None else f"no more since {receipt.purged}"


def _text(receipt: Receipt, store: str) -> str:
    rows = [f"{name} {count:,}" for name, count in receipt.rows.items() if count]
    lines = [
        f"Forgot {len(receipt.documents):,} documents; published as run {receipt.run}.",
        f"  rows       {', '.join(rows) or 'none in the last run'}",
    ]
    if receipt.segments:
        held = [f"{name} {count:,}" for name, count in receipt.segments.items()]
        lines.append(f"  index      {', '.join(held)}")
    if receipt.runs:
        lines.append(f"  runs       {', '.join(receipt.runs)}: until penstock gc {store}")
    lines += [
        f"  exported   {each['path']}: {', '.join(each['shards'])}" for each in receipt.exports
    ]
    if receipt.same_content:
        lines.append(f"  twins      {receipt.same_content:,} documents with the same bytes stay")
    lines.append(f"  receipt    {store}/receipts/{receipt.run}.json")
    lines.append("What they had pushed out as duplicates comes back with the next build.")
    return "\n".join(lines)
