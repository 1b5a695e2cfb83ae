"""Which fragments of a table to merge, so that many small runs leave few.

In tiers: sixteen small neighbours become one that is not small any more, and
sixteen of those again. So a row is written about three times, whatever the
number of runs, and one run merges what is small beside it, not the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

_TIERS = (16 << 20, 1 << 20)
"""Bytes below which a fragment counts as small, the largest first; larger ones stay as they are."""
_MANY = 16
"""Small neighbours that are merged: fewer cost a scan less than merging costs a run."""
_MERGED_BYTES = 32 << 20
_SPARSE = 0.25
"""Share of deleted rows from which a fragment is written again."""


def merge_options(fragments: Iterable[Any]) -> dict[str, Any] | None:
    """Options of Lance's compaction that merge what should be; None where nothing should.

    Args:
        fragments: The `lance.LanceFragment`s of a table, in its order.
    """
    facts = [_Fragment.of(each) for each in fragments]
    chosen = _to_merge(facts)
    if not chosen:
        return None
    rows = sum(each.rows for each in facts if each.id in chosen)
    size = sum(each.live * each.num_bytes for each in facts if each.id in chosen)
    return {
        "target_rows_per_fragment": max(1, int(rows * _MERGED_BYTES / max(size, 1))),
        "materialize_deletions_threshold": _SPARSE,
        "excluded_fragment_ids": [each.id for each in facts if each.id not in chosen],
    }


@dataclass(frozen=True, slots=True)
class _Fragment:
    """What merging looks at: the share of its rows that is live, and its bytes with dead ones."""

    id: int
    live: float
    rows: int
    num_bytes: int

    @classmethod
    def of(cls, fragment: Any) -> Self:
        facts = fragment.metadata
        size = sum(file.file_size_bytes or 0 for file in facts.files)
        return cls(facts.id, facts.num_rows / max(facts.physical_rows, 1), facts.num_rows, size)


def _to_merge(fragments: Sequence[_Fragment]) -> set[int]:
    """Neighbours that are small and many, and larger fragments with many deleted rows."""
    large = (each for each in fragments if each.num_bytes >= _TIERS[-1])
    chosen = {each.id for each in large if each.live < 1 - _SPARSE}
    for tier in _TIERS:
        small = [each.live * each.num_bytes < tier for each in fragments]
        for are_small, group in groupby(zip(small, fragments, strict=True), lambda each: each[0]):
            ids = [each.id for _, each in group]
            if are_small and len(ids) >= _MANY:
                chosen.update(ids)
    return chosen
