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
from penstock.vectors.train import BLOCK, SAMPLE, SLOTS, TURNS, Centres, block_width, train


def num_lists(num_vectors: int) -> int:
    """How many lists for so many vectors: some 100 slots each at 200k."""
    return max(1, min(round(9 * math.sqrt(num_vectors)), num_vectors // 16))


@dataclass(frozen=True)
class Lists:
    """The mapped lists of a segment; the arrays are those of `kernels.vectors.search_lists`."""

    centres: Any
    centre_blocks: Any
    signs: Any
    spread: Any
    firsts: Any
    blocks: Any

    @classmethod
    def open(cls, folder: Path, facts: Facts) -> Self:
        """Map the files.

        Raises:
            StoreError: A file is missing, short or damaged.
        """
        dim, lists = facts.dim, facts.lists
        shape = (-(-lists // SLOTS), block_width(dim))
        spread = (0,) if facts.codes == "rabitq" else (dim,)
        width = block_width(dim, facts.codes)
        return cls(
            centres=map_array(folder / "centres.npy", np.uint16, (lists + 1, dim)),
            centre_blocks=map_array(folder / "centre_blocks.npy", np.uint64, shape),
            signs=map_array(folder / "signs.npy", np.float32, (TURNS, dim)),
            spread=map_array(folder / "spread.npy", np.float32, spread),
            firsts=map_array(folder / "firsts.npy", np.int64, (lists + 1,)),
            blocks=map_array(folder / "blocks.npy", np.uint64, (facts.blocks, width)),
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
    np.save(folder / "centre_blocks.npy", centres.blocks)
    np.save(folder / "signs.npy", centres.signs)
    if codes == "rabitq":
        np.save(folder / "spread.npy", np.empty(0, np.float32))
        return _fill_with_bits(folder, halves, centres, total)
    some = sample[:: len(sample) // 4096 + 1].view(np.float16).astype(np.float32)
    spread = np.sqrt(np.mean(some**2, axis=0))
    spread = np.where(spread > 0, spread, 1).astype(np.float32)
    np.save(folder / "spread.npy", spread)
    return _fill_with_bytes(folder, halves, centres, total, spread)


def _fill_with_bits(folder: Path, halves: Any, centres: Centres, total: int) -> I32:
    from penstock.kernels import vectors as kernels

    dim = halves.shape[1]
    shape = (len(halves), 2, (dim + 63) // 64)
    by_row = folder / "codes.by_row"
    codes = np.memmap(by_row, np.uint64, "w+", shape=shape).view(np.ndarray)
    factors = np.empty(shape[:2], np.float32)
    lists_of = np.empty(shape[:2], np.int32)

    def place(start: int) -> None:
        part = slice(start, start + BLOCK)
        lists_of[part] = centres.place(halves[part], codes[part], factors[part])

    in_threads(place, range(0, len(halves), BLOCK))
    slots, which, firsts = _slots(lists_of, total)
    out = _new_blocks(folder, firsts, block_width(dim))

    def move(start: int) -> None:
        part = slice(start, start + BLOCK)
        blocks = out[start // SLOTS : (start + BLOCK) // SLOTS]
        kernels.fill_with_bits(codes, factors, slots[part], which[part], blocks)

    in_threads(move, range(0, len(slots), BLOCK))
    out.flush()
    by_row.unlink()
    return lists_of


def _fill_with_bytes(folder: Path, halves: Any, centres: Centres, total: int, spread: F32) -> I32:
    from penstock.kernels import vectors as kernels

    lists_of = np.empty((len(halves), 2), np.int32)

    def place(start: int) -> None:
        lists_of[start : start + BLOCK] = centres.place(halves[start : start + BLOCK])

    in_threads(place, range(0, len(halves), BLOCK))
    slots, _, firsts = _slots(lists_of, total)
    out = _new_blocks(folder, firsts, block_width(halves.shape[1], "sq8"))

    def encode(start: int) -> None:
        blocks = out[start // SLOTS : (start + BLOCK) // SLOTS]
        kernels.fill_with_bytes(halves, slots[start : start + BLOCK], spread, blocks)

    in_threads(encode, range(0, len(slots), BLOCK))
    out.flush()
    return lists_of


def _new_blocks(folder: Path, firsts: I64, width: int) -> Any:
    """Write where the lists begin; room for their blocks."""
    np.save(folder / "firsts.npy", firsts // SLOTS)
    shape = (int(firsts[-1]) // SLOTS, width)
    return np.lib.format.open_memmap(folder / "blocks.npy", "w+", np.uint64, shape)


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
