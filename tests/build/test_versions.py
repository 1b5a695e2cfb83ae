"""Runs by name, back to an earlier one, and the end of old ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.build import documents as documents_phase
from penstock.errors import ConfigError, LeaseError, StoreError
from penstock.store import garbage
from penstock.store.files import all_files
from penstock.store.garbage import collect_garbage
from penstock.store.lease import Lease

Contents = Callable[[Path], Any]


@pytest.fixture
def store(words_flow: ps.Flow, tree: Path, tmp_path: Path) -> Path:
    """Six runs: each changes a note, the third brings a file and the fifth takes it away."""
    for run in range(1, 7):
        (tree / "notes/a.txt").write_text(f"The note as of run {run}.\n")
        if run == 3:
            (tree / "guide/more.md").write_text("# More\n\nOnly in runs three and four.\n")
        if run == 5:
            (tree / "guide/more.md").unlink()
        words_flow.run(tmp_path / "store")
    return tmp_path / "store"


def _state(store: Path, run: str) -> Any:
    """All that a run shows: every row of every table, and what searches find."""
    shown = ps.Store.open(store, run)
    tables = [
        getattr(shown, name)().to_pylist()
        for name in ("documents", "verdicts", "chunks", "failures")
    ]
    queries = ("note run", "build", "more", "hello")
    hits = [[(hit.chunk_id, hit.score, hit.text) for hit in shown.search(q, 5)] for q in queries]
    return tables, hits


def _relative(store: Path) -> set[str]:
    return {os.path.relpath(path, store) for path in all_files(store)}


def _size(store: Path) -> int:
    # What the lock tells of its holder is now longer, now shorter.
    return sum(os.path.getsize(path) for path in all_files(store) if "writer.lock" not in path)


def test_a_tag_stands_for_its_run_wherever_one_is_named(store: Path) -> None:
    opened = ps.Store.open(store)
    opened.tag("first", 1)
    opened.tag("now")

    assert opened.tags() == {"first": "000001", "now": "000006"}
    assert opened.at("first").manifest.run == "000001"
    assert ps.Store.open(store, "first").manifest.run == "000001"
    assert opened.search("note", 1, as_of="first").run == "000001"
    opened.tag("first", "now")
    opened.untag("now")
    assert opened.tags() == {"first": "000006"}


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        pytest.param(lambda s: s.tag("7"), ConfigError, "begin with a letter", id="number"),
        pytest.param(lambda s: s.tag("a/b"), ConfigError, "begin with a letter", id="slash"),
        pytest.param(lambda s: s.tag("x.tmp"), ConfigError, "begin with a letter", id="temporary"),
        pytest.param(lambda s: s.tag("x", 99), StoreError, "no run 000099", id="no-run"),
        pytest.param(lambda s: s.untag("x"), StoreError, "no tag 'x'", id="no-tag"),
        pytest.param(lambda s: s.at("x"), ConfigError, "a run or a tag", id="neither"),
        pytest.param(lambda s: s.gc(keep=0), ConfigError, "at least 1", id="keep-none"),
        pytest.param(lambda s: s.rollback(99), StoreError, "no run 000099", id="back-to-none"),
    ],
)
def test_says_what_is_wrong_with(
    action: Callable[[ps.Store], Any], error: type[Exception], words: str, store: Path
) -> None:
    with pytest.raises(error, match=words):
        action(ps.Store.open(store))


def test_gc_keeps_the_newest_and_the_tagged_whole_and_drops_the_rest(store: Path) -> None:
    ps.Store.open(store).tag("two", 2)
    kept = ["000002", "000005", "000006"]
    before = {run: _state(store, run) for run in kept}
    size = _size(store)

    found = collect_garbage(store, keep=2)

    assert (found.dropped, found.kept) == (("000001", "000003", "000004"), tuple(kept))
    assert {run: _state(store, run) for run in kept} == before
    assert _size(store) == size - found.bytes
    assert [manifest.run for manifest in ps.Store.open(store).runs()] == kept
    with pytest.raises(StoreError, match="no run 000003"):
        ps.Store.open(store, 3)
    assert collect_garbage(store, keep=2).files == 0


def test_a_dry_run_deletes_nothing_and_tells_what_gc_then_does(store: Path) -> None:
    files = _relative(store)
    told = collect_garbage(store, keep=1, dry_run=True)

    assert _relative(store) == files
    assert collect_garbage(store, keep=1) == told
    assert told.files > 20


def test_builds_go_on_after_gc(
    store: Path, words_flow: ps.Flow, tree: Path, equals_fresh: Callable[..., None]
) -> None:
    collect_garbage(store)
    (tree / "notes/b.txt").write_text("Anew.\n")

    assert words_flow.run(store).counts.items_read == 1
    equals_fresh(words_flow, store)


def test_leftovers_of_killed_writers_go_and_what_is_no_part_of_runs_stays(store: Path) -> None:
    leftovers = [
        "documents.lance/data/01010101.lance",
        "chunks.lance/_deletions/0-1-2.arrow",
        "index/segment-000009.part/rows.npy",
        "index/deleted-000009-of-segment-000001.npy",
        "runs/000007.json",
        "runs/000008.json.tmp",
        "search.json.tmp",
    ]
    others = ["notes.txt", "exports/shard-0.parquet", "documents.lance/README"]
    for name in [*leftovers, *others]:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(b"bytes")
    collect_garbage(store, keep=6)
    left = _relative(store)

    assert left.isdisjoint(leftovers)
    assert left >= set(others)
    assert not (store / "index/segment-000009.part").exists()


@pytest.mark.parametrize("steps", [0, 4, 9, 40])
def test_gc_that_is_stopped_anywhere_leaves_kept_runs_whole_and_is_gone_on_with(
    steps: int, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(store, tmp_path / "whole")
    collect_garbage(tmp_path / "whole", keep=2)
    before = {f"{run:06d}": _state(store, f"{run:06d}") for run in range(1, 7)}
    real, done = Path.unlink, iter(range(steps))

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if next(done, None) is None:
            raise KeyboardInterrupt
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            collect_garbage(store, keep=2)

    left = [run.run for run in ps.Store.open(store).runs()]
    assert left[-2:] == ["000005", "000006"]
    assert all(_state(store, run) == before[run] for run in left)
    collect_garbage(store, keep=2)
    assert all(_state(store, run) == before[run] for run in left[-2:])
    assert _relative(store) == _relative(tmp_path / "whole")


def test_gc_keeps_the_progress_of_an_interrupted_run(
    words_flow: ps.Flow,
    tree: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    equals_fresh: Callable[..., None],
) -> None:
    for number in range(600):  # several tasks of the source, at 256 files each
        (tree / f"many-{number}.txt").write_text(f"Note number {number}.\n")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(documents_phase, "CHECKPOINT_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("penstock.build.run.decide", stop)
        with pytest.raises(KeyboardInterrupt):
            words_flow.run(store)
    collect_garbage(store)

    assert words_flow.run(store).counts.items_read <= 256
    equals_fresh(words_flow, store)


def test_gc_waits_for_no_writer(store: Path) -> None:
    with Lease(store), pytest.raises(LeaseError, match="has been writing it"):
        collect_garbage(store)


def test_rolling_back_publishes_an_earlier_run_again_and_keeps_those_between(store: Path) -> None:
    before = {f"{run:06d}": _state(store, f"{run:06d}") for run in range(1, 7)}

    back = ps.Store.open(store).rollback(3)

    assert back.manifest.run == "000007"
    assert back.manifest.counts["rolled_back_to"] == "000003"
    assert _state(store, "000007") == before["000003"]
    assert {run: _state(store, run) for run in before} == before


@pytest.mark.parametrize("collected", [False, True], ids=["all-runs", "after-gc"])
def test_a_build_after_a_rollback_equals_a_fresh_one(
    collected: bool,
    store: Path,
    words_flow: ps.Flow,
    tree: Path,
    equals_fresh: Callable[..., None],
) -> None:
    opened = ps.Store.open(store)
    opened.tag("two", 2)
    if collected:
        opened.gc()
    opened.rollback("two")
    kept = {run.run: _state(store, run.run) for run in opened.runs()}
    (tree / "guide/new.md").write_text("# New\n\nAfter the rollback.\n")
    words_flow.run(store)

    equals_fresh(words_flow, store)
    assert {run: _state(store, run) for run in kept} == kept
    opened.rollback(6)
    assert _state(store, opened.runs()[-1].run) == kept["000006"]


def test_rolling_back_gives_up_the_progress_of_an_interrupted_run(
    store: Path,
    words_flow: ps.Flow,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    contents: Contents,
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    (tree / "guide/new.md").write_text("# New\n")
    with monkeypatch.context() as patch:
        patch.setattr("penstock.build.run.decide", stop)
        with pytest.raises(KeyboardInterrupt):
            words_flow.run(store)
    ps.Store.open(store).rollback(1)

    assert not (store / "runs/checkpoint.json").exists()
    assert _state(store, "000007") == _state(store, "000001")


def test_chunks_of_earlier_runs_outlive_a_flow_without_chunks(
    store: Path, tree: Path, words_flow: ps.Flow, equals_fresh: Callable[..., None]
) -> None:
    before = {f"{run:06d}": _state(store, f"{run:06d}") for run in range(1, 7)}
    ps.Flow(source=ps.files(tree), steps=[ps.Normalize()]).run(store)

    assert ps.Store.open(store).chunks().num_rows == 0
    assert {run: _state(store, run) for run in before} == before
    words_flow.run(store)
    assert {run: _state(store, run) for run in before} == before
    equals_fresh(words_flow, store)


def test_a_build_drops_old_runs_that_take_too_much_but_none_with_a_tag_or_a_reader(
    store: Path, words_flow: ps.Flow, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "ALWAYS_KEPT", 3)
    assert words_flow.run(store).runs_dropped == ()
    monkeypatch.setattr(garbage, "_HISTORY_BYTES", 0)
    monkeypatch.setattr(garbage, "file_sizes", lambda store: dict.fromkeys(_relative(store), 1))
    reader = ps.Store.open(store, 4)
    ps.Store.open(store).tag("two", 2)
    (tree / "notes/a.txt").write_text("The note, once more.\n")

    dropped = words_flow.run(store).runs_dropped

    assert dropped == ("000001", "000003", "000005")
    assert reader.documents().num_rows == _rows_of(store, "000004")
    assert [run.run for run in reader.runs()] == ["000002", "000004", "000006", "000007", "000008"]
    del reader
    assert words_flow.run(store).runs_dropped in {("000004",), ("000004", "000006")}


def _rows_of(store: Path, run: str) -> int:
    return len(ps.Store.open(store, run).documents())


def test_gc_after_forgetting_leaves_no_trace_and_no_run_that_has_one(
    store: Path, words_flow: ps.Flow, tree: Path
) -> None:
    opened = ps.Store.open(store)
    opened.tag("before", 2)
    opened.tag("with", 4)
    (tree / "guide/more.md").write_text("# Secret\n\nzanzibar\n")
    words_flow.run(store)
    opened.forget("guide/more.md")
    found = opened.gc(keep=3)

    assert (found.kept, opened.tags()) == (("000002", "000009"), {"before": "000002"})
    assert [run.run for run in opened.runs()] == ["000002", "000009"]
    assert opened.receipts()[0].purged == "000009"
    segments = (store / "index").rglob("*")
    assert not any(b"zanzibar" in path.read_bytes() for path in segments if path.is_file())
    assert _state(store, "000002")
