"""Token sequences spread over segments: matching, counting, finding and copying them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel

Mask = npt.NDArray[np.bool_]
U64 = npt.NDArray[np.uint64]
Tokens = npt.NDArray[Any]

BLOCK = 256
"""Positions for which one place per segment is noted: what is read to find a sample."""

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


@kernel
def match_rows(wanted: U64, have: U64, found: Mask, stands: Mask) -> None:
    """Mark the rows of a segment that are wanted, and what is wanted that it has.

    Args:
        wanted: (4, num_wanted): a document's hash in two halves, then its text's;
            ascending by the document's, which come once each. Or the first two alone.
        have: (4, num_rows) of a segment, likewise.
        found: (num_wanted,) set where the segment has the row; what is set already stays.
        stands: (num_rows,) set where the row was wanted and not yet found.
    """
    i = 0
    for row in range(have.shape[1]):
        while i < wanted.shape[1] and (
            wanted[0, i] < have[0, row]
            or (wanted[0, i] == have[0, row] and wanted[1, i] < have[1, row])
        ):
            i += 1
        if i == wanted.shape[1]:
            return
        same = True
        for part in range(wanted.shape[0]):
            same = same and wanted[part, i] == have[part, row]
        if same and not found[i]:
            found[i] = stands[row] = True


@kernel
def digest_rows(have: U64, live: Mask) -> tuple[np.uint64, np.uint64]:
    """Two sums over the live rows, the same in whatever order and segments they lie."""
    first, second = np.uint64(0), np.uint64(0)
    for row in range(have.shape[1]):
        if live[row]:
            x = np.uint64(0)
            for part in range(4):
                x = _mixed(x ^ have[part, row])
            first += x
            second += _mixed(x ^ np.uint64(0x9E3779B97F4A7C15))
    return first, second


@kernel
def _mixed(x: Int) -> Int:
    """A bijection of 64 bits; the finaliser of splitmix64."""
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def block_starts(owners: U8, num_samples: Int, bits: U8, bit_starts: I64) -> I64:
    """For each block of positions, the place in each segment from which its samples come.

    Args:
        owners: Segment of the sample at each position; empty where there is one segment.
        num_samples: How many there are.
        bits: Bitmaps of the live rows, one after another; low bits first.
        bit_starts: Byte where each segment's begins; -1 where all rows are live.

    Returns:
        (num_blocks, num_segments); the place may be of a row that is not live, before those sought.
    """
    out = np.empty(((num_samples + BLOCK - 1) // BLOCK, len(bit_starts)), np.int64)
    upcoming = np.zeros(len(bit_starts), np.int64)
    for position in range(num_samples):
        if position % BLOCK == 0:
            out[position // BLOCK] = upcoming
        segment = np.int64(owners[position]) if len(owners) else 0
        upcoming[segment] = _live_after(bits, bit_starts[segment], upcoming[segment], 0) + 1
    return out


@kernel
def locate(
    positions: I64, owners: U8, starts: I64, bits: U8, bit_starts: I64, out: U8, places: I64
) -> None:
    """Find samples by their positions.

    Args:
        positions: Which.
        owners: As in `block_starts`, as `bits` and `bit_starts`.
        starts: What it gave.
        bits: See `owners`.
        bit_starts: See `owners`.
        out: (num_positions,) the segment of each.
        places: (num_positions,) its place there.
    """
    for i in range(len(positions)):
        position = positions[i]
        block = position // BLOCK
        if len(owners):
            segment: Int = np.int64(owners[position])
            skipped: Int = 0
            for other in range(block * BLOCK, position):
                skipped += owners[other] == segment
        else:
            segment, skipped = 0, position - block * BLOCK
        out[i] = segment
        places[i] = _live_after(bits, bit_starts[segment], starts[block, segment], skipped)


@kernel
def _live_after(bits: U8, first: Int, place: Int, skipped: Int) -> Int:
    """The place of a live row from `place` on, after `skipped` others."""
    if first < 0:
        return place + skipped
    byte = first + place // 8
    held = np.int64(bits[byte]) >> (place % 8)
    base = place
    while True:
        ones = np.int64(_ONES[held])
        if skipped < ones:
            break
        skipped -= ones
        base += 8 - base % 8
        byte += 1
        held = np.int64(bits[byte])
    while True:
        if held & 1:
            if skipped == 0:
                return base
            skipped -= 1
        held >>= 1
        base += 1


@kernel
def lengths_of(offsets: I64, places: I64, at: I64, out: I64) -> None:
    """Note the lengths of rows: `out[at[i]]` is that of the row at `places[i]`."""
    for i in range(len(places)):
        out[at[i]] = offsets[places[i] + 1] - offsets[places[i]]


@kernel
def copy_rows(
    tokens: Tokens, offsets: I64, places: I64, firsts: I64, at: I64, out: Tokens, begins: I64
) -> None:
    """Copy rows of a segment, or a piece of each.

    The row at `places[i]` is copied from its element `firsts[at[i]]` on, to `out` from
    `begins[at[i]]` to `begins[at[i] + 1]`.
    """
    for i in range(len(places)):
        start = offsets[places[i]] + firsts[at[i]]
        begin, end = begins[at[i]], begins[at[i] + 1]
        out[begin:end] = tokens[start : start + end - begin]
