"""Stop a run from outside: a token that asks, and Ctrl-C as the one who asks.

Nothing here takes a lock. A signal handler runs in the middle of whatever the
main thread was doing; were that thread inside a lock that the handler wants
too, the program would hang. So a token is two flags that others look at.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Cancel:
    """Ask a run to stop. Safe from any thread and from a signal handler; never taken back."""

    __slots__ = ("_abort", "_set")

    def __init__(self) -> None:
        self._set = False
        self._abort = False

    def set(self) -> None:
        """Stop gracefully: what the slowest stage has begun is finished and delivered."""
        self._set = True

    def abort(self) -> None:
        """Stop at once: what is in flight is thrown away."""
        self._set = True  # first, so that nobody sees an abort that is not also a stop
        self._abort = True

    def is_set(self) -> bool:
        """Whether a stop of either sort was asked for."""
        return self._set

    def is_aborted(self) -> bool:
        """Whether the stop is to be at once."""
        return self._abort


def _say_on_stderr(text: str) -> None:
    # A buffered stream refuses to be entered twice, and the handler may have
    # interrupted a print: write past it.
    os.write(2, f"{text}\n".encode())


@contextmanager
def handle_interrupts(
    cancel: Cancel, message: Callable[[str], None] = _say_on_stderr
) -> Iterator[None]:
    """Let Ctrl-C (and SIGTERM) stop the run gracefully; the second one stops it at once.

    The handlers that were there before come back at the end. Outside the main
    thread, where Python allows no handlers, this does nothing.

    Args:
        cancel: Gets `set` on the first signal and `abort` on the second.
        message: Told once, at the first signal, what happens now. It is called
            inside the signal handler, so it may not wait for a lock;
            `Progress.message` is safe.

    Raises:
        KeyboardInterrupt: In the main thread, at the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            cancel.abort()
            raise KeyboardInterrupt
        cancel.set()
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        message(f"{name}: finishing what has begun. Once more stops at once.")

    # getsignal is None for a handler that was not set from Python: it cannot be
    # put back, so it is left alone.
    wanted = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not None]
    before = {number: signal.signal(number, on_signal) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
