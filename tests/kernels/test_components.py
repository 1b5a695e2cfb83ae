from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import near_twins as twins

from penstock.kernels import components

# Few values, so that bands agree often; 16 bytes are two words.
SIGNATURES = st.lists(st.lists(st.integers(0, 2), min_size=16, max_size=16), max_size=12)


def as_bytes(rows: list[list[int]]) -> npt.NDArray[np.uint8]:
    return np.array(rows, np.uint8).reshape(len(rows), 16)


def different(a: list[int], b: list[int]) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


@settings(deadline=None, max_examples=100)
@given(num=st.integers(1, 12), data=st.data())
def test_joined_pairs_are_connected_components(num: int, data: st.DataObject) -> None:
    node = st.integers(0, num - 1)
    links = data.draw(st.lists(st.tuples(node, node), max_size=15))
    pairs = np.array(links, np.int64).reshape(-1, 2)
    parents = np.arange(num)

    components.join(parents, pairs[:, 0].copy(), pairs[:, 1].copy())
    components.roots(parents)

    assert parents.tolist() == twins.components(num, links)


@settings(deadline=None, max_examples=100)
@given(keys=st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_rows_of_equal_keys_are_joined(keys: list[int]) -> None:
    column = np.array(keys, np.uint64)
    parents = np.arange(len(keys))

    components.join_runs(column, np.argsort(column), parents)
    components.roots(parents)

    assert parents.tolist() == [keys.index(key) for key in keys]


@settings(deadline=None, max_examples=100)
@given(rows=SIGNATURES, most=st.integers(0, 16), size=st.integers(1, 4))
def test_similar_rows_of_a_band_are_joined(rows: list[list[int]], most: int, size: int) -> None:
    signatures = as_bytes(rows)
    keys, everyone = np.empty(len(rows), np.uint64), np.arange(len(rows))
    components.band_keys(signatures, everyone, 3, size, keys)
    order, words = np.argsort(keys), signatures.view(np.uint64)
    links = [
        (i, j)
        for i in range(len(rows))
        for j in range(i)
        if rows[i][3 : 3 + size] == rows[j][3 : 3 + size] and different(rows[i], rows[j]) <= most
    ]
    parents = np.arange(len(rows))

    components.join_similar(keys, order, words, most, 99, parents)
    components.roots(parents)

    assert parents.tolist() == twins.components(len(rows), links)


@settings(deadline=None, max_examples=100)
@given(rows=SIGNATURES, limits=st.tuples(st.integers(0, 9), st.integers(5, 16)))
def test_similar_pairs_are_all_within_the_limits(
    rows: list[list[int]], limits: tuple[int, int]
) -> None:
    least, most = limits
    keys, everyone = np.zeros(len(rows), np.uint64), np.arange(len(rows))
    words = as_bytes(rows).view(np.uint64)
    expected = {
        (j, i)
        for i in range(len(rows))
        for j in range(i)
        if least <= different(rows[i], rows[j]) <= most
    }
    room = np.empty((2, 200), np.int64)

    n = components.similar_pairs(keys, everyone, words, least, most, 99, room[0], room[1])
    short = components.similar_pairs(
        keys, everyone, words, least, most, 99, room[0, :1].copy(), room[1, :1].copy()
    )

    assert set(zip(*room[:, :n].tolist(), strict=True)) == expected
    assert n == short == len(expected)


def test_a_row_is_compared_with_no_more_than_its_window() -> None:
    words = as_bytes([[i] * 16 for i in range(9)]).view(np.uint64)
    keys, order, parents = np.zeros(9, np.uint64), np.arange(9), np.arange(9)

    compared = components.join_similar(keys, order, words, 0, 3, parents)

    assert compared == 3 * 6 + 2 + 1


@pytest.mark.parametrize("num_bytes", [8, 112, 2040, 2048, 9000], ids=str)
def test_differences_are_counted_in_signatures_of_any_length(num_bytes: int) -> None:
    rng = np.random.default_rng(num_bytes)
    rows = rng.integers(0, 2, (2, num_bytes), np.uint8) * np.uint8(128)
    every = np.stack([np.zeros(num_bytes, np.uint8), np.full(num_bytes, 255, np.uint8)])
    words = np.concatenate([rows, every]).view(np.uint64)
    pairs = np.array([0, 2, 1]), np.array([1, 3, 1])

    counts = components.num_different(words, *pairs)

    assert counts.tolist() == [int((rows[0] != rows[1]).sum()), num_bytes, 0]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 20], ids=str)
def test_a_band_key_tells_every_byte(size: int) -> None:
    base = np.arange(24, dtype=np.uint8)
    changed = np.stack([base] * 25)
    for k in range(24):
        changed[k, k] ^= 0x40
    keys = np.empty(25, np.uint64)

    components.band_keys(changed, np.arange(25), 2, size, keys)

    inside = [k for k in range(24) if keys[k] != keys[24]]
    assert inside == list(range(2, 2 + size))
    assert len(np.unique(keys)) == size + 1
