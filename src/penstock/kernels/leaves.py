"""Kernels that are called per character or word: compiled without reference counts.

numba counts a reference to each array that a function takes, atomically, at
each call; in what is called for every character that was nine tenths of the
time. A leaf counts none, so it must not make an array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

import penstock.kernels.compiled  # noqa: F401 - announces what is compiled

_Function = TypeVar("_Function", bound=Callable[..., Any])


def leaf(function: _Function) -> _Function:
    """Compile a function that makes no array; see `penstock.kernels.compiled.kernel`."""
    settings = {"nogil": True, "error_model": "numpy", "_nrt": False}
    try:
        return cast(_Function, numba.njit(cache=True, **settings)(function))
    except RuntimeError:  # numba found no folder that it may write its cache to
        return cast(_Function, numba.njit(**settings)(function))
