import json
from pathlib import Path

import pytest

from penstock.errors import FormatError, StoreError
from penstock.store.files import all_files, fsync_new, replace_file
from penstock.store.manifest import (
    FORMAT,
    Manifest,
    current_run,
    publish,
    read_manifest,
    run_names,
    save_checkpoint,
    starting_point,
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path


def test_a_published_run_is_the_next_starting_point(store: Path) -> None:
    publish(store, Manifest(run="000001", tables={"documents": 4}, flow={"chain": "x"}))

    start = starting_point(store)

    assert current_run(store) == "000001"
    assert (start.run, start.tables, start.flow) == ("000002", {"documents": 4}, {"chain": "x"})


def test_a_checkpoint_is_a_starting_point_that_readers_do_not_see(store: Path) -> None:
    publish(store, Manifest(run="000001", tables={"documents": 4}))
    save_checkpoint(store, Manifest(run="000002", tables={"documents": 9}))

    assert starting_point(store).tables == {"documents": 9}
    assert current_run(store) == "000001"
    assert run_names(store) == ["000001"]


def test_publishing_ends_the_checkpoint_and_an_older_one_is_not_used(store: Path) -> None:
    save_checkpoint(store, Manifest(run="000001", tables={"documents": 3}))
    stale = (store / "runs/checkpoint.json").read_bytes()
    publish(store, Manifest(run="000001", tables={"documents": 4}))
    assert not (store / "runs/checkpoint.json").exists()
    (store / "runs/checkpoint.json").write_bytes(stale)

    assert starting_point(store).tables == {"documents": 4}


def test_a_manifest_that_was_written_but_not_published_does_not_count(store: Path) -> None:
    publish(store, Manifest(run="000001"))
    replace_file(store / "runs/000002.json", Manifest(run="000002").to_bytes())

    assert run_names(store) == ["000001"]
    assert starting_point(store).run == "000002"


def test_a_newer_format_is_refused_and_says_what_to_do(store: Path) -> None:
    publish(store, Manifest(run="000001", format=FORMAT + 1))

    with pytest.raises(FormatError, match=f"format {FORMAT + 1}.*pip install -U"):
        starting_point(store)


@pytest.mark.parametrize("damage", ["", "{}", "[1]", "{'"], ids=["empty", "bare", "list", "torn"])
def test_a_damaged_manifest_is_one_clear_error(store: Path, damage: str) -> None:
    path = store / "runs/000001.json"
    path.write_text(damage)

    with pytest.raises(StoreError, match="damaged"):
        read_manifest(path)


def test_facts_of_a_later_minor_version_are_ignored(store: Path) -> None:
    path = store / "runs/000001.json"
    path.write_bytes(json.dumps({"format": 1, "run": "000001", "news": 3}).encode())

    assert read_manifest(path).run == "000001"


def test_fsync_new_flushes_each_new_file_and_its_folders_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_text("o")
    known = all_files(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/new").write_text("n")
    flushed: list[Path] = []
    monkeypatch.setattr("penstock.store.files.fsync_file", flushed.append)

    now = fsync_new(tmp_path, known)

    assert flushed[0] == tmp_path / "a/b/new"
    assert sorted(flushed[1:]) == [tmp_path, tmp_path / "a", tmp_path / "a/b"]
    assert now == {str(tmp_path / "old"), str(tmp_path / "a/b/new")}
