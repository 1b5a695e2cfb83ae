"""What fails below us: full and read-only disks, I/O errors, short writes, sources that move."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.guarantees.conftest import World
from tests.guarantees.stores import assert_same, read_all

import penstock as ps
from penstock.errors import StoreError
from penstock.sources._local import LocalFolder

pytestmark = pytest.mark.slow

_MOUNT = 'mount -t tmpfs -o size=64m tmpfs "$0" && exec "$@"'
"""In a name space of its own, where anybody may be root: the mount is gone with the process."""


def may_mount(folder: Path) -> bool:
    """Whether a name space with a small disk can be had here."""
    try:
        made = subprocess.run(
            ["unshare", "-rm", "sh", "-c", _MOUNT, str(folder), "true"],
            capture_output=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return made.returncode == 0


@pytest.mark.slow
def test_a_full_or_read_only_disk_is_one_clear_error_and_nothing_is_lost(
    world: World, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not may_mount(disk):
        pytest.skip("no file system can be mounted here")
    script = Path(__file__).with_name("on_a_small_disk.py")
    command = ["unshare", "-rm", "sh", "-c", _MOUNT, str(disk), sys.executable, str(script)]
    done = subprocess.run(
        [*command, str(disk), str(world.root)], capture_output=True, text=True, timeout=300
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert 3 <= int(done.stdout) < 9


@pytest.mark.parametrize("nth", [1, 5, 20, 40])
def test_a_flush_that_fails_publishes_nothing(
    nth: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real, calls = world.copy(), os.fsync, 0

    def fsync(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StoreError, match="the disk failed"):
            world.flow().run(store)
    assert_same(read_all(store), world.old)
    world.flow().run(store)

    assert_same(read_all(store), world.new)


def test_short_writes_are_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = world.copy(), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    world.flow().run(store)
    monkeypatch.undo()

    assert_same(read_all(store), world.new)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_rename_that_fails_leaves_the_last_run(
    nth: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real, calls = world.copy(), os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(StoreError, match="the disk failed"):
            world.flow().run(store)
    assert_same(read_all(store), world.old)
    world.flow().run(store)

    assert_same(read_all(store), world.new)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for name in "abc":
        (root / f"{name}.md").write_text(f"The text of {name}.\n")
    return root


def afterwards(patch: pytest.MonkeyPatch, when: str, change: Callable[[], object]) -> None:
    """Have something happen between listing and reading, before sizes are looked at or after."""
    of: Any = type(ps.files(".")) if when == "list" else LocalFolder
    real = getattr(of, when)

    def done(self: Any, *arguments: Any) -> Any:
        found = real(self, *arguments)
        change()
        return found

    patch.setattr(of, when, done)


BETWEEN = pytest.mark.parametrize("when", ["list", "stat_items"])


@BETWEEN
def test_what_vanishes_between_listing_and_reading_is_gone(
    when: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = ps.Flow(source=ps.files(tree), steps=[ps.ExactDedup(), ps.Chunk()])
    flow.run(tmp_path / "store")
    (tree / "b.md").write_text("Changed.\n")
    with monkeypatch.context() as patch:
        afterwards(patch, when, lambda: (tree / "b.md").unlink(missing_ok=True))
        flow.run(tmp_path / "store")
    documents = ps.Store.open(tmp_path / "store").documents(["doc_id"])["doc_id"].to_pylist()
    flow.run(tmp_path / "store")
    flow.run(tmp_path / "fresh")

    assert documents == ["a.md", "c.md"]
    assert_same(read_all(tmp_path / "store"), read_all(tmp_path / "fresh"))


@BETWEEN
def test_what_changes_between_listing_and_reading_is_recorded_as_it_was_read(
    when: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = ps.Flow(source=ps.files(tree), steps=[ps.ExactDedup(), ps.Chunk()])
    with monkeypatch.context() as patch:
        afterwards(patch, when, lambda: (tree / "b.md").write_text("As it was read.\n"))
        flow.run(tmp_path / "store")
    again = flow.run(tmp_path / "store").counts
    flow.run(tmp_path / "fresh")

    assert again.items_read == 0
    assert_same(read_all(tmp_path / "store"), read_all(tmp_path / "fresh"))


def test_what_never_stops_changing_is_a_failure_until_it_does(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = ps.Flow(source=ps.files(tree), steps=[ps.ExactDedup(), ps.Chunk()])
    flow.run(tmp_path / "store")
    real, count, path = os.read, 0, tree / "b.md"

    def read(fd: int, num_bytes: int) -> bytes:
        nonlocal count
        data = real(fd, num_bytes)
        if os.path.samestat(os.fstat(fd), path.stat()):
            count += 1
            path.write_text("Again " * count)
        return data

    path.write_text("Another text.\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        flow.run(tmp_path / "store")
    failures = ps.Store.open(tmp_path / "store").failures(["doc_id", "error"]).to_pylist()
    flow.run(tmp_path / "store")
    flow.run(tmp_path / "fresh")

    assert failures == [{"doc_id": "b.md", "error": "changed-while-read"}]
    assert_same(read_all(tmp_path / "store"), read_all(tmp_path / "fresh"))
