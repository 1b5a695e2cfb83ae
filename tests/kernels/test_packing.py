from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import packing_twins as twins

from penstock.kernels import batching, packing, shuffling

PIECES = st.lists(st.integers(1, 20), max_size=60)


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(0, 50), max_size=30), most=st.integers(1, 20))
def test_cutting_is_what_its_twin_does(lengths: list[int], most: int) -> None:
    pieces = packing.cut(np.array(lengths, np.int32), most)

    assert list(zip(*(column.tolist() for column in pieces), strict=True)) == twins.cut(
        lengths, most
    )


@settings(deadline=None, max_examples=100)
@given(lengths=PIECES, size=st.integers(20, 40))
def test_best_fit_is_what_its_twin_does(lengths: list[int], size: int) -> None:
    rows, num_rows = packing.best_fit(np.array(lengths, np.int32), size)

    assert rows.tolist() == twins.best_fit(lengths, size)
    assert num_rows == len(set(rows.tolist()))


@settings(deadline=None, max_examples=100)
@given(data=st.data(), num_rows=st.integers(1, 8))
def test_pieces_are_listed_row_after_row(data: st.DataObject, num_rows: int) -> None:
    rows = data.draw(st.lists(st.integers(0, num_rows - 1), max_size=30))
    order = data.draw(st.permutations(range(num_rows)))

    pieces, begins = packing.by_row(np.array(rows, np.int64), num_rows, np.array(order))

    listed = [pieces[a:b].tolist() for a, b in itertools.pairwise(begins)]
    assert listed == [[i for i, row in enumerate(rows) if row == want] for want in order]


@settings(deadline=None, max_examples=200)
@given(lengths=PIECES, budget=st.integers(20, 100))
def test_groups_keep_the_budget_and_are_large_enough(lengths: list[int], budget: int) -> None:
    ordered = sorted(lengths, reverse=True)

    begins = packing.groups(np.array(ordered, np.int32), budget).tolist()

    groups = [ordered[a:b] for a, b in itertools.pairwise(begins)]
    assert list(itertools.chain(*groups)) == ordered
    assert all(len(group) * group[0] <= budget for group in groups)
    least = budget // ordered[0] if ordered else 0
    if len(ordered) >= len(groups) * least:
        assert all(len(group) >= least for group in groups[:-1])
        assert len(groups) < 2 or len(groups[-1]) >= least


@settings(deadline=None, max_examples=100)
@given(n=st.integers(1, 500), key=st.integers(0, 2**64 - 1), data=st.data())
def test_a_keyed_permutation_is_one_and_any_part_of_it_can_be_had(
    n: int, key: int, data: st.DataObject
) -> None:
    whole = shuffling.permuted(0, n, n, np.uint64(key)).tolist()
    first = data.draw(st.integers(0, n))
    last = data.draw(st.integers(first, n))

    assert sorted(whole) == list(range(n))
    assert shuffling.permuted(first, last, n, np.uint64(key)).tolist() == whole[first:last]
    assert whole == twins.permuted(n, key)
    assert [shuffling.place_of(x, n, np.uint64(key)) for x in whole] == list(range(n))
    assert shuffling.shuffled(n, np.uint64(key)).tolist() == twins.shuffled(n, key)


@pytest.mark.parametrize("n", [10**9, 10**12, 2**60])
def test_a_place_of_very_many_is_found_at_once(n: int) -> None:
    part = shuffling.permuted(n - 1000, n, n, np.uint64(7))

    assert len(set(part.tolist())) == 1000
    assert part.min() >= 0
    assert part.max() < n
    assert abs(part.mean() / n - 0.5) < 0.05


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_order_of_a_few_is_as_likely(n: int) -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 24_000).astype(np.uint64)
    for orders in (
        np.array([shuffling.permuted(0, n, n, key) for key in keys]),
        np.array([shuffling.shuffled(n, key) for key in keys]),
    ):
        at = np.array([[(orders[:, place] == x).mean() for x in range(n)] for place in range(n)])

        assert np.abs(at - 1 / n).max() < 0.015


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_digest_depends_on_what_is_covered_and_not_on_the_cuts(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=8))
    whole = int(batching.digest_whole(5, np.array(lengths, np.int32)))
    sample, start, length = packing.cut(np.array(lengths, np.int32), data.draw(st.integers(1, 9)))

    assert batching.digest(sample + 5, start, length) == (whole, sum(lengths))
    if len(length):
        twice = data.draw(st.integers(0, len(length) - 1))
        more = [np.append(column, column[twice]) for column in (sample + 5, start, length)]

        assert batching.digest(more[0], more[1], more[2])[0] != whole
