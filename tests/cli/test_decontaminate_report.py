"""What decontamination did is told by the build, by status and by a command of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.app import app

ITEM = "How many boats came home in the morning if seven of them left on Monday and nine later?"
CLEAN = "Nothing of the kind, only words about boats and mornings."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"q": "Why?"}) + "\n" + json.dumps({"q": ITEM}))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/clean.txt").write_text(CLEAN)
    (tmp_path / "docs/again.txt").write_text(CLEAN)
    (tmp_path / "flow.py").write_text(
        "import penstock as ps\n"
        "def flow(source):\n"
        "    sets = [ps.EvalSet('quiz.jsonl', ['q'])]\n"
        "    steps = [ps.ExactDedup(), ps.Decontaminate(against=sets)]\n"
        "    return ps.Flow(source=ps.files(source), steps=steps)\n"
    )
    return tmp_path


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def _build() -> str:
    return _run("build", "docs", "store", "--flow", "flow.py", "--quiet")


def test_zero_hits_are_told(folder: Path) -> None:
    for shown in (_build(), _build(), _run("status", "store")):
        assert "1 documents scanned, 0 hold an item" in shown
        assert "0 documents hold 0 of 2 items" in shown
        assert "1 of fewer than 8 words are not looked for" in shown
        assert "self-test: 1 of 1 planted items found" in shown
    told = _run("decontaminate-report", "store")
    facts = json.loads(_run("decontaminate-report", "store", "--json"))
    assert told.strip() in _run("status", "store")
    assert (facts["documents"], facts["documents_hit"], facts["examples"]) == (1, 0, [])
    assert json.loads(_run("status", "store", "--json"))["reports"]["decontaminate"]["runs"] == 6


def test_a_hit_is_shown_with_its_words_on_both_sides(folder: Path) -> None:
    (folder / "docs/held.txt").write_text(f"Well: {ITEM} Seven.")
    _build()
    (example,) = json.loads(_run("decontaminate-report", "store", "--json"))["examples"]

    assert (example["doc_id"], example["set"], example["item"]) == ("held.txt", "quiz", 1)
    assert example["document"] == [6, 6 + len(ITEM) - 1]
    assert example["item_at"] == [0, len(ITEM) - 1]
    assert example["text"] == ITEM[:-1]
    assert "words of quiz#1 in a row, 100% of it" in _run("decontaminate-report", "store")


def test_other_sets_and_other_flows_are_told(folder: Path) -> None:
    (folder / "docs/held.txt").write_text(f"Well: {ITEM} Seven.")
    _build()
    (folder / "quiz.jsonl").write_text(json.dumps({"q": f"Now: {ITEM}"}))
    runner = CliRunner()
    changed = runner.invoke(app, ["decontaminate-report", "store"])
    _run("build", "docs", "other", "--quiet", "--flow", str(_plain(folder)))
    without = runner.invoke(app, ["decontaminate-report", "other"])

    assert "have changed" in str(changed.exception)
    assert "1 hold an item" in _run("decontaminate-report", "store", "--examples", "0")
    assert "no Decontaminate" in str(without.exception)


def _plain(folder: Path) -> Path:
    path = folder / "plain.py"
    path.write_text(
        "import penstock as ps\n"
        "def flow(source):\n"
        "    return ps.Flow(source=ps.files(source), steps=[ps.ExactDedup()])\n"
    )
    return path


def test_status_counts_what_was_only_cut(folder: Path) -> None:
    (folder / "docs/held.txt").write_text(f"{'Other words. ' * 40}{ITEM} {'And more. ' * 40}")
    flow = (folder / "flow.py").read_text()
    (folder / "flow.py").write_text(flow.replace("against=sets", "against=sets, action='cut'"))
    _build()
    facts = json.loads(_run("status", "store", "--json"))

    assert facts["rules_of_kept"] == {"decontaminate.quiz": 1}
    assert facts["rules"] == {"exact_duplicate": 1}
    assert "kept, but flagged or cut" in _run("status", "store")
