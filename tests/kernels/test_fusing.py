from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels import fusing

SCORES = st.dictionaries(st.integers(0, 30), st.floats(-1, 1), max_size=12)
SIDE = st.lists(st.floats(-2, 2) | st.just(math.nan), min_size=1, max_size=8)


def arrays(side: dict[int, float]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return np.array([*side], np.int64), np.array([*side.values()], np.float64)


@settings(deadline=None)
@given(by_vector=SCORES, by_words=SCORES)
def test_both_sides_are_merged_in_order(
    by_vector: dict[int, float], by_words: dict[int, float]
) -> None:
    total = len(by_vector) + len(by_words)
    positions, vector, words = np.empty(total, np.int64), np.empty(total), np.empty(total)

    size = fusing.join(*arrays(by_vector), *arrays(by_words), positions, vector, words)

    expected = sorted({*by_vector, *by_words})
    assert positions[:size].tolist() == expected
    for found, side in ((vector, by_vector), (words, by_words)):
        np.testing.assert_array_equal(found[:size], [side.get(p, math.nan) for p in expected])


@settings(deadline=None)
@given(vector=SIDE, words=SIDE, alpha=st.floats(0, 1))
def test_a_mixture_is_what_the_formula_says(
    vector: list[float], words: list[float], alpha: float
) -> None:
    size = min(len(vector), len(words))
    vector, words, scores = vector[:size], words[:size], np.empty(size)

    fusing.mix(np.array(vector), np.array(words), alpha, scores)

    known = [score for score in vector if not math.isnan(score)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    most = max((score for score in words if score > 0), default=math.inf)
    for one, other, found in zip(vector, words, scores, strict=True):
        first = 0.0 if math.isnan(one) else 1.0 if low == high else (one - low) / (high - low)
        second = 0.0 if math.isnan(other) else other / most
        assert found == pytest.approx(alpha * first + (1 - alpha) * second)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5), data=st.data())
def test_values_are_gathered_from_several_arrays(sizes: list[int], data: st.DataObject) -> None:
    parts = [np.arange(size, dtype=np.uint64) + 100 * i for i, size in enumerate(sizes)]
    addresses = np.array([part.ctypes.data for part in parts], np.int64)
    whole, starts = np.concatenate(parts), np.cumsum([0, *sizes])
    place = st.integers(0, max(len(whole) - 1, 0))
    positions = np.array(data.draw(st.lists(place, max_size=len(whole) and 6)), np.int64)
    values = np.empty(len(positions), np.uint64)

    fusing.gather(addresses, starts, positions, values)

    assert values.tolist() == whole[positions].tolist()
