"""Accounting: what is counted, that the times add up, and what the bottleneck is."""

import asyncio
import time
from typing import Any

import pytest

from penstock.engine import Monitor, Stage, StageStats, bottleneck, run_stages


def pause(item: int) -> int:
    time.sleep(0.004)
    return item


async def pause_async(item: int) -> int:
    await asyncio.sleep(0.004)
    return item


def test_a_monitor_knows_nothing_before_the_run() -> None:
    assert Monitor().snapshot() == ()
    assert bottleneck(()) == ""


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_busy_starved_and_blocked_add_up_to_wall_time_times_width(kind: Any) -> None:
    monitor = Monitor()
    stages = [
        Stage(name="quick", function=lambda item: item, width=2, count=lambda item: 10),
        Stage(
            name="slow", function=pause if kind == "threads" else pause_async, kind=kind, width=3
        ),
        Stage(name="last", function=lambda item: item),
    ]
    out = list(run_stages(range(120), stages, monitor=monitor))
    stats = {stage.name: stage for stage in monitor.snapshot()}

    assert len(out) == 120
    assert list(stats) == ["source", "quick", "slow", "last", "sink"]
    assert {(s.items_in, s.items_out, s.queue_depth) for s in stats.values()} == {(120, 120, 0)}
    assert stats["quick"].rows_out == 1200
    assert stats["slow"].rows_out == stats["sink"].rows_out == 120
    wall = stats["source"].total_s
    for stage in stats.values():
        assert stage.total_s == pytest.approx(wall * stage.width, rel=1e-6)
        assert stage.busy + stage.starved + stage.blocked == pytest.approx(1.0)
    # A sleep lasts at least as long as it is told: 120 of 4 ms.
    assert stats["slow"].busy_s >= 0.48
    assert stats["slow"].busy > 0.5
    assert stats["quick"].blocked > stats["quick"].busy
    assert stats["last"].starved > stats["last"].busy
    assert bottleneck(tuple(stats.values())).startswith("slow: busy ")
    assert monitor.snapshot() == monitor.snapshot()  # the clocks stand still


@pytest.mark.parametrize("slow", ["source", "sink"])
def test_source_and_sink_can_be_the_bottleneck(slow: str) -> None:
    monitor = Monitor()
    items = map(pause, range(60)) if slow == "source" else range(60)
    for item in run_stages(items, [Stage(name="s", function=lambda i: i)], monitor=monitor):
        if slow == "sink":
            pause(item)

    assert bottleneck(monitor.snapshot()).startswith(f"{slow}: busy ")


def test_a_stage_without_more_input_is_starved_until_the_run_ends() -> None:
    monitor = Monitor()
    stages = [
        Stage(name="quick", function=lambda i: i, queue=50),
        Stage(name="slow", function=pause, queue=50),
    ]
    list(run_stages(range(40), stages, monitor=monitor))
    source, quick, *_ = monitor.snapshot()

    assert source.starved > 0.6
    assert quick.starved > 0.6


def test_a_call_that_goes_on_is_counted_as_it_goes() -> None:
    monitor = Monitor()
    iterator = run_stages(range(3), [Stage(name="s", function=pause)], monitor=monitor)
    next(iterator)
    first = monitor.snapshot()[-1].busy_s
    time.sleep(0.02)

    assert monitor.snapshot()[-1].busy_s >= first + 0.02
    iterator.close()


def test_the_queue_never_holds_more_than_its_size() -> None:
    monitor = Monitor()
    stages = [Stage(name="a", function=lambda i: i, width=2), Stage(name="b", function=pause)]
    depths = []
    for _ in run_stages(range(40), stages, monitor=monitor):
        stats = monitor.snapshot()[2]
        depths.append(stats.queue_depth)
        assert 0 <= stats.queue_depth <= stats.queue_size

    assert max(depths) > 0


def test_runs_with_one_monitor_add_up_by_name() -> None:
    monitor = Monitor()
    for names in ("a", "ab"):
        stages = [Stage(name=name, function=lambda i: i) for name in names]
        list(run_stages(range(10), stages, monitor=monitor))

    counts = [(stage.name, stage.items_out) for stage in monitor.snapshot()]
    assert counts == [("source", 20), ("a", 20), ("b", 10), ("sink", 20)]


def test_the_bottleneck_sentence() -> None:
    stats = (
        StageStats(name="source", busy_s=1, blocked_s=9),
        StageStats(name="chunk", busy_s=3, blocked_s=7),
        StageStats(name="embed", width=2, busy_s=19.2, starved_s=0.8),
        StageStats(name="sink", starved_s=9.5, busy_s=0.5),
    )

    assert bottleneck(stats) == (
        "embed: busy 96 % of 2 workers; the stages before it were blocked 80 % of the time; "
        "sink was starved 95 % of the time"
    )
