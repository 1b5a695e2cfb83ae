"""Ctrl-C and SIGTERM: the first drains, the second stops."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from penstock.engine import Cancel, Stage, handle_interrupts, run_stages


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    cancel, said = Cancel(), list[str]()
    before = signal.getsignal(number)
    with handle_interrupts(cancel, said.append):
        signal.raise_signal(number)
        assert cancel.is_set()
        assert not cancel.is_aborted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)

    assert cancel.is_aborted()
    assert len(said) == 1
    assert "Once more" in said[0]
    assert signal.getsignal(number) is before


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(LookupError), handle_interrupts(Cancel()):
        raise LookupError

    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_changes() -> None:
    seen = []

    def other() -> None:
        with handle_interrupts(Cancel()):
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()

    assert seen == [before]


def test_the_standard_message_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with handle_interrupts(Cancel()):
        signal.raise_signal(signal.SIGINT)

    assert "Ctrl-C: finishing what has begun" in capfd.readouterr().err


def test_ctrl_c_drains_a_run_that_waits() -> None:
    cancel = Cancel()
    pulled = []

    def source() -> Iterator[int]:
        for i in range(100_000):
            pulled.append(i)
            yield i

    def slow(item: int) -> int:
        if item == 5:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.002)
        return item

    with handle_interrupts(cancel, lambda text: None):
        got = list(run_stages(source(), [Stage(name="s", function=slow, width=2)], cancel=cancel))

    assert got == pulled[: len(got)]
    assert len(got) >= 6
    assert cancel.is_set()
    assert 5 < len(got) < 10_000
