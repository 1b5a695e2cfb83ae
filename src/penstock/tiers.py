"""Which segments a new one takes over, so that there are few and each row is rarely copied."""

from __future__ import annotations

from collections.abc import Sequence

_TIER = 4
"""A segment is merged while it has fewer live rows than this many times the newer ones."""
_MAX_DELETED_SHARE = 0.3


def first_merged(live: Sequence[int], rows: Sequence[int], num_new: int) -> int:
    """From which segment on all are merged with the new rows; their number for none.

    Sizes then fall from old to new, so that there are a logarithmic number of segments.

    Args:
        live: Rows of each segment that are not deleted, the oldest segment first.
        rows: Rows of each, deleted ones too.
        num_new: Rows to come.
    """
    sparse = (i for i in range(len(live)) if live[i] < (1 - _MAX_DELETED_SHARE) * rows[i])
    first = next(sparse, len(live))
    newer = num_new + sum(live[first:])
    while first > 0 and live[first - 1] < _TIER * newer:
        first -= 1
        newer += live[first]
    return first
