"""Lloyd's iterations, starts for them, and mini-batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.cluster._passes import (
    BLOCK,
    F64,
    I32,
    I64,
    Centres,
    Points,
    Reals,
    Turned,
    assign,
    assign_again,
    blocks,
    distances,
    in_threads,
    inertia_of,
    squares_of,
    sums_of,
)

_FEW = 64  # components of all centres together that are worth a pass of their own kind
_BOUNDS_PAY = 64  # from so many centres on
_FULL_ROUNDS = 4  # until then centres move so far that two thirds would be looked at anyway
_SHARE_OF_POINTS = 8  # bounds take at most this part of what the points take


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a run came to: centres (num_clusters, dim) float64 less the points' mean."""

    centres: F64
    labels: I32
    inertia: float
    num_iterations: int


def lloyd(points: Points, start: F64, max_iter: int, tol: float) -> Fitted:
    """Assign and average in turn until labels stay or centres move by less than `tol`.

    Args:
        points: The points.
        start: (num_clusters, dim) float64, less the points' mean.
        max_iter: Rounds at most.
        tol: Least sum of squares of the centres' moves of a round to go on after.

    Guarantees: labels are those of the centres returned; the same in any number of threads.
    """
    few = start.size <= _FEW and len(start) <= 16 and not len(points.weights)
    rounds = _FewRounds(points) if few else _Rounds(points, len(start))
    centres = start.copy()
    if not few:
        order = _near_together(centres)
        centres = centres[order]
    settled, iteration = False, 0
    while iteration < max_iter:
        iteration += 1
        changed, moved = rounds.next(centres)
        shift = float(((moved - centres) ** 2).sum())
        centres = moved
        settled = not changed
        if settled or shift <= tol:
            break
    labels = rounds.labels if settled else rounds.last(centres)
    if not few:
        back = np.empty(len(order), np.int32)
        back[:] = order
        labels = back[labels]
        unsorted = np.empty_like(centres)
        unsorted[order] = centres
        centres = unsorted
    return Fitted(
        centres=centres,
        labels=labels.copy(),
        inertia=inertia_of(points, labels, centres),
        num_iterations=iteration,
    )


class _FewRounds:
    """Rounds for few centres of few components."""

    def __init__(self, points: Points) -> None:
        self._points, self._turned = points, Turned(points)

    @property
    def labels(self) -> I32:
        return self._turned.labels

    def next(self, centres: F64) -> tuple[bool, F64]:
        rounded = centres.astype(self._points.values.dtype).astype(np.float64)
        changed, sums, counts = self._turned.assign(rounded)
        if not counts.all():
            return True, _filled(self._points, self.labels, centres, sums, counts)
        return changed, sums / counts[:, None]

    def last(self, centres: F64) -> I32:
        self._turned.assign(centres.astype(self._points.values.dtype).astype(np.float64))
        return self.labels


class _Rounds:
    """Rounds for any number of centres, with bounds where they pay."""

    def __init__(self, points: Points, num_clusters: int) -> None:
        num, dim = points.values.shape
        dtype = points.values.dtype
        self._points = points
        self.labels: I32 = np.full(num, -1, np.int32)
        self._least = np.empty(num, dtype)
        bounds = num_clusters >= _BOUNDS_PAY and dim >= 2 * _SHARE_OF_POINTS
        self._most_groups = max(1, dim // _SHARE_OF_POINTS) if bounds else 1
        self._lower: Reals | None = None
        self._bounds = bounds
        self._centres: F64 | None = None
        self._num_rounds = 0
        self._sums = np.zeros((num_clusters, dim))

    def next(self, centres: F64) -> tuple[bool, F64]:
        before = self.labels.copy()
        self._assign(centres)
        now, weights = self.labels, self._points.weights
        different = before != now
        if not different.any():
            return False, centres
        wanted = np.zeros(len(centres), np.bool_)
        wanted[now[different]] = True
        wanted[before[different & (before >= 0)]] = True
        sums = sums_of(self._points, now, wanted)
        # A cluster of the same members has the same sum.
        self._sums[wanted] = sums[wanted]
        counts = np.bincount(now, weights if len(weights) else None, minlength=len(centres))
        if not counts.all():
            return True, _filled(self._points, now, centres, self._sums, counts)
        return True, self._sums / counts[:, None]

    def last(self, centres: F64) -> I32:
        self._assign(centres)
        return self.labels

    def _assign(self, centres: F64) -> None:
        dtype = self._points.values.dtype
        laid = Centres.of(centres, dtype, self._most_groups)
        none = np.empty((0, 0), dtype)
        self._num_rounds += 1
        looks_again = self._bounds and self._num_rounds > _FULL_ROUNDS
        if looks_again and self._lower is not None and self._centres is not None:
            moves = centres.astype(dtype).astype(np.float64) - self._centres.astype(dtype)
            drifts = np.sqrt((moves**2).sum(axis=1))
            assign_again(self._points, laid, self.labels, self._least, self._lower, drifts)
        elif self._bounds:
            if self._lower is None:
                self._lower = np.empty((len(self.labels), len(laid.groups) - 1), dtype)
            assign(self._points, laid, self.labels, self._least, self._lower)
        else:
            assign(self._points, laid, self.labels, self._least, none)
        self._centres = centres


def _filled(points: Points, labels: I32, centres: F64, sums: F64, counts: Any) -> F64:
    """Means, where each empty cluster is given the point that is farthest from its centre.

    Source: scikit-learn does so too; of points equally far the first is taken here.
    """
    sums, counts = sums.copy(), counts.astype(np.float64)
    empty = np.flatnonzero(counts == 0)
    weights = points.weights
    spread = np.empty(len(labels))
    for first in range(0, len(labels), 1 << 14):
        rows = slice(first, first + (1 << 14))
        left = points.values[rows].astype(np.float64) - points.mean - centres[labels[rows]]
        spread[rows] = (left**2).sum(axis=1)
    if len(weights):
        spread[weights == 0] = -1.0
    for cluster, point in zip(empty, np.argsort(-spread, kind="stable"), strict=False):
        if spread[point] <= 0:
            break  # no more points that differ from their centre
        weight = weights[point] if len(weights) else 1.0
        value = (points.values[point].astype(np.float64) - points.mean) * weight
        sums[labels[point]] -= value
        counts[labels[point]] -= weight
        sums[cluster] += value
        counts[cluster] += weight
    gone = counts <= 0
    counts[gone] = 1.0
    sums[gone] = centres[gone]
    means: F64 = sums / counts[:, None]
    return means


def _near_together(centres: F64) -> I64:
    """An order in which neighbours are near each other: halved again and again along an axis."""
    order = np.arange(len(centres))
    if len(centres) < _BOUNDS_PAY:
        return order
    parts = [order]
    while len(parts[0]) > 16:
        halves: list[I64] = []
        for part in parts:
            rows = centres[part] - centres[part].mean(axis=0)
            axis = rows[int((rows**2).sum(axis=1).argmax())]
            for _ in range(3):  # towards the axis of the largest spread
                axis = rows.T @ (rows @ axis)
                axis /= max(float(np.sqrt(axis @ axis)), 1e-300)
            ranked = part[np.argsort(rows @ axis, kind="stable")]
            middle = len(part) // 2
            halves += [ranked[:middle], ranked[middle:]]
        parts = halves
    return np.concatenate(parts)


def random_start(points: Points, num_clusters: int, random: np.random.RandomState) -> F64:
    """Distinct points by chance, in proportion to their weights, as scikit-learn draws them."""
    num, weights = len(points.values), points.weights
    if len(weights):
        chosen = random.choice(num, num_clusters, replace=False, p=weights / weights.sum())
        return _at(points, chosen)
    state = random.get_state()
    chosen = (random.random_sample(num_clusters) * num).astype(np.int64)
    if len(np.unique(chosen)) < num_clusters:
        # What `choice` does with equal weights, in the common case without its cost.
        random.set_state(state)
        chosen = random.choice(num, num_clusters, replace=False, p=np.full(num, 1 / num))
    return _at(points, chosen)


def spread_start(points: Points, num_clusters: int, random: np.random.RandomState) -> F64:
    """k-means++: each start is a point drawn in proportion to its squared distance to the others.

    Of some tries, that which leaves the least inertia is taken.

    Source: Arthur and Vassilvitskii 2007, with the tries that scikit-learn makes:
        2 + ln(num_clusters).
    """
    num = len(points.values)
    weights = points.weights if len(points.weights) else np.ones(num)
    tries = 2 + int(np.log(num_clusters))
    chosen = [int(random.choice(num, p=weights / weights.sum()))]
    closest = _squares_to(points, np.array(chosen))[:, 0] * 1.0
    for _ in range(1, num_clusters):
        edges = np.cumsum(closest * weights)
        drawn = np.searchsorted(edges, random.uniform(size=tries) * edges[-1])
        np.minimum(drawn, num - 1, out=drawn)
        reached = np.minimum(_squares_to(points, drawn), closest[:, None])
        best = int((weights[:, None] * reached).sum(axis=0).argmin())
        chosen.append(int(drawn[best]))
        closest = np.ascontiguousarray(reached[:, best])
    return _at(points, np.array(chosen))


def _squares_to(points: Points, chosen: I64) -> F64:
    out = np.empty((len(points.values), len(chosen)), points.values.dtype)
    distances(points, Centres.of(_at(points, chosen), points.values.dtype), out)
    # Its own distance is 0, whatever rounding makes of it: it is not drawn again.
    out[chosen, np.arange(len(chosen))] = 0
    return out.astype(np.float64)


def _at(points: Points, chosen: npt.NDArray[Any]) -> F64:
    at: F64 = (points.values[chosen] - points.mean).astype(np.float64)
    return at


def batches(
    points: Points,
    start: F64,
    counts: F64,
    *,
    batch_size: int,
    num_batches: int,
    random: np.random.RandomState,
) -> F64:
    """Move centres towards the means of random batches, by less the more they have seen.

    Args:
        points: The points.
        start: (num_clusters, dim) float64, less the points' mean.
        counts: (num_clusters,) how much weight each centre has seen; added to.
        batch_size: Points of a batch, drawn with repetition.
        num_batches: How many.
        random: What draws.

    Source: Sculley 2010, Web-scale k-means clustering, algorithm 1.
    """
    centres = start.copy()
    num = len(points.values)
    for turn in range(num_batches):
        rows = np.sort(random.randint(0, num, batch_size))
        part = replace(
            points,
            values=points.values[rows],
            squares=points.squares[rows],
            weights=points.weights[rows] if len(points.weights) else points.weights,
        )
        move_towards(part, centres, counts)
        if turn < num_batches // 2 and turn % 8 == 7:
            _restart_starved(part, centres, counts, random)
    return centres


def move_towards(part: Points, centres: F64, counts: F64) -> None:
    """Move centres, in place, to the mean of all that they have seen with this batch."""
    labels = np.empty(len(part.values), np.int32)
    least = np.empty(len(labels), part.values.dtype)
    none = np.empty((0, 0), part.values.dtype)
    assign(part, Centres.of(centres, part.values.dtype), labels, least, none)
    weights = part.weights if len(part.weights) else None
    seen = np.bincount(labels, weights, minlength=len(centres)).astype(np.float64)
    sums = sums_of(part, labels, seen > 0)
    hit = seen > 0
    counts[hit] += seen[hit]
    centres[hit] += (sums[hit] - seen[hit, None] * centres[hit]) / counts[hit, None]


def _restart_starved(
    part: Points, centres: F64, counts: F64, random: np.random.RandomState
) -> None:
    """Give centres that saw hardly a point another place, as scikit-learn does."""
    starved = np.flatnonzero(counts < 0.01 * counts.max())[: len(part.values) // 2]
    if len(starved):
        chosen = random.choice(len(part.values), len(starved), replace=False)
        centres[starved] = _at(part, chosen)
        rest = np.delete(counts, starved)
        counts[starved] = rest.min() if len(rest) else 1.0


def nearest_labels(
    values: Reals, weights: F64, centres: F64, num_threads: int
) -> tuple[I32, Reals, Points, F64]:
    """Labels and squared distances of new points; points and centres less the centres' mean."""
    mean = centres.mean(axis=0).astype(values.dtype)
    points = Points(
        values=values,
        mean=mean,
        squares=squares_of(values, mean, num_threads),
        weights=weights,
        variance=0.0,
        num_threads=num_threads,
    )
    shifted = centres - mean
    labels, least = np.empty(len(values), np.int32), np.empty(len(values), values.dtype)
    laid = Centres.of(shifted, values.dtype)
    assign(points, laid, labels, least, np.empty((0, 0), values.dtype))
    return labels, least, points, shifted


def nearest_cells(
    values: Reals, centres: F64, num_nearest: int, num_threads: int
) -> tuple[I32, Reals]:
    """The nearest centres of each point, and the squared distance to the nearest.

    Args:
        values: (num_points, dim) float32 or float64, rows contiguous.
        centres: (num_centres, dim) float64.
        num_nearest: How many centres of each point, at most `num_centres`.
        num_threads: How many threads.

    Returns:
        (num_points, num_nearest) int32, nearest first, and (num_points,) of the points' type.
    """
    mean = centres.mean(axis=0).astype(values.dtype)
    laid = Centres.of(centres - mean, values.dtype)
    near = np.empty((len(values), num_nearest), np.int32)
    least = np.empty(len(values), values.dtype)

    def one(block: tuple[int, int]) -> None:
        rows = slice(*block)
        part = Points(
            values=values[rows],
            mean=mean,
            squares=squares_of(values[rows], mean, 1),
            weights=np.empty(0),
            variance=0.0,
            num_threads=1,
        )
        far = np.empty((len(part.values), len(centres)), values.dtype)
        distances(part, laid, far)
        best = np.argpartition(far, num_nearest - 1, axis=1)[:, :num_nearest]
        squares = np.take_along_axis(far, best, axis=1)
        ranked = np.lexsort((best, squares), axis=1)
        near[rows] = np.take_along_axis(best, ranked, axis=1)
        least[rows] = squares.min(axis=1)

    in_threads(num_threads, one, blocks(len(values), BLOCK))
    return near, least
