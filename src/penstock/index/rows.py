"""Sets of row ids as ascending arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]


def is_among(values: U64, ordered: U64) -> npt.NDArray[np.bool_]:
    """Which values are in an ascending array; (num_values,) bool, in O(log) each."""
    if len(ordered) == 0:
        return np.zeros(len(values), np.bool_)
    where = np.searchsorted(ordered, values)
    where[where == len(ordered)] = 0
    among: npt.NDArray[np.bool_] = ordered[where] == values
    return among


def row_set(values: Any) -> U64:
    """Any sequence of row ids as an ascending uint64 array, each once."""
    array = np.asarray(values)
    if array.size == 0:
        return np.empty(0, np.uint64)
    array = array.astype(np.uint64, copy=False)
    if bool(np.all(array[1:] > array[:-1])):
        return array
    return np.unique(array)
