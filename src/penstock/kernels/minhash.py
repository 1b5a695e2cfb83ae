"""MinHash: cut texts into words or characters, hash each run of so many, keep minima.

A *word* is a run of letters, digits and marks; an underscore or a hyphen ends
it. In scripts without spaces (Han, kana, Thai, Lao, Khmer, Myanmar and a few
more) each letter with its marks is a word. Case is folded character by
character (Unicode's simple folding), so that ``É`` equals ``é`` and ``ẞ``
equals ``ß``, which is not ``ss``. Soft hyphens, joiners and NUL count for
nothing. Letters in two normal forms differ: put `Normalize` before.

A *character* is a code point, folded as above; white space of any length and
kind counts as one space, and none at the ends of the text.

A unit's hash has 64 bits. A shingle's is a polynomial in those of its units,
kept up to date as the window moves, so that it costs the same at any length.

Hash function ``j`` of a shingle is ``(half ^ flip[j]) * multiplier[j]`` modulo
2**32, where `half` is the shingle's lower 32 bits for even ``j`` and its upper
ones for odd ``j``: a bijection that costs three instructions for 8 or 16
shingles at once, while only shingles that agree in all 64 bits agree in all
functions. A minimum is kept as one byte, taken after another mixing (b-bit
minwise hashing, Li and König 2010): of two texts of Jaccard similarity ``s``
each byte is equal with probability ``s + (1 - s) / 256``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

OTHER, IN_WORD, UNSPACED, MARK, SPACE = range(5)
"""Classes of characters."""

BLOCK = 1024
"""Units that are hashed before their shingles are used; what is used per block stays in cache."""

BASE = 0x9E3779B97F4A7C15
"""Base of the polynomial."""

_BASE = np.uint64(BASE)
_OFFSET_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_27, _30, _31, _32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_FOLDED = np.uint32(0x1FFFFF)
_CLASS_SHIFT = np.uint32(24)


@cache
def characters() -> U32:
    """Class (upper 8 bits) and folded code point (lower 24) of each character below U+20000.

    A folded code of 0 says that the character counts for nothing. The table is
    kept in a file, from Unicode 14, so that every Python gives the same shingles.
    """
    with np.load(Path(__file__).with_name("characters.npz")) as packed:
        sizes = np.diff(packed["starts"], append=0x20000)
        table = np.repeat(packed["kinds"].astype(np.uint32), sizes) << _CLASS_SHIFT
        codes = np.arange(0x20000, dtype=np.uint32)
        codes[packed["codes"]] = packed["folded"]
    table |= codes
    table.flags.writeable = False
    return table


@kernel
def mix(value: Int) -> Int:
    """A bijection of 64 bits after which each bit depends on all (splitmix64's)."""
    value = (value ^ (value >> _30)) * _MIX_1
    value = (value ^ (value >> _27)) * _MIX_2
    return value ^ (value >> _31)


@kernel
def _character(table: U32, utf8: U8, i: Int, end: Int) -> tuple[Int, Int, Int]:
    """Class, folded code and width of the character at `i`, which is before `end`."""
    byte = np.int64(utf8[i])
    if byte < 0x80:
        entry = table[byte]
        return np.int64(entry >> _CLASS_SHIFT), np.uint64(entry & _FOLDED), 1
    width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
    if byte < 0xC0 or i + width > end:
        return OTHER, np.uint64(0xFFFD), 1
    code = byte & (0x7F >> width)
    for k in range(1, width):
        code = (code << 6) | (np.int64(utf8[i + k]) & 0x3F)
    if code < len(table):
        entry = table[code]
        return np.int64(entry >> _CLASS_SHIFT), np.uint64(entry & _FOLDED), width
    if code < 0x32000:  # ideographs alone, now and in what Unicode has reserved
        return UNSPACED, np.uint64(code), width
    is_selector = 0xE0100 <= code < 0xE01F0
    return (MARK if is_selector else OTHER), np.uint64(code), width


@kernel
def fill_words(table: U32, utf8: U8, i: Int, end: Int, units: U64, n: Int) -> tuple[Int, Int]:
    """Write hashes of the words from `i` to `units[n:]`, until that is full or the text ends.

    Returns:
        Where to go on, and how far `units` is filled.
    """
    while i < end and n < len(units):
        byte = utf8[i]
        if byte < 0x80:
            entry = table[byte]
            i += 1
            if entry >> _CLASS_SHIFT != IN_WORD:
                continue
            value = (_OFFSET_BASIS ^ np.uint64(entry & _FOLDED)) * _PRIME
            is_letter = False
        else:
            kind, code, width = _character(table, utf8, i, end)
            i += width
            if kind != IN_WORD and kind != UNSPACED:
                continue
            value = (_OFFSET_BASIS ^ code) * _PRIME
            is_letter = kind == UNSPACED
        while i < end:
            byte = utf8[i]
            if byte < 0x80:
                entry = table[byte]
                if is_letter or entry >> _CLASS_SHIFT != IN_WORD:
                    break
                value = (value ^ np.uint64(entry & _FOLDED)) * _PRIME
                i += 1
            else:
                kind, code, width = _character(table, utf8, i, end)
                if kind != MARK and (is_letter or kind != IN_WORD):
                    break
                if code != 0:
                    value = (value ^ code) * _PRIME
                i += width
        units[n] = mix(value)
        n += 1
    return i, n


@kernel
def fill_characters(
    table: U32, utf8: U8, i: Int, end: Int, is_first: bool, units: U64, n: Int
) -> tuple[Int, Int]:
    """Write hashes of the characters from `i` to `units[n:]`; the rest as `fill_words`.

    The last unit is left free for the character after a space. `is_first` says
    that the text begins at `i`.
    """
    while i < end and n + 1 < len(units):
        if utf8[i] < 0x80:
            entry = table[utf8[i]]
            kind, code, width = np.int64(entry >> _CLASS_SHIFT), np.uint64(entry & _FOLDED), 1
        else:
            kind, code, width = _character(table, utf8, i, end)
        i += width
        if kind != SPACE:
            is_first = False
            if code != 0:
                units[n] = mix(_OFFSET_BASIS ^ code)
                n += 1
            continue
        while i < end:
            kind, code, width = _character(table, utf8, i, end)
            if kind != SPACE:
                break
            i += width
        if i < end and not is_first:
            units[n] = mix(_OFFSET_BASIS ^ _32)
            n += 1
    return i, n


@kernel
def roll(units: U64, size: Int, n: Int, value: Int, leave: Int, shingles: U64) -> Int:
    """Write to `shingles[k]` the hash of the `size` units up to `units[size + k]`.

    Args:
        units: The `size` units before the new ones (0 where there is none), then the new.
        size: Units in a shingle.
        n: New units.
        value: The polynomial up to the unit before the new ones.
        leave: ``BASE ** size``, by which a unit leaves the window.
        shingles: Room for `n`.

    Returns:
        The polynomial up to the last unit.
    """
    for k in range(n):
        value = value * _BASE + units[size + k] - units[k] * leave
        shingles[k] = value
    for k in range(n):
        shingles[k] = mix(shingles[k])
    return value


@kernel
def _lower(minima: U32, flips: U32, multipliers: U32, halves: U32, n: Int) -> None:
    """Lower each function's minimum to the least that these shingles have."""
    for j in range(len(minima)):
        values = halves[j & 1]
        flip, multiplier, least = flips[j], multipliers[j], minima[j]
        for i in range(n):
            value = np.uint32((values[i] ^ flip) * multiplier)
            least = min(least, value)
        minima[j] = least


@kernel
def _split(shingles: U64, first: Int, n: Int, halves: U32) -> Int:
    """Write the halves of the shingles from `first`; how many, the last being repeated.

    A multiple of 32 leaves nothing over for the loop that is not vectorised.
    """
    count = n - first
    for k in range(count):
        halves[0, k] = np.uint32(shingles[first + k])
        halves[1, k] = np.uint32(shingles[first + k] >> _32)
    while count & 31:
        halves[0, count] = halves[0, count - 1]
        halves[1, count] = halves[1, count - 1]
        count += 1
    return count


@kernel
def _byte(value: Int) -> Int:
    """The byte that is kept of a minimum: all its bits have a part in it (lowbias32)."""
    value = np.uint32((value ^ (value >> np.uint32(16))) * np.uint32(0x7FEB352D))
    value = np.uint32((value ^ (value >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint8((value ^ (value >> np.uint32(16))) & np.uint32(0xFF))


@kernel
def sign(
    offsets: I64, utf8: U8, table: U32, by_words: bool, size: Int, flips: U32, multipliers: U32
) -> U8:
    """The signature of each text.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        table: From `characters`.
        by_words: Whether units are words; else characters.
        size: Units in a shingle; a text of fewer units has one shingle, of all it has.
        flips: (num_hashes,), one per function.
        multipliers: (num_hashes,), odd.

    Returns:
        (num_rows, 4 + num_hashes): the number of units, little-endian and at most
        2**32 - 1, and a byte per function. All zeros if the text has no unit.
    """
    num_rows, num_hashes = len(offsets) - 1, len(flips)
    out = np.zeros((num_rows, 4 + num_hashes), np.uint8)
    units = np.empty(size + BLOCK, np.uint64)
    shingles = np.empty(BLOCK, np.uint64)
    halves = np.empty((2, BLOCK), np.uint32)
    minima = np.empty(num_hashes, np.uint32)
    leave = np.uint64(1)
    for _ in range(size):
        leave = leave * _BASE
    for row in range(num_rows):
        start, end = offsets[row], offsets[row + 1]
        i, total, value = start, np.int64(0), np.uint64(0)
        for k in range(size):
            units[k] = 0
        for j in range(num_hashes):
            minima[j] = 0xFFFFFFFF
        while i < end:
            if by_words:
                i, filled = fill_words(table, utf8, i, end, units, size)
            else:
                is_first = total == 0
                i, filled = fill_characters(table, utf8, i, end, is_first, units, size)
            n = filled - size
            value = roll(units, size, n, value, leave, shingles)
            first = min(max(size - 1 - total, 0), n)  # shingles that lack units in front
            total += n
            for k in range(size):
                units[k] = units[n + k]
            if first < n:
                _lower(minima, flips, multipliers, halves, _split(shingles, first, n, halves))
        if 0 < total < size:
            shingles[0] = mix(value)
            _lower(minima, flips, multipliers, halves, _split(shingles, 0, 1, halves))
        if total > 0:
            count: Int = min(total, 0xFFFFFFFF)
            for k in range(4):
                out[row, k] = (count >> (8 * k)) & 0xFF
            for j in range(num_hashes):
                out[row, 4 + j] = _byte(minima[j])
    return out


@kernel
def shingle_hashes(
    offsets: I64, utf8: U8, table: U32, by_words: bool, size: Int
) -> tuple[I64, U64]:
    """The distinct shingles of each text, as hashes, ascending; arguments as of `sign`.

    Returns:
        Offsets of each row's shingles, and the shingles.
    """
    num_rows = len(offsets) - 1
    rows = np.zeros(num_rows + 1, np.int64)
    room = offsets[num_rows] - offsets[0] + 1  # untouched memory costs nothing
    found = np.empty(room, np.uint64)
    units = np.empty(size + BLOCK, np.uint64)
    shingles = np.empty(BLOCK, np.uint64)
    leave = np.uint64(1)
    for _ in range(size):
        leave = leave * _BASE
    o = np.int64(0)
    for row in range(num_rows):
        start, end = offsets[row], offsets[row + 1]
        i, total, value, at = start, np.int64(0), np.uint64(0), o
        for k in range(size):
            units[k] = 0
        while i < end:
            if by_words:
                i, filled = fill_words(table, utf8, i, end, units, size)
            else:
                is_first = total == 0
                i, filled = fill_characters(table, utf8, i, end, is_first, units, size)
            n = filled - size
            value = roll(units, size, n, value, leave, shingles)
            first = min(max(size - 1 - total, 0), n)
            total += n
            for k in range(size):
                units[k] = units[n + k]
            for k in range(first, n):
                found[at] = shingles[k]
                at += 1
        if 0 < total < size:
            found[at] = mix(value)
            at += 1
        found[o:at].sort()
        for k in range(o, at):
            if o == rows[row] or found[k] != found[o - 1]:
                found[o] = found[k]
                o += 1
        rows[row + 1] = o
    return rows, found[:o].copy()


@kernel
def jaccard(rows: I64, shingles: U64, left: I64, right: I64) -> npt.NDArray[np.float64]:
    """Share of the shingles of two texts that both have, for pairs of rows of `shingle_hashes`."""
    out = np.zeros(len(left), np.float64)
    for pair in range(len(left)):
        i, i_end = rows[left[pair]], rows[left[pair] + 1]
        j, j_end = rows[right[pair]], rows[right[pair] + 1]
        both, either = 0, (i_end - i) + (j_end - j)
        while i < i_end and j < j_end:
            if shingles[i] == shingles[j]:
                both += 1
                i += 1
                j += 1
            elif shingles[i] < shingles[j]:
                i += 1
            else:
                j += 1
        if both:
            out[pair] = both / (either - both)
    return out
