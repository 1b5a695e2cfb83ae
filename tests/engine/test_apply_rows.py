"""Which rows fail, and what becomes of the others."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import apply_rows
from penstock.errors import ConfigError


def batch_of(values: list[int]) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(values, pa.int64())})


@given(bad=st.lists(st.booleans(), max_size=70), offset=st.integers(0, 3))
def test_bad_rows_are_found_and_good_rows_kept_in_order(bad: list[bool], offset: int) -> None:
    calls = 0

    def double(batch: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal calls
        calls += 1
        values = batch.column("n").to_pylist()
        for value in values:
            if bad[value]:
                raise ValueError(value)
        return batch_of([2 * value for value in values])

    batch = batch_of([0] * offset + list(range(len(bad)))).slice(offset)
    result, kept, failed = apply_rows(double, batch)

    good = [i for i, is_bad in enumerate(bad) if not is_bad]
    assert kept.dtype == np.int64
    assert kept.tolist() == good
    assert [(i, error.args) for i, error in failed] == [
        (i, (i,)) for i, is_bad in enumerate(bad) if is_bad
    ]
    if good or not bad:
        assert result is not None
        assert result.column("n").to_pylist() == [2 * i for i in good]
    else:
        assert result is None
    assert calls <= 1 + 2 * sum(bad) * math.ceil(math.log2(max(len(bad), 2)))


@pytest.mark.parametrize("returned", [0, 2, 4])
def test_another_number_of_rows_is_the_functions_fault(returned: int) -> None:
    def drop_rows(_: pa.RecordBatch) -> pa.RecordBatch:
        return batch_of([1] * returned)

    with pytest.raises(ConfigError, match=rf"drop_rows is {returned}: must equal the 3 rows"):
        apply_rows(drop_rows, batch_of([1, 2, 3]))


def test_no_batch_is_the_functions_fault() -> None:
    with pytest.raises(ConfigError, match=r"must return a pyarrow\.RecordBatch"):
        apply_rows(lambda batch: None, batch_of([1]))


def test_schemas_that_differ_between_parts_are_named() -> None:
    def moody(batch: pa.RecordBatch) -> pa.RecordBatch:
        values = batch.column("n").to_pylist()
        if 1 in values:
            raise ValueError
        return pa.record_batch({"n": [None if value == 0 else "x" for value in values]})

    with pytest.raises(ConfigError, match="n null for some rows and n string for others"):
        apply_rows(moody, batch_of([0, 1, 2, 3]))


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
def test_what_is_not_a_rows_fault_is_raised(error: type[BaseException]) -> None:
    def work(_: pa.RecordBatch) -> pa.RecordBatch:
        raise error

    with pytest.raises(error):
        apply_rows(work, batch_of([1, 2]))


def test_an_error_on_an_empty_batch_is_raised_because_no_row_can_carry_it() -> None:
    with pytest.raises(ZeroDivisionError):
        apply_rows(lambda _: 1 // 0, batch_of([]))


def test_a_failure_that_goes_away_alone_fails_no_row() -> None:
    def only_small(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows > 2:
            raise ValueError("too many")
        return batch.set_column(0, "n", pc.add(batch.column("n"), 1))

    result, kept, failed = apply_rows(only_small, batch_of(list(range(9))))

    assert result is not None
    assert result.column("n").to_pylist() == list(range(1, 10))
    assert kept.tolist() == list(range(9))
    assert failed == []
