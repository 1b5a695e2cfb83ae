"""Keep a store in step with a folder: what changes there is a run soon after.

The file system tells that something changed; what it is, a run finds out as
any run does. So an event that was lost, doubled or misread costs a moment and
never a wrong store.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.build.encoders import HeldEncoder
from penstock.build.plan import Plan
from penstock.build.report import RunReport
from penstock.build.run import run_once
from penstock.errors import MissingExtra, PenstockError, SourceError
from penstock.sources import Watched, files, watched
from penstock.store.places import open_place

_QUIET_MS = 50
"""A batch ends when nothing changed for this long, as when an editor has saved."""
_LONGEST_MS = 500
"""It ends then in any case, so that a long copy is searchable in parts."""
_TICK_MS = 250
_RETRY_S = (1.0, 60.0)
"""Waits between tries of a run that failed: the first, and the longest after doubling."""

# Sources never enter these.
_IGNORED = frozenset({".git", ".hg", ".svn"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some changes, and the run that took them in.

    Attributes:
        changed: How many files the file system told of; 0 for the first run and for a retry.
        report: The run; None where it failed.
        error: Why it failed; None where it did not. It is tried again.
        seconds: From when the changes were told to when they could be searched.
    """

    changed: int
    report: RunReport | None
    error: Exception | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The batch in JSON types."""
        return {
            "changed": self.changed,
            "seconds": round(self.seconds, 4),
            "run": None if self.report is None else self.report.run,
            "error": None if self.error is None else str(self.error),
            "report": None if self.report is None else self.report.to_json(),
        }


def watch_plan(
    make_plan: Callable[[], Plan],
    store: str | os.PathLike[str],
    stop: threading.Event | None = None,
) -> Iterator[Batch]:
    """See `penstock.Flow.watch`."""
    place = watched(make_plan().source)
    store_folder = open_place(store)
    with HeldEncoder() as encoder, tempfile.TemporaryDirectory() as scratch:
        waiting = _Waiting()
        first = True
        for changed in _changes(place, store_folder, stop):
            if not first and not waiting.is_due(changed):
                continue
            started = time.monotonic()
            try:
                report = run_once(make_plan(), store, encoder, only_changes=True)
            except (PenstockError, OSError) as err:
                if first:
                    raise
                waiting.failed()
                yield _batch(changed, None, err, started)
                continue
            waiting = _Waiting()
            if report is not None:
                yield _batch(changed, report, None, started)
            if first and (report is None or not report.counts.items_read):
                _warm_up(make_plan(), Path(scratch), encoder)
            first = False


def _batch(
    changed: int, report: RunReport | None, error: Exception | None, started: float
) -> Batch:
    seconds = time.monotonic() - started
    return Batch(changed=changed, report=report, error=error, seconds=seconds)


class _Waiting:
    """When a run that failed is tried again, if nothing changes meanwhile."""

    def __init__(self) -> None:
        self._wait, self._at = _RETRY_S[0], float("inf")

    def failed(self) -> None:
        """Wait, longer each time."""
        self._at = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, _RETRY_S[1])

    def is_due(self, changed: int) -> bool:
        """Whether to run now."""
        return changed > 0 or time.monotonic() >= self._at


def _changes(place: Watched, store: object, stop: threading.Event | None) -> Iterator[int]:
    """How many files have changed, some times a second; the watch is on before the first."""
    try:
        from watchfiles import watch
    except ImportError as err:
        raise MissingExtra("watch", "watching a folder") from err
    if not place.folder.is_dir():
        raise SourceError(str(place.folder), "there is no such folder")
    inside = f"{store.resolve()}{os.sep}" if isinstance(store, Path) else None

    def counts(_: object, path: str) -> bool:
        if inside is not None and f"{path}{os.sep}".startswith(inside):
            return False
        if place.only is not None:
            return os.path.basename(path) == place.only
        return _IGNORED.isdisjoint(Path(path).parts)

    while stop is None or not stop.is_set():
        identity = _identity(place.folder)
        for found in watch(
            place.folder.resolve(),
            watch_filter=counts,
            debounce=_LONGEST_MS,
            step=_QUIET_MS,
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
            stop_event=stop,
            recursive=place.only is None,
        ):
            yield len(found)
            if _identity(place.folder) != identity:
                break  # another folder has its name now, and the watch is on the old one
        else:
            return
        while _identity(place.folder) is None:
            if stop is not None and stop.is_set():
                return
            time.sleep(_TICK_MS / 1000)
            yield 0
        yield 1


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        facts = folder.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _warm_up(plan: Plan, scratch: Path, encoder: HeldEncoder) -> None:
    """Load what a run with something to do needs, so that the first batch is as quick as any.

    One document goes through the flow into a store of its own, but for steps
    that call a user's function.
    """
    (scratch / "docs").mkdir()
    (scratch / "docs/warm.md").write_text("# Warm\n\nUp.\n", encoding="utf-8")
    source = files(scratch / "docs")
    chain = tuple(
        step
        for step in plan.chain
        if not hasattr(step, "function") and type(step).__module__.startswith("penstock.")
    )
    small = replace(plan, source=source, chain=chain)
    with contextlib.suppress(PenstockError):
        for text in ("Up and away.\n", "Up, up.\n"):
            run_once(small, scratch / "store", encoder)
            (scratch / "docs/more.md").write_text(text, encoding="utf-8")
