"""Join the vector side's and the word side's scores into one order.

Both functions take the same candidates with each side's raw score, NaN where
that side does not know the row, and give one score a candidate. Ties are then
broken by row id, the smaller first (`best`), so the order is total.
"""

from __future__ import annotations

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
    return alpha * _min_max(vector_scores) + (1 - alpha) * _share_of_max(words_scores)


def rrf(vector_scores: F64, words_scores: F64, row_ids: U64, k: int = 60) -> F64:
    """Reciprocal rank fusion: the sum over sides of 1 / (k + rank), ranks from 1.

    A candidate that a side does not know gets nothing from it. Equal scores
    of a side are ranked by row id.

    Args:
        vector_scores: (num_candidates,) float64, NaN for unknown.
        words_scores: (num_candidates,) float64, NaN for unknown.
        row_ids: (num_candidates,) uint64.
        k: Flattens the differences between the first ranks.

    Source: Cormack, Clarke, Buettcher, Reciprocal Rank Fusion, SIGIR 2009.
    """
    total = np.zeros(len(row_ids), np.float64)
    for scores in (vector_scores, words_scores):
        known = np.flatnonzero(~np.isnan(scores))
        ranked = known[best(scores[known], row_ids[known])]
        total[ranked] += 1.0 / (k + np.arange(1, len(ranked) + 1))
    return total


def best(scores: F64, row_ids: U64, k: int | None = None) -> I64:
    """Places of the k highest scores, high to low; equal ones by row id, the smaller first."""
    order: I64 = np.lexsort((row_ids, -scores))
    return order if k is None else order[:k]


def _min_max(scores: F64) -> F64:
    known = scores[~np.isnan(scores)]
    if len(known) == 0:
        return np.zeros_like(scores)
    low, high = known.min(), known.max()
    # All alike says nothing against any of them.
    scaled = np.ones_like(scores) if low == high else (scores - low) / (high - low)
    return np.where(np.isnan(scores), 0.0, scaled)


def _share_of_max(scores: F64) -> F64:
    known = scores[~np.isnan(scores)]
    high = known.max(initial=0.0)
    return np.where(np.isnan(scores), 0.0, scores) / high if high > 0 else np.zeros_like(scores)
