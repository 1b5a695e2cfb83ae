"""Two sides become one order."""

import numpy as np
import pytest

from penstock.index import fusion

_NAN = float("nan")


@pytest.mark.parametrize(
    ("vector", "words", "alpha", "scores"),
    [
        pytest.param([0.9, 0.5, 0.1], [0.0, 4.0, 2.0], 0.5, [0.5, 0.75, 0.25], id="by-hand"),
        pytest.param([0.9, 0.5, 0.1], [0.0, 4.0, 2.0], 1.0, [1.0, 0.5, 0.0], id="vectors-only"),
        pytest.param([0.9, 0.5, 0.1], [0.0, 4.0, 2.0], 0.0, [0.0, 1.0, 0.5], id="words-only"),
        pytest.param([0.9, _NAN, 0.1], [_NAN, 4.0, 1.0], 0.5, [0.5, 0.5, 0.125], id="unknown-is-0"),
        pytest.param([0.3, 0.3], [0.0, 0.0], 0.5, [0.5, 0.5], id="all-alike"),
        pytest.param([_NAN], [_NAN], 0.5, [0.0], id="nothing-known"),
        pytest.param([], [], 0.5, [], id="empty"),
    ],
)
def test_weighted(
    vector: list[float], words: list[float], alpha: float, scores: list[float]
) -> None:
    found = fusion.weighted(np.array(vector, float), np.array(words, float), alpha)

    assert found == pytest.approx(scores)


@pytest.mark.parametrize(
    ("vector", "words", "scores"),
    [
        pytest.param([0.9, 0.5], [1.0, 2.0], [1 / 61 + 1 / 62] * 2, id="first-and-second"),
        pytest.param([0.9, _NAN], [_NAN, 2.0], [1 / 61, 1 / 61], id="one-side-each"),
        pytest.param([0.5, 0.5], [_NAN, _NAN], [1 / 62, 1 / 61], id="ties-by-row-id"),
        pytest.param([], [], [], id="empty"),
    ],
)
def test_rrf(vector: list[float], words: list[float], scores: list[float]) -> None:
    rows = np.array([9, 4][: len(vector)], np.uint64)

    assert fusion.rrf(np.array(vector, float), np.array(words, float), rows) == pytest.approx(
        scores
    )


def test_equal_scores_come_by_key() -> None:
    rows = np.array([2**63, 5, 3, 4], np.uint64)

    assert fusion.best(np.array([1.0, 1.0, 0.5, 2.0]), rows).tolist() == [3, 1, 0, 2]


_UNIT = 3 * np.log(1001)  # three words that one row of 1000 holds


@pytest.mark.parametrize(
    ("words", "alpha"),
    [
        pytest.param([0.0, 0.0], 1.0, id="no-word-occurs"),
        pytest.param([_NAN, _NAN], 1.0, id="nothing-known"),
        pytest.param([], 1.0, id="empty"),
        pytest.param([1.0, _UNIT], 1 / 2, id="three-rare-words"),
        pytest.param([_UNIT / 2, _NAN], 2 / 3, id="half-of-that"),
        pytest.param([1.25 * _UNIT, 0.0], 1 / 2.25, id="a-quarter-more"),
        pytest.param([50 * _UNIT], 0.4, id="a-whole-page-as-query"),
    ],
)
def test_words_weigh_as_much_as_the_best_row_has_of_them(words: list[float], alpha: float) -> None:
    assert fusion.adaptive_alpha(np.array(words, float), 1000) == pytest.approx(alpha)


def test_in_a_larger_index_the_same_bm25_weighs_less() -> None:
    scores = np.array([12.0])

    weights = [fusion.adaptive_alpha(scores, num_rows) for num_rows in (1, 10, 1000, 10**7)]

    assert weights == sorted(weights)
