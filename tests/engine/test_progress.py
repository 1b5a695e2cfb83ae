"""What a run shows of itself on a terminal, in a log and to a machine."""

import io
import json
import sys
import time
from collections.abc import Callable

import pytest

from penstock.engine import Progress, Stage, StageStats, progress, run_stages, show_progress
from penstock.errors import ConfigError


class Stream(io.StringIO):
    """A stream that may be a terminal and may be narrow-minded about letters."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = False) -> None:
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        text.encode(self._encoding)  # raises as a real stream would
        return super().write(text)


def a_run(show: Progress, items: int = 12, shown: Callable[[], bool] = lambda: True) -> None:
    """Run a phase whose last item waits until something is shown."""

    def work(item: int) -> int:
        time.sleep(0.01)
        return item

    with show.phase("read", total=items) as monitor:
        stages = [Stage(name="decode", function=work, width=2), Stage(name="hash", function=abs)]
        for item in run_stages(range(items), stages, monitor=monitor):
            deadline = time.monotonic() + 20
            while item == items - 2 and not shown() and time.monotonic() < deadline:
                time.sleep(0.005)


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_S", "_EVERY_S", "_DRAW_S"):
        monkeypatch.setattr(progress, name, 0.02)
    monkeypatch.setattr(progress, "_DRAW_SHARE", 1.0)


@pytest.mark.usefixtures("_often")
def test_plain_lines_tell_progress_and_the_end() -> None:
    stream = Stream()
    with show_progress(["read", "embed"], "auto", stream) as show:
        a_run(show, shown=lambda: " left; " in stream.getvalue())
        show.message("12 files skipped")
        with show.phase("embed"):
            pass
    lines = stream.getvalue().splitlines()

    assert "of 12 rows (" in lines[0]
    assert any(" s left; " in line and ": busy " in line for line in lines)
    ends = [line for line in lines if ": done in" in line]
    assert ends[0].startswith("1/2 read: done in 0.")
    assert ", 12 rows (" in ends[0]
    assert ": busy " in ends[0]
    assert ends[1].startswith("2/2 embed: done in 0.0 s")
    assert lines.index("12 files skipped") == lines.index(ends[0]) + 1


def test_a_quick_phase_is_one_plain_line() -> None:
    stream = Stream()
    with show_progress(["read"], "plain", stream) as show:
        a_run(show, items=2)

    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.usefixtures("_often")
def test_json_lines_hold_the_same_facts() -> None:
    stream = Stream("ascii")
    with show_progress(["read"], "json", stream) as show:
        a_run(show, shown=lambda: '"progress"' in stream.getvalue())
        show.message("ünreadable \udcff")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert {event["event"] for event in events} == {"progress", "done", "message"}
    assert events[-1] == {"event": "message", "text": "ünreadable \udcff"}
    done = events[-2]
    assert (done["phase"], done["number"], done["phases"]) == ("read", 1, 1)
    assert (done["done"], done["total"]) == (12, 12)
    assert [stage["name"] for stage in done["stages"]] == ["source", "decode", "hash", "sink"]
    assert {stage["rows"] for stage in done["stages"]} == {12}
    decode = done["stages"][1]
    assert decode["width"] == 2
    assert decode["busy"] + decode["starved"] + decode["blocked"] == pytest.approx(1, abs=1e-3)
    assert ": busy " in done["bottleneck"]
    assert done["rate"] > 0


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "▮"), ("ascii", "#")])
def test_a_terminal_shows_stages_queues_and_the_bottleneck(encoding: str, mark: str) -> None:
    stream = Stream(encoding, terminal=True)
    stdout = sys.stdout
    with show_progress(["read"], "auto", stream) as show:
        a_run(show, shown=lambda: " left" in stream.getvalue())
        show.message("caf\udce9 was skipped [red]")
    text = stream.getvalue()

    for fact in ("decode x2", "rows/s", "starved", "blocked", " left", mark):
        assert fact in text
    assert "1/1 read: done in " in text
    assert r"caf\udce9 was skipped [red]" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert sys.stdout is stdout


@pytest.mark.parametrize(
    ("error", "outcome"), [(ValueError, "failed"), (KeyboardInterrupt, "stopped")]
)
def test_a_phase_that_does_not_end_well_says_so(error: type[BaseException], outcome: str) -> None:
    stream = Stream()
    with (
        pytest.raises(error),
        show_progress(["read"], "plain", stream) as show,
        show.phase("read"),
    ):
        raise error

    assert stream.getvalue().startswith(f"1/1 read: {outcome} in 0.0 s")


def test_mode_none_shows_nothing_and_still_counts() -> None:
    stream = Stream()
    with show_progress(["read"], "none", stream) as show:
        show.message("hello")
        with show.phase("read") as monitor:
            list(run_stages(range(3), [], monitor=monitor))
        assert monitor.snapshot()[-1].items_out == 3

    assert stream.getvalue() == ""


def test_a_broken_stream_does_not_end_the_run() -> None:
    class Broken(Stream):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with show_progress(["read"], "plain", Broken()) as show:
        show.message("nobody hears this")
        a_run(show, items=3)
        show.message("nor this")


def test_an_unknown_mode_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="auto, rich, plain, json or none"),
        show_progress(
            mode="loud"  # type: ignore[arg-type]
        ),
    ):
        pass


@pytest.mark.parametrize(
    ("depth", "size", "expected"),
    [
        (0, 4, "--" * 2),
        (1, 100, "#---"),
        (2, 4, "##--"),
        (4, 4, "####"),
        (9, 4, "####"),
        (0, 0, ""),
    ],
)
def test_a_queue_is_a_bar_of_four(depth: int, size: int, expected: str) -> None:
    assert progress._bar(depth, size, "#-") == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")],
)
def test_durations_read_well(seconds: float, expected: str) -> None:
    assert progress._duration(seconds) == expected


def test_rates_are_over_the_last_seconds() -> None:
    phase = progress._Phase("read", None, began=0.0)
    rates = [
        progress._rates(phase, [StageStats(name="sink", rows_out=rows)], now)["sink"]
        for now, rows in [(1.0, 100), (10.0, 1000), (20.0, 1000), (31.0, 1000)]
    ]

    assert rates == [100, 100, 0, 0]
