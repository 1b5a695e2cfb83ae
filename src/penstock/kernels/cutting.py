"""Gather atoms into chunks of a bounded number of tokens, cut at the best places."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.breaks import BLOCK, BORDER, END, FORCED, NEVER, SECTION, SENTENCE, WORD
from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel

I32 = npt.NDArray[np.int32]

_LOOK_BACK = 4096  # atoms; those of no tokens are not bounded otherwise
_INDENT = 256  # bytes of indentation that a chunk's first line keeps


@kernel
def cut(
    utf8: U8,
    begins: I64,
    rows: I64,
    starts: I64,
    ends: I64,
    counts: I32,
    strengths: U8,
    max_tokens: I64,
    overlap: I64,
) -> I64:
    """Cut each text greedily.

    From a chunk's start, of the places that leave it within `max_tokens` and
    full enough, take the strongest, and of equals the last. A place is worth a
    chunk that is a third full; before a section an eighth will do, before a
    border inside one a quarter. A text that fits is one chunk.

    After a cut that is no border, the next chunk begins at most `overlap`
    tokens earlier: at the earliest line or sentence, else word.

    Args:
        utf8: The data.
        begins: Where each text begins.
        rows: Offsets of its atoms.
        starts: From `tokens.scan`, as the next three.
        ends: See `starts`.
        counts: Tokens; none above `max_tokens`.
        strengths: See `starts`.
        max_tokens: Per text.
        overlap: Per text, less than half of `max_tokens`.

    Returns:
        (num_chunks, 4) int64: text, start and end in `utf8`, tokens.
    """
    out = np.empty((len(starts), 4), np.int64)  # untouched memory costs nothing
    n = 0
    before = np.zeros(len(starts) + 1, np.int64)  # tokens before each atom
    for i in range(len(starts)):
        before[i + 1] = before[i] + counts[i]
    for text in range(len(begins)):
        stop = rows[text + 1]
        first = fresh = rows[text]  # the chunk's first atom, and its first that no other holds
        while fresh < stop:
            place = _best(before, strengths, first, fresh, stop, max_tokens[text])
            if place < 0:
                if first < fresh:  # no room for the overlap
                    first = fresh
                    continue
                place = fresh + 1
            out[n, 0], out[n, 1] = text, _line_start(utf8, begins[text], starts[first])
            out[n, 2], out[n, 3] = ends[place - 1], before[place] - before[first]
            n += 1
            first = _overlapping(before, strengths, first, place, stop, overlap[text])
            fresh = place
    return out[:n].copy()


@kernel
def _best(before: I64, strengths: U8, first: Int, fresh: Int, stop: Int, max_tokens: Int) -> Int:
    """The atom before which the chunk ends; -1 if not one fresh atom fits."""
    best = last = -1
    best_strength: Int = NEVER
    i = fresh + 1
    while i <= stop:
        tokens = before[i] - before[first]
        if tokens > max_tokens:
            break
        strength = np.int64(strengths[i]) if i < stop else END
        if strength >= FORCED:
            return i
        if strength > NEVER or last < 0:
            last = i
        share = 8 if strength == SECTION else 4 if strength == BORDER else 3
        if strength >= best_strength and strength > NEVER and tokens * share >= max_tokens:
            best, best_strength = i, strength
        i += 1
    return best if best >= 0 else last


@kernel
def _overlapping(
    before: I64, strengths: U8, first: Int, place: Int, stop: Int, overlap: Int
) -> Int:
    """The atom that the next chunk begins with, `place` or one a little before it."""
    if place == stop or strengths[place] > BLOCK:
        return place
    start = place
    rank: Int = NEVER
    i = place - 1
    while i > first and before[place] - before[i] <= overlap and place - i < _LOOK_BACK:
        strength = np.int64(strengths[i])
        reached = SENTENCE if strength >= SENTENCE else strength
        if reached >= WORD and reached >= rank:
            start, rank = i, reached
        if strength > BLOCK:
            break
        i -= 1
    return start


@kernel
def _line_start(utf8: U8, begin: Int, start: Int) -> Int:
    """Where the line begins if only indentation lies before `start`, else `start`."""
    i = start
    while i > begin and start - i < _INDENT and utf8[i - 1] in (0x20, 0x09):
        i -= 1
    return i if i == begin or utf8[i - 1] == 0x0A else start


@kernel
def gather(utf8: U8, starts: I64, ends: I64) -> tuple[I64, U8]:
    """Copy spans into one text column: its offsets and bytes."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    for i in range(len(starts)):
        offsets[i + 1] = offsets[i] + ends[i] - starts[i]
    out = np.empty(offsets[-1], np.uint8)
    for i in range(len(starts)):
        for k in range(ends[i] - starts[i]):
            out[offsets[i] + k] = utf8[starts[i] + k]
    return offsets, out
