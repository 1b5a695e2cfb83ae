"""What the commands `penstock tokenizer` and `penstock loader` do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from penstock.build.tokens import rebuild_tokens
from penstock.build.train_tokenizer import train_tokenizer
from penstock.loader.outlook import outlook
from penstock.store import Store
from penstock.store.places import replace_file

_SHOWN_CHARS = 60


def train_and_write(
    store: str,
    vocab_size: int,
    output: Path | None,
    max_bytes: int,
    run: str | None,
    *,
    as_json: bool,
) -> None:
    """Train, write the JSON, and say how well it compresses."""
    opened = Store.open(store, run)
    trained = train_tokenizer(opened, vocab_size=vocab_size, max_bytes=max_bytes)
    place = opened.path / "tokenizer.json" if output is None else output
    replace_file(place, trained.json)
    if as_json:
        typer.echo(json.dumps({"tokenizer": str(place), **trained.facts()}))
        return
    typer.echo(
        f"Wrote {place}: {trained.vocab_size:,} tokens, trained on {trained.documents:,} documents "
        f"({trained.num_bytes / 1e6:,.1f} MB)\n"
        f"{trained.bytes_per_token:.2f} bytes a token on {trained.measured_on}\n"
        f"Use it: ps.Tokenize(tokenizer={str(place)!r}, end_of_document={trained.end!r})"
    )


def rebuild(store: str) -> None:
    """Make the tokens anew."""
    num = rebuild_tokens(store, lambda message: typer.echo(message, err=True))
    typer.echo(f"Tokenized {num:,} documents.")


def show_plan(store: str, run: str | None, settings: dict[str, Any], *, as_json: bool) -> None:
    """Print what an epoch will be."""
    loader = Store.open(store, run).loader(**settings)
    found = outlook(loader)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    world_size = settings["world_size"]
    rows = [
        ("steps", f"{found.steps:,} on every rank"),
        ("samples", f"{found.samples:,}, and {found.cut:,} more pieces of those that are cut"),
        ("rows", f"{found.rows:,}"),
        ("tokens", f"{found.tokens:,}, of which {found.label_tokens:,} are labels"),
        ("efficiency", f"{found.efficiency:.2%} of {found.slots:,} places hold a token"),
        ("padding", f"{found.padding:,} places"),
        ("read", f"{_size(found.bytes_read)}, {_size(found.bytes_read / world_size)} a rank"),
        ("cache", f"{_size(found.window_bytes)} a shuffle window; hold two"),
        (
            "shuffle",
            f"rank correlation {found.rank_correlation:+.4f} with the storage order; "
            f"a full permutation's is within {found.full_shuffle:.4f}",
        ),
    ]
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def show_batches(
    store: str, run: str | None, steps: int, settings: dict[str, Any], *, as_json: bool
) -> None:
    """Print the first batches, decoded."""
    opened = Store.open(store, run)
    tokens = opened.tokens()
    tokenizer = tokens.tokenizer()
    loader = opened.loader(**settings, doc_ids=True)
    for number, batch in zip(range(steps), loader, strict=False):
        rows = _decoded(batch, tokenizer)
        if as_json:
            labels = int((batch["labels"] >= 0).sum())
            facts = {"step": number, "labels": labels, "rows": rows}
            typer.echo(json.dumps(facts | {"num_label_tokens": batch["num_label_tokens"]}))
            continue
        title = (
            f"step {number}: {batch['tokens'].shape[0]} rows, {batch['num_label_tokens']} labels"
        )
        table = Table(title=title, title_justify="left", expand=True)
        for name in ("row", "from", "tokens"):
            table.add_column(name, justify="right", min_width=len(name))
        table.add_column("document", no_wrap=True, min_width=12)
        table.add_column("text", no_wrap=True, ratio=1)
        for i, row in enumerate(rows):
            for part in row:
                text = json.dumps(part["text"][:_SHOWN_CHARS], ensure_ascii=False)
                cells = (i, part["start"], part["tokens"], part["doc_id"], text)
                table.add_row(*map(str, cells))
        Console().print(table)


def _decoded(batch: dict[str, Any], tokenizer: Any) -> list[list[dict[str, Any]]]:
    """The documents of each row: where they begin, how many tokens, their names and texts."""
    names = iter(batch["doc_ids"])
    rows: list[list[dict[str, Any]]] = []
    for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True):
        parts = []
        for segment in range(1, int(segments.max(initial=0)) + 1):
            at = (segments == segment).nonzero()[0]
            text = tokenizer.decode(tokens[at].tolist(), skip_special_tokens=False)
            facts = {"start": int(at[0]), "tokens": len(at), "doc_id": next(names), "text": text}
            parts.append(facts)
        rows.append(parts)
    return rows


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
