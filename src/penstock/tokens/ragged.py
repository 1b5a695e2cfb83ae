"""Rows of different lengths, lying one after another in several arrays: measure and gather them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from penstock.kernels import I64

Values = npt.NDArray[Any]

_Scalar = TypeVar("_Scalar", bound=np.generic)

Ragged = tuple[Values, I64]
"""All rows' values, and where each row begins: (num_rows + 1,) int64."""


def ends(lengths: npt.NDArray[Any]) -> I64:
    """Where each row begins, and where the last one ends; (num_rows + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def row_lengths(parts: Sequence[Ragged], owner: Values, place: I64) -> I64:
    """The length of each row, named by the part that it is in and its place there."""
    from penstock.kernels.samples import lengths_of

    lengths = np.empty(len(place), np.int64)
    for (_, offsets), at in _by_owner(parts, owner):
        lengths_of(offsets, place[at], at, lengths)
    return lengths


def gather(
    parts: Sequence[Ragged],
    owner: Values,
    place: I64,
    starts: I64 | None = None,
    lengths: npt.NDArray[Any] | None = None,
) -> Ragged:
    """Rows of several parts in the order asked: all values, and where each row begins.

    With `starts` and `lengths`, a piece of each row, which lies inside it.
    """
    from penstock.kernels.samples import copy_rows

    begins = ends(row_lengths(parts, owner, place) if lengths is None else lengths)
    firsts = np.zeros(len(place), np.int64) if starts is None else np.asarray(starts, np.int64)
    values = np.empty(begins[-1], parts[0][0].dtype if parts else np.uint8)
    for (source, offsets), at in _by_owner(parts, owner):
        copy_rows(source, offsets, place[at], read_only(firsts), at, values, begins)
    return values, begins


def read_only(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """A view that cannot be written to, as mapped files are: kernels then see one type of array."""
    view = array.view()
    view.flags.writeable = False
    return view


def _by_owner(parts: Sequence[Ragged], owner: Values) -> Iterator[tuple[Ragged, I64]]:
    """Each part that has some of the rows, with where among the rows they stand."""
    for number, (values, offsets) in enumerate(parts):
        at = np.arange(len(owner)) if len(parts) == 1 else np.flatnonzero(owner == number)
        if len(at):
            yield (read_only(values), read_only(offsets)), at
