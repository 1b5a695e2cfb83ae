"""The kernels of k-means against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels import kmeans

SHAPES = st.tuples(st.integers(1, 130), st.integers(1, 90), st.integers(1, 40))


def whole(num: int, dim: int, seed: int, dtype: Any) -> Any:
    """Small whole numbers: products are exact in any order."""
    return np.random.default_rng(seed).integers(-4, 5, (num, dim)).astype(dtype)


@given(SHAPES, st.integers(0, 99), st.sampled_from([np.float32, np.float64]), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_nearest_finds_the_least_and_the_bounds(
    shape: tuple[int, int, int], seed: int, dtype: Any, num_groups: int
) -> None:
    num, k, dim = shape
    points, centres = whole(num, dim, seed, dtype), whole(k, dim, seed + 1, dtype)
    mean = whole(1, dim, seed + 2, dtype)[0]
    panels = kmeans.panels_of(centres)
    columns = panels.shape[2]
    offsets = np.full(len(panels) * columns, np.inf, dtype)
    offsets[:k] = (centres**2).sum(axis=1) / 2
    num_groups = min(num_groups, len(panels))
    groups = np.arange(num_groups + 1) * len(panels) // num_groups
    owners = np.repeat(np.arange(num_groups, dtype=np.int32), np.diff(groups) * columns)
    squares = ((points - mean) ** 2).sum(axis=1)
    labels, least = np.empty(num, np.int32), np.empty(num, dtype)
    lower = np.empty((num, num_groups), dtype)
    exact = (((points - mean)[:, None] - centres[None]) ** 2).sum(axis=2)

    kmeans.nearest(
        points, 0, num, mean, squares, panels, offsets.reshape(-1, columns), groups, owners,
        kmeans.tiles(dim, dtype), labels, least, lower,
    )  # fmt: skip

    assert (labels == exact.argmin(axis=1)).all()
    assert (least == exact.min(axis=1)).all()
    exact[np.arange(num), labels] = np.inf
    for g in range(num_groups):
        mine = exact[:, owners[:k] == g].min(axis=1, initial=np.inf)
        np.testing.assert_allclose(lower[:, g], np.sqrt(mine), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 511, 512, 513, 1300])
def test_distances_are_those_of_lines_of_any_length(dim: int, dtype: Any) -> None:
    points, centres = whole(30, dim, 0, dtype), whole(40, dim, 1, dtype)
    panels = kmeans.panels_of(centres)
    offsets = np.zeros((len(panels), panels.shape[2]), dtype)
    offsets.reshape(-1)[:40] = (centres**2).sum(axis=1) / 2
    out = np.empty((30, 40), dtype)

    kmeans.distances(
        points, 0, 30, np.zeros(dim, dtype), (points**2).sum(axis=1), panels, offsets,
        kmeans.tiles(dim, dtype), out,
    )  # fmt: skip

    assert (out == ((points[:, None] - centres[None]) ** 2).sum(axis=2)).all()


@given(SHAPES, st.integers(0, 99), st.integers(-5, 30), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_pairs_are_all_that_reach_the_threshold(
    shape: tuple[int, int, int], seed: int, threshold: int, blocks: int
) -> None:
    num, num_columns, dim = shape
    points = whole(num, dim, seed, np.float32)
    random = np.random.default_rng(seed)
    rows = random.permutation(num)[: num // 2 + 1]
    columns = random.permutation(num)[:num_columns]
    panels = kmeans.panels_of(points[columns])
    expected = {
        (min(a, b), max(a, b), float(points[a] @ points[b]))
        for a in rows.tolist()
        for b in columns.tolist()
        if a != b and points[a] @ points[b] >= threshold
    }

    found: set[Any] = set()
    start, room = 0, kmeans.tiles(dim, np.float32)
    size = blocks * 96 * len(columns)
    while start < len(rows):
        left, right = np.empty(size, np.int64), np.empty(size, np.int64)
        scores = np.empty(size, np.float32)
        filled, start = kmeans.pairs_reaching(
            points, rows, np.zeros(dim, np.float32), panels, columns, np.float32(threshold), room,
            left, right, scores, 0, start,
        )  # fmt: skip
        found |= set(zip(*(a[:filled].tolist() for a in (left, right, scores)), strict=True))

    assert found == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num", [1, 255, 256, 1000])
def test_few_assigns_and_sums_in_one_pass(num: int, dtype: Any) -> None:
    points, centres = whole(num, 3, 0, dtype), whole(4, 3, 1, np.float64)
    turned = np.empty((-(-num // 256), 3, 256), dtype)
    labels = np.full((len(turned), 256), -2, np.int32)
    sums = np.empty((4, 4))
    exact = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)

    kmeans.turn(points, np.zeros(3, dtype), 0, len(turned), turned)
    changed = kmeans.few(turned, num, 0, len(turned), centres, labels, sums)
    again = kmeans.few(turned, num, 0, len(turned), centres, labels, sums)

    assert changed
    assert not again
    assert (labels.reshape(-1)[:num] == exact).all()
    for c in range(4):
        assert sums[c, 3] == (exact == c).sum()
        assert (sums[c, :3] == points[exact == c].sum(axis=0)).all()
