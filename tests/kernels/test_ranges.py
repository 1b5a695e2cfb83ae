from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels.ranges import copy_ranges


@settings(deadline=None)  # the first example waits for the compiler
@given(
    source=st.binary(min_size=1, max_size=200),
    picks=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 90)), max_size=12),
)
def test_ranges_are_copied_as_slices_are(source: bytes, picks: list[tuple[int, int]]) -> None:
    ranges = [(min(a, len(source)), n) for a, n in picks]
    ranges = [(a, min(n, len(source) - a)) for a, n in ranges]
    sizes = np.array([n for _, n in ranges], np.int64)
    target = np.zeros(int(sizes.sum()), np.uint8)
    places = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)[: len(sizes)]

    starts = np.array([a for a, _ in ranges], np.int64)
    copy_ranges(np.frombuffer(source, np.uint8), starts, sizes, target, places)

    assert target.tobytes() == b"".join(source[a : a + n] for a, n in ranges)


@pytest.mark.parametrize(
    ("start", "size", "place"),
    [
        pytest.param(2, 3, 0, id="beyond-the-source"),
        pytest.param(0, 3, 6, id="beyond-the-target"),
        pytest.param(-1, 1, 0, id="before-the-source"),
        pytest.param(0, -1, 0, id="negative-size"),
    ],
)
def test_a_range_outside_its_array_is_refused(start: int, size: int, place: int) -> None:
    target = np.zeros(8, np.uint8)
    one = [np.array([value], np.int64) for value in (start, size, place)]

    with pytest.raises(IndexError):
        copy_ranges(np.ones(4, np.uint8), one[0], one[1], target, one[2])

    assert not target.any()
