"""Kernels of vector search against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from penstock.kernels import vectors as kernels
from penstock.vectors.train import block_width


def test_every_half_is_read_as_numpy_reads_it() -> None:
    halves = np.arange(2**16, dtype=np.uint16)[:, None]
    expected = halves.view(np.float16).astype(np.float32)[:, 0]
    scores = np.empty(2**16, np.float32)

    kernels.scores_of(np.ones(1, np.float32), halves, np.arange(2**16), scores)

    assert np.array_equal(scores, expected, equal_nan=True)


@pytest.mark.parametrize("dim", [1, 2, 63, 64, 65, 127, 384, 1000])
def test_an_inner_product_is_that_of_float64_nearly(dim: int) -> None:
    rng = np.random.default_rng(dim)
    halves = rng.normal(size=(30, dim)).astype(np.float16)
    query = rng.normal(size=dim).astype(np.float32)
    scores = np.empty(30, np.float32)

    kernels.scores_of(query, halves.view(np.uint16), np.arange(30), scores)

    exact = halves.astype(np.float64) @ query.astype(np.float64)
    np.testing.assert_allclose(scores, exact, atol=1e-6 * dim)


@pytest.mark.parametrize("dim", [1, 2, 3, 48, 64, 100, 384])
def test_a_rotation_keeps_inner_products_and_spreads_weight(dim: int) -> None:
    rng = np.random.default_rng(dim)
    signs = rng.choice(np.array([-1, 1], np.float32), (4, dim))
    one, two = np.eye(1, dim, dtype=np.float32)[0], rng.normal(size=dim).astype(np.float32)
    before = float(one @ two), float(two @ two)

    kernels.rotate(one, signs)
    kernels.rotate(two, signs)

    assert (float(one @ two), float(two @ two)) == pytest.approx(before, rel=1e-4, abs=1e-4)
    assert dim < 48 or np.abs(one).max() < 0.6


def test_places_of_a_mask_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for num_rows in (0, 1, 7, 8, 9, 64, 1001):
        for share in (0, 0.01, 0.5, 1):
            mask = rng.random(num_rows) < share
            bits = mask.view(np.uint8)
            bits.flags.writeable = False
            places = np.empty(int(mask.sum()), np.int32)
            words = bits[: num_rows // 8 * 8].view(np.uint64)

            assert kernels.places_of(words, bits, places) == mask.sum()
            assert places.tolist() == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("k", [1, 5, 64])
def test_the_best_are_sorted_by_score_and_then_by_place(k: int) -> None:
    rng = np.random.default_rng(k)
    values = rng.integers(-3, 4, 500).astype(np.float16)  # many ties, zeros of both signs
    values[rng.random(500) < 0.1] = np.nan
    values[rng.random(500) < 0.1] = -0.0
    halves = values[:, None].view(np.uint16)
    scores, places = np.empty(k, np.float32), np.empty(k, np.int64)
    wanted = rng.permutation(500).astype(np.int32)

    size = kernels.best_of(np.ones(1, np.float32), halves, wanted, scores, places)

    order = np.lexsort((np.arange(500), -values.astype(np.float32)))
    expected = [place for place in order if not np.isnan(values[place])][:k]
    assert places[:size].tolist() == expected


@pytest.mark.parametrize("size", [1, 2, 9, 500])
def test_the_nth_greatest_splits_the_values(size: int) -> None:
    rng = np.random.default_rng(size)
    for values in (rng.normal(size=size).astype(np.float32), rng.integers(0, 3, size)):
        for n in {1, (size + 1) // 2, size}:
            mixed = values.copy()

            found = kernels._nth(mixed, size, n)

            assert found == np.sort(values)[::-1][n - 1]
            assert sorted(mixed[:n]) == sorted(np.sort(values)[::-1][:n])
            assert sorted(mixed) == sorted(values)


def test_lists_are_ranked_by_their_centres() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(81, 24)).astype(np.float16)
    query = rng.normal(size=24).astype(np.float32)
    ranks = np.empty(80, np.int64)

    kernels.rank_lists(query, _mapped(centres), ranks)

    scores = centres[:80].astype(np.float32) @ query
    assert np.argsort(ranks).tolist() == np.argsort(-scores).tolist()


def _mapped(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    halves = array.view(np.uint16)
    halves.flags.writeable = False
    return halves


@pytest.mark.parametrize("dim", [1, 30, 64, 130, 384])
def test_codes_estimate_the_inner_product(dim: int) -> None:
    """With one list and a depth of 1, the best by codes must be among the best in truth."""
    rng = np.random.default_rng(dim)
    rows = rng.normal(size=(163, dim)).astype(np.float16)
    halves = _mapped(rows)
    slots = np.append(np.arange(163, dtype=np.int32), np.full(5, -1, np.int32))
    centre = rows.astype(np.float32).mean(axis=0, keepdims=True).astype(np.float16)
    centres = _mapped(np.concatenate((centre, centre)))
    query = rng.normal(size=dim).astype(np.float32)
    true = rows.astype(np.float32) @ query
    spread = rng.uniform(0.5, 2, dim).astype(np.float32)
    signs = rng.choice(np.array([-1, 1], np.float32), (4, dim))
    turned, middle = rows.astype(np.float32), centre.astype(np.float32)[0]
    for row in (*turned, middle):
        kernels.rotate(row, signs)
    of_centres = np.zeros((1, block_width(dim)), np.uint64)
    kernels.encode_centres(middle[None], middle, of_centres)
    bits = np.zeros((21, block_width(dim)), np.uint64)
    kernels.encode_centres(turned, middle, bits)
    codes = np.zeros((21, block_width(dim, "sq8")), np.uint64)
    kernels.fill_with_bytes(halves, slots, spread, codes)
    for blocks, units, slack in ((codes, spread, 0.05), (bits, spread[:0], 3.0)):
        scores, places = np.empty(1, np.float32), np.empty(1, np.int64)
        seen = np.empty(3, np.int64)
        found = kernels.search_lists(
            query,
            halves,
            centres,
            of_centres,
            signs,
            units,
            np.array([0, 21]),
            blocks,
            np.empty(0, np.uint8),
            1,
            0,
            0,
            1,
            scores,
            places,
            seen,
        )

        assert (found, seen.tolist()) == (1, [1, 163, 1])
        assert true.max() - true[places[0]] <= slack * np.linalg.norm(query)
