"""Every engine test must leave no thread and no process behind."""

import threading
from collections.abc import Iterator

import psutil
import pytest


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    processes = set(psutil.Process().children(recursive=True))
    yield
    assert set(threading.enumerate()) <= threads
    assert set(psutil.Process().children(recursive=True)) <= processes
