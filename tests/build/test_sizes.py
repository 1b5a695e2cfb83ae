"""What a store takes, by part and by run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import penstock as ps
from penstock.cli.app import app
from penstock.store.places import file_sizes
from penstock.store.sizes import store_sizes


@pytest.fixture
def store(words_flow: ps.Flow, tree: Path, tmp_path: Path) -> ps.Store:
    """Two runs."""
    words_flow.run(tmp_path / "store")
    (tree / "guide/start.md").write_text("# Start\n\nAnew.\n")
    words_flow.run(tmp_path / "store")
    return ps.Store.open(tmp_path / "store")


def test_parts_and_what_only_old_runs_name_make_up_the_store(store: ps.Store) -> None:
    sizes = store_sizes(store.path, store.manifest)
    texts = store.documents(["text"])["text"].to_pylist()

    assert sizes.run + sizes.old == sum(file_sizes(store.path).values())
    assert sizes.parts.keys() >= {"documents", "chunks: text", "index: words", "index: passages"}
    assert all(size > 0 for size in sizes.parts.values())
    assert sizes.text == sum(len(text.encode()) for text in texts)
    assert (sizes.vectors, sizes.ratio) == (0, sizes.run / sizes.text)
    store.gc()
    assert store_sizes(store.path, store.manifest).parts == sizes.parts
    assert store_sizes(store.path, store.manifest).old < 1000  # the lock, Lance's hints


def test_runs_tell_tags_changes_and_sizes(store: ps.Store) -> None:
    store.tag("first", 1)
    text = CliRunner().invoke(app, ["runs", str(store.path)]).output.splitlines()
    facts = json.loads(CliRunner().invoke(app, ["runs", str(store.path), "--json"]).output)

    assert text[1].split()[:2] == ["000001", "first"]
    assert [line.split()[-9:-6] for line in text[2:]] == [["+0", "~1", "-0"]]
    assert [run["tags"] for run in facts] == [["first"], []]
    assert facts[0]["bytes"] == facts[0]["new_bytes"]
    assert 0 < facts[1]["new_bytes"] < facts[1]["bytes"]


def test_status_shows_sizes(store: ps.Store) -> None:
    text = CliRunner().invoke(app, ["status", str(store.path), "--sizes"]).output
    facts = json.loads(
        CliRunner().invoke(app, ["status", str(store.path), "--sizes", "--json"]).output
    )

    assert "index: words" in text
    assert "times its text" in text
    assert facts == store_sizes(store.path, store.manifest).to_json()
