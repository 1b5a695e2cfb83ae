"""Dates and times as microseconds since 1970 in UTC, from text in the forms of ISO 8601."""

from __future__ import annotations

import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import QueryError
from penstock.index.conditions import shorten

I64 = npt.NDArray[np.int64]

DAY = 86_400_000_000
"""Microseconds of a day."""

_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)
_REST = {4: "-01-01", 7: "-01"}
"""What makes a day of `2024` and of `2024-01`."""


def read_instants(values: pa.Array) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Instants of text, dates or timestamps, each value by itself.

    Text is read as `datetime.fromisoformat` reads it, and also as a year or
    a month: `2024`, `2024-01`, `2024-01-31`, `2024-01-31 12:00:00.5+02:00`.
    What is shorter than a time stands for its first moment; without a zone
    it is in UTC; digits beyond microseconds are cut.

    Returns:
        (num_values,) microseconds in UTC, and whether the value could be read: nulls and
        text of another form could not, nor could a day that the calendar lacks.

    Cost: about 0.5 us a text.
    """
    if pa.types.is_temporal(values.type):
        zone = getattr(values.type, "tz", None)
        times = values.cast(pa.timestamp("us", zone), safe=False)
    else:
        times = pa.array([_time_of(text) for text in values.to_pylist()], pa.timestamp("us", "UTC"))
    micros = times.cast(pa.int64())
    known: npt.NDArray[np.bool_] = micros.is_valid().to_numpy(zero_copy_only=False)
    return micros.fill_null(0).to_numpy(), known


def instant(value: datetime.date | datetime.datetime) -> int:
    """Microseconds of a literal: a time without a zone is in UTC, a day is its first moment."""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    offset = value.utcoffset()
    micros = (value.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    return micros if offset is None else micros - offset // _MICROSECOND


def date_of(text: str) -> datetime.date:
    """A date literal; anything else is a QueryError."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise QueryError(shorten(repr(text)), "expected a date such as DATE '2024-01-31'") from None


def time_of(text: str) -> datetime.datetime:
    """A timestamp literal; anything else is a QueryError."""
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        raise QueryError(
            shorten(repr(text)), "expected a time such as TIMESTAMP '2024-01-31 12:00:00'"
        ) from None


def _time_of(text: str | None) -> datetime.datetime | None:
    if text is None:
        return None
    try:
        return datetime.datetime.fromisoformat(text + _REST.get(len(text), ""))
    except ValueError:
        return None
