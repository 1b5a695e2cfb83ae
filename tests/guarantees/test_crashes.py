"""A writer that is killed leaves the last run whole, and the next one ends as if nothing had been.

It is killed at calls that change files, one by one, and at any moment, in the
middle of what Lance and NumPy write. More of it in the nightly profile.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tests.guarantees.conftest import World, Writer
from tests.guarantees.stores import Contents, assert_same, read_all

import penstock as ps

NIGHTLY = settings.get_current_profile_name() == "nightly"

pytestmark = pytest.mark.slow

KILLED = -9

TELLING = {"write", "pwrite", "replace", "rename", "unlink", "mkdir", "rmdir"}
"""Calls that change what another process sees; the others are tried in the nightly profile."""


def one_of_two(found: Contents, world: World) -> bool:
    """Whether the new run is published; it or the old one has to be there, whole."""
    new = found == world.new
    if not new:
        assert_same(found, world.old)
    return new


def kill_over(world: World, writer: Writer, **how: Any) -> tuple[bool, bool]:
    """Kill a writer over a store, look, build: whether it died, and whether it had published."""
    store = world.copy()
    status, _ = writer.build(world.tree, store, world.model, **how)
    published = one_of_two(read_all(store), world)
    world.flow().run(store)

    assert status in (KILLED, 0)
    assert_same(read_all(store), world.new)
    return status == KILLED, published


@pytest.mark.parametrize("small", [True, False], ids=["many-checkpoints", "none"])
def test_killed_at_any_call_that_changes_files(world: World, writer: Writer, small: bool) -> None:
    status, calls = writer.build(world.tree, world.copy(), world.model, small=small)
    places = [n for n, name in enumerate(calls, 1) if NIGHTLY or name in TELLING]
    if not NIGHTLY:  # the last ones are those that publish
        places = sorted({*random.Random(1).sample(places, 5), *places[-3:]})
    outcomes = [
        kill_over(world, writer, kill_at=place, after=after, small=small)
        for place in places
        for after in ((False, True) if NIGHTLY or place in places[-3:] else (place % 2 == 0,))
    ]

    assert status == 0
    # How many calls there are depends a little on how threads take turns.
    assert sum(died for died, _ in outcomes) >= 0.9 * len(outcomes)
    published = [published for _, published in outcomes]
    assert published == sorted(published)  # once published, always
    assert {*published} == {True, False}


def test_killed_at_any_moment(world: World, writer: Writer) -> None:
    started = time.monotonic()
    writer.build(world.tree, world.copy(), world.model)
    whole = time.monotonic() - started
    draw = random.Random(2)
    outcomes = [
        kill_over(world, writer, kill_after_s=draw.uniform(0.02, whole))
        for _ in range(300 if NIGHTLY else 8)
    ]

    assert any(died for died, _ in outcomes)


def test_killed_again_and_again(world: World, writer: Writer) -> None:
    store, draw = world.copy(), random.Random(3)
    published = False
    for _ in range(100 if NIGHTLY else 6):
        writer.build(world.tree, store, world.model, kill_at=draw.randint(1, 250))
        now = one_of_two(read_all(store), world)
        assert now or not published
        published = now
    world.flow().run(store)

    assert_same(read_all(store), world.new)


def test_a_version_that_a_power_cut_left_empty_is_no_obstacle(world: World) -> None:
    store = world.copy()
    for versions in store.glob("*.lance/_versions"):
        newest = min(int(path.stem) for path in versions.glob("*.manifest"))
        (versions / f"{newest - 1}.manifest").touch()
    found = read_all(store)
    world.flow().run(store)

    assert_same(found, world.old)
    assert_same(read_all(store), world.new)


@pytest.mark.parametrize("phase", ["Documents", "Chunks"])
def test_killed_at_nine_tenths_a_long_stage_goes_on_from_there(
    phase: str, world: World, writer: Writer, memory: Path
) -> None:
    tree, store = memory / phase / "tree", memory / phase / "store"
    tree.mkdir(parents=True)
    for number in range(200):
        words = f"w{number % 7} w{number // 7} w{number % 60} w{number % 11}"
        (tree / f"{number:03}.md").write_text(words)
    num_rows = 180
    if phase == "Chunks":  # the twins among them are not cut
        fresh = ps.Flow(source=ps.files(tree), steps=world.flow().steps).run(memory / phase / "new")
        num_rows = fresh.chunks * 9 // 10
    status, _ = writer.build(tree, store, world.model, phase=phase, kill_after_rows=num_rows)
    report = ps.Flow(source=ps.files(tree), steps=world.flow().steps).run(store)
    counts = report.counts

    assert status == KILLED
    left = 200 - num_rows if phase == "Documents" else report.chunks - num_rows
    redone = counts.items_read if phase == "Documents" else counts.chunks_embedded
    assert 0 < redone <= left + 4  # a task or a window of two rows, and one that was under way
    assert phase == "Documents" or counts.items_read == 0
