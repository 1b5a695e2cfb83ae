"""Measure what a search of the vectors misses, and find the effort at which it misses little."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.index.index import Index
from penstock.index.query import Filter, Query

F32 = npt.NDArray[np.float32]

SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
"""Shares of the rows that a condition leaves, at which recall is measured."""
_EFFORTS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
_K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What was measured at one selectivity.

    Attributes:
        share: Share of the rows that were allowed, chosen at random.
        rows: How many rows that is.
        recall: Share of the true 10 best that were found, mean over the queries.
        worst: The same for the query that fared worst.
        milliseconds: Median time of a search.
    """

    share: float
    rows: int
    recall: float
    worst: float
    milliseconds: float


def measure_recall(index: Index, queries: F32, effort: float, seed: int = 0) -> list[Recall]:
    """Compare the search of an index with the exact one, at every share of `SHARES`.

    Args:
        index: The index, with vectors.
        queries: (num_queries, dim) float32.
        effort: As in `Query`.
        seed: Of the choice of rows.

    Cost: one pass over all vectors per query and share.
    """
    return [_at_share(index, queries, effort, share, seed) for share in SHARES]


def least_effort(index: Index, queries: F32, target: float) -> tuple[float, list[Recall]]:
    """The least effort at which every recall reaches the target, and what was measured with it.

    The greatest effort tried, if none does.
    """
    measured: list[Recall] = []
    for effort in _EFFORTS:
        measured = measure_recall(index, queries, effort)
        if all(each.recall >= target for each in measured):
            return effort, measured
    return _EFFORTS[-1], measured


def sample_queries(index: Index, num_queries: int, seed: int = 0) -> F32:
    """Vectors between two rows' vectors, each chosen at random: like rows, but none of them.

    Returns:
        (num_queries, dim) float32 of length 1; fewer where rows have no vector.
    """
    random = np.random.default_rng(seed)
    pairs = random.integers(0, max(len(index.row_ids), 1), (num_queries, 2))
    found = []
    for one, other in index.row_ids[pairs].tolist() if len(index.row_ids) else []:
        near, far = _vector(index, one), _vector(index, other)
        if near is not None and far is not None:
            between = 0.7 * near + 0.3 * far
            found.append(between / max(float(np.linalg.norm(between)), 1e-12))
    return np.array(found, np.float32).reshape(len(found), index.manifest.dim or 0)


def _vector(index: Index, row_id: int) -> F32 | None:
    place = index.position(row_id)
    return None if place is None else index.vector(place)


def _at_share(index: Index, queries: F32, effort: float, share: float, seed: int) -> Recall:
    allowed = None if share == 1.0 else _random_filter(index, share, seed)
    seconds, recalls = [], []
    for vector in queries:
        query = Query(vector=vector, mode="vector", allowed=allowed, effort=effort)
        started = time.perf_counter()
        found = index.nearest(query, _K)
        seconds.append(time.perf_counter() - started)
        true = index.nearest(query, _K, exact=True)
        # A row that scores as the last true one does is as good as it.
        good = np.count_nonzero(found >= true[-1]) if len(true) else 0
        recalls.append(min(good, len(true)) / len(true) if len(true) else 1.0)
    return Recall(
        share=share,
        rows=index.num_rows if allowed is None else sum(allowed.counts),
        recall=float(np.mean(recalls)) if recalls else 1.0,
        worst=float(np.min(recalls)) if recalls else 1.0,
        milliseconds=float(np.median(seconds) * 1e3) if seconds else 0.0,
    )


def _random_filter(index: Index, share: float, seed: int) -> Filter:
    ids = index.row_ids
    wanted = max(1, round(share * len(ids)))
    mask = np.zeros(len(ids), np.bool_)
    mask[np.random.default_rng(seed).permutation(len(ids))[:wanted]] = True
    return index.filter(ids, mask)
