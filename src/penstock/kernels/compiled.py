"""How kernels are compiled: without the GIL, cached on disk, and announced.

numba keeps compiled code beside the source where it may write there, else in
the user's cache folder; where it may write nowhere, every process compiles anew.

A kernel calls only kernels of its own file: numba's cache looks at that file
alone when it asks whether the source has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import event

_log = logging.getLogger("penstock")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile a function on its first call, or load what an earlier process compiled."""
    return _compiled(function, nogil=True)


def short_kernel(function: _Function) -> _Function:
    """As `kernel`, for some microseconds of work: it keeps the GIL, which others would take."""
    return _compiled(function, nogil=False)


def _compiled(function: _Function, *, nogil: bool) -> _Function:
    settings = {"nogil": nogil, "error_model": "numpy"}
    try:
        return cast(_Function, numba.njit(cache=True, **settings)(function))
    except RuntimeError:  # numba found no folder that it may write its cache to
        return cast(_Function, numba.njit(**settings)(function))


class _Announcer(event.Listener):  # type: ignore[misc]  # numba is untyped
    """Says once per process that kernels are being compiled, so that the wait has a reason."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if not self._said and function.__module__.startswith("penstock."):
            self._said = True
            _log.info("compiling kernels, once per machine: up to a minute")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announcer())
