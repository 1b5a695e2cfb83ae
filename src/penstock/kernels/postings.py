"""Where terms occur, packed into bits: rows, counts and positions of one term after the other.

A term's record starts at a byte:

    5 bits n, n bits: in how many rows it occurs
    if these are more than `BLOCK`, per block of so many rows `ENTRY` bits:
        32  its last row
        32  where the block starts, in bits after the last entry
        96  three times 8 bits of a count and 24 of a length: among the rows with a count
            of 1, of 2 or 3, and above, the largest count and the smallest length
    blocks, or if there is but one, that one:
        3 x 5 bits: the widths of the fields that follow
        per row, the distance from the row before (of the block before) less 1
        per row, the count less 1
        per row, the first position and then the distances between positions

A count above 255 is written as 255 into an entry, and means any; so does a
length above its 24 bits, which is then a lower bound. A bound of a block's
scores that is made of these holds whatever the statistics are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, Int
from penstock.kernels.compiled import kernel

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]

BLOCK = 128
"""Rows of a block."""

ENTRY = 160
"""Bits of an entry."""

MAX_LENGTH = (1 << 24) - 1
"""Largest length in an entry."""


@kernel
def _bits(data: U32, at: Int, width: Int) -> Int:
    """The `width` bits (32 at most) from bit `at`; the data goes on for 8 bytes after them."""
    j = at >> 5
    pair = np.int64(data[j]) | (np.int64(data[j + 1]) << 32)
    return (pair >> (at & 31)) & ((1 << width) - 1)


@kernel
def _put(data: U32, at: Int, width: Int, value: Int) -> Int:
    """Write `width` bits where zeros were; returns where the next go."""
    j, shift = at >> 5, at & 31
    data[j] |= np.uint32((value << shift) & 0xFFFFFFFF)
    if shift + width > 32:
        data[j + 1] |= np.uint32(value >> (32 - shift))
    return at + width


@kernel
def _width(value: Int) -> Int:
    """Bits that a value needs, 0 for 0."""
    width = 0
    while value > 0:
        width += 1
        value >>= 1
    return width


@kernel
def _put_all(data: U32, at: Int, width: Int, values: I64, n: Int, less: Int) -> Int:
    """Write `n` values, `less` something, of `width` bits each; returns where the next go."""
    if width == 0:
        return at
    j, used = at >> 5, at & 31
    bits: Int = np.int64(data[j])
    for k in range(n):
        bits |= (values[k] - less) << used
        used += width
        if used >= 32:
            data[j] = np.uint32(bits & 0xFFFFFFFF)
            j += 1
            bits >>= 32
            used -= 32
    data[j] = np.uint32(bits)
    return at + n * width


@kernel
def _pack_block(
    rows: I32,
    positions: I32,
    first: Int,
    end: Int,
    before: Int,
    data: U32,
    at: Int,
    gaps: I64,
    counts: I64,
) -> tuple[Int, Int, Int]:
    """Pack the next rows of a term, `BLOCK` of them if there are as many.

    Args:
        rows: Per occurrence; the term's are from `first` to `end`.
        positions: Per occurrence.
        first: The first occurrence.
        end: See `rows`.
        before: The row before the first.
        data: Where to.
        at: The bit where to.
        gaps: Room for a block.
        counts: Receives the counts.

    Returns:
        How many rows, the occurrence after them and the bit after them.
    """
    i, n = first, 0
    widest, widest_count, widest_step = np.int64(0), np.int64(0), np.int64(0)  # or more bits
    while i < end and n < BLOCK:
        row, begin = rows[i], i
        previous: Int = 0
        while i < end and rows[i] == row:
            widest_step |= positions[i] - previous
            previous = np.int64(positions[i])
            i += 1
        gaps[n], counts[n] = row - before - 1, i - begin
        widest |= gaps[n]
        widest_count |= counts[n] - 1
        before = row
        n += 1
    width, count_width, step_width = _width(widest), _width(widest_count), _width(widest_step)
    at = _put(data, at, 15, width | (count_width << 5) | (step_width << 10))
    at = _put_all(data, at, width, gaps, n, 0)
    at = _put_all(data, at, count_width, counts, n, 1)
    if step_width > 0:
        j, used = at >> 5, at & 31
        bits = np.int64(data[j])
        o = first
        for k in range(n):
            previous = np.int64(0)
            for _ in range(counts[k]):
                bits |= (positions[o] - previous) << used
                previous = np.int64(positions[o])
                o += 1
                used += step_width
                if used >= 32:
                    data[j] = np.uint32(bits & 0xFFFFFFFF)
                    j += 1
                    bits >>= 32
                    used -= 32
        data[j] = np.uint32(bits)
        at += (i - first) * step_width
    return n, i, at


@kernel
def _put_entry(
    data: U32, at: Int, last: Int, start: Int, rows: I32, first: Int, counts: I64, lengths: I32
) -> None:
    """Write a block's entry: what bounds its scores, of counts of 1, of 2 or 3, and above."""
    at = _put(data, at, 32, last)
    at = _put(data, at, 32, start)
    top, least = np.zeros(3, np.int64), np.full(3, MAX_LENGTH, np.int64)
    i = first
    for k in range(BLOCK):
        count, row = counts[k], rows[i]
        group = 0 if count == 1 else 1 if count < 4 else 2
        top[group] = max(top[group], count)
        least[group] = min(least[group], lengths[row])
        if row == last:
            break
        i += count
    for group in range(3):
        at = _put(data, at, 32, min(top[group], 255) | (least[group] << 8))


@kernel
def pack(
    pointers: I64, rows: I32, positions: I32, lengths: I32, data: U32, starts: I64
) -> tuple[Int, Int]:
    """Pack terms into `data`, which is all zeros, until it may be too small for the next.

    Args:
        pointers: Offsets of each term's occurrences.
        rows: Row of each, ascending per term.
        positions: Position of each, ascending per row.
        lengths: Length of each row.
        data: Where the records go, from its start on.
        starts: (num_terms + 1,) receives the byte where each record starts.

    Returns:
        How many terms were packed, and the bits that the next needs at most.
    """
    gaps, counts = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    row_width = _width(len(lengths))
    position_width = 2  # a row's length, and a position left free after each field
    for length in lengths:
        position_width = max(position_width, _width(length + 4))
    byte = 0
    starts[0] = 0
    for term in range(len(starts) - 1):
        i, end = pointers[term], pointers[term + 1]
        num_rows = 0
        for k in range(i, end):
            num_rows += k == i or rows[k] != rows[k - 1]
        blocks = (num_rows + BLOCK - 1) // BLOCK
        widths = row_width + _width(end - i) + position_width
        needed = 104 + (end - i) * widths + blocks * (ENTRY + 15)
        at = byte * 8
        if at + needed > len(data) * 32:
            return term, needed
        width = _width(num_rows)
        at = _put(data, at, 5, width)
        at = _put(data, at, width, num_rows)
        entry = at
        if blocks > 1:
            at += blocks * ENTRY
        bodies = at
        before: Int = -1
        for _ in range(blocks):
            start, first = at - bodies, i
            _, i, at = _pack_block(rows, positions, i, end, before, data, at, gaps, counts)
            before = np.int64(rows[i - 1])
            if blocks > 1:
                _put_entry(data, entry, before, start, rows, first, counts, lengths)
                entry += ENTRY
        byte = (at + 7) >> 3
        starts[term + 1] = byte
    return len(starts) - 1, 0


@kernel
def unpack(
    data: U32,
    records: I64,
    new_rows: I32,
    num_rows: Int,
    cursors: I64,
    num_found: I64,
    rows: I32,
    positions: I32,
) -> Int:
    """Count the occurrences of terms, or write them, leaving out some rows and renaming others.

    Args:
        data: From `pack`.
        records: Bit where the record of each term starts; negative: skip it.
        new_rows: New name of each row, -1 to leave it out; if empty, rows keep theirs.
        num_rows: Rows of the segment: none may be found beyond.
        cursors: (num_terms,) the count of occurrences is added; or, if there is room to
            write, where each term's next occurrence goes, and it moves on.
        num_found: (num_terms,) the count of rows is added, if there is no room to write.
        rows: Receives the rows; empty to count.
        positions: Receives the positions, alike.

    Returns:
        0, or 1 if the data cannot be right.
    """
    counting = len(rows) == 0
    block_rows, counts = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    size = len(data) * 32
    for term in range(len(records)):
        at = records[term]
        if at < 0:
            continue
        width = _bits(data, at, 5)
        total = _bits(data, at + 5, width)
        at += 5 + width
        if total == 0 or total > num_rows:
            return 1
        if total > BLOCK:
            at += (total + BLOCK - 1) // BLOCK * ENTRY
        row = -1
        for begin in range(0, total, BLOCK):
            n = min(BLOCK, total - begin)
            if at + 15 + 64 * BLOCK > size:
                return 1
            widths = _bits(data, at, 15)
            width, count_width, position_width = widths & 31, (widths >> 5) & 31, widths >> 10
            at += 15
            for k in range(n):
                row += _bits(data, at, width) + 1
                at += width
                block_rows[k] = row
            if row >= num_rows:
                return 1
            for k in range(n):
                counts[k] = _bits(data, at, count_width) + 1
                at += count_width
            for k in range(n):
                new = block_rows[k]
                if len(new_rows) > 0:
                    new = new_rows[new]
                if new < 0:
                    at += counts[k] * position_width
                elif counting:
                    cursors[term] += counts[k]
                    num_found[term] += 1
                    at += counts[k] * position_width
                else:
                    position = 0
                    if at + counts[k] * position_width + 64 > size:
                        return 1
                    for _ in range(counts[k]):
                        position += _bits(data, at, position_width)
                        at += position_width
                        rows[cursors[term]], positions[cursors[term]] = new, position
                        cursors[term] += 1
    return 0
