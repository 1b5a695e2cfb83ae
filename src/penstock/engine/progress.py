"""Show how a run goes: live lines on a terminal, log lines elsewhere, JSON for machines.

All three say the same facts (`Progress.facts`). One thread draws them; whoever
has a message only drops it in a queue, which is allowed even in a signal handler.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from penstock.engine.monitor import Monitor, StageStats, bottleneck
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

Mode = Literal["auto", "rich", "plain", "json", "none"]

_FIRST_S, _EVERY_S = 2.0, 10.0  # log lines: soon once, to show that it goes, then rarely
_DRAW_S, _SLOWEST_DRAW_S = 0.25, 1.0  # live lines
_DRAW_SHARE = 0.005  # of one core that drawing should take
_WINDOW_S = 10.0  # rates are over this long
_BAR = 4  # marks in a queue's bar


@contextmanager
def show_progress(
    phases: Sequence[str] = (), mode: Mode = "auto", stream: TextIO | None = None
) -> Iterator[Progress]:
    """Show the phases of a run while they go on.

    Args:
        phases: Their names in order, to count them ("2/5"); a phase that is not
            among them is shown without a number.
        mode: ``auto`` is ``rich`` on a terminal and ``plain`` elsewhere.
        stream: Where to; standard error if not given. A stream that breaks ends
            the showing, never the run.
    """
    stream = sys.stderr if stream is None else stream
    if mode not in ("auto", "rich", "plain", "json", "none"):
        raise ConfigError("mode", mode, "must be auto, rich, plain, json or none")
    if mode == "auto":
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        mode = "rich" if terminal else "plain"
    progress = Progress(tuple(phases), _view(mode, stream))
    try:
        yield progress
    finally:
        progress.close()


@dataclass(slots=True)
class _Phase:
    """A phase that goes on."""

    name: str
    total: int | None
    monitor: Monitor = field(default_factory=Monitor)
    began: float = field(default_factory=time.perf_counter)
    samples: deque[tuple[float, dict[str, int]]] = field(default_factory=deque)


class Progress:
    """What a run tells of itself; made by `show_progress`."""

    def __init__(self, phases: tuple[str, ...], view: _View | None) -> None:
        self._phases, self._view = phases, view
        self._began = time.perf_counter()
        self._phase: _Phase | None = None
        # Its `put` may interrupt itself, as a signal handler does; it is also
        # what the drawing thread sleeps on. None ends that thread.
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if view is not None:
            self._thread = threading.Thread(
                target=self._draw, args=(view,), name="penstock-progress", daemon=True
            )
            self._thread.start()

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Monitor]:
        """Show one phase until the block ends.

        Args:
            name: One of the phases that were announced.
            total: How many rows will leave its last stage, if known: gives the
                share done and the time left.

        Yields:
            The monitor to give to `run_stages`, to several of them one after
            another if need be.
        """
        phase = _Phase(name, total)
        self._phase = phase
        outcome = "failed"
        try:
            yield phase.monitor
            outcome = "done"
        except (KeyboardInterrupt, GeneratorExit):
            outcome = "stopped"
            raise
        finally:
            self._phase = None
            if self._view is not None:
                self._events.put({"event": outcome, **self.facts(phase)})

    def message(self, text: str) -> None:
        """Show a line among the others. Safe in any thread and in signal handlers."""
        if self._view is not None:
            self._events.put({"event": "message", "text": text})

    def close(self) -> None:
        """Show what is left to show, and stop."""
        if self._thread is not None:
            self._events.put(None)
            self._thread.join()
            self._thread = None

    def facts(self, phase: _Phase) -> dict[str, Any]:
        """Everything that is shown about a phase, as JSON could hold it; times in seconds."""
        now = time.perf_counter()
        stats = phase.monitor.snapshot()
        rates = _rates(phase, stats, now)
        done = stats[-1].rows_out if stats else 0
        rate = rates.get("sink", 0.0)
        left = None if phase.total is None else max(0, phase.total - done)
        return {
            "phase": phase.name,
            "number": self._phases.index(phase.name) + 1 if phase.name in self._phases else None,
            "phases": len(self._phases),
            "elapsed_s": round(now - phase.began, 3),
            "run_s": round(now - self._began, 3),
            "done": done,
            "total": phase.total,
            "rate": round(rate, 3),
            "eta_s": round(left / rate, 1) if left is not None and rate > 0 else None,
            "stages": [
                {
                    "name": stage.name,
                    "width": stage.width,
                    "items": stage.items_out,
                    "rows": stage.rows_out,
                    "rate": round(rates[stage.name], 3),
                    "queue": stage.queue_depth,
                    "queue_size": stage.queue_size,
                    "busy": round(stage.busy, 4),
                    "starved": round(stage.starved, 4),
                    "blocked": round(stage.blocked, 4),
                }
                for stage in stats
            ],
            "bottleneck": bottleneck(stats),
        }

    def _draw(self, view: _View) -> None:
        """Body of the drawing thread."""
        try:
            with view:
                due = time.perf_counter() + view.pause_s
                while True:
                    with suppress(queue.Empty):
                        event = self._events.get(timeout=max(0.001, due - time.perf_counter()))
                        if event is None:
                            return
                        view.say(event)
                        continue
                    began = time.thread_time()
                    if (phase := self._phase) is not None:
                        view.show(self.facts(phase))
                    cost = time.thread_time() - began
                    # The first drawing is slow, as it loads rich: hence the limit.
                    pause = max(view.pause_s, min(cost / _DRAW_SHARE, _SLOWEST_DRAW_S))
                    due = time.perf_counter() + pause
        except (OSError, ValueError):
            # The terminal went away, or someone closed the stream: nobody looks
            # any more, and the run goes on.
            self._view = None


def _rates(phase: _Phase, stats: Sequence[StageStats], now: float) -> dict[str, float]:
    """Rows a second of every stage, over the last seconds or since the phase began."""
    rows = {stage.name: stage.rows_out for stage in stats}
    samples = phase.samples
    if not samples:
        samples.append((phase.began, {}))
    while len(samples) > 1 and samples[1][0] <= now - _WINDOW_S:
        samples.popleft()
    since, before = samples[0]
    if now - samples[-1][0] >= _WINDOW_S / 40:
        samples.append((now, rows))
    seconds = max(now - since, 1e-9)
    return {name: (count - before.get(name, 0)) / seconds for name, count in rows.items()}


class _View(Protocol):
    """One way to show facts. Entered and used by the drawing thread alone."""

    pause_s: float
    """Until the next `show`, at least."""

    def __enter__(self) -> object: ...
    def __exit__(self, *error: object) -> None: ...
    def show(self, facts: dict[str, Any]) -> None: ...
    def say(self, event: dict[str, Any]) -> None: ...


def _view(mode: str, stream: TextIO) -> _View | None:
    if mode == "none":
        return None
    if mode == "rich":
        return _Live(stream)
    return _Lines(stream, as_json=mode == "json")


class _Lines:
    """Log lines, as text or as JSON objects."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream, self._as_json = stream, as_json
        self.pause_s = _FIRST_S

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def show(self, facts: dict[str, Any]) -> None:
        self.pause_s = _EVERY_S
        self._write({"event": "progress", **facts})

    def say(self, event: dict[str, Any]) -> None:
        self._write(event)

    def _write(self, event: dict[str, Any]) -> None:
        line = json.dumps(event) if self._as_json else _encodable(_line(event), self._stream)
        self._stream.write(f"{line}\n")
        self._stream.flush()


class _Live:
    """Lines on a terminal that change in place."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream = stream
        self._marks = _marks(stream)
        self.pause_s = _DRAW_S
        self._console = Console(file=stream, force_terminal=True, highlight=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            # What others print goes above the lines, unless it goes elsewhere.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, facts: dict[str, Any]) -> None:
        self._live.update(_table(facts, self._marks), refresh=True)

    def say(self, event: dict[str, Any]) -> None:
        from rich.text import Text

        if event["event"] != "message":
            self._live.update(Text(), refresh=True)  # the phase is over
        self._console.print(Text(_encodable(_line(event), self._stream)))


def _table(facts: dict[str, Any], marks: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "left", "right", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    for stage in facts["stages"]:
        slowest = facts["bottleneck"].startswith(f"{stage['name']}:")
        table.add_row(
            Text(f"  {stage['name']} x{stage['width']}", style="bold" if slowest else ""),
            f"{_rate(stage['rate'])} rows/s",
            _bar(stage["queue"], stage["queue_size"], marks),
            f"busy {stage['busy']:.0%}",
            f"starved {stage['starved']:.0%}",
            f"blocked {stage['blocked']:.0%}",
        )
    whole = Table.grid()
    whole.add_row(Text(_head(facts), style="bold"))
    whole.add_row(table)
    return whole


def _line(event: dict[str, Any]) -> str:
    """An event as one line of text."""
    if event["event"] == "message":
        return str(event["text"])
    if event["event"] == "progress":
        slowest = f"; {event['bottleneck']}" if event["bottleneck"] else ""
        return f"{_head(event)}{slowest}"
    seconds = max(event["elapsed_s"], 1e-3)
    text = f"{_title(event)}: {event['event']} in {_duration(event['elapsed_s'])}"
    if event["stages"]:
        text += f", {event['done']:,} rows ({_rate(event['done'] / seconds)} rows/s)"
    return f"{text}; {event['bottleneck']}" if event["bottleneck"] else text


def _head(facts: dict[str, Any]) -> str:
    text = f"{_title(facts)}: "
    if facts["stages"]:
        text += f"{facts['done']:,}"
        if facts["total"]:
            text += f" of {facts['total']:,} rows ({facts['done'] / facts['total']:.0%})"
        else:
            text += " rows"
        text += f", {_rate(facts['rate'])} rows/s, "
    text += _duration(facts["elapsed_s"])
    if facts["eta_s"] is not None:
        text += f", {_duration(facts['eta_s'])} left"
    return text


def _title(facts: dict[str, Any]) -> str:
    return (
        f"{facts['number']}/{facts['phases']} {facts['phase']}"
        if facts["number"]
        else str(facts["phase"])
    )


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {whole:02} s" if minutes else f"{whole} s"


def _bar(depth: int, size: int, marks: str) -> str:
    if not size:
        return ""
    full = min(_BAR, -(-depth * _BAR // size))  # rounded up: one item shows
    return marks[0] * full + marks[1] * (_BAR - full)


def _marks(stream: TextIO) -> str:
    try:
        "▮▯".encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "#-"
    return "▮▯"


def _encodable(text: str, stream: TextIO) -> str:
    """The text with what the stream cannot show (a stray surrogate of a file name) escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)
