"""What differs between two runs, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import penstock as ps
from penstock.cli.app import app


def _long(doc: dict[str, Any]) -> bool:
    return len(doc["text"]) > 20


def _loud(doc: dict[str, Any]) -> dict[str, Any]:
    return {"text": doc["text"].upper()}


@pytest.fixture
def store(tree: Path, tmp_path: Path) -> Path:
    """Two runs over one flow: a note changes, a twin goes, a file comes."""
    flow = ps.Flow(source=ps.files(tree), steps=[ps.Normalize(), ps.ExactDedup()])
    flow.run(tmp_path / "store")
    (tree / "guide/start.md").write_text("# Start\n\nAnew.\n")
    (tree / "notes/a.txt").unlink()
    (tree / "notes/c.txt").write_text("# Again\n\nOnly what changed is read again.\n")
    flow.run(tmp_path / "store")
    return tmp_path / "store"


def _verdicts(diff: Any) -> dict[str, tuple[str, str, str, str | None]]:
    return {
        row["doc_id"]: (
            row["rule_before"] or "kept",
            row["rule"] or "kept",
            row["reason"],
            row["neighbour"],
        )
        for row in diff.verdicts.to_pylist()
    }


def test_documents_that_came_changed_and_went_and_twins_that_were_promoted(store: Path) -> None:
    found = ps.Store.open(store).diff(1)

    assert (found.a, found.b) == ("000001", "000002")
    assert found.added == ("notes/c.txt",)
    assert found.changed == ("guide/start.md",)
    assert found.removed == ("notes/a.txt",)
    assert found.recomputed == ()
    twin = {"notes/b.txt": ("exact_duplicate", "kept", "neighbour", "notes/a.txt")}
    assert _verdicts(found) == twin
    counts = {each.rule: (each.before, each.after) for each in found.rules}
    assert counts == {"kept": (5, 5), "exact_duplicate": (1, 1)}


def test_backwards_is_the_same_the_other_way_round(store: Path) -> None:
    opened = ps.Store.open(store)
    there, back = opened.diff(1, 2), opened.diff(2, 1)

    assert (there.added, there.changed, there.removed) == (back.removed, back.changed, back.added)
    assert _verdicts(back) == {
        "notes/b.txt": ("kept", "exact_duplicate", "neighbour", "notes/a.txt")
    }
    nothing = opened.diff(2, 2)
    assert not nothing.added + nothing.changed + nothing.removed
    assert nothing.verdicts.num_rows == 0


def test_a_changed_step_and_a_changed_text_are_told_apart(store: Path, tree: Path) -> None:
    opened = ps.Store.open(store)
    steps: list[Any] = [ps.Normalize(), ps.Keep(_long), ps.ExactDedup()]
    ps.Flow(source=ps.files(tree), steps=steps).run(store)
    (tree / "code/tool.py").write_text("x = 1\n")
    ps.Flow(source=ps.files(tree), steps=steps).run(store)
    ps.Flow(source=ps.files(tree), steps=[*steps[:2], ps.Map(_loud), steps[2]]).run(store)

    added, changed, louder = opened.diff(2, 3), opened.diff(3, 4), opened.diff(4, 5)

    assert {row[2] for row in _verdicts(added).values()} == {"setting"}
    assert added.changed == added.recomputed == ()
    assert [row[2] for row in _verdicts(changed).values()] == ["content"]
    assert changed.reasons() == {"content": 1, "setting": 0, "neighbour": 0}
    assert louder.changed == ()
    assert set(louder.recomputed) >= {"guide/again.md", "guide/start.md"}


def test_a_diff_across_a_rollback_and_a_changed_flow_needs_no_common_rows(
    store: Path, tree: Path
) -> None:
    opened = ps.Store.open(store)
    opened.rollback(1)
    assert opened.diff(1, 3).to_json()["documents"] == {
        "added": [],
        "changed": [],
        "removed": [],
        "recomputed": [],
    }
    ps.Flow(source=ps.files(tree, include=["guide/*"])).run(store)

    found = opened.diff(1, 4)

    assert found.added == ()
    assert found.changed == ("guide/start.md",)
    assert len(found.removed) == 4


def test_the_command_prints_tables_or_json(store: Path) -> None:
    def printed(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["diff", str(store), *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    ps.Store.open(store).tag("first", 1)
    text = printed("first", "2")
    facts = json.loads(printed("1", "--json"))

    assert "1 added, 1 changed, 1 removed" in text
    assert "+ notes/c.txt" in text
    assert "notes/b.txt: exact_duplicate -> kept, by neighbour notes/a.txt" in text
    assert facts["documents"]["removed"] == ["notes/a.txt"]
    assert facts["reasons"] == {"content": 0, "setting": 0, "neighbour": 1}
    assert "and 1 more" in printed("1", "-n", "0")
