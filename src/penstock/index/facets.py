"""Count how many rows have each value of a column."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.index.where import Column

I64 = npt.NDArray[np.int64]


def count_values(
    column: Column, rows: I64 | None = None, limit: int | None = None
) -> list[tuple[Any, int]]:
    """Values with their numbers of rows, most frequent first, ties by value, null last.

    A row with a list counts once for each distinct element that is not null;
    without any, as null. Values that no row has are left out.

    Args:
        column: What is counted.
        rows: Places of the rows that count; None for all.
        limit: Most values wanted, the most frequent; null counts as one of them.

    Cost: about 1 ms for 200k rows of text, more for a column of numbers, which are hashed first.
    """
    rows_of: I64 | None = None
    if column.owners is None:
        column = column if rows is None else column.take(rows)
    else:
        rows_of = np.bincount(column.owners if rows is None else column.owners[rows])
    values, numbers, owners, num_owners = _numbered(column)
    valued = np.zeros(num_owners, np.bool_)
    valued[owners] = True
    if rows_of is None:
        counts = np.bincount(numbers, minlength=len(values))
        num_null = num_owners - int(np.count_nonzero(valued))
    else:
        rows_of = np.pad(rows_of, (0, num_owners - len(rows_of)))
        counts = np.bincount(numbers, rows_of[owners], len(values)).astype(np.int64)
        num_null = int(rows_of[~valued].sum())
    chosen = np.flatnonzero(counts)
    if limit is not None and 0 < limit < len(chosen):
        # All that share the last place stay, for their values to decide.
        least = np.partition(counts[chosen], -limit)[-limit]
        chosen = chosen[counts[chosen] >= least]
    shown = values.take(pa.array(chosen)).to_pylist()
    pairs: list[tuple[Any, int]] = list(zip(shown, counts[chosen].tolist(), strict=True))
    pairs.sort(key=_rank)
    if num_null:
        pairs.append((None, num_null))
    return pairs if limit is None else pairs[: max(limit, 0)]


def _rank(pair: tuple[Any, int]) -> tuple[int, bool, Any]:
    value, count = pair
    nan = isinstance(value, float) and math.isnan(value)  # before and after no number
    return -count, nan, 0.0 if nan else value


def _numbered(column: Column) -> tuple[pa.Array, I64, I64, int]:
    """Distinct values, pairs of a value's number and an owner that has it, how many owners."""
    if column.codes is not None:
        owners = np.flatnonzero(column.codes >= 0)
        distinct = replace(column, codes=None).array()
        return distinct, column.codes[owners].astype(np.int64), owners, len(column.codes)
    values = column.array()
    num_owners = len(values)
    if pa.types.is_null(values.type):
        return values[:0], np.empty(0, np.int64), np.empty(0, np.int64), num_owners
    owners = np.arange(num_owners)
    is_list = pa.types.is_list(values.type)
    if is_list:
        owners = pc.list_parent_indices(values).to_numpy(zero_copy_only=False).astype(np.int64)
        values = values.flatten()
    owners = owners[values.is_valid().to_numpy(zero_copy_only=False)]
    encoded = values.drop_null().dictionary_encode()
    numbers = encoded.indices.to_numpy().astype(np.int64)
    if is_list:  # an element that a list has twice counts once
        num_values = max(len(encoded.dictionary), 1)
        owners, numbers = np.divmod(np.unique(owners * num_values + numbers), num_values)
    return encoded.dictionary, numbers, owners, num_owners
