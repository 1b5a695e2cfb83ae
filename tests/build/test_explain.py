"""What a run would do is told before: by why, by how much, and nothing is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import penstock as ps
from penstock.build.explain import Explanation, Work
from penstock.cli.app import app
from penstock.store.files import all_files

NOTHING_YET = {"items to read", "documents to decide on", "documents to cut", "chunks to index"}


def _flow(tree: Path, *steps: Any, chunk: ps.Chunk | None = None) -> ps.Flow:
    every: list[Any] = [ps.Normalize(), *steps, chunk or ps.Chunk()]
    return ps.Flow(source=ps.files(tree), steps=every)


def _todo(found: Explanation) -> dict[str, Work]:
    return {work.name: work for work in found.work if work.why}


def _state(folder: Path) -> dict[str, bytes]:
    return {path: Path(path).read_bytes() for path in sorted(all_files(folder))}


def test_the_first_run_reads_everything(tree: Path, tmp_path: Path) -> None:
    found = _flow(tree).explain(tmp_path / "store")
    todo = _todo(found)

    assert (found.run, found.steps, set(todo)) == (None, (), NOTHING_YET)
    assert (todo["items to read"].count, todo["items to read"].why) == (7, ("7 new",))
    assert todo["documents to decide on"].why == ("there is no run yet",)
    assert not (tmp_path / "store").exists()


def test_after_a_run_there_is_nothing_to_do(tree: Path, tmp_path: Path) -> None:
    _flow(tree).run(tmp_path / "store")
    before = _state(tmp_path / "store")
    found = _flow(tree).explain(tmp_path / "store")

    assert (found.run, found.steps, found.fingerprints, _todo(found)) == ("000001", (), {}, {})
    assert _state(tmp_path / "store") == before
    assert all(line.endswith("nothing") for line in found.to_text().splitlines())


def test_items_are_told_by_why_they_are_read(tree: Path, tmp_path: Path) -> None:
    flow = _flow(tree)
    flow.run(tmp_path / "store")
    (tree / "new.md").write_text("New.")
    (tree / "guide/again.md").write_text("# Another text")
    (tree / "notes/a.txt").unlink()
    todo = _todo(flow.explain(tmp_path / "store"))
    report = flow.run(tmp_path / "store")

    assert todo["items to read"].why == ("1 new", "1 changed")
    assert todo["items to read"].examples == ("new.md", "guide/again.md")
    assert todo["items to read"].count == report.counts.items_read
    assert todo["documents to take out"].count == 1
    assert todo["documents to take out"].examples == ("notes/a.txt",)
    assert todo["documents to decide on"].why == ("the source changed",)


def test_a_threshold_re_decides_and_computes_nothing(tree: Path, tmp_path: Path) -> None:
    _flow(tree, ps.GopherQuality(min_words=3)).run(tmp_path / "store")
    flow = _flow(tree, ps.GopherQuality(min_words=5))
    found = flow.explain(tmp_path / "store")
    (step,) = found.steps
    todo = _todo(found)

    assert (step.step, step.change) == ("GopherQuality", "settings")
    assert step.settings == {"min_words": ("3", "5")}
    assert list(found.fingerprints) == ["decisions"]
    assert "items to read" not in todo
    assert "documents to compute" not in todo
    assert todo["documents to decide on"].why == ("thresholds changed",)
    assert flow.run(tmp_path / "store").counts.documents_recomputed == 0


@pytest.mark.parametrize(
    ("before", "after", "signatures", "texts_stay"),
    [
        pytest.param([], [ps.ExactDedup()], {"ExactDedup": "the step is new"}, True, id="added"),
        pytest.param(
            [ps.MinHashDedup()], [ps.MinHashDedup(shingle=3)],
            {"MinHashDedup": "its settings or its code changed"}, True, id="settings",
        ),
        pytest.param(
            [ps.ExactDedup()], [ps.RedactPII(), ps.ExactDedup()],
            {"ExactDedup": "where the text is not what it was"}, False, id="a-step-before",
        ),
        pytest.param([ps.ExactDedup()], [], {}, True, id="removed"),
    ],
)  # fmt: skip
def test_signatures_are_told_by_why_they_are_computed(
    tree: Path, tmp_path: Path, before: Any, after: Any, signatures: Any, texts_stay: bool
) -> None:
    _flow(tree, *before).run(tmp_path / "store")
    flow = _flow(tree, *after)
    todo = _todo(flow.explain(tmp_path / "store"))
    names = {f"signatures of {name}": (why,) for name, why in signatures.items()}
    documents = todo["documents to compute"]

    assert {n: w.why for n, w in todo.items() if n.startswith("signatures")} == names
    assert ("decisions" in documents.why[0]) == texts_stay
    assert documents.count == flow.run(tmp_path / "store").counts.documents_recomputed


def test_other_chunks_are_told(tree: Path, tmp_path: Path) -> None:
    _flow(tree).run(tmp_path / "store")
    found = _flow(tree, chunk=ps.Chunk(max_tokens=20, overlap_tokens=4)).explain(tmp_path / "store")
    todo = _todo(found)

    assert set(todo) == {"documents to cut", "chunks to index"}
    assert found.steps[0].settings["max_tokens"][1] == "20"
    assert "how chunks are cut changed" in todo["documents to cut"].why[0]


def test_steps_that_came_went_and_moved_are_told(tree: Path, tmp_path: Path) -> None:
    _flow(tree, ps.ExactDedup(), ps.GopherQuality(), ps.Sample(share=0.5)).run(tmp_path / "store")
    flow = _flow(tree, ps.GopherQuality(), ps.ExactDedup(), ps.C4Quality())
    changes = [
        (step.step.partition(" ")[0], step.change)
        for step in flow.explain(tmp_path / "store").steps
    ]

    assert changes == [("Sample", "removed"), ("C4Quality", "added"), ("Normalize", "order")]


def test_the_command_tells_it_for_people_and_machines(tree: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    arguments = ["explain", str(tree), str(tmp_path / "store")]
    shown = runner.invoke(app, arguments, catch_exceptions=False)
    facts = json.loads(runner.invoke(app, [*arguments, "--json"], catch_exceptions=False).output)

    assert "is not there yet" in shown.output
    assert "items to read" in shown.output
    assert "7 of 7: 7 new" in shown.output
    assert facts["work"][0]["count"] == 7
