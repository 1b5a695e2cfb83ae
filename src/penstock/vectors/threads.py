"""Threads for building and for many queries; arrays as the kernels are compiled for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from penstock.cores import num_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """What `work` makes of each item, in their order, on all cores."""
    with ThreadPoolExecutor(num_cores(), "penstock-vectors") as pool:
        return list(pool.map(work, items))


class faiss_threads:  # noqa: N801 - used as a function
    """Faiss's number of threads, set for the calling thread and put back."""

    def __init__(self, threads: int) -> None:
        import faiss

        self._faiss: Any = faiss
        self._threads, self._before = threads, faiss.omp_get_max_threads()

    def __enter__(self) -> None:
        self._faiss.omp_set_num_threads(self._threads)

    def __exit__(self, *_: object) -> None:
        self._faiss.omp_set_num_threads(self._before)


def read_only(array: Any) -> Any:
    """The same array as a mapped one is: a kernel is compiled for each kind."""
    seen = array.view()
    seen.flags.writeable = False
    return seen
