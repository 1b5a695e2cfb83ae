"""Pieces of texts as hashes: lines, paragraphs sampled runs of words; and who had them first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel
from penstock.kernels.leaves import leaf
from penstock.kernels.minhash import fill_words, mix, roll

# numba's cache looks at this file alone; this tells it which minhash.py is in here.
_MINHASH = 0x02414AEE

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

_BASE = np.uint64(0x9E3779B97F4A7C15)
_LF = 0x0A
_BLOCK = 1024


@leaf
def _piece_end(utf8: U8, start: Int, end: Int, by_lines: bool) -> tuple[Int, Int]:
    """Where the piece from `start` on ends, and where the next begins."""
    i = start
    while i < end:
        if utf8[i] != _LF:
            i += 1
            continue
        if by_lines:
            return i, i + 1
        k = i + 1
        while k < end and (utf8[k] == 0x20 or utf8[k] == 0x09 or utf8[k] == 0x0D):
            k += 1
        if k < end and utf8[k] == _LF:
            return i, k + 1
        i = k
    return end, end


@leaf
def _first_line(utf8: U8, start: Int, end: Int) -> Int:
    """Where the first line begins that is not blank."""
    i = start
    while i < end and (utf8[i] == 0x20 or utf8[i] == 0x09 or utf8[i] == 0x0D or utf8[i] == _LF):
        i += 1
        if utf8[i - 1] == _LF:
            start = i
    return start


@leaf
def _num_chars(utf8: U8, start: Int, end: Int) -> Int:
    count = 0
    for i in range(start, end):
        count += (utf8[i] & 0xC0) != 0x80
    return count


@kernel
def hash_pieces(
    offsets: I64, utf8: U8, table: U32, by_lines: bool
) -> tuple[I64, U64, U32, U32, I64]:
    """The pieces of each text that have words.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        table: From `minhash.characters`, or one with other folding.
        by_lines: Cut at each line feed; else at blank lines.

    Returns:
        Offsets of each row's pieces, (num_rows + 1,); per piece the hash of its
        words, its characters and its words; and its first and last byte in the
        data, (num_pieces, 2).
    """
    num_rows = len(offsets) - 1
    rows = np.zeros(num_rows + 1, np.int64)
    room = 256
    hashes, sizes = np.empty(room, np.uint64), np.empty(room, np.uint32)
    words, spans = np.empty(room, np.uint32), np.empty((room, 2), np.int64)
    units = np.empty(_BLOCK, np.uint64)
    n = 0
    for row in range(num_rows):
        start, end = offsets[row], offsets[row + 1]
        while start < end:
            stop, after = _piece_end(utf8, start, end, by_lines)
            start = _first_line(utf8, start, stop)
            value, total, i = np.uint64(0), np.int64(0), start
            while i < stop:
                i, filled = fill_words(table, utf8, i, stop, units, 0)
                for k in range(filled):
                    value = value * _BASE + units[k]
                total += filled
            if total:
                if n == room:
                    room *= 2
                    hashes, sizes = _grown(hashes, room), _grown(sizes, room)
                    words = _grown(words, room)
                    more = np.empty((room, 2), np.int64)
                    more[:n] = spans
                    spans = more
                hashes[n] = mix(value + np.uint64(total))
                sizes[n] = _num_chars(utf8, start, stop)
                words[n] = total
                spans[n, 0], spans[n, 1] = start, stop
                n += 1
            start = after
        rows[row + 1] = n
    return rows, hashes[:n].copy(), sizes[:n].copy(), words[:n].copy(), spans[:n].copy()


@kernel
def _grown(array: Int, room: Int) -> Int:
    more = np.empty(room, array.dtype)
    more[: len(array)] = array
    return more


@kernel
def find_anchors(
    offsets: I64, utf8: U8, table: U32, size: Int, window: Int
) -> tuple[I64, U64, U32, I64]:
    """Runs of words of which each `window` consecutive ones have one at least: its least.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        table: From `minhash.characters`.
        size: Words in a run.
        window: Consecutive runs of which one is chosen.

    Returns:
        Offsets of each row's runs, (num_rows + 1,); per run its hash and its first
        word's place in the text; and the words of each row, (num_rows,).
    """
    num_rows = len(offsets) - 1
    rows, totals = np.zeros(num_rows + 1, np.int64), np.zeros(num_rows, np.int64)
    room = 256
    hashes, places = np.empty(room, np.uint64), np.empty(room, np.uint32)
    units = np.empty(size + _BLOCK, np.uint64)
    runs = np.empty(_BLOCK, np.uint64)
    last = np.empty(window, np.uint64)  # the runs of the window, by place modulo its size
    leave = np.uint64(1)
    for _ in range(size):
        leave = leave * _BASE
    n = 0
    for row in range(num_rows):
        i, end = offsets[row], offsets[row + 1]
        total, value, is_new = np.int64(0), np.uint64(0), False
        chosen: Int = -1
        units[:size] = 0
        while i < end:
            i, filled = fill_words(table, utf8, i, end, units, size)
            count = filled - size
            value = roll(units, size, count, value, leave, runs)
            for k in range(max(size - 1 - total, 0), count):
                place = total + k - size + 1
                last[place % window] = runs[k]
                if chosen < 0 or runs[k] < last[chosen % window]:
                    chosen, is_new = place, True
                elif chosen <= place - window:
                    # The chosen one has left: the least of those that are there, the last if equal.
                    chosen, is_new = place, True
                    for other in range(place - 1, place - window, -1):
                        if last[other % window] < last[chosen % window]:
                            chosen = other
                if is_new and place >= window - 1:
                    if n == room:
                        room *= 2
                        hashes, places = _grown(hashes, room), _grown(places, room)
                    hashes[n], places[n] = last[chosen % window], chosen
                    n += 1
                    is_new = False
            total += count
            for k in range(size):
                units[k] = units[count + k]
        if is_new:  # fewer runs than a window: the least of them
            if n == room:
                room *= 2
                hashes, places = _grown(hashes, room), _grown(places, room)
            hashes[n], places[n] = last[chosen % window], chosen
            n += 1
        rows[row + 1], totals[row] = n, total
    return rows, hashes[:n].copy(), places[:n].copy(), totals


@leaf
def judge_in_order(
    rows: I64,
    groups: I64,
    starts: I64,
    ends: I64,
    totals: I64,
    max_share: float,
    first: I64,
    shares: F64,
    kept_instead: I64,
    repeated: npt.NDArray[np.bool_],
) -> None:
    """Go through the documents; what those that stay had first is a repetition in later ones.

    Args:
        rows: (num_documents + 1,) offsets of the pieces.
        groups: (num_pieces,) a number for what equals another piece, -1 for what is alone.
        starts: (num_pieces,) ascending in each document.
        ends: (num_pieces,).
        totals: (num_documents,) of which the share is taken.
        max_share: A document of a greater share goes.
        first: (num_groups,) filled with -1; the document that had each first.
        shares: (num_documents,) written.
        kept_instead: (num_documents,) written: the document that had the last repetition, or -1.
        repeated: (num_pieces,) written: whether a document that stays had each before.
    """
    for row in range(len(rows) - 1):
        covered, done, other = 0, 0, -1
        for i in range(rows[row], rows[row + 1]):
            repeated[i] = groups[i] >= 0 and first[groups[i]] >= 0
            if repeated[i]:
                covered += max(0, ends[i] - max(starts[i], done))
                done = max(done, ends[i])
                other = first[groups[i]]
        shares[row] = covered / totals[row] if totals[row] > 0 else 0.0
        kept_instead[row] = other
        if shares[row] <= max_share:
            for i in range(rows[row], rows[row + 1]):
                if groups[i] >= 0 and first[groups[i]] < 0:
                    first[groups[i]] = row
