"""Passes over all points: each cut into fixed blocks, so that threads change nothing but the time.

What a pass gives is a function of one point, or a sum over a fixed run of
points; runs are added up in their order. No sum depends on which thread did it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from penstock.cores import num_cores

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Reals = npt.NDArray[Any]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

BLOCK = 1536  # points of a block: a multiple of what the kernels work on at a time
_RUN = 4096  # members that are summed up in one go
_FEW_SIZE = 256  # points of a block that is turned
_FEW_BLOCKS = 64  # such blocks in one go


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points, and what is computed of them once.

    Attributes:
        values: (num_points, dim), float32 or float64, rows contiguous.
        mean: (dim,) of the same type; everything else is about the points less their mean,
            which costs the products of rows the least precision.
        squares: (num_points,) of the same type, of the lengths.
        weights: (num_points,) float64; empty where all are 1.
        variance: Mean over the components of their variance.
        num_threads: How many threads passes use.
    """

    values: Reals
    mean: Reals
    squares: Reals
    weights: F64
    variance: float
    num_threads: int = field(default_factory=num_cores)


def in_threads(
    num_threads: int, function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> list[_Result]:
    """The function of each item, in the items' order."""
    items = list(items)
    if num_threads == 1 or len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(function, items))


def blocks(num: int, size: int) -> list[tuple[int, int]]:
    """First and last of each block."""
    return [(first, min(first + size, num)) for first in range(0, num, size)]


def prepare(values: Reals, weights: F64, num_threads: int) -> Points:
    """Points with mean, squares and variance, in two passes."""
    from penstock.kernels import kmeans

    num, dim = values.shape
    cut = blocks(num, 16 * BLOCK)

    def moments(mean: F64) -> tuple[F64, F64]:
        def of(block: tuple[int, int]) -> tuple[F64, F64]:
            sums, squares = np.zeros(dim), np.zeros(dim)
            kmeans.moments(values, *block, mean, sums, squares)
            return sums, squares

        parts = in_threads(num_threads, of, cut)
        return sum(p[0] for p in parts) / num, sum(p[1] for p in parts) / num

    # Near enough to the mean for squares about it to keep their precision.
    near = values[:: max(1, num // 1024)].mean(axis=0, dtype=np.float64)
    left, squares = moments(near)
    mean = (near + left).astype(values.dtype)
    return Points(
        values=values,
        mean=mean,
        squares=squares_of(values, mean, num_threads),
        weights=weights,
        variance=float(np.mean(np.maximum(squares - left**2, 0))),
        num_threads=num_threads,
    )


def squares_of(values: Reals, mean: Reals, num_threads: int) -> Reals:
    """Squares of the lengths of points less a mean, (num_points,)."""
    from penstock.kernels import kmeans

    out = np.empty(len(values), values.dtype)
    in_threads(
        num_threads,
        lambda block: kmeans.squares_of(values, *block, mean, out),
        blocks(len(values), 16 * BLOCK),
    )
    return out


@dataclass(frozen=True, kw_only=True)
class Centres:
    """Centres as the kernels want them.

    Attributes:
        values: (num_centres, dim) float64, less the mean of the points.
        panels: Of the values in the points' type.
        offsets: (num_panels, width): half the square of each.
        groups: (num_groups + 1,) the first panel of each group.
        owners: (num_panels * width,) the group of each centre.
    """

    values: F64
    panels: Reals
    offsets: Reals
    groups: I64
    owners: I32

    @classmethod
    def of(cls, values: F64, dtype: Any, most_groups: int = 1) -> Centres:
        """Lay out centres, in at most so many groups of whole panels."""
        from penstock.kernels import kmeans

        rounded = values.astype(dtype)
        panels = kmeans.panels_of(rounded)
        columns = panels.shape[2]
        offsets = np.full(len(panels) * columns, np.inf, dtype)
        offsets[: len(values)] = (rounded.astype(np.float64) ** 2).sum(axis=1) / 2
        num_groups = max(1, min(most_groups, len(panels)))
        groups = np.arange(num_groups + 1, dtype=np.int64) * len(panels) // num_groups
        owners = np.repeat(np.arange(num_groups, dtype=np.int32), np.diff(groups) * columns)
        return cls(
            values=values,
            panels=panels,
            offsets=offsets.reshape(len(panels), columns),
            groups=groups,
            owners=owners,
        )


def assign(points: Points, centres: Centres, labels: I32, least: Reals, lower: Reals) -> None:
    """Fill labels, squared distances and, where wanted, the bounds of each group."""
    from penstock.kernels import kmeans

    values = points.values

    def one(block: tuple[int, int]) -> None:
        kmeans.nearest(
            values,
            *block,
            points.mean,
            points.squares,
            centres.panels,
            centres.offsets,
            centres.groups,
            centres.owners,
            kmeans.tiles(values.shape[1], values.dtype),
            labels,
            least,
            lower,
        )

    in_threads(points.num_threads, one, blocks(len(values), BLOCK))


def assign_again(
    points: Points, centres: Centres, labels: I32, least: Reals, lower: Reals, drifts: F64
) -> float:
    """As `assign`, after centres moved by `drifts`; the share of groups that were looked at."""
    from penstock.kernels import kmeans

    values = points.values
    # Rounded up, for a bound that is too near only costs time.
    moved = np.zeros(len(centres.owners), values.dtype)
    moved[: len(drifts)] = drifts * (1 + 1e-5)
    eps = float(np.finfo(values.dtype).eps)
    longest = float(points.squares.max(initial=0)) + float((centres.values**2).sum(axis=1).max())
    margin = values.dtype.type(4 * eps * np.sqrt(values.shape[1] + 16) * longest)

    def one(block: tuple[int, int]) -> int:
        return int(
            kmeans.nearest_again(
                values,
                *block,
                points.mean,
                points.squares,
                centres.panels,
                centres.offsets,
                centres.groups,
                centres.owners,
                kmeans.tiles(values.shape[1], values.dtype),
                labels,
                least,
                lower,
                moved,
                margin,
            )
        )

    looked = in_threads(points.num_threads, one, blocks(len(values), BLOCK))
    return sum(looked) / (len(values) * (len(centres.groups) - 1))


def sums_of(points: Points, labels: I32, wanted: npt.NDArray[np.bool_]) -> F64:
    """Weighted sum of the members of each wanted cluster, (num_clusters, dim); zeros elsewhere."""
    from penstock.kernels import kmeans

    num_clusters, dim = len(wanted), points.values.shape[1]
    members = np.argsort(labels.astype(_label_type(num_clusters)), kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=num_clusters))
    firsts = np.concatenate(([0], ends[:-1]))
    owner: list[int] = []
    cut: list[tuple[int, int]] = []
    for cluster in np.flatnonzero(wanted & (ends > firsts)):
        for first in range(int(firsts[cluster]), int(ends[cluster]), _RUN):
            owner.append(int(cluster))
            cut.append((first, min(first + _RUN, int(ends[cluster]))))
    bounds = np.array(cut, np.int64).reshape(-1, 2)
    runs = np.zeros((len(cut), dim))
    in_threads(
        points.num_threads,
        lambda block: kmeans.sum_members(
            points.values, points.mean, points.weights, members, bounds, *block, runs
        ),
        blocks(len(cut), max(1, -(-len(cut) // (8 * points.num_threads)))),
    )
    sums = np.zeros((num_clusters, dim))
    np.add.at(sums, np.array(owner, np.int64), runs)  # one after the other, in their order
    return sums


def _label_type(num_clusters: int) -> Any:
    """Narrow labels are sorted by radix, which is faster."""
    return np.uint16 if num_clusters <= 1 << 16 else np.int32


def inertia_of(points: Points, labels: I32, centres: F64) -> float:
    """Weighted sum of the squared distances of the points to their centres, by differences."""
    from penstock.kernels import kmeans

    parts = in_threads(
        points.num_threads,
        lambda block: float(
            kmeans.spread_of(points.values, *block, points.mean, points.weights, labels, centres)
        ),
        blocks(len(points.values), 4 * BLOCK),
    )
    return float(np.sum(parts))


def distances(points: Points, centres: Centres, out: Reals) -> None:
    """Squared distance of each point to each centre, into out (num_points, num_centres)."""
    from penstock.kernels import kmeans

    def one(block: tuple[int, int]) -> None:
        kmeans.distances(
            points.values,
            *block,
            points.mean,
            points.squares,
            centres.panels,
            centres.offsets,
            kmeans.tiles(points.values.shape[1], points.values.dtype),
            out[block[0] : block[1]],
        )

    in_threads(points.num_threads, one, blocks(len(points.values), BLOCK))


class Turned:
    """Points by component, for passes with few centres of few components.

    `assign` gives the labels and the sums of the members of each cluster in one
    pass that memory bounds; there is no matrix of distances.
    """

    def __init__(self, points: Points) -> None:
        from penstock.kernels import kmeans

        self._points = points
        num, dim = points.values.shape
        num_blocks = -(-num // _FEW_SIZE)
        self._values = np.empty((num_blocks, dim, _FEW_SIZE), points.values.dtype)
        self._labels = np.full((num_blocks, _FEW_SIZE), -2, np.int32)
        self._cut = blocks(num_blocks, _FEW_BLOCKS)
        in_threads(
            points.num_threads,
            lambda block: kmeans.turn(points.values, points.mean, *block, self._values),
            self._cut,
        )

    @property
    def labels(self) -> I32:
        """Of the last pass, (num_points,)."""
        return self._labels.reshape(-1)[: len(self._points.values)]

    def assign(self, centres: F64) -> tuple[bool, F64, F64]:
        """Whether a label changed; sums of the members and their number for each centre."""
        from penstock.kernels import kmeans

        dim = centres.shape[1]

        def one(block: tuple[int, int]) -> tuple[bool, F64]:
            sums = np.empty((len(centres), dim + 1))
            num = len(self._points.values)
            return bool(kmeans.few(self._values, num, *block, centres, self._labels, sums)), sums

        parts = in_threads(self._points.num_threads, one, self._cut)
        sums = np.sum([part[1] for part in parts], axis=0)
        return any(part[0] for part in parts), sums[:, :dim], sums[:, dim]
