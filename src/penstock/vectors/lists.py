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
from penstock.vectors.plan import F32, I64

I32 = npt.NDArray[np.int32]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

SLOTS = 8
"""A list's length is a multiple of this: the bits of 8 rows lie interleaved."""

_BLOCK = 8192  # rows worked on at a time: 12 MB of float32 at 384
_SAMPLE = 48  # training rows a list
_GROUPS = 8  # nearest groups in which a row's list is looked for
_TURNS = 4  # rounds of the rotation before a component becomes a bit


def num_lists(num_vectors: int) -> int:
    """How many lists for so many vectors."""
    return max(1, min(round(4 * math.sqrt(num_vectors)), num_vectors // 16))


@dataclass(frozen=True)
class Lists:
    """The mapped lists of a segment; the arrays are those of `kernels.vectors.search_lists`."""

    centres: Any
    firsts: Any
    slots: Any
    frame: Any
    bits: Any
    codes: Any
    factors: Any

    @classmethod
    def open(cls, folder: Path, facts: Facts) -> Self:
        """Map the files.

        Raises:
            StoreError: A file is missing, short or damaged.
        """
        dim, words = facts.dim, (facts.dim + 63) // 64
        slots = map_array(folder / "slots.npy", np.int32, (-1,))
        by_bits = facts.codes == "rabitq"
        shape = (len(slots) // SLOTS, words * SLOTS) if by_bits else (len(slots), dim)
        codes = map_array(folder / "codes.npy", np.uint64 if by_bits else np.int8, shape)
        no_bits, no_codes = np.empty((0, SLOTS), np.uint64), np.empty((0, 0), np.int8)
        no_bits.flags.writeable = no_codes.flags.writeable = False
        turns = _TURNS if by_bits else 1
        return cls(
            centres=map_array(folder / "centres.npy", np.uint16, (facts.lists, dim)),
            firsts=map_array(folder / "firsts.npy", np.int64, (facts.lists + 1,)),
            slots=slots,
            frame=map_array(folder / "frame.npy", np.float32, (turns, dim)),
            bits=codes if by_bits else no_bits,
            codes=no_codes if by_bits else codes,
            factors=map_array(folder / "factors.npy", np.float32, (len(slots),)),
        )


def build_lists(folder: Path, halves: Any, codes: str, seed: int, total: int) -> I32:
    """Train lists, put every row into one and write them with their codes.

    Args:
        folder: Where the files go.
        halves: (num_rows, dim) uint16 bits of float16; a row of NaN goes into no list.
        codes: `sq8` or `rabitq`.
        seed: Of the sample, of k-means and of the rotation.
        total: How many lists.

    Returns:
        The list of each row, (num_rows,) int32; -1 without a vector.

    Guarantees: the same for the same arguments.
    Cost: some 25 us a row and core at 200k x 384; blocks and 12 bytes a row of memory.
    """
    rows = halves.view(np.float16)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(len(rows))[: total * _SAMPLE])
    drawn = rows[sample].astype(np.float32)
    centres, groups, group_of = _train(drawn[~np.isnan(drawn[:, 0])], total, seed)
    centres = centres.astype(np.float16).astype(np.float32)  # as they are kept
    list_of = np.empty(len(rows), np.int32)

    def assign(start: int) -> None:
        block = rows[start : start + _BLOCK].astype(np.float32)
        list_of[start : start + _BLOCK] = _nearest(block, centres, groups, group_of)

    in_threads(assign, range(0, len(rows), _BLOCK))
    slots, firsts = _slots(list_of, total)
    frame: F32
    if codes == "rabitq":
        frame = rng.choice(np.array([-1, 1], np.float32), (_TURNS, rows.shape[1]))
    else:
        spread = np.sqrt(np.nanmean(drawn**2, axis=0, keepdims=True))
        frame = np.where(spread > 0, spread, 1).astype(np.float32)
    np.save(folder / "centres.npy", centres.astype(np.float16).view(np.uint16))
    np.save(folder / "firsts.npy", firsts)
    np.save(folder / "slots.npy", slots)
    np.save(folder / "frame.npy", frame)
    _write_codes(folder, halves, centres, firsts, slots, frame, codes)
    return list_of


def _train(sample: F32, total: int, seed: int) -> tuple[F32, F32, I64]:
    """Centres of lists (total, dim), centres of groups, and the first list of each group."""
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
    members = np.argsort(mine, kind="stable")
    ends = np.cumsum(counts)

    def within(group: int) -> F32:
        if share[group] == 0:
            return np.empty((0, sample.shape[1]), np.float32)
        with faiss_threads(1):
            rows = sample[members[ends[group] - counts[group] : ends[group]]]
            return centres_of(rows, int(share[group]))

    centres = np.concatenate(in_threads(within, range(num_groups)))
    group_of = np.concatenate(([0], np.cumsum(share))).astype(np.int64)
    return centres, groups, group_of


def _shares(counts: I64, total: int) -> I64:
    """`total` shared out in proportion to `counts`, to none more than its count."""
    exact = counts * (total / counts.sum())
    share: I64 = np.minimum(np.floor(exact).astype(np.int64), counts)
    for group in np.argsort(share - exact, kind="stable"):
        if share.sum() < total and share[group] < counts[group]:
            share[group] += 1
    return share


def _nearest(block: F32, centres: F32, groups: F32, group_of: I64) -> I32:
    """The nearest list of each row of a block, (num_rows,) int32; -1 for a row of NaN."""
    import faiss

    best = np.full(len(block), -np.inf, np.float32)
    found = np.full(len(block), -1, np.int32)
    present = ~np.isnan(block[:, 0])
    with faiss_threads(1):
        rows = block if present.all() else np.where(present[:, None], block, np.float32(0))
        k = min(_GROUPS, len(groups))
        near = faiss.knn(rows, groups, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
        for group in range(len(groups)):
            first, last = group_of[group], group_of[group + 1]
            mine = np.nonzero((near == group).any(axis=1) & present)[0]
            if len(mine) == 0 or first == last:
                continue
            scores, lists = faiss.knn(
                rows[mine], centres[first:last], 1, metric=faiss.METRIC_INNER_PRODUCT
            )
            better = scores[:, 0] > best[mine]
            best[mine[better]] = scores[better, 0]
            found[mine[better]] = lists[better, 0] + first
    return found


def _slots(list_of: I32, total: int) -> tuple[I32, I64]:
    """Places in the order of their lists, each list filled up with -1; and the lists' firsts."""
    order = np.argsort(list_of, kind="stable").astype(np.int32)
    order = order[int((list_of < 0).sum()) :]
    counts = np.bincount(list_of[order], minlength=total)
    firsts = np.concatenate(([0], np.cumsum(-(-counts // SLOTS) * SLOTS))).astype(np.int64)
    slots = np.full(int(firsts[-1]), -1, np.int32)
    moved = np.repeat(firsts[:-1] - (np.cumsum(counts) - counts), counts)
    slots[np.arange(len(order)) + moved] = order
    return slots, firsts


def _write_codes(
    folder: Path, halves: Any, centres: F32, firsts: I64, slots: I32, frame: F32, codes: str
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
                kernels.rotate(centre, frame)
            where = firsts[first : last + 1]
            kernels.encode_bits(halves, slots[part], turned, where, frame, bits, factors[part])
            out[part.start // SLOTS : part.stop // SLOTS] = bits
        else:
            block = np.zeros((part.stop - part.start, dim), np.int8)
            kernels.encode_bytes(halves, slots[part], frame[0], block, factors[part])
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
