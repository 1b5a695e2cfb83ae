"""Run items through stages: pools of workers joined by bounded queues, in the items' order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.engine.cancel import Cancel
from penstock.engine.monitor import Monitor
from penstock.engine.workers import Run
from penstock.errors import ConfigError

Kind = Literal["threads", "async", "processes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One function and the workers that run it.

    The function must treat each item by itself if `width` is above 1; with one
    worker it sees the items in order and may keep a state.
    """

    name: str
    """Names it in errors and in progress; unique in a run."""
    function: Callable[..., Any]
    """Item to item. For ``async`` an `async def`; with `open`, (resource, item) to item."""
    width: int = 1
    """How many items are worked on at once."""
    kind: Kind = "threads"
    """``threads`` for what releases the GIL, ``async`` for network calls (one
    thread with an event loop), ``processes`` for Python code that keeps the GIL:
    function and items are pickled, the workers are fresh interpreters that
    never import the main script."""
    queue: int = 0
    """Items that may wait in front of it; 0 for twice the width."""
    open: Callable[[], Any] | None = None
    """Makes the resource of one worker (a model, a file) inside that worker when
    its first item arrives; its `close` is called at the end if it has one. The
    tasks of an ``async`` stage share one, and both calls may be `async`."""
    count: Callable[[Any], int] | None = None
    """How many rows an output item stands for, for rates; one if not given."""

    def __post_init__(self) -> None:
        if not self.name or self.name in ("source", "sink"):
            raise ConfigError("Stage.name", self.name, "must be a name other than source and sink")
        if self.width < 1:
            raise ConfigError(f"width of stage {self.name!r}", self.width, "must be at least 1")
        if self.queue < 0:
            raise ConfigError(f"queue of stage {self.name!r}", self.queue, "must not be negative")
        if self.kind not in ("threads", "async", "processes"):
            raise ConfigError(
                f"kind of stage {self.name!r}", self.kind, "must be threads, async or processes"
            )
        if self.kind != "async" and inspect.iscoroutinefunction(self.function):
            raise ConfigError(
                f"kind of stage {self.name!r}", self.kind, "must be async for an async function"
            )


def run_stages(
    items: Iterable[Any],
    stages: Sequence[Stage],
    *,
    monitor: Monitor | None = None,
    cancel: Cancel | None = None,
) -> Generator[Any, None, None]:
    """Send items through stages and yield what comes out of the last, in the order of the items.

    Nothing starts before the first `next`. The iterator is a generator: closing
    it, dropping it or an exception in its consumer stops all workers and waits
    for them.

    Args:
        items: Pulled lazily by one thread. A generator is closed when the run ends early.
        stages: May be empty. Names are unique.
        monitor: Gets the accounting of every stage, of ``source`` and of ``sink``.
        cancel: Asks to stop: after `Cancel.set`, what the stage that takes longest
            for an item has begun is still delivered, and what waits before it is
            dropped; after `Cancel.abort`, nothing is delivered. The iterator then just
            ends, so look at `cancel.is_set` before taking the end for the end.

    Raises:
        ConfigError: Two stages share a name.
        Exception: The first that the items, a function or an `open` or `close`
            raised, as it was, with a note that names the stage and the item.
            Items are numbered from 0 as they come from the source. Everything
            else stops; what was delivered before is an unbroken run from the first item.
        WorkerDied: A worker process ended.

    Guarantees:
        Output order and content do not depend on widths, kinds or timing.
        Items that were pulled and not yet delivered: at most the sum of all
        widths and queues, plus three.

    Cost: about 20 us per item and stage.
    """
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("stages", name, "names two stages; give each its own name")
    return _deliver(Run(items, stages, monitor or Monitor(), cancel or Cancel()))


def _deliver(run: Run) -> Generator[Any, None, None]:
    # A function rather than a method: threads hold the run but not this
    # generator, so that dropping it stops them.
    interrupted = True
    try:
        run.start()
        while (boxed := run.take()) is not None:
            yield boxed.pop()  # held by nobody here while the consumer has it
        interrupted = False
    except (Exception, GeneratorExit):
        interrupted = False
        raise
    finally:
        run.close(in_haste=interrupted or run.is_aborted())
    run.raise_first_error()
