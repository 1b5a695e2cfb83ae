"""The threads of a run: they pull items, run functions and close what they opened."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.engine.cancel import Cancel
from penstock.engine.monitor import Monitor
from penstock.engine.processes import Worker, pack_work
from penstock.engine.schedule import Schedule, Seat, Station, Task
from penstock.errors import ConfigError, WorkerDied

if TYPE_CHECKING:
    from penstock.engine.pools import Stage

_SINK_QUEUE = 2  # finished items that may wait for the consumer
_CHECK_S = 0.1  # how often a waiting consumer looks whether the run was aborted
_HASTE_S = 5.0  # how long an interrupted run waits for functions that cannot be cut short


class Run:
    """One execution of stages: its threads, and what the consumer sees of them."""

    def __init__(
        self, items: Iterable[Any], stages: Sequence[Stage], monitor: Monitor, cancel: Cancel
    ) -> None:
        self._items: Iterable[Any] | None = items
        self._stages = tuple(stages)
        self._monitor, self._cancel = monitor, cancel
        self._threads: list[threading.Thread] = []
        # Pickled here, so that what cannot be sent fails in the caller's line.
        self._work = {s.name: _packed(s) for s in self._stages if s.kind == "processes"}

    def start(self) -> None:
        """Start all threads. Resources and processes wait for their first item."""
        widths = [
            (stage.name, stage.width, stage.queue or 2 * stage.width) for stage in self._stages
        ]
        self._schedule = Schedule(
            [("source", 1, 0), *widths, ("sink", 1, _SINK_QUEUE)], self._cancel
        )
        stations = self._schedule.stations
        self._monitor.attach([station.track for station in stations])
        _stop_at_exit().add(self)
        self._gate = _gate(stations[-1].seats[0])
        for stage, station in zip(self._stages, stations[1:-1], strict=True):
            if stage.kind == "async":
                self._spawn(stage.name, _serve_async, self._schedule, station, stage)
                continue
            for seat in station.seats:
                make = self._maker(stage, seat)
                self._spawn(stage.name, _serve, self._schedule, station, seat, stage, make)
        items, self._items = self._items, None
        self._spawn("source", _feed, self._schedule, stations[0], items, self._cancel)

    def take(self) -> list[Any] | None:
        """Wait for the next result; a list of one, or None at the end. The consumer's side."""
        sink = self._schedule.stations[-1]
        seat = sink.seats[0]
        self._schedule.request(sink, seat)
        while not self._gate.acquire(timeout=_CHECK_S):
            if self._cancel.is_aborted():
                self._schedule.stop()
        task = seat.take()
        if task is None:
            return None
        sink.track.items_out += 1
        sink.track.rows_out += task.num_rows
        return [task.item]

    def is_aborted(self) -> bool:
        """Whether the run was told to stop at once."""
        return self._cancel.is_aborted()

    def close(self, *, in_haste: bool = False) -> None:
        """Stop whatever still runs and wait for all threads.

        Args:
            in_haste: Leave threads behind whose function does not return in a
                few seconds, because someone waits at the keyboard.
        """
        if threading.current_thread() in self._threads:
            # The garbage collector dropped the consumer's iterator in here, with
            # who knows what locks held.
            threading.Thread(target=self.close, name="penstock-close", daemon=True).start()
            return
        if hasattr(self, "_schedule"):
            self._schedule.stop()
        deadline = time.monotonic() + _HASTE_S if in_haste else None
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def raise_first_error(self) -> None:
        """Raise what ended the run, if anything did."""
        error, self._schedule.error = self._schedule.error, None
        if error is None:
            return
        if self._schedule.num_suppressed:
            error.add_note(f"Errors that came after it: {self._schedule.num_suppressed}.")
        try:
            if isinstance(error, StopIteration):  # a generator may not raise it
                wrapped = RuntimeError("a stage or the source raised StopIteration")
                for note in error.__notes__:
                    wrapped.add_note(note)
                raise wrapped from error
            raise error
        finally:
            del error  # the traceback holds this frame: no cycle

    def _maker(self, stage: Stage, seat: Seat) -> Callable[[], _Made]:
        if stage.kind == "processes":
            return lambda: _process(stage, self._work[stage.name], seat, self._schedule)
        return lambda: _local(stage)

    def _spawn(self, name: str, body: Callable[..., object], *args: Any) -> None:
        # Daemon threads, because Python waits for others before it runs exit
        # handlers, and ours are what ends them.
        thread = threading.Thread(target=body, args=args, name=f"penstock-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)


def _feed(schedule: Schedule, station: Station, items: Iterable[Any], cancel: Cancel) -> None:
    """Body of the source's thread."""
    seat = station.seats[0]
    gate = _gate(seat)
    task, iterator = None, None
    try:
        iterator = iter(items)
        del items
        schedule.request(station, seat)
        while (task := _wait(gate, seat)) is not None:
            if cancel.is_set():
                schedule.end(station, task.out)
                break
            try:
                item = next(iterator)
            except StopIteration:
                schedule.end(station, task.out)
                break
            schedule.request(station, seat, task.out, item, 1)
            del item
        task = None
        if isinstance(iterator, GeneratorType):
            iterator.close()  # not any iterator: a file is its owner's to close
    except BaseException as error:
        schedule.fail("the source", task, error)


def _serve(
    schedule: Schedule, station: Station, seat: Seat, stage: Stage, make: Callable[[], _Made]
) -> None:
    """Body of one worker's thread."""
    gate = _gate(seat)
    where = f"stage {stage.name!r}"
    task, made = None, None
    try:
        schedule.request(station, seat)
        while (task := _wait(gate, seat)) is not None:
            if made is None:
                where = f"stage {stage.name!r}, while it opened its resource"
                made = make()
                where = f"stage {stage.name!r}"
            item = made.call(task.item)
            num_rows = 1 if stage.count is None else stage.count(item)
            out, task = task.out, None
            schedule.request(station, seat, out, item, num_rows)
            del item, out
    except BaseException as error:
        seat.interrupt = None  # this worker may still close its resource in peace
        _fail(schedule, where, task, error)
    seat.interrupt = None
    try:
        if made is not None:
            made.close()
    except BaseException as error:
        _fail(schedule, f"stage {stage.name!r}, while it closed its resource", None, error)


def _serve_async(schedule: Schedule, station: Station, stage: Stage) -> None:
    """Body of the one thread of an async stage."""
    try:
        asyncio.run(_serve_tasks(schedule, station, stage))
    except BaseException as error:
        _fail(schedule, f"stage {stage.name!r}, while it closed its resource", None, error)


async def _serve_tasks(schedule: Schedule, station: Station, stage: Stage) -> None:
    opened: asyncio.Task[Any] | None = None

    async def resource() -> Any:
        nonlocal opened
        if opened is None:  # the first task opens it and the others wait with it
            opened = asyncio.ensure_future(_open_async(stage))
        return await asyncio.shield(opened)

    workers = [
        asyncio.ensure_future(_serve_task(schedule, station, seat, stage, resource))
        for seat in station.seats
    ]
    await asyncio.gather(*workers, return_exceptions=True)
    if opened is not None and (not opened.done() or opened.exception() is None):
        close = getattr(await opened, "close", None)
        closed = close() if close is not None else None
        if inspect.isawaitable(closed):
            await closed


async def _open_async(stage: Stage) -> Any:
    resource = stage.open() if stage.open is not None else None
    return await resource if inspect.isawaitable(resource) else resource


async def _serve_task(
    schedule: Schedule,
    station: Station,
    seat: Seat,
    stage: Stage,
    resource: Callable[[], Awaitable[Any]],
) -> None:
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    me = asyncio.current_task()
    assert me is not None
    seat.wake = lambda: _soon(loop, woken.set)
    seat.interrupt = lambda: _soon(loop, me.cancel)
    task, where = None, f"stage {stage.name!r}"
    try:
        schedule.request(station, seat)
        while True:
            await woken.wait()
            woken.clear()
            if (task := seat.take()) is None:
                return
            where = f"stage {stage.name!r}, while it opened its resource"
            args = (task.item,) if stage.open is None else (await resource(), task.item)
            where = f"stage {stage.name!r}"
            result = stage.function(*args)
            del args
            if not inspect.isawaitable(result):
                raise ConfigError(
                    f"function of stage {stage.name!r}",
                    stage.function,
                    'must be an async function, because the stage\'s kind is "async"',
                )
            item = await result
            num_rows = 1 if stage.count is None else stage.count(item)
            out, task = task.out, None
            schedule.request(station, seat, out, item, num_rows)
            del item, out, result
    except BaseException as error:
        _fail(schedule, where, task, error)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has ended: nobody is left to tell
        loop.call_soon_threadsafe(call)


class _Made(NamedTuple):
    """What a worker has made for itself: how it answers an item, and how it ends."""

    call: Callable[[Any], Any]
    close: Callable[[], object]


def _local(stage: Stage) -> _Made:
    function = stage.function
    if stage.open is None:
        return _Made(function, lambda: None)
    resource = stage.open()
    return _Made(lambda item: function(resource, item), getattr(resource, "close", lambda: None))


def _process(stage: Stage, work: bytes, seat: Seat, schedule: Schedule) -> _Made:
    worker = Worker(stage.name, work)
    seat.interrupt = worker.kill
    if schedule.stopping:  # it may have begun to stop before it could know of the worker
        worker.kill()
    return _Made(worker.call, worker.close)


def _packed(stage: Stage) -> bytes:
    try:
        return pack_work(stage.function, stage.open)
    except Exception as error:
        error.add_note(
            f"The function of stage {stage.name!r} cannot be sent to a process. Make what "
            'it holds in `open`, or use kind="threads".'
        )
        raise


def _gate(seat: Seat) -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    seat.wake = gate.release
    return gate


def _wait(gate: threading.Lock, seat: Seat) -> Task | None:
    gate.acquire()
    return seat.take()


def _fail(schedule: Schedule, where: str, task: Task | None, error: BaseException) -> None:
    # Workers that were cut short by the stop itself have nothing to report.
    if schedule.stopping and isinstance(error, WorkerDied | asyncio.CancelledError):
        return
    schedule.fail(where, task, error)


@cache
def _stop_at_exit() -> weakref.WeakSet[Run]:
    """The runs to stop when the interpreter exits before their consumer has ended."""
    runs: weakref.WeakSet[Run] = weakref.WeakSet()

    def stop() -> None:
        for run in list(runs):
            run.close(in_haste=True)

    atexit.register(stop)
    return runs
