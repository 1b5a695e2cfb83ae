"""Lists of a segment's rows by nearness: trained, filled and written, or mapped.

Finding each row's list among thousands would cost more than all the rest, so
the lists form groups: a row is compared with the lists of its nearest groups
only, and the lists of a group are trained on that group's rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from penstock.cores import num_cores
from penstock.vectors.files import Facts, map_array
from penstock.vectors.plan import F16, F32, I64

I32 = npt.NDArray[np.int32]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

SLOTS = 8
"""A list's length is a multiple of this: the bits of 8 rows lie interleaved."""

_BLOCK = 8192  # rows worked on at a time: 12 MB of float32 at 384
_SAMPLE = 32  # training rows a list
_GROUPS = 8  # nearest groups in which a row's lists are looked for
_CANDIDATES = 4  # lists of each of them that may become its second
_TURNS = 4  # rounds of the rotation before a component becomes a bit


def num_lists(num_vectors: int) -> int:
    """How many lists for so many vectors: some 100 slots each at 200k."""
    return max(1, min(round(9 * math.sqrt(num_vectors)), num_vectors // 16))


@dataclass(frozen=True)
class Lists:
    """The mapped lists of a segment; the arrays are those of `kernels.vectors.search_lists`."""

    centres: Any
    centre_bits: Any
    centre_factors: Any
    signs: Any
    spread: Any
    firsts: Any
    slots: Any
    bits: Any
    codes: Any
    factors: Any

    @classmethod
    def open(cls, folder: Path, facts: Facts) -> Self:
        """Map the files.

        Raises:
            StoreError: A file is missing, short or damaged.
        """
        dim, words = facts.dim, (facts.dim + 63) // 64 * SLOTS
        slots = map_array(folder / "slots.npy", np.int32, (-1,))
        blocks, padded = len(slots) // SLOTS, _padded(facts.lists)
        by_bits = facts.codes == "rabitq"
        shape = (blocks, words) if by_bits else (len(slots), dim)
        codes = map_array(folder / "codes.npy", np.uint64 if by_bits else np.int8, shape)
        no_bits, no_codes = np.empty((0, SLOTS), np.uint64), np.empty((0, 0), np.int8)
        no_bits.flags.writeable = no_codes.flags.writeable = False
        return cls(
            centres=map_array(folder / "centres.npy", np.uint16, (facts.lists + 1, dim)),
            centre_bits=map_array(folder / "centre_bits.npy", np.uint64, (padded // SLOTS, words)),
            centre_factors=map_array(folder / "centre_factors.npy", np.float32, (padded,)),
            signs=map_array(folder / "signs.npy", np.float32, (_TURNS, dim)),
            spread=map_array(folder / "spread.npy", np.float32, (dim,)),
            firsts=map_array(folder / "firsts.npy", np.int64, (facts.lists + 1,)),
            slots=slots,
            bits=codes if by_bits else no_bits,
            codes=no_codes if by_bits else codes,
            factors=map_array(folder / "factors.npy", np.float32, (len(slots),)),
        )


def build_lists(folder: Path, halves: Any, codes: str, seed: int, total: int) -> I32:
    """Train lists, put every row into two and write them with their codes.

    Args:
        folder: Where the files go.
        halves: (num_rows, dim) uint16 bits of float16; a row of NaN goes into no list.
        codes: `sq8` or `rabitq`.
        seed: Of the sample, of k-means and of the rotation.
        total: How many lists.

    Returns:
        The two lists of each row, (num_rows, 2) int32; -1 without a vector.

    Guarantees: the same for the same arguments.
    Cost: some 40 us a row and core at 200k x 384; blocks and 30 bytes a row of memory.
    """
    rows = halves.view(np.float16)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(len(rows))[: total * _SAMPLE])
    drawn = rows[sample].astype(np.float32)
    drawn = drawn[~np.isnan(drawn[:, 0])]
    centres = _train(drawn, total, seed)
    lists_of = np.empty((len(rows), 2), np.int32)

    def assign(start: int) -> None:
        block = rows[start : start + _BLOCK].astype(np.float32)
        lists_of[start : start + _BLOCK] = centres.nearest(block)

    in_threads(assign, range(0, len(rows), _BLOCK))
    slots, firsts = _slots(lists_of, total)
    spread = np.sqrt(np.mean(drawn**2, axis=0))
    spread = np.where(spread > 0, spread, 1).astype(np.float32)
    signs: F32 = rng.choice(np.array([-1, 1], np.float32), (_TURNS, rows.shape[1]))
    mean = centres.halves.mean(axis=0, dtype=np.float32, keepdims=True).astype(np.float16)
    known = np.concatenate((centres.halves, mean)).view(np.uint16)
    np.save(folder / "centres.npy", known)
    np.save(folder / "firsts.npy", firsts)
    np.save(folder / "slots.npy", slots)
    np.save(folder / "signs.npy", signs)
    np.save(folder / "spread.npy", spread)
    _write_centre_bits(folder, known, signs)
    _write_codes(folder, halves, centres.floats, firsts, slots, signs, spread, codes)
    return lists_of


@dataclass(frozen=True)
class _Centres:
    """Trained lists.

    Attributes:
        halves: Their centres as they are kept, (num_lists, dim) float16; floats: as float32.
        groups: Centres of the groups, (num_groups, dim).
        first: The first list of each group, and the number of lists; (num_groups + 1,).
    """

    halves: F16
    floats: F32
    groups: F32
    first: I64

    @classmethod
    def of(cls, centres: F32, groups: F32, first: I64) -> Self:
        halves = centres.astype(np.float16)
        return cls(halves, halves.astype(np.float32), groups, first)

    def nearest(self, block: F32) -> I32:
        """The lists of each row of a block, (num_rows, 2) int32; -1 for a row of NaN."""
        import faiss

        from penstock.kernels import vectors as kernels

        present = ~np.isnan(block[:, 0])
        rows = block if present.all() else np.where(present[:, None], block, np.float32(0))
        metric, k = faiss.METRIC_INNER_PRODUCT, min(_GROUPS, len(self.groups))
        lists = np.full((len(rows), k, _CANDIDATES), -1, np.int32)
        near = np.zeros((len(rows), k, _CANDIDATES), np.float32)
        with faiss_threads(1):
            groups = faiss.knn(rows, self.groups, k, metric=metric)[1]
            for group in range(len(self.groups)):
                first, last = int(self.first[group]), int(self.first[group + 1])
                mine, turn = np.nonzero(groups == group)
                few = min(_CANDIDATES, last - first)
                if len(mine) == 0 or few == 0:
                    continue
                scores, found = faiss.knn(rows[mine], self.floats[first:last], few, metric=metric)
                near[mine, turn, :few], lists[mine, turn, :few] = scores, found + first
        chosen = np.empty((len(rows), 2), np.int32)
        lists, near = lists.reshape(len(rows), -1), near.reshape(len(rows), -1)
        halves = self.halves.view(np.uint16)
        kernels.second_lists(rows, self.floats, halves, lists, near, chosen)
        chosen[~present] = -1
        return chosen


def _train(sample: F32, total: int, seed: int) -> _Centres:
    import faiss

    def centres_of(rows: F32, k: int) -> F32:
        means = faiss.Kmeans(
            rows.shape[1],
            k,
            niter=8,
            seed=seed,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=1 << 20,
        )
        means.train(rows)
        return np.asarray(means.centroids, np.float32)

    num_groups = max(1, round(total**0.5))
    with faiss_threads(num_cores()):
        step = max(1, len(sample) // (num_groups * 256))
        groups = centres_of(sample[::step], num_groups)
        mine = faiss.knn(sample, groups, 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]
    counts = np.bincount(mine, minlength=num_groups)
    share = _shares(counts, total)
    members, ends = np.argsort(mine, kind="stable"), np.cumsum(counts)

    def within(group: int) -> F32:
        if share[group] == 0:
            return np.empty((0, sample.shape[1]), np.float32)
        with faiss_threads(1):
            rows = sample[members[ends[group] - counts[group] : ends[group]]]
            return centres_of(rows, int(share[group]))

    first = np.concatenate(([0], np.cumsum(share))).astype(np.int64)
    rough = _Centres.of(np.concatenate(in_threads(within, range(num_groups))), groups, first)
    return _Centres.of(_moved(rough, sample), groups, first)


def _moved(centres: _Centres, sample: F32) -> F32:
    """Each centre moved to the middle of its rows, which may come from other groups.

    A quarter fewer codes to read for the same recall.
    """
    starts = range(0, len(sample), _BLOCK)
    parts = in_threads(lambda start: centres.nearest(sample[start : start + _BLOCK]), starts)
    mine = np.concatenate(parts)[:, 0]
    order = np.argsort(mine, kind="stable")
    firsts = np.flatnonzero(np.diff(mine[order], prepend=-1))
    sums = np.add.reduceat(sample[order], firsts, axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    moved = centres.floats.copy()
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


def _padded(count: int) -> int:
    return -(-count // SLOTS) * SLOTS


def _slots(lists_of: I32, total: int) -> tuple[I32, I64]:
    """Places in the order of their lists, each list filled up with -1; and the lists' firsts."""
    flat = lists_of.reshape(-1)  # a row's lists lie side by side, so a list's places ascend
    order = np.argsort(flat, kind="stable")
    order = order[int((flat < 0).sum()) :]
    counts = np.bincount(flat[order], minlength=total)
    firsts = np.concatenate(([0], np.cumsum(-(-counts // SLOTS) * SLOTS))).astype(np.int64)
    slots = np.full(int(firsts[-1]), -1, np.int32)
    moved = np.repeat(firsts[:-1] - (np.cumsum(counts) - counts), counts)
    slots[np.arange(len(order)) + moved] = order // 2
    return slots, firsts


def _write_centre_bits(folder: Path, known: Any, signs: F32) -> None:
    """Write the centres as one list of rows about their mean, which is the last of `known`."""
    from penstock.kernels import vectors as kernels

    total, dim = len(known) - 1, known.shape[1]
    places = np.full(_padded(total), -1, np.int32)
    places[:total] = np.arange(total)
    middle = known[-1:].view(np.float16).astype(np.float32)
    kernels.rotate(middle[0], signs)
    bits = np.zeros((len(places) // SLOTS, (dim + 63) // 64 * SLOTS), np.uint64)
    factors = np.empty(len(places), np.float32)
    firsts = np.array([0, len(places)], np.int64)
    kernels.encode_bits(_read_only(known), places, middle, firsts, signs, bits, factors)
    np.save(folder / "centre_bits.npy", bits)
    np.save(folder / "centre_factors.npy", factors)


def _read_only(array: Any) -> Any:
    """The same array as a mapped one is: a kernel is compiled for each kind."""
    seen = array.view()
    seen.flags.writeable = False
    return seen


def _write_codes(
    folder: Path,
    halves: Any,
    centres: F32,
    firsts: I64,
    slots: I32,
    signs: F32,
    spread: F32,
    codes: str,
) -> None:
    from penstock.kernels import vectors as kernels

    dim, num_slots = halves.shape[1], len(slots)
    by_bits = codes == "rabitq"
    shape = (num_slots // SLOTS, (dim + 63) // 64 * SLOTS) if by_bits else (num_slots, dim)
    kind = np.uint64 if by_bits else np.int8
    out = np.lib.format.open_memmap(folder / "codes.npy", "w+", kind, shape)
    factors = np.zeros(num_slots, np.float32)
    step = max(1, _BLOCK * len(centres) // max(1, num_slots))

    def encode(first: int) -> None:
        last = min(first + step, len(centres))
        part = slice(int(firsts[first]), int(firsts[last]))
        if by_bits:
            bits = np.zeros(((part.stop - part.start) // SLOTS, shape[1]), np.uint64)
            turned = centres[first:last].copy()
            for centre in turned:
                kernels.rotate(centre, signs)
            where = firsts[first : last + 1]
            kernels.encode_bits(halves, slots[part], turned, where, signs, bits, factors[part])
            out[part.start // SLOTS : part.stop // SLOTS] = bits
        else:
            block = np.zeros((part.stop - part.start, dim), np.int8)
            kernels.encode_bytes(halves, slots[part], spread, block, factors[part])
            out[part] = block

    in_threads(encode, range(0, len(centres), step))
    out.flush()
    np.save(folder / "factors.npy", factors)


def in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """What `work` makes of each item, in their order, on all cores."""
    with ThreadPoolExecutor(num_cores(), "penstock-vectors") as pool:
        return list(pool.map(work, items))


class faiss_threads:  # noqa: N801 - used as a function
    """Faiss's number of threads, set for the calling thread and put back."""

    def __init__(self, threads: int) -> None:
        import faiss

        self._faiss: Any = faiss
        self._threads, self._before = threads, faiss.omp_get_max_threads()

    def __enter__(self) -> None:
        self._faiss.omp_set_num_threads(self._threads)

    def __exit__(self, *_: object) -> None:
        self._faiss.omp_set_num_threads(self._before)
