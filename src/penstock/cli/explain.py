"""The command that tells a document's life, or what a build would do."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import typer

from penstock.cli.explain_build import explain_build
from penstock.cli.read import columns
from penstock.errors import ConfigError, PenstockError
from penstock.store import Store
from penstock.store.manifest import current_run
from penstock.store.places import open_place


def show_explanation(
    first: str, second: str, flow: Path | None, run: str | None, *, verify: bool, as_json: bool
) -> None:
    """Explain the document SECOND of the store FIRST, or a build of the source FIRST."""
    if _is_store(first) and not _is_store(second):
        if flow is not None or verify:
            raise ConfigError("--flow, --verify", flow, "are for a build; leave them out")
        show_life(first, second, run, as_json=as_json)
    else:
        if run is not None:
            raise ConfigError("--run", run, "is for a document; leave it out")
        explain_build(first, second, flow, verify=verify, as_json=as_json)


def _is_store(name: str) -> bool:
    try:
        return current_run(open_place(name)) is not None
    except PenstockError:  # a URL of another kind
        return False


def show_life(store: str, doc_id: str, run: str | None, *, as_json: bool) -> None:
    """Print all that a store knows of a document."""
    life = Store.open(store, run).explain(doc_id)
    typer.echo(json.dumps(life) if as_json else _text(life))


def _text(life: dict[str, Any]) -> str:
    source = life["source"]
    lines = [
        f"{life['doc_id']} in run {life['run']}",
        f"  source   {source['item']}, version {source['version']}, of {source['source']}",
    ]
    if "document" in life:
        lines += _document(life)
    lines += [
        f"  failed   {row['step']}: {row['error']}: {row['message']}" for row in life["failures"]
    ]
    rows = [["run", "tags", "content", "text", "verdict"]]
    rows += [_run(each) for each in life["runs"]]
    return "\n".join(lines) + "\n\n" + columns(rows)


def _document(life: dict[str, Any]) -> list[str]:
    document, verdict = life["document"], life["verdict"]
    lines = [
        f"  document {document['media_type']}, {document['text_bytes']:,} bytes of text, "
        f"content {document['content_hash'][:12]}"
        + (", raw bytes kept" if document["has_blob"] else ""),
    ]
    lines += [f"  step     {_step(step)}" for step in life["steps"]]
    lines.append(f"  verdict  {_judged(verdict)}")
    if life["cluster"]:
        kept, *others = life["cluster"]
        lines.append(f"  cluster  {kept} is kept for {', '.join(others)}")
    lines += [f"  cut      {json.dumps(edit)}" for edit in life["edits"]]
    for chunk in life["chunks"]:
        place = f" {chunk['heading_path']}" if chunk["heading_path"] else ""
        lines.append(
            f"  chunk    {chunk['chunk_id']}: bytes {chunk['start']} to {chunk['end']}, "
            f"{chunk['num_tokens']} tokens, in {chunk['segment']}{place}"
        )
    if life["tokens"]:
        tokens = life["tokens"]
        lines.append(f"  tokens   {tokens['tokens']:,} in {tokens['samples']} samples")
    return lines


def _step(step: dict[str, Any]) -> str:
    score = "" if step.get("score") is None else f", score {step['score']:.4g}"
    signature = ""
    if "signature" in step:
        signature = ", " + textwrap.shorten(json.dumps(step["signature"]), 60, placeholder=" ...")
    return f"{step['step']}: {step['outcome']}{score}{signature}"


def _judged(verdict: dict[str, Any]) -> str:
    rule = f" by {verdict['rule']}" if verdict.get("rule") else ""
    score = f", score {verdict['score']:.4g}" if verdict.get("score") is not None else ""
    near = f", for {verdict['duplicate_of']}" if verdict.get("duplicate_of") else ""
    return f"{verdict.get('verdict')}{rule}{score}{near}"


def _run(run: dict[str, Any]) -> list[str]:
    if run["content_hash"] is None:
        return [run["run"], ",".join(run["tags"]), "-", "-", "not there"]
    hashes = (run[name][:12] for name in ("content_hash", "text_hash"))
    return [run["run"], ",".join(run["tags"]), *hashes, _judged(run)]
