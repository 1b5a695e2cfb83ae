from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels import I64, U8
from penstock.kernels.tokens import MAX_WORD, distinct
from penstock.steps.token_counts import RunTable

RUNS = st.lists(st.one_of(st.binary(min_size=1, max_size=3), st.binary(max_size=300)), max_size=30)


def _joined(runs: list[bytes]) -> tuple[U8, I64, I64]:
    ends = np.cumsum([len(run) for run in runs], dtype=np.int64)
    starts = ends - np.array([len(run) for run in runs], np.int64)
    utf8 = np.frombuffer(b"".join(runs) + b"\0", np.uint8)
    return utf8, starts, ends


def _lookup(table: RunTable, run: bytes) -> int:
    from penstock.kernels.tokens import _hash, find

    utf8 = np.frombuffer(run + b"\0", np.uint8)
    return int(find(*table.arrays, utf8, 0, len(run), np.uint64(_hash(utf8, 0, len(run)))))


@settings(deadline=None)
@given(batches=st.lists(RUNS, max_size=4), others=RUNS)
def test_a_table_equals_a_dictionary(batches: list[list[bytes]], others: list[bytes]) -> None:
    table = RunTable(num_slots=2, arena_bytes=1)
    expected: dict[bytes, int] = {}
    for batch in batches:
        counts = np.arange(len(batch), dtype=np.int32)
        for run, count in zip(batch, counts.tolist(), strict=True):
            if len(run) <= MAX_WORD:
                expected.setdefault(run, count)
        table.add(*_joined(batch), counts)

    for run in [*others, *expected]:
        assert _lookup(table, run) == expected.get(run, -1)


@settings(deadline=None)
@given(runs=RUNS)
def test_distinct_numbers_equal_runs_alike(runs: list[bytes]) -> None:
    groups, firsts = distinct(*_joined(runs))

    numbers: dict[bytes, int] = {}
    assert groups.tolist() == [numbers.setdefault(run, len(numbers)) for run in runs]
    assert firsts.tolist() == [runs.index(run) for run in numbers]


def test_a_full_table_stops_growing() -> None:
    table = RunTable()
    table._num_entries = 1 << 20

    table.add(*_joined([b"new"]), np.ones(1, np.int32))

    assert _lookup(table, b"new") == -1
