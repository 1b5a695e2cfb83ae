"""Find which rows of a batch make a function fail, and keep the results of all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.errors import ConfigError

# Imported where they are used: worker processes load this package, and most of
# the time that they take to start would go into these two.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


def apply_rows(
    function: Callable[[pa.RecordBatch], pa.RecordBatch], batch: pa.RecordBatch
) -> tuple[pa.RecordBatch | None, npt.NDArray[np.int64], list[tuple[int, Exception]]]:
    """Call a row-by-row function on a batch, and on ever smaller parts of it where it raises.

    A part that raises is halved until single rows are left; those have failed.

    Args:
        function: Returns as many rows as it is given, each a function of its
            own row alone. It is given slices of `batch`, so it must honour
            their offsets.
        batch: Any number of rows.

    Returns:
        The results of the good rows in order (None if no row was good), the
        positions in `batch` of those rows, (num_good,) int64 and increasing,
        and each failed row's position with what it raised, in order.

    Raises:
        ConfigError: The function is at fault, not a row: it returned another
            number of rows than it was given, no batch at all, or batches whose
            schemas differ.
        MemoryError: The function raised it: smaller parts may pass, but the
            machine is at its end and the rows are not to blame.
        Exception: `batch` is empty and the function raised all the same.

    Cost: one call if all is well; with f bad rows among n at most
        1 + 2 f ceil(log2 n) calls.
    """
    import numpy as np

    good: list[pa.RecordBatch] = []
    kept: list[npt.NDArray[np.int64]] = []
    failed: list[tuple[int, Exception]] = []
    pending = [(0, batch.num_rows)]
    while pending:
        start, end = pending.pop()
        part = batch.slice(start, end - start) if end - start < batch.num_rows else batch
        try:
            result = function(part)
        except MemoryError:
            raise
        except Exception as error:
            if end == start:
                raise
            if end - start == 1:
                failed.append((start, error))
            else:
                middle = (start + end) // 2
                pending += [(middle, end), (start, middle)]  # a stack: the left half first
            continue
        _check(function, part, result)
        good.append(result)
        kept.append(np.arange(start, end, dtype=np.int64))
    positions = np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)
    return _joined(function, good), positions, failed


def _check(function: object, part: pa.RecordBatch, result: object) -> None:
    import pyarrow as pa

    if not isinstance(result, pa.RecordBatch):
        raise ConfigError(
            _name(function), result, "must return a pyarrow.RecordBatch for the one it was given"
        )
    if result.num_rows != part.num_rows:
        raise ConfigError(
            f"the number of rows returned by {_name(function)}",
            result.num_rows,
            f"must equal the {part.num_rows} rows it was given; to leave a row out, use a decision",
        )


def _joined(function: object, parts: list[pa.RecordBatch]) -> pa.RecordBatch | None:
    import pyarrow as pa

    if len(parts) <= 1:
        return parts[0] if parts else None
    schema = parts[0].schema
    for part in parts[1:]:
        if not part.schema.equals(schema):
            raise ConfigError(
                f"the schema returned by {_name(function)}",
                f"{_fields(schema)} for some rows and {_fields(part.schema)} for others",
                "must be the same for all rows; give the columns their types explicitly",
            )
    return pa.concat_batches(parts)


def _fields(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
