"""Training of lists: where their centres lie, and which two lists are a row's.

Finding each row's lists among thousands would cost more than all the rest, so
the lists form groups: a row is compared with the lists of its nearest groups
only, by the bits of their centres first, and the lists of a group are trained
on that group's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from penstock.cores import num_cores
from penstock.vectors.plan import F32, I32, I64, U64
from penstock.vectors.threads import faiss_threads, in_threads, read_only

SLOTS = 8
"""Rows of a block."""

TURNS = 4
"""Rounds of the rotation before a component becomes a bit."""

SAMPLE = 48
"""Training rows a list."""

BLOCK = 8192
"""Rows worked on at a time: 12 MB of float32 at 384."""

_HEAD = 8  # words of a block before its codes
_GROUPS = 10  # nearest groups in which a row's lists are looked for
_LOOKED_AT = 24  # lists of those that seem nearest by their bits: its two are among them
_ROUNDS = 3  # of k-means within a group
_MOVES = 2  # of all centres at once, after that: each took a tenth of the codes to read


def block_width(dim: int, codes: str = "rabitq") -> int:
    """Words of a block of 8 rows, see `penstock.kernels.vectors`."""
    if codes == "rabitq":
        return _HEAD + (dim + 63) // 64 * SLOTS
    return _HEAD + (dim + 7) // 8 * SLOTS


@dataclass(frozen=True)
class Centres:
    """Trained lists, as `kernels.vectors.place_rows` takes them.

    Attributes:
        centres: (num_lists + 1, dim) uint16 halves; the last is the mean of the others.
        turned: All but the last, turned, (num_lists, dim) float32.
        blocks: The centres as blocks of one list of bits about the mean.
        signs: Of the rotation, (TURNS, dim).
        groups: Centres of the groups, (num_groups, dim) uint16 halves.
        firsts: The first list of each group, and the number of lists; (num_groups + 1,).
    """

    centres: Any
    turned: F32
    blocks: U64
    signs: F32
    groups: Any
    firsts: I64

    @classmethod
    def of(cls, centres: F32, signs: F32, groups: Any, firsts: I64) -> Self:
        """Round centres (num_lists, dim) to float16 and encode them."""
        from penstock.kernels import vectors as kernels

        halves = centres.astype(np.float16)
        mean = halves.mean(axis=0, dtype=np.float32, keepdims=True).astype(np.float16)
        turned = np.concatenate((halves, mean)).astype(np.float32)
        for centre in turned:
            kernels.rotate(centre, signs)
        blocks = np.zeros((-(-len(halves) // SLOTS), block_width(halves.shape[1])), np.uint64)
        kernels.encode_centres(turned[:-1], turned[-1], blocks)
        known = read_only(np.concatenate((halves, mean)).view(np.uint16))
        return cls(known, turned[:-1], blocks, signs, groups, firsts)

    def place(
        self,
        halves: Any,
        codes: U64 | None = None,
        factors: F32 | None = None,
        groups: int = _GROUPS,
        looked_at: int = _LOOKED_AT,
    ) -> I32:
        """The two lists of each row of (num_rows, dim) uint16; -1 for a row of NaN.

        Args:
            halves: The rows.
            codes: (num_rows, 2, num_words), filled with their bits where it is given.
            factors: (num_rows, 2), filled with what belongs to them.
            groups: Nearest groups in which to look.
            looked_at: Lists whose true distance is computed.
        """
        from penstock.kernels import vectors as kernels

        lists = np.empty((len(halves), 2), np.int32)
        kernels.place_rows(
            halves,
            self.groups,
            self.firsts,
            min(groups, len(self.groups)),
            looked_at,
            self.centres,
            self.turned,
            self.blocks,
            self.signs,
            lists,
            np.empty((0, 2, 0), np.uint64) if codes is None else codes,
            np.empty((0, 2), np.float32) if factors is None else factors,
        )
        return lists


def train(sample: Any, total: int, seed: int) -> Centres:
    """Train `total` lists on a sample of rows, (num_rows, dim) uint16 halves, none of NaN.

    Guarantees: the same for the same arguments.
    """
    import faiss

    rows = sample.view(np.float16).astype(np.float32)
    num_groups = max(1, round(total**0.5))
    with faiss_threads(num_cores()):
        step = max(1, len(rows) // (num_groups * 256))
        groups = _means(rows[::step], num_groups, seed)
        mine = faiss.knn(rows, groups, 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]
    counts = np.bincount(mine, minlength=num_groups)
    share = _shares(counts, total)
    members, ends = np.argsort(mine, kind="stable"), np.cumsum(counts)

    def within(group: int) -> F32:
        if share[group] == 0:
            return np.empty((0, rows.shape[1]), np.float32)
        with faiss_threads(1):
            some = rows[members[ends[group] - counts[group] : ends[group]]]
            return _means(some, int(share[group]), seed)

    firsts = np.concatenate(([0], np.cumsum(share))).astype(np.int64)
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1, 1], np.float32), (TURNS, rows.shape[1]))
    centres = np.concatenate(in_threads(within, range(num_groups)))
    known = read_only(groups.astype(np.float16).view(np.uint16))
    trained = Centres.of(centres, signs, known, firsts)
    for move in range(_MOVES):
        some = slice(move % 2, None, 2)
        trained = Centres.of(_moved(trained, sample[some], rows[some]), signs, known, firsts)
    return trained


def _means(rows: F32, k: int, seed: int) -> F32:
    """Centres of length 1, (k, dim), by k-means over the directions of the rows."""
    import faiss

    means = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=_ROUNDS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=1 << 20,
    )
    means.train(rows)
    return np.asarray(means.centroids, np.float32)


def _moved(trained: Centres, sample: Any, rows: F32) -> F32:
    """Each centre moved to the middle of its rows, which may come from other groups."""
    sample = read_only(np.ascontiguousarray(sample))
    starts = range(0, len(sample), BLOCK)
    parts = in_threads(
        lambda at: trained.place(sample[at : at + BLOCK], groups=5, looked_at=6), starts
    )
    mine = np.concatenate(parts)[:, 0]
    order = np.argsort(mine, kind="stable")
    firsts = np.flatnonzero(np.diff(mine[order], prepend=-1))
    sums = np.add.reduceat(rows[order], firsts, axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    moved: F32 = trained.centres[:-1].view(np.float16).astype(np.float32)
    keep = lengths[:, 0] > 0
    moved[mine[order][firsts][keep]] = (sums / np.maximum(lengths, 1e-9))[keep]
    return moved


def _shares(counts: I64, total: int) -> I64:
    """`total` shared out in proportion to `counts`, to none more than its count."""
    exact = counts * (total / counts.sum())
    share: I64 = np.minimum(np.floor(exact).astype(np.int64), counts)
    for group in np.argsort(share - exact, kind="stable"):
        if share.sum() < total and share[group] < counts[group]:
            share[group] += 1
    return share
