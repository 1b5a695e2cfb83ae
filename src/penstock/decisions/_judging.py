"""From counts per document to verdicts: stored columns, rules in order, the first that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import ConfigError
from penstock.records import VERDICTS

Column: TypeAlias = npt.NDArray[Any]

Check: TypeAlias = tuple[str, npt.NDArray[np.bool_], Column]
"""A reason, which documents it drops, and the value of each that it looked at."""


def counts_type(names: Sequence[str]) -> pa.DataType:
    """A struct of 32-bit counts."""
    return pa.struct([pa.field(name, pa.int32()) for name in names])


def counts_array(names: Sequence[str], *columns: Column) -> pa.Array:
    """Counts as a struct; the columns may be one-dimensional or hold several side by side."""
    flat = [c for column in columns for c in (column.T if column.ndim > 1 else [column])]
    arrays = [pa.array(np.ascontiguousarray(column, np.int32)) for column in flat]
    return pa.StructArray.from_arrays(arrays, fields=list(counts_type(names)))


def columns_of(signature: pa.ChunkedArray | pa.Array) -> dict[str, Column]:
    """The stored columns by name, integers as int64 and numbers as float64."""
    if isinstance(signature, pa.ChunkedArray):
        signature = signature.combine_chunks()
    found = {}
    for place, field in enumerate(signature.type):
        column = signature.field(place)
        if pa.types.is_integer(field.type):
            found[field.name] = column.to_numpy(zero_copy_only=False).astype(np.int64)
        elif pa.types.is_floating(field.type):
            found[field.name] = column.to_numpy(zero_copy_only=False).astype(np.float64)
        else:
            found[field.name] = column.to_numpy(zero_copy_only=False)
    return found


def share(part: Column, whole: Column) -> Column:
    """The quotient in double precision; 0 where there is nothing to have a share of."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def above(reason: str, value: Column, most: float | None) -> Iterator[Check]:
    """Drop what exceeds a threshold; no check without one."""
    if most is not None:
        yield reason, value > most, value


def below(reason: str, value: Column, least: float | None) -> Iterator[Check]:
    """Drop what falls short of a threshold; no check without one."""
    if least is not None:
        yield reason, value < least, value


def verdicts(rule: str, doc_id: pa.ChunkedArray | pa.Array, checks: Sequence[Check]) -> pa.Table:
    """The first check that each document fails; `VERDICTS`, sorted by `doc_id`."""
    ids = doc_id.combine_chunks() if isinstance(doc_id, pa.ChunkedArray) else doc_id
    failed = np.full(len(ids), -1)
    scores = np.zeros(len(ids))
    for number in range(len(checks) - 1, -1, -1):  # an earlier one overwrites
        _, drops, value = checks[number]
        failed[drops] = number
        scores[drops] = value[drops]
    dropped = np.flatnonzero(failed >= 0)
    rules = pa.array([f"{rule}.{reason}" for reason, _, _ in checks], pa.string())
    table = pa.table(
        {
            "doc_id": ids.take(pa.array(dropped)).cast(pa.string()),
            "verdict": pa.repeat("dropped", len(dropped)),
            "rule": rules.take(pa.array(failed[dropped])),
            "score": pa.array(scores[dropped], pa.float64()),
            "duplicate_of": pa.nulls(len(dropped), pa.string()),
        },
        schema=VERDICTS,
    )
    return table.sort_by("doc_id")


def check_share(setting: str, value: float | None) -> None:
    """Raise `ConfigError` unless the value is a share in [0, 1] or None."""
    if value is not None and not (_is_number(value) and 0 <= value <= 1):
        raise ConfigError(
            setting, value, "must be a share between 0 and 1, or None to leave it out"
        )


def check_count(setting: str, value: float | None, *, least: float = 0) -> None:
    """Raise `ConfigError` unless the value is a number of at least `least`, or None."""
    if value is not None and not (_is_number(value) and value >= least):
        raise ConfigError(setting, value, f"must be at least {least:g}, or None to leave it out")


def check_range(setting: str, least: float | None, most: float | None) -> None:
    """Raise `ConfigError` if nothing lies between two bounds."""
    if least is not None and most is not None and least > most:
        raise ConfigError(setting, least, f"must not be above its counterpart, {most!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
