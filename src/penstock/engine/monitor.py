"""Who works and who waits: per-stage accounting of a run, and what it says about the bottleneck.

Every worker has a clock of its own that is always in one of three states: busy
(running the function), starved (waiting for input) or blocked (its output has
nowhere to go). Switching builds one tuple and takes no lock; adding the clocks
up is left to the one who asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

BUSY, STARVED, BLOCKED = 0, 1, 2


class Clock:
    """Seconds that one worker spent in each state, the current one included."""

    __slots__ = ("_now",)

    def __init__(self, at: float) -> None:
        # One tuple, replaced whole, so that a reader never sees half a switch.
        self._now: tuple[float, float, float, int, float] = (0.0, 0.0, 0.0, STARVED, at)

    def switch(self, state: int, at: float) -> None:
        """Enter a state at this time of `time.perf_counter`."""
        self._now = (*self.seconds(at), state, at)

    def seconds(self, at: float) -> tuple[float, float, float]:
        """Busy, starved and blocked seconds until this time."""
        busy, starved, blocked, state, since = self._now
        spent = max(0.0, at - since)
        if state == BUSY:
            return busy + spent, starved, blocked
        if state == STARVED:
            return busy, starved + spent, blocked
        return busy, starved, blocked + spent


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStats:
    """What a stage has done so far.

    The three times add up to the wall time times the width.

    Attributes:
        name: The stage; ``source`` and ``sink`` are where items come from and go to.
        width: Its workers.
        items_in: Items that it has begun.
        items_out: Items that it has finished.
        rows_out: Rows in those, as the stage's `count` says.
        busy_s: Seconds in the stage's function, summed over workers.
        starved_s: Seconds waiting for input.
        blocked_s: Seconds waiting because the output had nowhere to go.
        queue_depth: Finished items that wait in front of it now.
        queue_size: How many may wait there.
    """

    name: str
    width: int = 1
    items_in: int = 0
    items_out: int = 0
    rows_out: int = 0
    busy_s: float = 0.0
    starved_s: float = 0.0
    blocked_s: float = 0.0
    queue_depth: int = 0
    queue_size: int = 0

    @property
    def total_s(self) -> float:
        """Seconds of all its workers together."""
        return self.busy_s + self.starved_s + self.blocked_s

    @property
    def busy_per_item_s(self) -> float:
        """Mean time that a worker spends on an item; 0 before the first."""
        return self.busy_s / self.items_in if self.items_in else 0.0

    @property
    def busy(self) -> float:
        """Share of its time in its function, in [0, 1]."""
        return _share(self.busy_s, self.total_s)

    @property
    def starved(self) -> float:
        """Share of its time waiting for input, in [0, 1]."""
        return _share(self.starved_s, self.total_s)

    @property
    def blocked(self) -> float:
        """Share of its time with nowhere to put its output, in [0, 1]."""
        return _share(self.blocked_s, self.total_s)


class Track:
    """A stage's counters while it runs: written by the engine, read by a monitor."""

    __slots__ = (
        "clocks",
        "depth",
        "ended_at",
        "items_in",
        "items_out",
        "name",
        "queue",
        "rows_out",
        "width",
    )

    def __init__(self, name: str, width: int, queue: int, at: float) -> None:
        self.name, self.width, self.queue = name, width, queue
        self.clocks = tuple(Clock(at) for _ in range(width))
        self.depth = self.items_in = self.items_out = self.rows_out = 0
        self.ended_at: float | None = None

    def stats(self, at: float) -> StageStats:
        """The sum of all workers until this time, or until the run's end."""
        if self.ended_at is not None:
            at = self.ended_at
        rows_out, items_out = self.rows_out, self.items_out  # before `in`: never more out than in
        busy, starved, blocked = (
            sum(column) for column in zip(*(c.seconds(at) for c in self.clocks), strict=True)
        )
        return StageStats(
            name=self.name,
            width=self.width,
            items_in=self.items_in,
            items_out=items_out,
            rows_out=rows_out,
            busy_s=busy,
            starved_s=starved,
            blocked_s=blocked,
            queue_depth=self.depth,
            queue_size=self.queue,
        )


class Monitor:
    """Watch a run, or several one after another, from any thread.

    Give it to `run_stages` and ask for a `snapshot` whenever you like. Runs
    that share a monitor add up, stage by stage, by name.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two below, never taken per item
        self._tracks: tuple[Track, ...] = ()
        self._past: dict[str, StageStats] = {}

    def attach(self, tracks: Sequence[Track]) -> None:
        """Watch these stages from now on; the engine calls it when a run begins."""
        now = time.perf_counter()
        with self._lock:
            self._past = self._merged(now)
            self._tracks = tuple(tracks)

    def snapshot(self) -> tuple[StageStats, ...]:
        """Every stage in order, from ``source`` to ``sink``; empty before a run begins."""
        now = time.perf_counter()
        with self._lock:
            merged = self._merged(now)
        # A later run may have brought new stages; the sink stays last.
        return tuple(sorted(merged.values(), key=lambda stats: stats.name == "sink"))

    def _merged(self, now: float) -> dict[str, StageStats]:
        merged = dict(self._past)
        for track in self._tracks:
            stats = track.stats(now)
            past = merged.get(track.name)
            merged[track.name] = stats if past is None else _added(past, stats)
        return merged


def bottleneck(stats: Sequence[StageStats]) -> str:
    """Say in one sentence which stage limits the run: the one with the largest busy share.

    The sentence names what confirms it: the stages before it were blocked and
    those after it were starved. Empty if nothing has run.
    """
    timed = [stage for stage in stats if stage.total_s > 0]
    if not timed:
        return ""
    place = max(range(len(timed)), key=lambda i: timed[i].busy)
    slowest, before, after = timed[place], timed[:place], timed[place + 1 :]
    workers = "1 worker" if slowest.width == 1 else f"{slowest.width} workers"
    parts = [f"{slowest.name}: busy {_percent(slowest.busy)} of {workers}"]
    if before:
        blocked = _share(sum(s.blocked_s for s in before), sum(s.total_s for s in before))
        who = "the stages before it were" if len(before) > 1 else f"{before[0].name} was"
        parts.append(f"{who} blocked {_percent(blocked)} of the time")
    if after:
        starved = _share(sum(s.starved_s for s in after), sum(s.total_s for s in after))
        who = "the stages after it were" if len(after) > 1 else f"{after[0].name} was"
        parts.append(f"{who} starved {_percent(starved)} of the time")
    return "; ".join(parts)


def _added(past: StageStats, stats: StageStats) -> StageStats:
    return replace(
        stats,
        items_in=past.items_in + stats.items_in,
        items_out=past.items_out + stats.items_out,
        rows_out=past.rows_out + stats.rows_out,
        busy_s=past.busy_s + stats.busy_s,
        starved_s=past.starved_s + stats.starved_s,
        blocked_s=past.blocked_s + stats.blocked_s,
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
