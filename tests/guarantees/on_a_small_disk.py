"""Builds on a file system that is full, then read-only: `python on_a_small_disk.py DISK WORLD`.

Run by `test_faults.py` where it may mount one. Prints how many builds found no room.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.guarantees.stores import Contents, assert_same, read_all
from tests.guarantees.writer import steps

import penstock as ps
from penstock.errors import StoreError

FREE_KB = (0, 8, 24, 48, 96, 160, 240, 400, 4000)


def fill(path: Path, disk: Path, free_kb: int) -> None:
    """Leave so much room."""
    room = shutil.disk_usage(disk).free - 1024 * free_kb
    with suppress(OSError), path.open("wb") as file:
        file.write(b"x" * room)


def is_new(store: Path, old: Contents, new: Contents) -> bool:
    found = read_all(store)
    if found != new:
        assert_same(found, old)
    return found == new


def problem(flow: ps.Flow, store: Path) -> str:
    """What a build says that fails; nothing if it does not."""
    try:
        flow.run(store)
    except StoreError as err:
        return str(err)
    return ""


def main() -> None:
    disk, world = Path(sys.argv[1]), Path(sys.argv[2])
    store, filler = disk / "store", disk / "filler"
    old, new = read_all(world / "before"), read_all(world / "after")
    flow = ps.Flow(source=ps.files(world / "tree"), steps=steps(str(world / "model")))
    num_full = 0
    for free_kb in FREE_KB:
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(world / "before", store)
        fill(filler, disk, free_kb)
        told = problem(flow, store)
        assert "the disk is full" in told or told == ""
        assert is_new(store, old, new) == (told == "")
        num_full += told != ""
        filler.unlink()
        flow.run(store)
        assert is_new(store, old, new)

    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
    assert is_new(store, old, new)
    assert "cannot be written" in problem(flow, store)
    print(num_full)


if __name__ == "__main__":
    main()
