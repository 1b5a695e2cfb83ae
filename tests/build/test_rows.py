"""Sources of many rows a file: ids, failures of single rows, retries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import penstock as ps

Check = Callable[[ps.Flow, Path], None]


def _write(path: Path, *rows: dict[str, Any] | str) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def _row(name: str, text: str, **metadata: Any) -> dict[str, Any]:
    return {"_id": name, "title": "", "text": text, **metadata}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    _write(folder / "a.jsonl", _row("1", "one", year=1999), _row("2", "two", year=2001))
    _write(folder / "b.jsonl", _row("3", "three"), _row("4", "four"))
    return folder


@pytest.fixture
def flow(rows: Path) -> ps.Flow:
    return ps.Flow(source=ps.jsonl(rows), steps=[ps.Normalize(), ps.ExactDedup(), ps.Chunk()])


def test_only_the_changed_line_of_a_file_is_computed(
    flow: ps.Flow, rows: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    flow.run(tmp_path / "store")
    _write(rows / "a.jsonl", _row("1", "one", year=1999), _row("2", "TWO", year=2001))
    counts = flow.run(tmp_path / "store").counts

    assert (counts.items_read, counts.items_unchanged) == (1, 1)
    assert (counts.documents_unchanged, counts.documents_changed) == (1, 1)
    equals_fresh(flow, tmp_path / "store")


def test_a_line_that_is_gone_takes_its_document_along(
    flow: ps.Flow, rows: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    flow.run(tmp_path / "store")
    _write(rows / "a.jsonl", _row("2", "two", year=2001))
    counts = flow.run(tmp_path / "store").counts

    assert counts.documents_removed == 1
    equals_fresh(flow, tmp_path / "store")


def test_changed_metadata_alone_reaches_documents_and_search(
    flow: ps.Flow, rows: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    flow.run(tmp_path / "store")
    _write(rows / "a.jsonl", _row("1", "one", year=2020), _row("2", "two", year=2001))
    flow.run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    assert store.documents(["doc_id", "year"], where="year > 2010").to_pylist() == [
        {"doc_id": "1", "year": 2020}
    ]
    assert [hit.doc_id for hit in store.search("one two", where="year = 2020")] == ["1"]
    equals_fresh(flow, tmp_path / "store")


def test_a_document_moves_from_one_file_to_another(
    flow: ps.Flow, rows: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    flow.run(tmp_path / "store")
    _write(rows / "a.jsonl", _row("1", "one", year=1999))
    _write(rows / "b.jsonl", _row("3", "three"), _row("4", "four"), _row("2", "two", year=2001))
    flow.run(tmp_path / "store")

    equals_fresh(flow, tmp_path / "store")


@pytest.mark.parametrize(
    "histories",
    [
        pytest.param([["1:x", "1:y"], ["1:y", "1:x"]], id="within-a-file-swapped"),
        pytest.param([["1:x", "2:y"], ["1:x", "1:y"]], id="within-a-file-new"),
        pytest.param([["1:x", "1:y"], ["1:y"]], id="within-a-file-first-gone"),
        pytest.param([["3:x", "9:z"], ["9:z"]], id="across-files-winner-gone"),
        pytest.param([["9:z"], ["3:x", "9:z"]], id="across-files-winner-new"),
        pytest.param([["3:x"], ["3:y"], ["3:three"]], id="across-files-winner-changes"),
    ],
)
def test_of_rows_with_the_same_id_the_first_stays_whatever_came_before(
    histories: list[list[str]], flow: ps.Flow, rows: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    for lines in histories:
        _write(rows / "a.jsonl", *(_row(*line.split(":")) for line in lines))
        flow.run(tmp_path / "store")
        equals_fresh(flow, tmp_path / "store")


def test_a_row_with_a_taken_id_is_a_failure_and_not_lost(
    flow: ps.Flow, rows: Path, tmp_path: Path
) -> None:
    _write(rows / "a.jsonl", _row("3", "first by name"))
    flow.run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    assert store.documents(["text"], where="doc_id = '3'")["text"].to_pylist() == ["first by name"]
    assert store.failures(["doc_id", "item", "error"]).to_pylist() == [
        {"doc_id": "3", "item": "b.jsonl", "error": "duplicate-id"}
    ]


def test_a_malformed_line_costs_its_row_and_is_not_read_again_in_vain(
    flow: ps.Flow, rows: Path, tmp_path: Path
) -> None:
    _write(rows / "a.jsonl", _row("1", "one"), "{not json", _row("2", "two"))
    flow.run(tmp_path / "store")
    again = flow.run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    assert store.documents()["doc_id"].to_pylist() == ["1", "2", "3", "4"]
    assert store.failures(["doc_id", "error", "tries"]).to_pylist() == [
        {"doc_id": "a.jsonl:2", "error": "malformed-json", "tries": 1}
    ]
    assert again.counts.items_read == 0


def test_a_step_that_raises_costs_its_row_and_is_tried_again(
    rows: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    broken = tmp_path / "broken"
    broken.touch()

    def picky(doc: dict[str, Any]) -> dict[str, Any]:
        if broken.exists() and doc["doc_id"] == "2":
            raise ValueError("two is too many")
        return {}

    flow = ps.Flow(source=ps.jsonl(rows), steps=[ps.Map(picky), ps.Chunk()])
    flow.run(tmp_path / "store")
    flow.run(tmp_path / "store")
    failures = ps.Store.open(tmp_path / "store").failures().to_pylist()
    broken.unlink()
    healed = flow.run(tmp_path / "store")

    assert [(row["doc_id"], row["step"], row["error"], row["tries"]) for row in failures] == [
        ("2", "Map(picky)", "ValueError", 2)
    ]
    assert (healed.failures, healed.documents) == (0, 4)
    equals_fresh(flow, tmp_path / "store")


WORKERS: tuple[Literal["threads", "processes"], ...] = ("threads", "processes")


def test_a_function_of_a_process_pool_gives_what_threads_give(
    rows: Path, tmp_path: Path, contents: Callable[[Path], Any]
) -> None:
    def shout(doc: dict[str, Any]) -> dict[str, Any]:
        if doc["doc_id"] == "3":
            raise ValueError("not three")
        return {"text": doc["text"].upper()}

    for workers in WORKERS:
        steps: list[Any] = [ps.Normalize(), ps.Map(shout, workers=workers), ps.ExactDedup()]
        ps.Flow(source=ps.jsonl(rows), steps=steps).run(tmp_path / workers)

    assert contents(tmp_path / "processes") == contents(tmp_path / "threads")
    assert contents(tmp_path / "threads")["documents"][0]["text"] == "ONE"
