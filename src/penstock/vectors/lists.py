"""Lists of a segment's rows by nearness: filled and written, or mapped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from penstock.vectors.files import Facts, map_array
from penstock.vectors.plan import F32, I32, I64, U8
from penstock.vectors.threads import in_threads
from penstock.vectors.train import BLOCK, SAMPLE, SLOTS, TURNS, Centres, train


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
        blocks, padded = len(slots) // SLOTS, -(-facts.lists // SLOTS) * SLOTS
        by_bits = facts.codes == "rabitq"
        shape = (blocks, words) if by_bits else (len(slots), dim)
        codes = map_array(folder / "codes.npy", np.uint64 if by_bits else np.int8, shape)
        no_bits, no_codes = np.empty((0, SLOTS), np.uint64), np.empty((0, 0), np.int8)
        no_bits.flags.writeable = no_codes.flags.writeable = False
        return cls(
            centres=map_array(folder / "centres.npy", np.uint16, (facts.lists + 1, dim)),
            centre_bits=map_array(folder / "centre_bits.npy", np.uint64, (padded // SLOTS, words)),
            centre_factors=map_array(folder / "centre_factors.npy", np.float32, (padded,)),
            signs=map_array(folder / "signs.npy", np.float32, (TURNS, dim)),
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
        The two lists of each row, (num_rows, 2) int32; -1 for none.

    Guarantees: the same for the same arguments.
    Cost: some 35 us a row and core at 200k x 384; the sample (`SAMPLE` rows a list), blocks, 30
        bytes a row, and for bits a second copy of them on disk.
    """
    rng = np.random.default_rng(seed)
    sample = halves[np.sort(rng.permutation(len(halves))[: total * SAMPLE])]
    sample = sample[~np.isnan(sample[:, 0].view(np.float16))]
    centres = train(sample, total, seed)
    np.save(folder / "centres.npy", centres.centres)
    np.save(folder / "centre_bits.npy", centres.bits)
    np.save(folder / "centre_factors.npy", centres.factors)
    np.save(folder / "signs.npy", centres.signs)
    spread = np.sqrt(
        np.mean(sample[:: len(sample) // 4096 + 1].view(np.float16).astype(np.float32) ** 2, axis=0)
    )
    spread = np.where(spread > 0, spread, 1).astype(np.float32)
    np.save(folder / "spread.npy", spread)
    if codes == "rabitq":
        return _fill_with_bits(folder, halves, centres, total)
    return _fill_with_bytes(folder, halves, centres, total, spread)


def _fill_with_bits(folder: Path, halves: Any, centres: Centres, total: int) -> I32:
    from penstock.kernels import vectors as kernels

    shape = (len(halves), 2, centres.bits.shape[1] // SLOTS)
    by_row = folder / "codes.by_row"
    codes = np.memmap(by_row, np.uint64, "w+", shape=shape).view(np.ndarray)
    factors = np.empty(shape[:2], np.float32)
    lists_of = np.empty(shape[:2], np.int32)

    def place(start: int) -> None:
        part = slice(start, start + BLOCK)
        lists_of[part] = centres.place(halves[part], codes[part], factors[part])

    in_threads(place, range(0, len(halves), BLOCK))
    slots, which, firsts = _slots(lists_of, total)
    _save_slots(folder, slots, firsts)
    out = np.lib.format.open_memmap(
        folder / "codes.npy", "w+", np.uint64, (len(slots) // SLOTS, shape[2] * SLOTS)
    )
    in_order = np.empty(len(slots), np.float32)

    def move(start: int) -> None:
        part, blocks = slice(start, start + BLOCK), slice(start // SLOTS, (start + BLOCK) // SLOTS)
        kernels.interleave(codes, factors, slots[part], which[part], out[blocks], in_order[part])

    in_threads(move, range(0, len(slots), BLOCK))
    out.flush()
    np.save(folder / "factors.npy", in_order)
    by_row.unlink()
    return lists_of


def _fill_with_bytes(folder: Path, halves: Any, centres: Centres, total: int, spread: F32) -> I32:
    from penstock.kernels import vectors as kernels

    lists_of = np.empty((len(halves), 2), np.int32)

    def place(start: int) -> None:
        lists_of[start : start + BLOCK] = centres.place(halves[start : start + BLOCK])

    in_threads(place, range(0, len(halves), BLOCK))
    slots, _, firsts = _slots(lists_of, total)
    _save_slots(folder, slots, firsts)
    shape = (len(slots), halves.shape[1])
    out = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.int8, shape)
    factors = np.empty(len(slots), np.float32)

    def encode(start: int) -> None:
        part = slice(start, start + BLOCK)
        kernels.encode_bytes(halves, slots[part], spread, out[part], factors[part])

    in_threads(encode, range(0, len(slots), BLOCK))
    out.flush()
    np.save(folder / "factors.npy", factors)
    return lists_of


def _slots(lists_of: I32, total: int) -> tuple[I32, U8, I64]:
    """The lists' contents, each filled up to a multiple of 8.

    Returns:
        The place in each slot, (num_slots,) int32, -1 for none; whether the list is the row's
        first or second, (num_slots,) uint8; the first slot of each list, and the end.
    """
    flat = lists_of.reshape(-1)  # a row's lists lie side by side, so a list's places ascend
    order = np.argsort(flat, kind="stable")
    order = order[int((flat < 0).sum()) :]
    counts = np.bincount(flat[order], minlength=total)
    firsts = np.concatenate(([0], np.cumsum(-(-counts // SLOTS) * SLOTS))).astype(np.int64)
    slots = np.full(int(firsts[-1]), -1, np.int32)
    which = np.zeros(len(slots), np.uint8)
    at = np.arange(len(order)) + np.repeat(firsts[:-1] - (np.cumsum(counts) - counts), counts)
    slots[at], which[at] = order // 2, order % 2
    return slots, which, firsts


def _save_slots(folder: Path, slots: I32, firsts: I64) -> None:
    np.save(folder / "firsts.npy", firsts)
    np.save(folder / "slots.npy", slots)
