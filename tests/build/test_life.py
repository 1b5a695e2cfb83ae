"""What a store tells of one document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import penstock as ps
from penstock.cli.app import app
from penstock.errors import QueryError


@pytest.fixture
def store(words_flow: ps.Flow, tree: Path, tmp_path: Path) -> ps.Store:
    """Two runs: one document changes, one goes; the second run has a tag."""
    words_flow.run(tmp_path / "store")
    (tree / "guide/start.md").write_text("# Start\n\nAnew.\n")
    (tree / "guide/again.md").unlink()
    words_flow.run(tmp_path / "store")
    opened = ps.Store.open(tmp_path / "store")
    opened.tag("now")
    return opened


def test_a_kept_document_is_told_from_its_source_to_its_segment(store: ps.Store) -> None:
    life = store.explain("guide/start.md")

    assert life["source"]["item"] == "guide/start.md"
    assert life["source"]["version"]
    assert life["document"]["text_bytes"] == len("# Start\n\nAnew.\n")
    assert [(run["run"], run["tags"]) for run in life["runs"]] == [
        ("000001", []),
        ("000002", ["now"]),
    ]
    assert life["runs"][0]["content_hash"] != life["runs"][1]["content_hash"]
    assert [(step["step"], step["outcome"]) for step in life["steps"]] == [
        ("Normalize", "passed"),
        ("ExactDedup", "passed"),
        ("Chunk", "passed"),
        ("Tokenize", "passed"),
    ]
    assert life["verdict"]["verdict"] == "kept"
    (chunk,) = life["chunks"]
    (segment,) = {
        each["folder"]
        for each in (store.manifest.index or {})["segments"]
        if each["folder"] == chunk["segment"]
    }
    assert (chunk["chunk_id"], segment) == ("guide/start.md#0", "segment-000002")
    assert life["tokens"]["samples"] == 1
    assert life["tokens"]["tokens"] > 3


def test_a_twin_names_what_was_kept_and_the_step_that_dropped_it(store: ps.Store) -> None:
    life = store.explain("notes/b.txt")

    assert life["cluster"] == ["notes/a.txt", "notes/b.txt"]
    assert store.explain("notes/a.txt")["cluster"] == ["notes/a.txt", "notes/b.txt"]
    assert life["verdict"]["duplicate_of"] == "notes/a.txt"
    outcomes = [step["outcome"] for step in life["steps"]]
    assert outcomes == ["passed", "dropped", "not reached", "not reached"]
    assert life["chunks"] == []


def test_what_failed_and_what_is_gone_are_told_too(store: ps.Store) -> None:
    (failure,) = store.explain("image.png")["failures"]
    gone = store.explain("guide/again.md")

    assert failure["error"] == "binary-file"
    assert "document" not in gone
    assert [run["verdict"] for run in gone["runs"]] == ["kept", None]
    assert store.at(1).explain("guide/again.md")["document"]["media_type"] == "text/markdown"
    with pytest.raises(QueryError, match="no run that is kept has it"):
        store.explain("nowhere.md")


@pytest.mark.parametrize("doc_id", ["guide/start.md", "notes/b.txt", "image.png", "guide/again.md"])
def test_the_command_prints_the_same(doc_id: str, store: ps.Store) -> None:
    text = CliRunner().invoke(app, ["explain", str(store.path), doc_id])
    facts = CliRunner().invoke(app, ["explain", str(store.path), doc_id, "--json"])

    assert (text.exit_code, facts.exit_code) == (0, 0), text.output + facts.output
    assert text.output.startswith(f"{doc_id} in run 000002")
    assert json.loads(facts.output) == store.explain(doc_id)


def test_the_first_argument_tells_a_document_from_a_build(store: ps.Store, tree: Path) -> None:
    def printed(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["explain", *arguments])
        return str(done.exception or done.output)

    document = printed(str(store.path), "notes/b.txt")
    build = printed(str(tree), str(store.path))

    assert document.startswith("notes/b.txt in run 000002")
    assert "in run" not in build
    assert "run 000002" in build or "unchanged" in build
    assert "for a build" in printed(str(store.path), "notes/b.txt", "--verify")
    assert "for a document" in printed(str(tree), str(store.path), "--run", "1")
