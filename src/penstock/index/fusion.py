"""Join the vector side's and the word side's scores into one order.

`weighted` and `rrf` take the same candidates with each side's raw score, NaN where
that side does not know the row, and give one score a candidate. Ties are then
broken by each row's key, a hash of its chunk's id (`best`), so the order is total
and does not depend on what came when.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


def weighted(vector_scores: F64, words_scores: F64, alpha: float = 0.5) -> F64:
    """Convex mixture of both sides, each brought to [0, 1].

    Vector scores are scaled from the least to the greatest among the
    candidates, BM25 is divided by its greatest. A candidate that a side does
    not know counts 0 there.

    Args:
        vector_scores: (num_candidates,) float64, NaN for unknown.
        words_scores: (num_candidates,) float64, NaN for unknown.
        alpha: Weight of the vector side in [0, 1].

    Source: Bruch, Gai, Ingber, An Analysis of Fusion Functions for Hybrid Retrieval, 2022.
    """
    from penstock.kernels.fusing import mix

    scores = np.empty(len(vector_scores), np.float64)
    mix(vector_scores, words_scores, float(alpha), scores)
    return scores


def adaptive_alpha(words_scores: F64, num_rows: int) -> float:
    """Weight of the vector side in `weighted` for one query, from what its words say.

    BM25 adds up how surprising the words are that a row shares with the query. Where
    even the best row shares little, as when a question is asked of code, its share of
    the greatest BM25 is 1 all the same, and a fixed mixture trusts it. So the words
    weigh as much as the best row has of them: as much as the vectors at three words as
    rare as can be, at most 1.5 times that, nothing where no word occurs.

    Measured, nDCG@10 (a fixed 0.5): CACM 0.566 (0.566), CoSQA dev 0.577 (0.527) and test
    0.577 (0.541), tasks to programs of MBPP 0.710 (0.670), synopses to pages 0.927 (0.935)
    and titles to bodies 0.629 (0.633) of documentation, docstrings to functions 0.645
    (0.634), names to texts of licences 0.734 (0.735). From 2.5 to 3.5 words in place of
    three the picture stays the same.

    Args:
        words_scores: BM25 of the candidates, (num_candidates,) float64, NaN for unknown.
        num_rows: Rows in the index; a word that one of them holds weighs their logarithm.

    Returns:
        A weight in [0.4, 1].
    """
    best = float(np.nanmax(words_scores, initial=0.0))
    return 1 / (1 + min(1.5, best / (3 * math.log(num_rows + 1)))) if best > 0 else 1.0


def rrf(vector_scores: F64, words_scores: F64, keys: U64, k: int = 60) -> F64:
    """Reciprocal rank fusion: the sum over sides of 1 / (k + rank), ranks from 1.

    A candidate that a side does not know gets nothing from it. Equal scores
    of a side are ranked by key.

    Args:
        vector_scores: (num_candidates,) float64, NaN for unknown.
        words_scores: (num_candidates,) float64, NaN for unknown.
        keys: (num_candidates,) uint64.
        k: Flattens the differences between the first ranks.

    Source: Cormack, Clarke, Buettcher, Reciprocal Rank Fusion, SIGIR 2009.
    """
    total = np.zeros(len(keys), np.float64)
    for scores in (vector_scores, words_scores):
        known = np.flatnonzero(~np.isnan(scores))
        ranked = known[best(scores[known], keys[known])]
        total[ranked] += 1.0 / (k + np.arange(1, len(ranked) + 1))
    return total


def best(scores: F64, keys: U64) -> I64:
    """Places of the scores, high to low; equal ones by key, the smaller first."""
    order: I64 = np.lexsort((keys, -scores))
    return order
