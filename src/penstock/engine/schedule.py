"""Who works on what next: the queues of a run, without any thread.

The idea that makes order and bounded memory one thing: a stage *reserves* a
slot in the next queue when it takes an item, not when it has finished it. So
every queue holds its items in the order of the source from the start, some of
them still being worked on; a stage may only take the first one, and only once
it is finished. A slow item at the head lets the others finish behind it until
the queue is full, and then everything before it waits. There is no reorder
buffer besides the queues, and a stage with one worker sees the items in order.

One lock guards all queues of a run. Workers that have nothing to do are listed,
and whoever changes a queue hands work to them directly (`Schedule._advance`),
so nobody is woken for nothing and no wake-up can be lost.
"""

from __future__ import annotations

import reprlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from penstock.engine.cancel import Cancel
from penstock.engine.monitor import BLOCKED, BUSY, STARVED, Clock, Track

_END: Any = object()  # stands in a queue after the last item


class _Slot:
    """A place in a queue, held for an item from the moment that it is begun."""

    __slots__ = ("item", "num_rows", "number", "ready")

    def __init__(self, number: int) -> None:
        self.number = number
        self.num_rows = 0
        self.item: Any = None
        self.ready = False


class Task(NamedTuple):
    """What a worker is given: an item, its number and rows, and where the result goes."""

    item: Any
    number: int
    num_rows: int
    out: _Slot | None


class Seat:
    """One worker: what it is to do next, and how it is told.

    Attributes:
        wake: Called, with the schedule's lock held, once `task` is there.
        interrupt: Called if the run stops while this worker is busy, to cut it
            short; None where nothing can.
        busy: Whether it has a task.
    """

    __slots__ = ("_clock", "busy", "interrupt", "task", "wake")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.task: Task | None = None
        self.wake: Callable[[], object] = _nothing
        self.interrupt: Callable[[], object] | None = None
        self.busy = False

    def take(self) -> Task | None:
        """The task that it was woken for, which the seat then forgets; None to go home."""
        task, self.task = self.task, None
        return task

    def give(self, task: Task | None, at: float) -> None:
        """Hand it a task, or None to send it home, and wake it."""
        self.task, self.busy = task, task is not None
        if task is not None:
            self._clock.switch(BUSY, at)
        self.wake()

    def wait(self, state: int, at: float) -> None:
        """Note why it has nothing to do."""
        self.busy = False
        self._clock.switch(state, at)


class Station:
    """A stage in a run: its workers and the queue in front of them.

    The source is a station whose items come from nowhere; the sink is one whose
    items go nowhere, and its one worker is the consumer.
    """

    __slots__ = ("after", "before", "ended", "idle", "inbox", "room", "seats", "track", "waits")

    def __init__(self, track: Track, room: int, before: Station | None) -> None:
        self.track, self.room, self.before = track, room, before
        self.after: Station | None = None
        if before is not None:
            before.after = self
        self.seats = tuple(Seat(clock) for clock in track.clocks)
        self.inbox: deque[_Slot] = deque()
        self.idle: list[Seat] = []
        self.waits = STARVED  # what its idle workers wait for
        self.ended = False


class Schedule:
    """The stations of a run in order, from the source to the sink.

    Attributes:
        stopping: No more work is given out. Read without the lock.
        error: The first thing that went wrong, with a note that says where.
        num_suppressed: How many errors came after it.
    """

    def __init__(self, widths: Sequence[tuple[str, int, int]], cancel: Cancel) -> None:
        """Lay out the stations.

        Args:
            widths: Name, width and queue size of each station.
            cancel: Once aborted, no more work is given out.
        """
        self._lock = threading.Lock()
        self._cancel = cancel
        self._last: Station | None = None
        self.stopping = False
        self.error: BaseException | None = None
        self.num_suppressed = 0
        now = time.perf_counter()
        stations: list[Station] = []
        for name, width, queue in widths:
            before = stations[-1] if stations else None
            # What is being worked on before it has its slots here, too.
            room = queue + before.track.width if before else 0
            stations.append(Station(Track(name, width, room, now), room, before))
        self.stations = tuple(stations)

    def request(
        self,
        station: Station,
        seat: Seat,
        out: _Slot | None = None,
        item: Any = None,
        num_rows: int = 0,
    ) -> None:
        """Hand in what a worker has finished, if anything, and ask for its next task.

        Returns at once; the seat is woken when there is a task or none will come.
        """
        with self._lock:
            now = time.perf_counter()
            seat.wait(station.waits, now)
            if self._cancel.is_aborted():
                self._stop()
            if self.stopping:
                seat.give(None, now)
                return
            station.idle.append(seat)
            if out is not None:
                station.track.items_out += 1
                station.track.rows_out += num_rows
                out.num_rows = num_rows
                self._fill(station, out, item)
            self._advance(station)

    def end(self, station: Station, out: _Slot | None) -> None:
        """Say that nothing comes at this slot or after it; the source's last act."""
        with self._lock:
            if self.stopping or out is None:
                return
            station.track.items_in -= 1  # it asked for one that was not there
            for seat in station.seats:
                seat.wait(STARVED, time.perf_counter())
            self._fill(station, out, _END)

    def fail(self, where: str, task: Task | None, error: BaseException) -> None:
        """Record an error and stop everything; only the first one counts."""
        with self._lock:
            if self.error is None:
                self.error = error
                error.add_note(_context(where, task))
            else:
                self.num_suppressed += 1
            self._stop()

    def stop(self) -> None:
        """Send all workers home and forget all items."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self.stopping:
            return
        self.stopping = True
        now = time.perf_counter()
        for station in self.stations:
            station.track.ended_at = now
            station.track.depth = 0
            station.inbox.clear()
            for seat in station.seats:
                if seat.busy and seat.interrupt is not None:
                    seat.interrupt()
            for seat in station.idle:
                seat.give(None, now)
            station.idle.clear()

    def _fill(self, station: Station, out: _Slot, item: Any) -> None:
        after = station.after
        assert after is not None
        out.item, out.ready = item, True
        if item is not _END:
            after.track.depth += 1
        if after.inbox[0] is out:
            self._advance(after)

    def _advance(self, station: Station) -> None:
        """Give a station's idle workers all the work there is; the lock is held.

        Called after each change that could let it go on: a worker came free,
        its first item was finished, or the queue behind it got room.
        """
        now = time.perf_counter()
        after = station.after
        while station.idle:
            first = station.inbox[0] if station.inbox else None
            if station.before is not None and (first is None or not first.ready):
                return self._note(station, STARVED, now)
            if (first is not None and first.item is _END) or self._is_cut_off(station, now):
                return self._finish(station, now)
            if after is not None and len(after.inbox) >= after.room:
                return self._note(station, BLOCKED, now)
            # The one that worked last: its caches are warm, and resources are
            # opened for as many workers as are needed.
            self._begin(station, station.idle.pop(), now)
            if station.before is not None:
                self._advance(station.before)  # its output has room again
        return None

    def _is_cut_off(self, station: Station, now: float) -> bool:
        """Whether a graceful stop ends the run here: what this station has begun is the last.

        That is the inner station that takes longest for an item. What waits
        before it would keep the user waiting; what is behind it is worth saving.
        """
        if not self._cancel.is_set():
            return False
        if self._last is None:
            inner = self.stations[1:-1] or self.stations[:1]
            self._last = max(inner, key=lambda each: each.track.stats(now).busy_per_item_s)
        return station is self._last

    def _begin(self, station: Station, seat: Seat, now: float) -> None:
        slot = _Slot(station.track.items_in)
        if station.before is not None:
            slot = station.inbox.popleft()
            station.track.depth -= 1
        station.track.items_in += 1
        out = None
        if station.after is not None:
            out = _Slot(slot.number)
            station.after.inbox.append(out)
        seat.give(Task(slot.item, slot.number, slot.num_rows, out), now)

    def _finish(self, station: Station, now: float) -> None:
        self._note(station, STARVED, now)
        for seat in station.idle:
            seat.give(None, now)
        station.idle.clear()
        if station.after is not None and not station.ended:
            end = _Slot(-1)
            station.after.inbox.append(end)  # behind what its other workers still hold
            self._fill(station, end, _END)
        station.ended = True

    def _note(self, station: Station, state: int, now: float) -> None:
        if station.waits != state:
            station.waits = state
            for seat in station.idle:
                seat.wait(state, now)


def _nothing() -> None: ...


def _context(where: str, task: Task | None) -> str:
    if task is None:
        return f"Raised in {where}."
    if task.out is not None and task.item is None:
        return f"Raised in {where}, item {task.number}."
    return f"Raised in {where}, item {task.number}: {_short(task.item)}"


def _short(item: object) -> str:
    """A few words about an item; the text of a record batch would print its rows."""
    kind = type(item).__name__
    num_rows = getattr(item, "num_rows", None)
    if isinstance(num_rows, int):
        return f"{kind} of {num_rows} rows"
    try:
        return _REPR.repr(item)
    except Exception as error:
        return f"{kind}, whose repr raised {type(error).__name__}"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
