"""Order, bounds, errors and endings of `run_stages`, with threads and async tasks."""

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine import Cancel, Stage, run_stages
from penstock.errors import ConfigError

PATIENCE_S = 20.0  # far more than anything here takes; a hang fails instead of hanging


def same(item: Any) -> Any:
    return item


async def same_async(item: Any) -> Any:
    return item


class Gauge:
    """Counts how many are inside at once, and the most that ever were."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0

    def add(self, change: int) -> None:
        with self.lock:
            self.now += change
            self.most = max(self.most, self.now)


@settings(max_examples=25, deadline=None)
@given(
    pauses=st.lists(st.integers(0, 3), max_size=25),
    shape=st.lists(
        st.tuples(st.sampled_from(["threads", "async"]), st.integers(1, 5), st.integers(0, 3)),
        max_size=4,
    ),
)
def test_outputs_are_in_the_order_of_the_inputs_whatever_widths_and_timing(
    pauses: list[int], shape: list[tuple[Any, int, int]]
) -> None:
    def slow(item: tuple[int, int]) -> tuple[int, int]:
        time.sleep(item[1] / 2000)
        return item[0] + 1, item[1]

    async def slow_async(item: tuple[int, int]) -> tuple[int, int]:
        await asyncio.sleep(item[1] / 2000)
        return item[0] + 1, item[1]

    stages = [
        Stage(
            name=f"s{i}",
            function=slow if kind == "threads" else slow_async,
            kind=kind,
            width=width,
            queue=queue,
        )
        for i, (kind, width, queue) in enumerate(shape)
    ]
    out = list(run_stages(enumerate(pauses), stages))

    assert out == [(i + len(stages), pause) for i, pause in enumerate(pauses)]


def test_a_stage_with_one_worker_sees_the_items_in_order() -> None:
    seen: list[int] = []

    def note(item: int) -> int:
        seen.append(item)
        return item

    def jitter(item: int) -> int:
        time.sleep((item * 7 % 5) / 2000)
        return item

    stages = [
        Stage(name="jitter", function=jitter, width=6),
        Stage(name="note", function=note),
    ]
    list(run_stages(range(80), stages))

    assert seen == list(range(80))


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_items_in_flight_are_bounded_when_the_first_item_is_slow(kind: Any) -> None:
    flight, first_may_go = Gauge(), threading.Event()

    def source() -> Iterator[int]:
        for i in range(200):
            flight.add(1)
            yield i

    def work(item: int) -> int:
        if item == 0:
            assert first_may_go.wait(PATIENCE_S)
        return item

    async def work_async(item: int) -> int:
        while item == 0 and not first_may_go.is_set():
            await asyncio.sleep(0.005)
        return item

    stages = [
        Stage(name="before", function=same, width=2, queue=3),
        Stage(
            name="slow",
            function=work if kind == "threads" else work_async,
            kind=kind,
            width=4,
            queue=5,
        ),
    ]
    threading.Timer(0.3, first_may_go.set).start()
    for _ in run_stages(source(), stages):
        flight.add(-1)

    # The sum of widths and queues, three more, and the one that the loop holds.
    assert 10 <= flight.most <= (2 + 3) + (4 + 5) + 3 + 1


def test_items_in_flight_are_bounded_when_the_consumer_is_slow() -> None:
    flight = Gauge()

    def source() -> Iterator[int]:
        for i in range(60):
            flight.add(1)
            yield i

    stages = [Stage(name=name, function=same, width=2, queue=2) for name in "ab"]
    for _ in run_stages(source(), stages):
        time.sleep(0.002)
        flight.add(-1)

    assert flight.most <= 2 * (2 + 2) + 3 + 1


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_a_stage_works_on_as_many_items_at_once_as_it_is_wide_and_no_more(kind: Any) -> None:
    inside = Gauge()
    barrier = threading.Barrier(3)

    def work(item: int) -> int:
        inside.add(1)
        barrier.wait(PATIENCE_S)  # passes only with three at once
        inside.add(-1)
        return item

    async def work_async(item: int) -> int:
        inside.add(1)
        await asyncio.sleep(0.01)
        inside.add(-1)
        return item

    function: Callable[[int], Any] = work if kind == "threads" else work_async
    out = list(run_stages(range(30), [Stage(name="s", function=function, kind=kind, width=3)]))

    assert out == list(range(30))
    assert inside.most == 3


def test_an_async_stage_needs_one_thread_for_all_its_tasks() -> None:
    threads = set()

    async def work(item: int) -> int:
        threads.add(threading.get_ident())
        await asyncio.sleep(0)
        return item

    list(run_stages(range(50), [Stage(name="s", function=work, kind="async", width=20)]))

    assert len(threads) == 1


def test_nothing_is_pulled_before_the_first_next_and_little_before_the_second() -> None:
    pulled: list[int] = []

    def source() -> Iterator[int]:
        for i in range(1000):
            pulled.append(i)
            yield i

    iterator = run_stages(source(), [Stage(name="s", function=same)])
    assert pulled == []
    next(iterator)
    time.sleep(0.05)

    assert len(pulled) <= 1 + (1 + 2) + 3
    iterator.close()


def test_no_stages_pass_the_items_on_and_no_items_give_nothing() -> None:
    assert list(run_stages(iter("abc"), [])) == list("abc")
    assert list(run_stages([], [Stage(name="s", function=same, width=3)])) == []


def test_none_is_an_item_like_any_other() -> None:
    assert list(run_stages([None, 1, None], [Stage(name="s", function=same)])) == [None, 1, None]


# Errors.


def raise_at(bad: int, error: BaseException) -> Callable[[int], int]:
    def function(item: int) -> int:
        if item == bad:
            raise error
        return item

    return function


def raise_at_async(bad: int, error: BaseException) -> Callable[[int], Any]:
    async def function(item: int) -> int:
        return raise_at(bad, error)(item)

    return function


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_an_error_reaches_the_consumer_as_it_was_with_stage_and_item(kind: Any) -> None:
    error = KeyError("missing")
    function = (raise_at if kind == "threads" else raise_at_async)(7, error)
    got = []

    with pytest.raises(KeyError) as caught:  # noqa: PT012 - what came before it counts
        for item in run_stages(
            range(100_000), [Stage(name="parse", function=function, kind=kind, width=3)]
        ):
            got.append(item)  # noqa: PERF402

    assert caught.value is error
    assert "Raised in stage 'parse', item 7: 7" in error.__notes__
    assert got == list(range(len(got)))
    assert len(got) <= 7


def test_an_error_of_the_items_names_the_source_and_the_number() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone") as caught:
        list(run_stages(source(), [Stage(name="s", function=same)]))

    assert "Raised in the source, item 2." in caught.value.__notes__


def test_what_is_not_iterable_is_an_error_of_the_source() -> None:
    with pytest.raises(TypeError, match="not iterable") as caught:
        list(run_stages(3, []))  # type: ignore[arg-type]

    assert "Raised in the source." in caught.value.__notes__


def test_later_errors_are_counted_and_not_raised() -> None:
    barrier = threading.Barrier(3)

    def work(item: int) -> int:
        barrier.wait(PATIENCE_S)
        raise ValueError(item)

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - any of the three
        list(run_stages(range(9), [Stage(name="s", function=work, width=3)]))

    assert "Errors that came after it: 2." in caught.value.__notes__


def test_an_item_whose_repr_raises_or_is_long_does_not_spoil_the_error() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    for item, expected in ((Odd(), "Odd"), ("x" * 10_000, "xxx")):
        with pytest.raises(ZeroDivisionError) as caught:
            list(run_stages([item], [Stage(name="s", function=lambda _: 1 // 0)]))

        (note,) = caught.value.__notes__
        assert expected in note
        assert len(note) < 200


def test_stop_iteration_in_a_stage_is_an_error_and_not_the_end() -> None:
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        list(run_stages(range(3), [Stage(name="s", function=lambda _: next(iter(())))]))

    assert "stage 's', item 0" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"name": "source"}, "other than source and sink"),
        ({"name": ""}, "must be a name"),
        ({"width": 0}, "at least 1"),
        ({"queue": -1}, "not be negative"),
        ({"kind": "fibres"}, "threads, async or processes"),
        ({"function": same_async}, "must be async"),
    ],
    ids=["reserved name", "no name", "no width", "negative queue", "kind", "async in threads"],
)
def test_a_stage_refuses_wrong_settings(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Stage(**{"name": "s", "function": same, **settings})


def test_two_stages_may_not_share_a_name() -> None:
    with pytest.raises(ConfigError, match="names two stages"):
        run_stages([], [Stage(name="s", function=same), Stage(name="s", function=same)])


def test_a_plain_function_in_an_async_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be an async function"):
        list(run_stages([1], [Stage(name="s", function=same, kind="async")]))


# Resources.


class Resource:
    made: list["Resource"]

    def __init__(self) -> None:
        self.closed = False
        self.made.append(self)

    def use(self, item: int) -> int:
        assert not self.closed
        return item + 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made() -> list[Resource]:
    Resource.made = []
    return Resource.made


def test_each_worker_opens_one_resource_and_closes_it(made: list[Resource]) -> None:
    def work(resource: Resource, item: int) -> int:
        time.sleep(0.001)
        return resource.use(item)

    out = list(run_stages(range(50), [Stage(name="s", function=work, open=Resource, width=3)]))

    assert out == list(range(1, 51))
    assert 1 <= len(made) <= 3
    assert all(resource.closed for resource in made)


def test_resources_are_closed_after_an_error_and_not_opened_without_items(
    made: list[Resource],
) -> None:
    stage = Stage(name="s", function=lambda resource, item: resource.use(1 // item), open=Resource)
    assert list(run_stages([], [stage])) == []
    assert made == []

    with pytest.raises(ZeroDivisionError):
        list(run_stages([1, 0], [stage]))

    assert [resource.closed for resource in made] == [True]


def test_the_tasks_of_an_async_stage_share_one_resource(made: list[Resource]) -> None:
    async def open_() -> Resource:
        await asyncio.sleep(0.01)
        return Resource()

    async def work(resource: Resource, item: int) -> int:
        await asyncio.sleep(0.001)
        return resource.use(item)

    stage = Stage(name="s", function=work, open=open_, kind="async", width=5)

    assert list(run_stages(range(20), [stage])) == list(range(1, 21))
    assert [resource.closed for resource in made] == [True]


@pytest.mark.parametrize("kind", ["threads", "async"])
@pytest.mark.parametrize("when", ["opened", "closed"])
def test_a_resource_that_fails_is_the_error_of_its_stage(kind: Any, when: str) -> None:
    class Bad:
        def __init__(self) -> None:
            if when == "opened":
                raise PermissionError("model.onnx")

        def close(self) -> None:
            raise PermissionError("model.onnx")

    async def use_async(_: Bad, item: int) -> int:
        return item

    function = use_async if kind == "async" else lambda _, item: item
    stage = Stage(name="s", function=function, open=Bad, kind=kind, width=2)
    with pytest.raises(PermissionError) as caught:
        list(run_stages(range(3), [stage]))

    assert f"stage 's', while it {when[:-2]}" in caught.value.__notes__[0]


# Endings.


def endless() -> Iterator[int]:
    i = 0
    while True:
        yield i
        i += 1


STAGES = [
    Stage(name="a", function=same, width=3),
    Stage(name="b", function=same_async, kind="async", width=3),
]


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("penstock-")]


def test_closing_the_iterator_ends_all_threads_and_the_source() -> None:
    ended = []

    def source() -> Iterator[int]:
        try:
            yield from endless()
        finally:
            ended.append(True)

    items = source()  # a reference of our own, so that only `close` ends it
    iterator = run_stages(items, STAGES)
    next(iterator)
    assert our_threads()
    iterator.close()

    assert our_threads() == []
    assert ended == [True]


def test_dropping_the_iterator_ends_all_threads() -> None:
    iterator = run_stages(endless(), STAGES)
    next(iterator)
    del iterator
    gc.collect()

    assert our_threads() == []


def test_an_iterator_in_a_cycle_is_collected_even_from_a_worker() -> None:
    class Holder:
        iterator: Iterator[int]
        itself: "Holder"

    collect, collected = threading.Event(), threading.Event()

    def work(item: int) -> int:
        if collect.wait(PATIENCE_S) and not collected.is_set():
            gc.collect()
            collected.set()
        return item

    def begin() -> None:
        holder = Holder()
        holder.itself = holder
        holder.iterator = run_stages(
            endless(), [Stage(name="s", function=lambda item: work(item) if item else item)]
        )
        next(holder.iterator)

    gc.collect()
    gc.disable()
    try:
        begin()
        collect.set()
        assert collected.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while our_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        gc.enable()

    assert our_threads() == []


def test_an_exception_in_the_consumer_ends_all_threads() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the loop itself must raise
        for item in run_stages(endless(), STAGES):
            1 // (item - 5)
    gc.collect()

    assert our_threads() == []


def test_a_keyboard_interrupt_in_a_waiting_consumer_ends_all_threads() -> None:
    def slow(item: int) -> int:
        if item == 3:
            time.sleep(0.3)
        return item

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    timer = threading.Timer(0.1, interrupt)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it must hit inside the loop
        for item in run_stages(endless(), [Stage(name="s", function=slow)]):
            if item == 2:
                timer.start()
    timer.join()

    assert our_threads() == []


def test_the_interpreter_exits_with_an_unfinished_run() -> None:
    code = """
from penstock.engine import Stage, run_stages
class Resource:
    def close(self): print("closed")
iterator = run_stages(iter(int, 1), [
    Stage(name="a", function=lambda resource, item: item, open=Resource),
    Stage(name="b", function=lambda item: item, kind="processes"),
])
print(next(iterator))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.split() == ["0", "closed"]
    assert done.stderr == ""


def test_runs_may_be_nested() -> None:
    inner = run_stages(range(100), [Stage(name="inner", function=lambda i: i + 1, width=2)])
    outer = run_stages(inner, [Stage(name="outer", function=lambda i: i * 2, width=2)])
    assert [next(outer) for _ in range(3)] == [2, 4, 6]
    outer.close()

    assert our_threads() == []


def test_cancelled_before_it_begins_it_takes_nothing() -> None:
    cancel = Cancel()
    cancel.set()

    assert list(run_stages(endless(), STAGES, cancel=cancel)) == []


def test_cancel_delivers_what_the_slowest_stage_has_begun_and_no_more() -> None:
    cancel, begun, left = Cancel(), list[int](), list[int]()

    def slow(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        return item

    def last(item: int) -> int:
        left.append(item)
        return item

    stages = [
        Stage(name="quick", function=lambda item: item, width=2),
        Stage(name="slow", function=slow, width=2, queue=50),
        Stage(name="last", function=last),
    ]
    got = []
    for item in run_stages(endless(), stages, cancel=cancel):
        got.append(item)
        if item == 20:
            cancel.set()

    assert got == sorted(begun) == left
    assert 20 < len(got) < 30


def test_abort_ends_at_once_and_what_came_is_unbroken() -> None:
    cancel, got = Cancel(), []
    for item in run_stages(endless(), STAGES, cancel=cancel):
        got.append(item)
        if item == 20:
            cancel.abort()

    assert got == list(range(21))
    assert cancel.is_set()


@pytest.mark.parametrize("kind", ["async", "processes"])
def test_abort_cuts_short_what_can_be_cut_short(kind: Any) -> None:
    async def forever_async(item: int) -> None:
        await asyncio.sleep(1000)

    def forever(item: int) -> None:
        time.sleep(1000)

    cancel = Cancel()
    threading.Timer(0.2, cancel.abort).start()
    function = forever_async if kind == "async" else forever
    stage = Stage(name="s", function=function, kind=kind, width=2)

    began = time.monotonic()
    assert list(run_stages(range(5), [stage], cancel=cancel)) == []
    assert time.monotonic() - began < 100


def test_results_are_not_held_after_they_were_handed_over() -> None:
    class Item:
        pass

    alive: list[weakref.ref[Item]] = []

    def source() -> Iterator[Item]:
        for _ in range(50):
            item = Item()
            alive.append(weakref.ref(item))
            yield item
            del item

    most = 0
    for item in run_stages(source(), [Stage(name="s", function=same, width=2, queue=2)]):
        del item
        most = max(most, sum(ref() is not None for ref in alive))

    assert most <= 2 + 2 + 3
