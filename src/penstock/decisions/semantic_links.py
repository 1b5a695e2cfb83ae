"""Vectors that point nearly the same way: found cell by cell, and who stays for whom."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.cluster import KMeans, in_threads, nearest_cells
from penstock.kernels import I64
from penstock.records import hash_column

F32 = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

_SAMPLE = 64  # points a cell that train the cells
_ROUNDS = 10
_ROOM = 1 << 20  # pairs that a thread finds before they are taken
_MOST_PAIRS = 1 << 23  # linked pairs that are held at once: 60 bytes each

Take: TypeAlias = Callable[[I64, I64, F32], bool]
"""Gets pairs, the smaller place first, and their cosines; says whether to go on."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs that are linked: places of the vectors, `left` before `right`, and their cosine."""

    left: I64
    right: I64
    cosine: F32


@dataclass(frozen=True, slots=True)
class Links:
    """Vectors by cells, ready to be compared.

    Attributes:
        units: (num_vectors, dim) float32, rows contiguous, of length 1.
        distance: (num_vectors,) squared distance to the nearest centre.
        probes: In how many cells each vector is.
        least: Least cosine of a pair.
        homes: The vectors whose nearest cell is this one.
        guests: The vectors that have this cell among their nearest.
        num_cells: How many there are.
        num_threads: How many threads compare.
    """

    units: F32
    distance: F32
    probes: int
    least: np.float32
    homes: Callable[[int], I64]
    guests: Callable[[int], I64]
    num_cells: int
    num_threads: int

    def visit(self, take: Take, ones: Flags | None = None, others: Flags | None = None) -> None:
        """Give every linked pair to `take`, from many threads at once; a pair may come twice.

        Args:
            take: Gets them.
            ones: Only pairs of two of these;
            others: or, where given, of one of `ones` with one of these.
        """

        def one(cell: int) -> None:
            home, guests = self.homes(cell), self.guests(cell)
            if ones is None:
                _compare(self, home, guests, take)
            elif others is None:
                _compare(self, home[ones[home]], guests[ones[guests]], take)
            else:
                _compare(self, home[ones[home]], guests[others[guests]], take)
                _compare(self, home[others[home]], guests[ones[guests]], take)

        in_threads(self.num_threads, one, range(self.num_cells))


def find_links(
    units: F32, *, least: float, clusters: int | None, probes: int, seed: int, num_threads: int
) -> Links:
    """Find the cells of vectors; arguments as of `Links` and `SemanticDedup`."""
    total = min(clusters or max(1, round(len(units) ** 0.5)), len(units))
    means = KMeans(
        total, init="random", n_init=1, max_iter=_ROUNDS, random_state=seed, n_jobs=num_threads
    ).fit(_sample(units, total * _SAMPLE))
    centres = means.cluster_centers_.astype(np.float64)
    near, distance = nearest_cells(units, centres, min(probes, total), num_threads)
    guests = _members(near.reshape(-1), total)
    return Links(
        units=units,
        distance=distance,
        probes=near.shape[1],
        least=np.float32(least),
        homes=_members(near[:, 0], total),
        guests=lambda cell: guests(cell) // near.shape[1],
        num_cells=total,
        num_threads=num_threads,
    )


def linked_pairs(links: Links) -> Pairs:
    """All pairs, sorted, each once: for those who know that they are few."""
    found = _Collected(most=1 << 62)
    links.visit(found.take)
    return found.pairs(len(links.units))


def by_component(links: Links, order: I64) -> tuple[I64, F32]:
    """Who stays for each vector: the first of all that are linked, directly or through others.

    Returns:
        (num_vectors,) who stays, and (num_vectors,) the cosine with it, linked or not.
    """
    from penstock.kernels import components

    units, rank = links.units, _rank(order)
    roots, lock = np.arange(len(units)), threading.Lock()

    def join(left: I64, right: I64, cosine: F32) -> bool:
        with lock:
            components.join(roots, rank[left], rank[right])
        return True

    links.visit(join)
    components.roots(roots)  # of ranks: the root is the first of its component
    kept = np.empty(len(units), np.int64)
    kept[order] = order[roots]
    moved = np.flatnonzero(kept != np.arange(len(units)))
    best = np.full(len(units), -np.inf, np.float32)
    for first in range(0, len(moved), 1 << 14):
        rows = moved[first : first + (1 << 14)]
        best[rows] = np.minimum(np.einsum("ij,ij->i", units[rows], units[kept[rows]]), 1.0)
    return kept, best


def by_representative(links: Links, order: I64, most: int = _MOST_PAIRS) -> tuple[I64, F32]:
    """Who stays for each vector: in their order, each that is linked with none that stays already.

    A block of vectors that may still stay is compared within itself, all of them
    at first, fewer where they have too many pairs; who stays of them is then
    compared with all later ones, of which pairs are forgotten at once.

    Returns:
        (num_vectors,) the nearest that stays and is before it, or itself; and
        (num_vectors,) the cosine with it.
    """
    num = len(links.units)
    rank, kept = _rank(order), np.arange(num)
    best = np.full(num, -np.inf, np.float32)
    open_rows, size = order, num
    while len(open_rows):
        rows = open_rows[:size]
        block = _flags(rows, num)
        found = _Collected(most=most)
        links.visit(found.take, None if len(rows) == num else block)
        if found.is_full and len(rows) > 1:
            size = max(1, len(rows) // 4)
            continue
        _represent(found.pairs(num), rows, rank, kept, best)
        if len(rows) < num:  # of those outside, some may be nearer than what they go for so far
            _tell_others(links, rows[kept[rows] == rows], ~block, rank, kept, best)
        open_rows = open_rows[size:]
        open_rows = open_rows[kept[open_rows] == open_rows]
    return kept, best


class _Collected:
    """Pairs as they are found, up to a number."""

    def __init__(self, most: int) -> None:
        self._most, self._num = most, 0
        self._parts: list[tuple[I64, I64, F32]] = []
        self._lock = threading.Lock()

    @property
    def is_full(self) -> bool:
        """Whether there were more than that."""
        return self._num > self._most

    def take(self, left: I64, right: I64, cosine: F32) -> bool:
        """Keep these, unless there are too many by now."""
        with self._lock:
            self._num += len(left)
            if not self.is_full:
                self._parts.append((left, right, cosine))
            return not self.is_full

    def pairs(self, num: int) -> Pairs:
        """Sorted, each once."""
        if not self._parts:
            none = np.empty(0, np.int64)
            return Pairs(none, none, np.empty(0, np.float32))
        left, right, cosine = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        _, first = np.unique(left * num + right, return_index=True)
        return Pairs(left[first], right[first], np.minimum(cosine[first], np.float32(1.0)))


def _represent(pairs: Pairs, rows: I64, rank: I64, kept: I64, best: F32) -> None:
    from penstock.kernels import kmeans

    ends = np.concatenate((pairs.left, pairs.right))
    by_row = np.argsort(ends, kind="stable")
    firsts = np.concatenate(([0], np.cumsum(np.bincount(ends, minlength=len(rank)))))
    others = np.concatenate((pairs.right, pairs.left))[by_row]
    scores = np.concatenate((pairs.cosine, pairs.cosine))[by_row]
    kmeans.represent(firsts, others, scores, rows, rank, kept, best)


def _tell_others(links: Links, stay: I64, others: Flags, rank: I64, kept: I64, best: F32) -> None:
    """Note for others which of these, before them in the order, is nearest."""
    stays, lock = _flags(stay, len(rank)), threading.Lock()

    def note(left: I64, right: I64, cosine: F32) -> bool:
        own = np.where(stays[left], left, right)
        other = left + right - own
        later = rank[other] > rank[own]
        own, other = own[later], other[later]
        score = np.minimum(cosine[later], np.float32(1.0))
        order = np.lexsort((rank[own], -score, other))
        _, first = np.unique(other[order], return_index=True)
        chosen = order[first]
        own, other, score = own[chosen], other[chosen], score[chosen]
        with lock:
            is_tie = (score == best[other]) & (rank[own] < rank[kept[other]])
            nearer = (score > best[other]) | is_tie
            kept[other[nearer]], best[other[nearer]] = own[nearer], score[nearer]
        return True

    links.visit(note, stays, others)


def _flags(rows: I64, num: int) -> Flags:
    flags = np.zeros(num, np.bool_)
    flags[rows] = True
    return flags


def _rank(order: I64) -> I64:
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _sample(units: F32, size: int) -> F32:
    """Vectors of the least hashes, in the order of those: a function of the set alone."""
    if len(units) <= size:
        size = len(units)
    kind = pa.binary(units.shape[1] * units.itemsize)
    keys = np.empty(len(units), np.uint64)
    for first in range(0, len(units), 1 << 14):
        part = np.ascontiguousarray(units[first : first + (1 << 14)])
        rows = pa.Array.from_buffers(kind, len(part), [None, pa.py_buffer(part)])
        digests = hash_column(rows.cast(pa.large_binary())).buffers()[1]
        keys[first : first + len(part)] = np.frombuffer(digests, np.uint64)[::2]
    return np.ascontiguousarray(units[np.argsort(keys, kind="stable")[:size]])


def _members(cells: npt.NDArray[np.int32], total: int) -> Callable[[int], I64]:
    order = np.argsort(cells, kind="stable")
    ends = np.concatenate(([0], np.cumsum(np.bincount(cells, minlength=total))))
    return lambda cell: order[ends[cell] : ends[cell + 1]]


def _compare(links: Links, home: I64, visitors: I64, take: Take) -> None:
    """Give the linked pairs of one at home and a visitor, until `take` has enough."""
    from penstock.kernels import kmeans

    if not len(home) or not len(visitors):
        return
    dim = links.units.shape[1]
    room, mean = kmeans.tiles(dim, np.float32), np.zeros(dim, np.float32)
    for columns in _slices(home, 1024):  # panels that stay in the second cache
        panels = kmeans.panels_of(links.units[columns])
        start = 0
        while start < len(visitors):
            left, right = np.empty(_ROOM, np.int64), np.empty(_ROOM, np.int64)
            cosine = np.empty(_ROOM, np.float32)
            found, start = kmeans.pairs_reaching(
                links.units,
                visitors,
                mean,
                panels,
                columns,
                links.least,
                room,
                left,
                right,
                cosine,
                0,
                start,
            )
            pairs = (left[:found].copy(), right[:found].copy(), cosine[:found].copy())
            if found and not take(*pairs):
                return


def _slices(array: I64, size: int) -> Iterator[I64]:
    for first in range(0, len(array), size):
        yield array[first : first + size]
