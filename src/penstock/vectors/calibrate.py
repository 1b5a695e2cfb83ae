"""How many lists to read: measured on the segment's own rows when its lists are built.

The allowed rows of a random filter of selectivity s hold the k best where the
whole segment holds its k / s best. So a segment measures how much of its best
10, 100 and 1000 rows the nearest lists hold, and a filtered search reads off
the curve of its depth k / s.

What is asked matters. A row lies among its like, and a tenth of the lists that
a real question needs holds its neighbours. Half way between two rows taken at
random is a better stand-in, though still too near: over 200k chunks of code and
documents, 36 lists of 4025 held 96 % for it, and 83 for questions about code;
those about nothing in there took 100 for 95 %.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from penstock.vectors.files import Facts
from penstock.vectors.plan import F32, I32, I64
from penstock.vectors.threads import in_threads

DEPTHS = (10, 100, 1000)
"""How many best rows each curve is about."""

_LOG_DEPTHS = [math.log(depth) for depth in DEPTHS]

TARGET = 0.96
"""Recall that the lists are read for."""

MARGIN = 3.0
"""So many times the lists that a stand-in needs, for a question."""

_GRAPH_MARGIN = 0.8  # so many times its ef: a graph finds a question's rows sooner
_QUERIES = 150
_BLOCK = 8192


def measure_lists(
    halves: Any, centres: Any, lists_of: I32, seed: int
) -> tuple[list[int], list[list[float]]]:
    """Recall by the number of lists read.

    Returns:
        Numbers of lists, ascending to all of them, and for each of `DEPTHS` the
        share of so many best rows that those lists hold.
    """
    from penstock.kernels import vectors as kernels

    present = np.nonzero(lists_of[:, 0] >= 0)[0]
    queries, places = draw_questions(halves, present, np.random.default_rng(seed + 1))
    total = len(centres) - 1

    def ranks(at: int) -> Any:
        by_list = np.empty(total + 1, np.int64)
        by_list[-1] = total  # of a row without a second list
        kernels.rank_lists(queries[at], centres, by_list[:total])
        return by_list[lists_of[places[at]]].min(axis=1)

    needed = np.array(in_threads(ranks, range(len(queries))))
    efforts = np.unique(np.append(np.geomspace(1, total, 40).round(), total).astype(np.int64))
    recall = [
        [round(float((needed[:, :best] < probes).mean()), 4) for probes in efforts]
        for best in DEPTHS
    ]
    return efforts.tolist(), recall


def draw_questions(halves: Any, present: I64 | I32, rng: np.random.Generator) -> tuple[F32, I64]:
    """Stand-ins for questions, each half way between two rows, and their best rows but those.

    Returns:
        (num_queries, dim), and places (num_queries, depth), best first, of 1000 rows or all.
    """
    pairs = rng.choice(present, (_QUERIES, 2))
    rows = halves[pairs].view(np.float16).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=2, keepdims=True)
    queries: F32 = (rows / np.maximum(lengths, 1e-9)).sum(axis=1)
    depth = min(DEPTHS[-1], len(present) - 2)
    best = _best_rows(queries, halves, depth + 2)
    others = [row[~np.isin(row, pair)][:depth] for row, pair in zip(best, pairs, strict=True)]
    return queries, np.array(others)


def _best_rows(queries: F32, halves: Any, depth: int) -> I64:
    """Places of the best rows by products of matrices, (num_queries, depth).

    Three times as fast as the search's own scores, whose last bits do not matter here.
    """
    from penstock.kernels import vectors as kernels

    rows = halves.view(np.float16)
    keys = np.empty((len(queries), depth), np.int64)
    sizes = np.zeros(len(queries), np.int64)
    for start in range(0, len(rows), _BLOCK):
        scores = queries @ rows[start : start + _BLOCK].astype(np.float32).T
        kernels.keep_best(scores, start, keys, sizes)
    places = np.empty(keys.shape, np.int64)
    kernels.unpack_best(keys, sizes, np.empty(keys.shape, np.float32), places)
    return places


@dataclass(frozen=True)
class Curves:
    """What a segment measured, ready to be asked for each query.

    Attributes:
        efforts: Numbers of lists (or of HNSW's ef), ascending.
        recall: At each of them, for each of `DEPTHS`.
        needed: Log of the number that reaches `TARGET`, for each of `DEPTHS`.
        complete: The last of `efforts` reads every row, as all lists do and no walk does.
        margin: So many times what a stand-in needs, for a question.
    """

    efforts: list[int]
    recall: list[list[float]]
    needed: list[float]
    complete: bool
    margin: float

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """The curves that a segment's build has left."""
        needed = [
            math.log(_between(TARGET, _rising(curve), facts.efforts)) for curve in facts.recall
        ]
        needed = np.maximum.accumulate(needed).tolist()  # but for chance, they ascend
        lists = facts.kind == "ivf"
        margin = MARGIN if lists else _GRAPH_MARGIN
        return cls(facts.efforts, facts.recall, needed, lists, margin)

    def probes(self, depth: float, share: float, effort: float) -> int:
        """How many lists to read for `TARGET` of the best `depth` rows, a `share` of them allowed.

        Fewer allowed rows are found within fewer lists, and vary more: the margin grows.
        """
        at = _between(math.log(max(depth, 1)), _LOG_DEPTHS, self.needed)
        if depth > DEPTHS[-1]:  # beyond the last curve, as steep as between the last two
            slope = (self.needed[-1] - self.needed[-2]) / (_LOG_DEPTHS[-1] - _LOG_DEPTHS[-2])
            at += max(slope, 0.5) * (math.log(depth) - _LOG_DEPTHS[-1])
        return max(1, round(math.exp(min(at, 40)) * self.margin * _wider(share) * effort))

    def expected(self, depth: float, share: float, probes: int) -> float:
        """Recall to be expected of a question that reads so many lists."""
        if self.complete and probes >= self.efforts[-1]:
            return 1.0
        alike, at = probes / (self.margin * _wider(share)), math.log(max(depth, 1))
        low = 0 if at < _LOG_DEPTHS[1] else 1
        curves = [_between(alike, self.efforts, self.recall[low])]
        if at > _LOG_DEPTHS[low]:
            curves.append(_between(alike, self.efforts, self.recall[low + 1]))
        return _between(at, _LOG_DEPTHS[low : low + len(curves)], curves)


def _wider(share: float) -> float:
    """What a predicate adds: fewer rows vary more."""
    return math.pow(share, -0.05)


def _rising(curve: Sequence[float]) -> list[float]:
    """The curve with no step down or level, so that it can be read the other way round."""
    rising = [curve[0]]
    for value in curve[1:]:
        rising.append(max(value, rising[-1] + 1e-9))
    return rising


def _between(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Linear interpolation; at the ends, the end's value."""
    at = bisect.bisect_left(xs, x)
    if at == 0:
        return ys[0]
    if at == len(xs):
        return ys[-1]
    return ys[at - 1] + (ys[at] - ys[at - 1]) * (x - xs[at - 1]) / (xs[at] - xs[at - 1])
