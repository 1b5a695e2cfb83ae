"""Tuning finds what is better, and leaves the default where nothing is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from penstock.errors import ConfigError, QueryError
from penstock.index.evaluate import evaluate
from penstock.index.tune import SETTINGS, Setting, Tuned, order, tune

NUM_ROWS = 2000


@dataclass
class _Sides:
    """What `tune` and `order` look at."""

    row_ids: Any
    keys: Any
    vector: Any
    words: Any
    in_vector: Any
    in_words: Any


@dataclass
class _Collection:
    """Queries of which each has one relevant row among 30 candidates."""

    num_queries: int
    vector_says: float
    words_say: float
    asked: int = 0

    def sides(self, text: str) -> Any:
        self.asked += 1
        draw = np.random.default_rng(int(text))
        vector, words = draw.normal(0, 1, (2, 30))
        vector[7] += self.vector_says
        words[7] += self.words_say
        found = draw.random((2, 30)) < 0.8
        found[:, 7] = True
        rows = np.arange(30, dtype=np.uint64) + 100 * int(text)
        return _Sides(
            rows,
            rows,
            0.4 + 0.05 * vector,
            np.where(found[1], np.exp(words / 2) * 3, 0.0),
            found[0],
            found[1],
        )

    def doc_ids(self, row_ids: Any) -> Sequence[str]:
        return [f"d{row}" for row in row_ids.tolist()]

    def tune(self, **settings: Any) -> Tuned:
        queries = {str(number): str(number) for number in range(self.num_queries)}
        qrels = {query: {f"d{100 * int(query) + 7}": 1} for query in queries}
        return tune(self.sides, self.doc_ids, queries, qrels, **({"num_rows": NUM_ROWS} | settings))


def test_finds_that_one_side_knows_better() -> None:
    by_vector = _Collection(150, 2.5, 0.0).tune()
    by_words = _Collection(150, 0.0, 2.5).tune()

    assert by_vector.improved
    assert by_vector.setting.mode == "vector" or (by_vector.setting.alpha or 0) > 0.6
    assert by_words.setting.mode == "words" or (by_words.setting.alpha or 1) < 0.4
    assert by_vector.gain.low > 0
    assert by_vector.held_out_score == pytest.approx(by_vector.default_score + by_vector.gain.mean)


def test_keeps_the_default_where_the_gain_is_luck() -> None:
    tuned = _Collection(12, 0.6, 0.6).tune()

    assert not tuned.improved
    assert tuned.setting == tuned.default
    assert tuned.best_score >= tuned.default_score
    assert tuned.gain.low <= 0


def test_what_is_as_good_as_the_default_is_no_better() -> None:
    tuned = _Collection(20, 50.0, 50.0).tune(default=Setting(alpha=0.35))

    assert tuned.best == tuned.setting == Setting(alpha=0.35)
    assert tuned.gain.mean == 0


def test_a_default_off_the_grid_takes_part() -> None:
    tuned = _Collection(20, 1.0, 1.0).tune(default=Setting(alpha=0.42))

    assert tuned.default == Setting(alpha=0.42)
    assert tuned.scores["hybrid weighted 0.42"] == tuned.default_score
    assert len(tuned.scores) == len(SETTINGS) + 1


def test_each_query_is_fetched_once() -> None:
    collection = _Collection(15, 1.0, 1.0)

    collection.tune()

    assert collection.asked == 15


def test_the_same_seed_gives_the_same_outcome() -> None:
    collection = _Collection(40, 1.0, 0.8)

    assert collection.tune(seed=5) == collection.tune(seed=5)
    assert collection.tune(seed=5).held_out_score != collection.tune(seed=6).held_out_score


def test_a_query_is_measured_with_what_the_others_chose() -> None:
    class Opposed(_Collection):
        def sides(self, text: str) -> Any:
            sign = 1 if text == "0" else -1
            self.vector_says, self.words_say = 50.0 * sign, -50.0 * sign
            return super().sides(text)

    # One query is answered by vectors alone and one by words: each chooses wrongly for the other.
    tuned = Opposed(2, 0.0, 0.0).tune()

    assert tuned.held_out_score == pytest.approx(0.0, abs=1e-12)
    assert tuned.best_score > 0.3


def test_means_are_those_of_the_rankings() -> None:
    collection = _Collection(6, 1.0, 1.0)
    tuned = collection.tune(measure="map")
    rankings, qrels = {}, {}
    for number in range(6):
        sides = collection.sides(str(number))
        places = order(sides, Setting(mode="words"), NUM_ROWS)
        rankings[str(number)] = collection.doc_ids(sides.row_ids[places])
        qrels[str(number)] = {f"d{100 * number + 7}": 1}

    assert tuned.scores["words"] == pytest.approx(evaluate(rankings, qrels).map)


def test_a_hit_counts_for_its_document() -> None:
    collection = _Collection(5, 9.0, 9.0)
    queries = {str(number): str(number) for number in range(5)}
    # Every row is of one document: the first hit is relevant whatever it is.
    tuned = tune(
        collection.sides,
        lambda rows: ["only"] * len(rows),
        queries,
        {query: {"only": 1} for query in queries},
        num_rows=NUM_ROWS,
        measure="map",
    )

    assert set(tuned.scores.values()) == {1.0}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        pytest.param(Setting(mode="words"), [3, 1, 2], id="words"),
        pytest.param(Setting(mode="vector"), [0, 1, 2], id="vector"),
        pytest.param(Setting(alpha=1.0), [0, 1, 2, 3], id="all-weight-on-the-vector-side"),
        pytest.param(Setting(alpha=0.0), [3, 1, 2, 0], id="all-weight-on-words"),
        pytest.param(Setting(fusion="rrf"), [1, 2, 0, 3], id="rrf"),
        pytest.param(Setting(alpha=None), [1, 0, 2, 3], id="per-query"),
    ],
)
def test_orders_candidates_as_a_search_does(setting: Setting, expected: list[int]) -> None:
    rows = np.array([10, 11, 12, 13], np.uint64)
    sides: Any = _Sides(
        rows,
        rows,
        np.array([0.9, 0.8, 0.5, 0.1]),
        np.array([0.0, 6.0, 2.0, 8.0]),
        np.array([True, True, True, False]),
        np.array([False, True, True, True]),
    )

    assert order(sides, setting, NUM_ROWS).tolist() == expected


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        pytest.param({"measure": "ndcg@5"}, ConfigError, id="measure"),
        pytest.param({"folds": 1}, ConfigError, id="folds"),
    ],
)
def test_settings_out_of_range_are_refused(settings: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        _Collection(10, 1.0, 1.0).tune(**settings)


def test_too_few_judged_queries_are_refused() -> None:
    qrels = {"1": {"a": 1}, "2": {"a": 0}, "unknown": {"a": 1}}
    collection = _Collection(2, 1.0, 1.0)

    with pytest.raises(QueryError, match="found 1"):
        tune(collection.sides, collection.doc_ids, {"1": "1", "2": "2"}, qrels, num_rows=NUM_ROWS)


def test_two_queries_are_enough() -> None:
    tuned = _Collection(2, 1.0, 1.0).tune()

    assert tuned.folds == 2
    assert sum(tuned.chosen.values()) == 20


def test_the_outcome_survives_json() -> None:
    tuned = _Collection(10, 1.0, 1.0).tune()

    assert Tuned.from_json(json.loads(json.dumps(tuned.to_json()))) == tuned


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (Setting(), "hybrid weighted 0.5"),
        (Setting(alpha=None), "hybrid weighted per query"),
        (Setting(fusion="rrf"), "hybrid rrf"),
        (Setting(mode="words"), "words"),
    ],
    ids=["weighted", "per-query", "rrf", "words"],
)
def test_a_setting_has_a_short_name(setting: Setting, text: str) -> None:
    assert str(setting) == text
