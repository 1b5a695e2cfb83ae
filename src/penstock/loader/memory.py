"""Memory of batches that nobody refers to any more, used again for the next.

A batch is megabytes, which the system would hand out page by page and take back each
time: on virtual machines that takes longer than writing the tokens.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_KEPT = 4
_MOST_TOO_LARGE = 2
"""Memory so many times as large as what is asked for is let go."""
_FREE = 2
"""References to a buffer that no array refers to: a name here, and the question itself."""

Wanted = tuple[tuple[int, ...], type[np.generic]]


class Memory:
    """Makes the arrays of batches. Safe to use from several threads."""

    def __init__(self) -> None:
        self._buffers: deque[npt.NDArray[np.uint8]] = deque()

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()  # what a process keeps is of no use to another

    def arrays(self, *wanted: Wanted) -> list[npt.NDArray[Any]]:
        """Arrays of these shapes and kinds, of any content; the widest kinds come first."""
        sizes = [math.prod(shape) * np.dtype(kind).itemsize for shape, kind in wanted]
        buffer = self._take(sum(sizes))
        out, begin = [], 0
        for (shape, kind), size in zip(wanted, sizes, strict=True):
            out.append(buffer[begin : begin + size].view(kind).reshape(shape))
            begin += size
        self._buffers.append(buffer)
        if len(self._buffers) > _MOST_KEPT:
            self._buffers.popleft()
        return out

    def _take(self, size: int) -> npt.NDArray[np.uint8]:
        # Who takes a buffer out is the only one to have it, until it is put back with its arrays.
        for _ in range(len(self._buffers)):
            try:
                buffer = self._buffers.popleft()
            except IndexError:
                break
            if sys.getrefcount(buffer) > _FREE:
                self._buffers.append(buffer)
            elif size <= len(buffer) <= _MOST_TOO_LARGE * size:
                return buffer
        return np.empty(size + size // 8, np.uint8)
