"""Memory that was freed but that the process still holds, given back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import pyarrow as pa


def give_back() -> None:
    """Return freed memory to the system, after much of it was freed at once.

    Allocators keep what is freed for the next call. glibc keeps it for each
    thread apart, so memory freed in one phase does not serve the next phase's
    threads, and what a build holds would grow with every flush.

    Cost: some milliseconds. Elsewhere than with glibc only Arrow's pool gives back.
    """
    pa.default_memory_pool().release_unused()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """The `malloc_trim` of glibc; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl
        return None
    return trim
