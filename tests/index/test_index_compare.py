"""Two results of the same queries are told apart where they differ, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.errors import QueryError
from penstock.index.compare import compare, paired_difference
from penstock.index.evaluate import evaluate


def _drawn(num_queries: int, mean: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.3, num_queries)


def test_says_the_mean_and_who_wins() -> None:
    difference = paired_difference(np.array([0.5, -0.25, 0.0, 0.25]))

    assert difference.mean == 0.125
    assert (difference.better, difference.worse, difference.equal) == (2, 1, 1)
    assert difference.low <= difference.mean <= difference.high


def test_the_interval_is_that_of_the_normal_distribution() -> None:
    values = _drawn(2000, 0.05)

    difference = paired_difference(values)

    half = 1.96 * values.std() / np.sqrt(len(values))
    assert difference.low == pytest.approx(values.mean() - half, abs=half / 20)
    assert difference.high == pytest.approx(values.mean() + half, abs=half / 20)


@pytest.mark.parametrize("wins", [1, 2, 3, 5], ids=str)
def test_few_wins_prove_little(wins: int) -> None:
    difference = paired_difference(np.linspace(0.1, 0.3, wins))

    # All signs alike, either way: two of 2**wins.
    assert difference.p_value == pytest.approx(2 / 2**wins, abs=0.02)


def test_no_difference_is_no_evidence() -> None:
    difference = paired_difference(np.zeros(7))

    assert (difference.mean, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)
    assert difference.equal == 7


def test_chance_looks_significant_one_time_in_twenty() -> None:
    trials = [paired_difference(_drawn(40, 0.0, seed), samples=500) for seed in range(200)]

    assert np.mean([trial.p_value < 0.05 for trial in trials]) == pytest.approx(0.05, abs=0.04)
    outside = np.mean([not trial.low <= 0 <= trial.high for trial in trials])
    assert outside == pytest.approx(0.05, abs=0.05)


def test_a_true_difference_is_seen_and_turns_round() -> None:
    up, down = paired_difference(_drawn(200, 0.1)), paired_difference(-_drawn(200, 0.1))

    assert up.p_value < 0.001
    assert up.low > 0
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low), abs=0.005)


def test_the_seed_decides_the_draws() -> None:
    values = _drawn(50, 0.05)

    assert paired_difference(values, seed=3) == paired_difference(values, seed=3)
    assert paired_difference(values, seed=3) != paired_difference(values, seed=4)


def test_many_queries_are_drawn_in_parts() -> None:
    difference = paired_difference(_drawn(300_000, 0.0), samples=30)

    assert difference.low < difference.high


def test_no_queries_give_zeros() -> None:
    assert paired_difference(np.empty(0)).p_value == 1.0


def test_compares_measure_by_measure() -> None:
    qrels = {"1": {"a": 1}, "2": {"b": 1}}
    old = evaluate({"1": ["x", "a"], "2": ["b"]}, qrels)
    new = evaluate({"1": ["a"], "2": ["b"]}, qrels)

    differences = compare(new, old)

    assert differences["mrr@10"].mean == 0.25
    assert differences["recall@100"].mean == 0.0
    assert differences["mrr@10"].to_json()["better"] == 1


def test_results_of_other_queries_are_refused() -> None:
    one = evaluate({"1": ["a"]}, {"1": {"a": 1}})
    other = evaluate({"2": ["a"]}, {"2": {"a": 1}})

    with pytest.raises(QueryError, match="same judged queries"):
        compare(one, other)
