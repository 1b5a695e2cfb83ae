"""Stages in worker processes: what travels there and back, and what happens when one dies."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.engine import Stage, run_stages
from penstock.engine.processes import _dumps, _loads, _parts, _receive_parts, _send_parts
from penstock.errors import WorkerDied


def run(function: Callable[..., Any], items: Any, **settings: Any) -> list[Any]:
    return list(
        run_stages(items, [Stage(name="work", function=function, kind="processes", **settings)])
    )


def test_lambdas_and_closures_run_elsewhere_in_order() -> None:
    factor = 3
    results = run(lambda item: (item * factor, os.getpid()), range(40), width=2)

    assert [value for value, _ in results] == [3 * i for i in range(40)]
    assert os.getpid() not in {pid for _, pid in results}
    assert len({pid for _, pid in results}) <= 2


class Counter:
    """A resource that lives in its worker."""

    def __init__(self) -> None:
        self.count = 0

    def close(self) -> None:
        Path(os.environ["PENSTOCK_TEST_FILE"]).write_text(f"closed after {self.count}")


def count(counter: Counter, item: int) -> tuple[int, int]:
    counter.count += 1
    return item, counter.count


def test_a_resource_is_opened_once_in_the_worker_and_closed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_FILE", str(tmp_path / "file"))

    assert run(count, range(5), open=Counter) == [(i, i + 1) for i in range(5)]
    assert (tmp_path / "file").read_text() == "closed after 5"


class BadRowError(ValueError):
    """An exception of the user's own, from a file that no worker can import."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row = row


class Unpicklable(Exception):  # noqa: N818
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def fail(item: int) -> None:
    raise BadRowError(item, "is bad")


def fail_unpicklably(item: int) -> None:
    raise Unpicklable("some", "thing")


def test_an_exception_keeps_type_facts_and_the_workers_traceback() -> None:
    with pytest.raises(BadRowError) as caught:
        run(fail, [5])

    assert caught.value.row == 5
    notes = "\n".join(caught.value.__notes__)
    assert 'raise BadRowError(item, "is bad")' in notes
    assert "stage 'work', item 0: 5" in notes


def test_an_exception_that_cannot_travel_arrives_as_its_text() -> None:
    with pytest.raises(RuntimeError, match="Unpicklable: something"):
        run(fail_unpicklably, [1])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "Was memory short"),
    ],
    ids=["exits", "is killed"],
)
def test_a_worker_that_dies_is_a_clear_error(how: Callable[[], None], expected: str) -> None:
    def die(item: int) -> int:
        if item == 4:
            how()
        return item

    with pytest.raises(WorkerDied, match=expected) as caught:
        run(die, range(50), width=2)

    assert caught.value.stage == "work"
    assert "stage 'work', item 4: 4" in caught.value.__notes__[0]


def test_a_death_is_noticed_although_a_grandchild_holds_the_connection(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def die(item: int) -> None:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        file.write_text(str(pid))
        os._exit(7)

    began = time.monotonic()
    with pytest.raises(WorkerDied, match="exit code 7"):
        run(die, [1])
    took = time.monotonic() - began
    os.kill(int(file.read_text()), signal.SIGKILL)

    assert took < 40  # the grandchild would have taken 60


def test_what_cannot_be_sent_is_refused_before_anything_starts() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError) as caught:
        run_stages([1], [Stage(name="work", function=lambda _: lock.locked(), kind="processes")])

    assert 'use kind="threads"' in caught.value.__notes__[0]


def test_a_result_that_cannot_be_sent_is_an_error_and_no_hang() -> None:
    with pytest.raises(TypeError, match="pickle") as caught:
        run(lambda _: sys._getframe(), [1])

    assert "cannot be pickled" in "\n".join(caught.value.__notes__)


def test_an_error_of_the_operating_system_is_not_taken_for_a_death() -> None:
    def refuse(item: int) -> None:
        raise ConnectionResetError("the service hung up")

    with pytest.raises(ConnectionResetError, match="hung up"):
        run(refuse, [1])


def test_batches_travel_and_a_slice_does_not_bring_its_parent() -> None:
    batch = pa.record_batch({"text": ["some text"] * 50_000, "n": np.arange(50_000)})
    part = batch.slice(7, 3)

    def work(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        return rows, rows.get_total_buffer_size()

    (whole, _), (back, size) = run(work, [batch, part])

    assert whole.equals(batch)
    assert back.equals(part)
    assert size < 2000
    assert len(_dumps(pa.table(part), None)) < 2000


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        np.zeros((0, 3)),
        np.arange(300_000),
        np.arange(12).reshape(3, 4)[:, ::2],
        [np.arange(3), {"a": bytearray(5)}],
    ],
    ids=["none", "empty", "empty array", "large array", "strided array", "nested"],
)
def test_messages_read_back_what_was_written(value: Any) -> None:
    here, there = socket.socketpair()
    with here, there:
        thread = threading.Thread(target=_send_parts, args=(here, _parts(value)))
        thread.start()
        back = _loads(_receive_parts(there, lambda: None))
        thread.join()

    np.testing.assert_equal(back, value)


def test_a_flow_file_loaded_from_its_path_need_not_be_importable(tmp_path: Path) -> None:
    file = tmp_path / "my_flow.py"
    file.write_text(
        "def helper(item):\n    return item + 1\n\ndef step(item):\n    return helper(item)\n"
    )
    spec = importlib.util.spec_from_file_location("my_flow", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["my_flow"] = module
    try:
        spec.loader.exec_module(module)

        assert run(module.step, [1, 2]) == [2, 3]
    finally:
        del sys.modules["my_flow"]


def test_the_main_script_is_not_run_again_though_it_has_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            print("main runs")
            from dataclasses import dataclass
            from penstock.engine import Stage, run_stages

            @dataclass
            class Point:
                x: int

            def double(point):
                return Point(point.x * 2)

            stage = Stage(name="s", function=double, kind="processes", width=2)
            for point in run_stages(map(Point, range(4)), [stage]):
                assert isinstance(point, Point)
                print(point.x)
        """)
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.split() == ["main", "runs", "0", "2", "4", "6"]
    assert done.stderr == ""


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = """
import os, signal
from penstock.engine import Stage, run_stages
stage = Stage(name="s", function=lambda _: os.getpid(), kind="processes")
for pid in run_stages(range(9), [stage]):
    print(pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    worker = int(done.stdout)  # the pipe is at its end: the worker has closed it, too

    assert done.returncode == -signal.SIGKILL
    assert done.stderr == ""
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        if "\nState:\tZ" in Path(f"/proc/{worker}/status").read_text():
            break  # dead, and only waits for a parent that collects it
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{worker}").exists()
