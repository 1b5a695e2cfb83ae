"""What an interrupted run leaves is finished, undone or done anew, whatever the next run wants."""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.guarantees.stores import assert_same, read_all, read_run

import penstock as ps

pytestmark = pytest.mark.slow

FIRST = [ps.Normalize(), ps.ExactDedup(), ps.Chunk()]
OTHER = [ps.Normalize(), ps.MinHashDedup(shingle=2), ps.Chunk()]


class StoppedError(Exception):
    """What ends a run in its middle."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six small documents, two of them equal."""
    root = tmp_path / "tree"
    root.mkdir()
    for name in "abcdef":
        (root / f"{name}.md").write_text(f"# {name}\n\nThe text of {name.replace('f', 'e')}.\n")
    return root


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every document is a task of its own, written and saved as it comes."""
    monkeypatch.setattr(import_module("penstock.sources.files"), "_TASK_ITEMS", 1)
    monkeypatch.setattr("penstock.build.documents._FLUSH_BYTES", 1)
    monkeypatch.setattr("penstock.build.documents._RECOMPUTE_ROWS", 1)
    monkeypatch.setattr("penstock.build.documents.CHECKPOINT_S", 0.0)
    return monkeypatch


def build(tree: Path, store: Path, steps: list[Any]) -> ps.RunReport:
    return ps.Flow(source=ps.files(tree), steps=steps).run(store)


def stop_after(num_batches: int, tree: Path, store: Path, steps: list[Any]) -> None:
    """A build that breaks off when so many batches of documents are saved."""
    from penstock.build.documents import Documents

    real, saved = Documents.add, 0

    def add(self: Documents, computed: Any) -> None:
        nonlocal saved
        if saved == num_batches:
            raise StoppedError
        saved += 1
        real(self, computed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Documents, "add", add)
        with pytest.raises(StoppedError):
            build(tree, store, steps)


def assert_equals_fresh(tree: Path, store: Path, steps: list[Any]) -> None:
    fresh = store.with_name("fresh")
    build(tree, fresh, steps)
    assert_same(read_all(store), read_all(fresh))


def test_a_file_touched_while_the_flow_changed_is_computed_by_the_new_flow(
    tree: Path, tmp_path: Path
) -> None:
    build(tree, tmp_path / "store", FIRST)
    os.utime(tree / "a.md", (1, 1))
    counts = build(tree, tmp_path / "store", OTHER).counts

    assert (counts.documents_recomputed, counts.documents_changed, counts.items_read) == (6, 0, 1)
    assert_equals_fresh(tree, tmp_path / "store", OTHER)


def test_what_was_to_be_read_again_and_then_vanished_leaves_no_row(
    tree: Path, tmp_path: Path, one_by_one: pytest.MonkeyPatch
) -> None:
    build(tree, tmp_path / "store", FIRST)
    for name in "abcdef":
        (tree / f"{name}.md").write_text(f"Changed {name}.\n")
    stop_after(2, tree, tmp_path / "store", FIRST)
    (tree / "e.md").unlink()
    counts = build(tree, tmp_path / "store", FIRST).counts

    assert (counts.items_unchanged, counts.items_removed) == (2, 1)
    assert_equals_fresh(tree, tmp_path / "store", FIRST)


@pytest.mark.parametrize("num_batches", [1, 3, 5])
@pytest.mark.parametrize(("before", "between"), [(FIRST, OTHER), (OTHER, FIRST)])
def test_a_flow_tried_and_broken_off_leaves_nothing_behind(
    before: list[Any],
    between: list[Any],
    num_batches: int,
    tree: Path,
    tmp_path: Path,
    one_by_one: pytest.MonkeyPatch,
) -> None:
    build(tree, tmp_path / "store", before)
    stop_after(num_batches, tree, tmp_path / "store", between)
    build(tree, tmp_path / "store", before)

    assert_equals_fresh(tree, tmp_path / "store", before)


def test_bytes_that_only_a_row_of_the_run_before_needed_go(
    tree: Path, tmp_path: Path, one_by_one: pytest.MonkeyPatch
) -> None:
    (tree / "a.md").write_bytes(b"Lines that end as on Windows.\r\n")
    build(tree, tmp_path / "store", FIRST)
    (tree / "a.md").write_text("No more.\n")
    (tree / "b.md").write_text("Changed too.\n")
    stop_after(1, tree, tmp_path / "store", FIRST)
    os.remove(tree / "b.md")
    build(tree, tmp_path / "store", FIRST)

    assert ps.Store.open(tmp_path / "store").dataset("blobs").count_rows() == 0  # type: ignore[arg-type]
    assert_equals_fresh(tree, tmp_path / "store", FIRST)


def test_bytes_that_another_flow_keeps_as_text_go(tree: Path, tmp_path: Path) -> None:
    (tree / "a.md").write_bytes(b"Lines that end as on Windows.\r\n")
    build(tree, tmp_path / "store", FIRST)
    build(tree, tmp_path / "store", FIRST[1:])

    assert_equals_fresh(tree, tmp_path / "store", FIRST[1:])


def test_documents_that_were_all_saved_are_decided_on_and_cut(
    tree: Path, tmp_path: Path, one_by_one: pytest.MonkeyPatch
) -> None:
    build(tree, tmp_path / "store", FIRST)
    (tree / "g.md").write_text("A new one.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.build.documents.Documents.finish", _stop)
        with pytest.raises(StoppedError):
            build(tree, tmp_path / "store", FIRST)
    counts = build(tree, tmp_path / "store", FIRST).counts

    assert (counts.items_read, counts.chunks_cut) == (0, 1)
    assert_equals_fresh(tree, tmp_path / "store", FIRST)


def _stop(*_: Any) -> None:
    raise StoppedError


def test_a_long_reading_is_saved_before_the_decisions(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.build.run.CHECKPOINT_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("penstock.build.run.decide", _stop)
        with pytest.raises(StoppedError):
            build(tree, tmp_path / "store", FIRST)
    counts = build(tree, tmp_path / "store", FIRST).counts

    assert (counts.items_read, counts.items_unchanged) == (0, 6)
    assert_equals_fresh(tree, tmp_path / "store", FIRST)


def test_a_flow_without_chunks_takes_none_from_earlier_runs(tree: Path, tmp_path: Path) -> None:
    build(tree, tmp_path / "store", FIRST)
    before = read_all(tmp_path / "store")
    (tree / "a.md").write_text("Changed.\n")
    build(tree, tmp_path / "store", FIRST[:-1])
    build(tree, tmp_path / "store", FIRST[:-1])
    assert_same(read_run(ps.Store.open(tmp_path / "store", 1)), before)
    build(tree, tmp_path / "store", FIRST)

    assert_same(read_run(ps.Store.open(tmp_path / "store", 1)), before)
    assert_equals_fresh(tree, tmp_path / "store", FIRST)


def test_a_run_that_raised_has_stopped_writing(
    tree: Path, tmp_path: Path, one_by_one: pytest.MonkeyPatch
) -> None:
    from penstock.build.documents import Documents

    real, ended = Documents._write, []

    def slow(self: Documents, *arguments: Any) -> None:
        time.sleep(0.2)
        real(self, *arguments)
        ended.append(True)

    one_by_one.setattr(Documents, "_write", slow)
    one_by_one.setattr("penstock.build.documents.CHECKPOINT_S", 60.0)
    stop_after(1, tree, tmp_path / "store", FIRST)

    assert ended == [True]
