"""How much of a text repeats itself: paragraphs, lines and runs of words, in Gopher's measures.

Pieces are compared by 64-bit hashes. A run of words is known by the hash of its
bytes joined, which follows from hashes of the text before each word: so every
length of run costs the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.leaves import leaf

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

CHARS, PARAGRAPHS, LINES, TOP, REPEATED = 0, 1, 4, 7, 10
"""Columns: all characters; from `PARAGRAPHS` and from `LINES` on the number of pieces, of second
and later copies, and these copies' characters; from `TOP` on the characters of the most frequent
run of 2, 3 and 4 words; from `REPEATED` on those of repeated runs of 5 to 10 words."""

NUM_COLUMNS = 16

MAX_WORDS = 1 << 22
"""Words of a document that are looked at for runs: what follows them counts as no repetition."""

_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_ONE = np.uint64(1)
_SHIFT = np.uint64(32)
_LF, _BLANK = 0x0A, 1


@leaf
def _slot(value: Int, mask: Int) -> Int:
    value = (value ^ (value >> _SHIFT)) * _MIX
    return (value ^ (value >> _SHIFT)) & np.uint64(mask)


@leaf
def _mask(num_values: Int) -> Int:
    """Slots less one of a table that these leave half empty."""
    size = 8
    while size < 2 * num_values:
        size *= 2
    return size - 1


@leaf
def _find(keys: U64, stamps: I32, mask: Int, stamp: Int, value: Int) -> tuple[Int, bool]:
    """The slot of a value under this stamp, and whether it was there already."""
    slot = _slot(value, mask)
    while stamps[slot] == stamp:
        if keys[slot] == value:
            return np.int64(slot), True
        slot = (slot + _ONE) & np.uint64(mask)
    keys[slot], stamps[slot] = value, stamp
    return np.int64(slot), False


@leaf
def _pieces(
    utf8: U8, start: Int, end: Int, least: Int, keys: U64, stamps: I32, stamp: Int, out: I32
) -> None:
    """Count what runs of at least so many line feeds separate; out is (3,)."""
    num_breaks = 0
    for i in range(start, end):
        num_breaks += utf8[i] == _LF
    mask = _mask(num_breaks + 1)
    num_pieces, num_repeated, num_repeated_chars = 0, 0, 0
    i = start
    value = np.uint64(0)
    num_chars = 0
    while True:
        first = i
        while i < end and utf8[i] == _LF:
            i += 1
        if i - first >= least or i == end:
            # A text that ends in line feeds ends in an empty piece.
            num_more = 2 if i == end and i - first >= least else 1
            for _ in range(num_more):
                num_pieces += 1
                if _find(keys, stamps, mask, stamp, value)[1]:
                    num_repeated += 1
                    num_repeated_chars += num_chars
                value = np.uint64(0)
                num_chars = 0
            if i == end:
                break
        for _ in range(i - first if i - first < least else 0):
            value = value * _BASE + np.uint64(_LF) + _ONE
            num_chars += 1
        value = value * _BASE + np.uint64(utf8[i]) + _ONE
        num_chars += (utf8[i] & 0xC0) != 0x80
        i += 1
    out[0], out[1], out[2] = num_pieces, num_repeated, num_repeated_chars


@leaf
def _power(exponent: Int) -> Int:
    value, base = _ONE, _BASE
    while exponent > 0:
        if exponent & 1:
            value = value * base
        base = base * base
        exponent >>= 1
    return value


@leaf
def _top_run(
    first: Int,
    last: Int,
    size: Int,
    chars: I32,
    hashes: U64,
    keys: U64,
    stamps: I32,
    counts: I64,
    stamp: Int,
) -> Int:
    """Characters, with the spaces between words, in all copies of the most frequent run.

    Of equally frequent ones the first in the text counts.
    """
    mask = _mask(last - first)
    most: Int = 0
    where: Int = 0
    for i in range(first, last - size + 1):
        value = np.uint64(0)
        for k in range(i, i + size):
            value = (value ^ hashes[k]) * _MIX
            value ^= value >> _SHIFT
        slot, is_known = _find(keys, stamps, mask, stamp, value)
        # How often, and where first, in one number.
        counts[slot] = (counts[slot] + (1 << 32)) if is_known else (1 << 32) + i - first
        count, place = counts[slot] >> 32, counts[slot] & 0xFFFFFFFF
        if count > most or (count == most and place < where):
            most, where = count, place
    if most == 0:
        return 0
    num_chars = size - 1
    for k in range(first + where, first + where + size):
        num_chars += chars[k]
    return most * num_chars


@leaf
def _repeated_runs(
    num_words: Int,
    size: Int,
    before: U64,
    bytes_before: I64,
    chars_before: I64,
    powers: U64,
    keys: U64,
    stamps: I32,
    stamp: Int,
) -> Int:
    """Characters of the runs that occurred before; after one the search goes on behind it."""
    mask = _mask(num_words)
    num_chars = 0
    i = 0
    while i < num_words - size + 1:
        num_bytes = bytes_before[i + size] - bytes_before[i]
        power = powers[num_bytes] if num_bytes < len(powers) else _power(num_bytes)
        value = before[i + size] - before[i] * power
        if _find(keys, stamps, mask, stamp, value)[1]:
            num_chars += chars_before[i + size] - chars_before[i]
            i += size
        else:
            i += 1
    return num_chars


@leaf
def fill_powers(powers: U64) -> None:
    """Powers of the hash's base, from the zeroth on."""
    value = _ONE
    for i in range(len(powers)):
        powers[i] = value
        value = value * _BASE


@leaf
def _is_blank(flags: U32, utf8: U8, start: Int, end: Int) -> bool:
    """Whether this one character is blank."""
    code = np.int64(utf8[start])
    if code >= 0x80:
        code &= 0x7F >> (end - start)
        for k in range(start + 1, end):
            code = (code << 6) | (np.int64(utf8[k]) & 0x3F)
    return bool(code < len(flags) and flags[code] & _BLANK)


@leaf
def count_repetition(
    offsets: I64,
    utf8: U8,
    flags: U32,
    rows: I64,
    sizes: I32,
    chars: I32,
    hashes: U64,
    powers: U64,
    keys: U64,
    stamps: I32,
    counts: I64,
    before: U64,
    bytes_before: I64,
    chars_before: I64,
    out: I32,
) -> None:
    """Measure the repetition in each row.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        flags: Classes of each character.
        rows: What `segmenting.cut_words` returns, as the next three.
        sizes: See `rows`.
        chars: See `rows`.
        hashes: See `rows`.
        powers: What `fill_powers` fills.
        keys: A table, as the next two: a power of two of slots, above twice the lines and words
            that any row has (of words at most `MAX_WORDS`).
        stamps: Zeros.
        counts: Anything.
        before: Room for one more than the words of any row, as the next two.
        bytes_before: See `before`.
        chars_before: See `before`.
        out: (num_rows, NUM_COLUMNS).
    """
    stamp = 0
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        num_chars = 0
        for i in range(start, end):
            num_chars += (utf8[i] & 0xC0) != 0x80
        out[row, CHARS] = num_chars
        stamp += 1
        _pieces(utf8, start, end, 1, keys, stamps, stamp, out[row, LINES:])
        low, high = _stripped(flags, utf8, start, end)
        stamp += 1
        _pieces(utf8, low, high, 2, keys, stamps, stamp, out[row, PARAGRAPHS:])
        first, last = rows[row], min(rows[row + 1], rows[row] + MAX_WORDS)
        for size in range(2, 5):
            stamp += 1
            out[row, TOP + size - 2] = _top_run(
                first, last, size, chars, hashes, keys, stamps, counts, stamp
            )
        before[0], bytes_before[0], chars_before[0] = 0, 0, 0
        for k in range(last - first):
            i = first + k
            power = powers[sizes[i]] if sizes[i] < len(powers) else _power(sizes[i])
            before[k + 1] = before[k] * power + hashes[i]
            bytes_before[k + 1] = bytes_before[k] + sizes[i]
            chars_before[k + 1] = chars_before[k] + chars[i]
        for size in range(5, 11):
            stamp += 1
            out[row, REPEATED + size - 5] = _repeated_runs(
                last - first,
                size,
                before,
                bytes_before,
                chars_before,
                powers,
                keys,
                stamps,
                stamp,
            )


@leaf
def _stripped(flags: U32, utf8: U8, start: Int, end: Int) -> tuple[Int, Int]:
    """The range without blanks at its ends."""
    while start < end:
        k = start + 1
        while k < end and (utf8[k] & 0xC0) == 0x80:
            k += 1
        if not _is_blank(flags, utf8, start, k):
            break
        start = k
    while end > start:
        k = end - 1
        while k > start and (utf8[k] & 0xC0) == 0x80:
            k -= 1
        if not _is_blank(flags, utf8, k, end):
            break
        end = k
    return start, end
