"""From an Arrow text column to the arrays that kernels read, and back."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

Int: TypeAlias = Any
"""A number inside a kernel: NumPy's integers and Python's mix there, as numba's types say."""

_Scalar = TypeVar("_Scalar", bound=np.generic)


def text_buffers(column: pa.Array) -> tuple[I64, U8]:
    """The column's offsets and bytes, without a copy where it is large already.

    A slice keeps its own offsets into the whole data: row ``i`` is
    ``data[offsets[i]:offsets[i + 1]]``, and ``offsets[0]`` need not be 0. A
    null row reads as an empty one.

    Args:
        column: Strings or bytes, of 32- or 64-bit offsets.

    Returns:
        ``(num_rows + 1,)`` int64 and ``(num_bytes,)`` uint8, both contiguous
        and read-only, so that each kernel has one specialisation.
    """
    large = column.cast(pa.large_binary())  # strings and bytes share their layout
    if large.null_count:
        large = large.fill_null(b"")
    _, offsets, data = large.buffers()
    first, num_rows = large.offset, len(large)
    # An array of no rows may come without an offsets buffer.
    has_offsets = offsets is not None and offsets.size > 0
    ends = np.frombuffer(offsets, np.int64) if has_offsets else np.zeros(1, np.int64)
    has_data = data is not None and data.size > 0
    utf8 = np.frombuffer(data, np.uint8) if has_data else np.zeros(0, np.uint8)
    return _read_only(ends[first : first + num_rows + 1]), _read_only(utf8)


def text_from_buffers(offsets: I64, utf8: U8) -> pa.Array:
    """A `large_string` column over these arrays, without a copy.

    Args:
        offsets: ``(num_rows + 1,)`` int64.
        utf8: Valid UTF-8 per row.
    """
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(utf8)]
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)


def _read_only(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    view = array.view()
    view.flags.writeable = False
    return view
