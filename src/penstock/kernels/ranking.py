"""BM25 over packed postings: the best rows, the scores of given rows, and where phrases occur.

Scores are whole numbers, so that a sum is the same in any order: a term's gain
for a row is ``1 + int(weight * count / (count + norm))``, where the caller has
scaled the weights so that all of them together fit 30 bits, and `norm` is
``base + slope * length`` of the row, rounded to float32.

The search goes over windows of rows. In a window, terms are in the order of
the most that each may add there; those that together cannot lift a row over the
worst of the best rows so far are only looked up for rows that have got far
enough by the other terms, which are summed up row by row.

A term's state is a row of numbers, named by the constants below: where its
entries, blocks and the fields of the block that is loaded are. See `postings`.

Source: Turtle and Flood 1995, Query Evaluation: Strategies and Optimizations (MaxScore);
    Ding and Suel 2011, Faster Top-k Document Retrieval Using Block-Max Indexes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, Int
from penstock.kernels.compiled import kernel
from penstock.kernels.postings import BLOCK, ENTRY

Bools = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]

ROW_BITS = 33
"""Bits of a key of the heap that hold the row, counted down so that lower rows win ties."""

_WINDOW = 1 << 15
_FIRST_WINDOW = 1 << 13
_LOOK_UP = 4  # what it costs to look a row up, in rows of which all are summed up
_EXPANDED_LOOK_UP = 16
_CHUNK = 64
_CHUNK_BITS = np.uint64(6)
_LAST_ROW = (1 << ROW_BITS) - 1

_TOTAL, _BLOCKS, _ENTRIES, _BODIES, _BLOCK, _BEFORE, _LAST, _LOADED, _SIZE, _INDEX = range(10)
_COUNTS, _COUNT_WIDTH, _POSITION_WIDTH, _MOST, _NEAR, _EXPANDED = range(10, 16)
_PASSED_BLOCK, _PASSED, _PASSED_COUNT, _FIELDS = range(16, 20)


@kernel
def _bits(data: U32, at: Int, width: Int) -> Int:
    """The `width` bits (32 at most) from bit `at`; the data goes on for 8 bytes after them."""
    j = at >> 5
    pair = np.int64(data[j]) | (np.int64(data[j + 1]) << 32)
    return (pair >> (at & 31)) & ((1 << width) - 1)


@kernel
def _open(data: U32, record: Int, state: I64, num_rows: Int) -> bool:
    """Set the state of a term that has not been looked at; False if the data cannot be right."""
    width = _bits(data, record, 5)
    total = _bits(data, record + 5, width)
    state[_TOTAL] = total
    state[_BLOCKS] = (total + BLOCK - 1) // BLOCK
    state[_ENTRIES] = record + 5 + width
    state[_BODIES] = state[_ENTRIES] + (state[_BLOCKS] * ENTRY if total > BLOCK else 0)
    state[_BLOCK] = 0
    state[_LOADED] = -1
    state[_BEFORE] = -1
    state[_EXPANDED] = state[_PASSED_BLOCK] = -1
    state[_LAST] = _bits(data, state[_ENTRIES], 32) if total > BLOCK else num_rows
    return bool(0 < total <= num_rows and state[_BODIES] + 64 * BLOCK < len(data) * 32)


@kernel
def _load(data: U32, state: I64, rows: I32, num_rows: Int) -> bool:
    """Unpack the rows of the term's block; False if the data cannot be right."""
    block = state[_BLOCK]
    at = state[_BODIES]
    if state[_BLOCKS] > 1:
        at += _bits(data, state[_ENTRIES] + block * ENTRY + 32, 32)
    state[_LOADED], state[_INDEX], state[_SIZE] = block, 0, 0
    if at + 64 * BLOCK >= len(data) * 32:
        return False
    widths = _bits(data, at, 15)
    width = widths & 31
    at += 15
    n = min(BLOCK, state[_TOTAL] - block * BLOCK)
    row = state[_BEFORE]
    for k in range(n):
        row += _bits(data, at, width) + 1
        at += width
        rows[k] = row
    state[_COUNTS], state[_COUNT_WIDTH], state[_POSITION_WIDTH] = (
        at,
        (widths >> 5) & 31,
        widths >> 10,
    )
    if row >= num_rows:
        return False
    state[_SIZE] = n
    return True


@kernel
def _go_to(data: U32, state: I64, row: Int) -> None:
    """Go on to the first block that may hold the row or a later one, if there is one."""
    if state[_LAST] >= row or state[_BLOCKS] == 1:
        return
    entries, top = state[_ENTRIES], state[_BLOCKS]
    low, step = state[_BLOCK], 1  # the block `low` ends before the row
    while low + step < top and _bits(data, entries + (low + step) * ENTRY, 32) < row:
        low += step
        step *= 2
    high = min(low + step, top)
    while low + 1 < high:
        middle = (low + high) >> 1
        if _bits(data, entries + middle * ENTRY, 32) < row:
            low = middle
        else:
            high = middle
    state[_BLOCK] = low + 1
    state[_BEFORE] = _bits(data, entries + low * ENTRY, 32)
    # Past the end, nothing is left to go to.
    state[_LAST] = _bits(data, entries + (low + 1) * ENTRY, 32) if low + 1 < top else _LAST_ROW


@kernel
def _find(data: U32, state: I64, rows: I32, row: Int, num_rows: Int) -> Int:
    """Index of the row in the term's block, which is loaded; -1 if the term does not occur there.

    Rows are asked for in ascending order. -2 if the data cannot be right.
    """
    _go_to(data, state, row)
    if state[_BLOCK] >= state[_BLOCKS]:
        return -1
    if state[_LOADED] != state[_BLOCK] and not _load(data, state, rows, num_rows):
        return -2
    i, n = state[_INDEX], state[_SIZE]
    while i < n and rows[i] < row:
        i += 1
    state[_INDEX] = i
    return i if i < n and rows[i] == row else -1


@kernel
def _gain(data: U32, state: I64, i: Int, weight: Int, norm: Int) -> Int:
    """What the term adds to the score of row `i` of its loaded block."""
    width = state[_COUNT_WIDTH]
    count = np.float32(_bits(data, state[_COUNTS] + i * width, width) + 1)
    return np.int64(weight * (count / (count + norm))) + 1


@kernel
def _bound(data: U32, state: I64, block: Int, weight: Int, base: Int, slope: Int) -> Int:
    """At least the most that the term adds to a row of the block; a little for rounding."""
    best = np.float32(0)
    at = state[_ENTRIES] + block * ENTRY + 64
    for group in range(3):
        entry = _bits(data, at + 32 * group, 32)
        count, length = entry & 255, entry >> 8
        if count == 255:
            best = np.float32(1)
        elif count > 0:
            norm = np.float32(base + slope * length)
            best = max(best, np.float32(count) / (np.float32(count) + norm))
    gain = np.int64(weight * best)
    return gain + (gain >> 20) + 2


@kernel
def _push(heap: I64, size: Int, key: Int) -> Int:
    """Keep the largest keys; the least of them is at the top. Returns how many are kept."""
    if size < len(heap):
        i = size
        while i > 0 and heap[(i - 1) >> 1] > key:
            heap[i] = heap[(i - 1) >> 1]
            i = (i - 1) >> 1
        heap[i] = key
        return size + 1
    if key <= heap[0]:
        return size
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = key
    return size


@kernel
def _window_bound(
    data: U32, state: I64, rows: I32, begin: Int, end: Int, weight: Int, base: Int, slope: Int
) -> Int:
    """At least the most that the term adds to a row from `begin` to `end`; 0 if it is not there."""
    _go_to(data, state, begin)
    if state[_BLOCK] >= state[_BLOCKS] or state[_BEFORE] + 1 >= end:
        return 0
    if state[_BLOCKS] == 1:
        i = state[_INDEX]
        while i < state[_SIZE] and rows[i] < begin:
            i += 1
        state[_INDEX] = i
        if i == state[_SIZE] or rows[i] >= end:
            return 0
        state[_NEAR] = state[_SIZE]
        return state[_MOST]
    best: Int = 0
    block = state[_BLOCK]
    while block < state[_BLOCKS]:
        best = max(best, _bound(data, state, block, weight, base, slope))
        block += 1
        if _bits(data, state[_ENTRIES] + (block - 1) * ENTRY, 32) + 1 >= end:
            break
    state[_NEAR] = (block - state[_BLOCK]) * BLOCK
    return best


@kernel
def _take(data: U32, state: I64, rows: I32, num_rows: Int, all_rows: I32) -> bool:
    """As `_load`, but from the expanded list if there is one."""
    if state[_EXPANDED] < 0:
        return _load(data, state, rows, num_rows)
    block = state[_BLOCK]
    first, n = state[_EXPANDED] + block * BLOCK, min(BLOCK, state[_TOTAL] - block * BLOCK)
    for i in range(n):
        rows[i] = all_rows[np.uint64(first + i)]
    state[_LOADED], state[_INDEX], state[_SIZE] = block, 0, n
    return True


@kernel
def _shares(
    data: U32, state: I64, first: Int, stop: Int, norms: F32, rows: I32, counts: I32, shares: F32
) -> None:
    """How much of the term's weight goes to rows `first` to `stop` of its block.

    Three plain loops, for each is compiled to wide steps or to few instructions.
    """
    for i in range(first, stop):
        shares[i] = norms[np.uint32(rows[i])]
    width = state[_COUNT_WIDTH]
    at = state[_COUNTS] + first * width
    mask = (1 << width) - 1
    for i in range(first, stop):
        j = np.uint64(at) >> np.uint64(5)
        pair = np.int64(data[j]) | (np.int64(data[j + np.uint64(1)]) << 32)
        counts[i] = ((pair >> (at & 31)) & mask) + 1
        at += width
    for i in range(first, stop):
        count = np.float32(counts[i])
        shares[i] = count / (count + shares[i])


@kernel
def expand(data: U32, record: int, norms: F32, all_rows: I32, all_shares: F32, at: int) -> bool:
    """Write all rows of a term, and how much of its weight goes to each.

    Args:
        data: From `postings.pack`.
        record: Bit where the term's record starts.
        norms: See `search`.
        all_rows: Receives the rows.
        all_shares: Receives the shares.
        at: Where to.

    Returns:
        False if the data cannot be right.
    """
    state = np.zeros(_FIELDS, np.int64)
    rows, counts = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    shares = np.empty(BLOCK, np.float32)
    if not _open(data, record, state, len(norms)):
        return False
    while state[_BLOCK] < state[_BLOCKS]:
        if not _load(data, state, rows, len(norms)):
            return False
        n = state[_SIZE]
        _shares(data, state, 0, n, norms, rows, counts, shares)
        for i in range(n):
            all_rows[at], all_shares[at] = rows[i], shares[i]
            at += 1
        if state[_BLOCKS] == 1:
            break
        _go_to(data, state, state[_LAST] + 1)
    return True


@kernel
def _add_window(
    data: U32,
    state: I64,
    rows: I32,
    begin: Int,
    end: Int,
    weight: Int,
    base: Int,
    slope: Int,
    least: Int,
    norms: F32,
    all_rows: I32,
    all_shares: F32,
    counts: I32,
    shares: F32,
    sums: I32,
    touched: Bools,
) -> bool:
    """Add the term's gains to the rows from `begin` to `end`.

    A block that can give no row `least` is left out. False if the data cannot be right.
    """
    expanded = state[_EXPANDED]
    if expanded >= 0:  # so little is left to do that no block is worth a look at its bound
        first = expanded + state[_BLOCK] * BLOCK
        stop = min(first + state[_NEAR], expanded + state[_TOTAL])
        while first < stop and all_rows[first] < begin:
            first += 1
        while first < stop and all_rows[stop - 1] >= end:
            stop -= 1
        for i in range(first, stop):
            row = np.uint64(all_rows[np.uint64(i)] - begin)
            sums[row] += np.int32(weight * all_shares[np.uint64(i)]) + np.int32(1)
            touched[row >> _CHUNK_BITS] = True
        return True
    several = state[_BLOCKS] > 1
    while state[_BLOCK] < state[_BLOCKS] and state[_BEFORE] + 1 < end:
        block = state[_BLOCK]
        if not several or _bound(data, state, block, weight, base, slope) >= least:
            if state[_LOADED] != block and not _load(data, state, rows, len(norms)):
                return False
            first, stop = state[_INDEX], state[_SIZE]
            while first < stop and rows[first] < begin:
                first += 1
            while stop > first and rows[stop - 1] >= end:
                stop -= 1
            _shares(data, state, first, stop, norms, rows, counts, shares)
            for i in range(first, stop):
                row = np.uint64(rows[i] - begin)  # no sign: it is no index from the end
                sums[row] += np.int32(weight * shares[i]) + np.int32(1)
                touched[row >> _CHUNK_BITS] = True
            state[_INDEX] = stop
        if not several or state[_LAST] + 1 >= end:
            break
        _go_to(data, state, state[_LAST] + 1)
    return True


@kernel
def _add_to(
    data: U32,
    state: I64,
    rows: I32,
    weight: Int,
    norms: F32,
    least: Int,
    base: Int,
    slope: Int,
    all_rows: I32,
    all_shares: F32,
    found: I32,
    scores: I32,
    n: Int,
) -> bool:
    """Add the term's gains to `n` ascending rows that were found.

    A row is not looked up if the most that its block may add leaves its score
    below `least`. False if the data cannot be right.
    """
    i = state[_INDEX]
    several = state[_BLOCKS] > 1
    expanded = state[_EXPANDED]
    bounded, bound = np.int64(-1), np.int64(0)
    for k in range(n):
        row = np.int64(found[k])
        if several:
            if state[_LAST] < row:
                _go_to(data, state, row)
                if state[_BLOCK] >= state[_BLOCKS]:
                    break
            block = state[_BLOCK]
            if bounded != block:
                bounded, bound = block, _bound(data, state, block, weight, base, slope)
            if scores[k] + bound < least:
                continue
            if state[_LOADED] != block:
                if not _take(data, state, rows, len(norms), all_rows):
                    return False
                i = 0
        size = state[_SIZE]
        while i < size and rows[i] < row:
            i += 1
        if i < size and rows[i] == row:
            if expanded >= 0:
                share = all_shares[expanded + state[_BLOCK] * BLOCK + i]
                scores[k] += np.int64(weight * share) + 1
            else:
                scores[k] += _gain(data, state, i, weight, norms[row])
    state[_INDEX] = i
    return True


@kernel
def _collect(
    sums: I32, touched: Bools, begin: Int, least: Int, allowed: Bools, found: I32, scores: I32
) -> Int:
    """List the rows of a window whose sums are not below `least`, and set all sums to 0."""
    n = 0
    lowest = np.int32(max(least, 1))
    for chunk in range(len(touched)):
        if not touched[chunk]:
            continue
        touched[chunk] = False
        piece = sums[chunk * _CHUNK : (chunk + 1) * _CHUNK]
        any_found = np.int32(0)  # in this form, and only so, the loop is compiled to wide steps
        for i in range(_CHUNK):
            any_found |= np.int32(piece[i] >= lowest)
        if any_found:
            first = begin + chunk * _CHUNK
            for i in range(_CHUNK):
                if piece[i] >= lowest:
                    row = first + i
                    if len(allowed) == 0 or allowed[row]:
                        found[n], scores[n] = row, piece[i]
                        n += 1
        for i in range(_CHUNK):
            piece[i] = np.int32(0)
    return n


@kernel
def search(
    data: U32,
    records: I64,
    weights: F32,
    norms: F32,
    base: float,
    slope: float,
    expanded: I64,
    all_rows: I32,
    all_shares: F32,
    allowed: Bools,
    first_row: int,
    heap: I64,
    size: int,
) -> int:
    """Add a segment's best rows to a heap of the best so far.

    Args:
        data: From `postings.pack`.
        records: Bit where the record of each term starts.
        weights: Per term.
        norms: Per row, rounded from `base` and `slope` times its length.
        base: See `norms`.
        slope: See `norms`.
        expanded: Per term where its rows are in `all_rows`, from `expand`; -1 if nowhere.
        all_rows: See `expanded`.
        all_shares: How much of the term's weight goes to each of `all_rows`.
        allowed: Per row, whether it may be found; empty if all may.
        first_row: Number of the segment's first row among those of all segments.
        heap: Receives a key per row: the score, then `ROW_BITS` of the row counted down.
        size: Keys that are there already.

    Returns:
        Keys that are there now; -1 if the data cannot be right.
    """
    num_terms, num_rows, k = len(records), len(norms), len(heap)
    states = np.zeros((num_terms, _FIELDS), np.int64)
    rows, counts = np.empty((num_terms, BLOCK), np.int32), np.empty(BLOCK, np.int32)
    shares = np.empty(BLOCK, np.float32)
    for t in range(num_terms):
        if not _open(data, records[t], states[t], num_rows):
            return -1
        states[t, _EXPANDED] = expanded[t]
        if states[t, _BLOCKS] == 1:
            if not _load(data, states[t], rows[t], num_rows):
                return -1
            n = states[t, _SIZE]
            _shares(data, states[t], 0, n, norms, rows[t], counts, shares)
            for i in range(n):
                gain = np.int64(weights[t] * shares[i]) + 1
                states[t, _MOST] = max(states[t, _MOST], gain)
    bounds = np.zeros(num_terms, np.int64)
    order = np.empty(num_terms, np.int64)  # by bound, least first
    for t in range(num_terms):
        order[t] = t
    sums, touched = np.zeros(_WINDOW, np.int32), np.zeros(_WINDOW // _CHUNK, np.bool_)
    found, scores = np.empty(_WINDOW, np.int32), np.empty(_WINDOW, np.int32)
    begin = 0
    while begin < num_rows:
        # The first window is small, for nothing can be left out before some rows are found.
        end = min(begin + (_WINDOW if size == k else _FIRST_WINDOW), num_rows)
        for t in range(num_terms):
            bounds[t] = _window_bound(data, states[t], rows[t], begin, end, weights[t], base, slope)
        for i in range(1, num_terms):
            t, j = order[i], i
            while j > 0 and bounds[order[j - 1]] > bounds[t]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = t
        worst = heap[0] >> ROW_BITS if size == k else 1
        rest = np.int64(0)  # the most that the terms add that need not be summed up
        essential = 0
        while essential < num_terms and rest + bounds[order[essential]] < worst:
            rest += bounds[order[essential]]
            essential += 1
        most = np.int64(0)
        for t in range(num_terms):
            most += bounds[t]
        added = 0
        for i in range(num_terms - 1, -1, -1):
            t = order[i]
            if i < essential:
                # To sum up a term costs less than to look up the rows of the others in it.
                times = _LOOK_UP if states[t, _EXPANDED] < 0 else _EXPANDED_LOOK_UP
                if bounds[t] == 0 or states[t, _NEAR] > times * added:
                    break
                essential = i
                rest -= bounds[t]
            added += states[t, _NEAR] if bounds[t] > 0 else 0
            if bounds[t] > 0 and not _add_window(
                data,
                states[t],
                rows[t],
                begin,
                end,
                weights[t],
                base,
                slope,
                worst - (most - bounds[t]),
                norms,
                all_rows,
                all_shares,
                counts,
                shares,
                sums,
                touched,
            ):
                return -1
        if essential < num_terms:
            n = _collect(sums, touched, begin, worst - rest, allowed, found, scores)
            for i in range(essential - 1, -1, -1):
                t = order[i]
                if bounds[t] == 0 or n == 0:
                    break
                rest -= bounds[t]
                if not _add_to(
                    data,
                    states[t],
                    rows[t],
                    weights[t],
                    norms,
                    worst - rest,
                    base,
                    slope,
                    all_rows,
                    all_shares,
                    found,
                    scores,
                    n,
                ):
                    return -1
                kept = 0
                for j in range(n):
                    if scores[j] + rest >= worst:
                        found[kept], scores[kept] = found[j], scores[j]
                        kept += 1
                n = kept
            for j in range(n):
                if size < k or scores[j] >= heap[0] >> ROW_BITS:
                    row = first_row + np.int64(found[j])
                    key = (np.int64(scores[j]) << ROW_BITS) | (_LAST_ROW - row)
                    size = _push(heap, size, key)
        begin = end
    return size


@kernel
def score(data: U32, records: I64, weights: F32, norms: F32, places: I64, scores: I64) -> bool:
    """Add the terms' gains to the scores of some rows, which are ascending.

    Returns:
        False if the data cannot be right.
    """
    state = np.zeros(_FIELDS, np.int64)
    rows = np.empty(BLOCK, np.int32)
    for t in range(len(records)):
        if not _open(data, records[t], state, len(norms)):
            return False
        for i in range(len(places)):
            at = _find(data, state, rows, places[i], len(norms))
            if at == -2:
                return False
            if at >= 0:
                scores[i] += _gain(data, state, at, weights[t], norms[places[i]])
    return True


@kernel
def _positions(data: U32, state: I64, i: Int, out: I32) -> Int:
    """Write the positions of row `i` of the term's block, no row before those asked for earlier.

    Returns how many there are; if there is no room for them, nothing is written.
    """
    width, count_width = state[_POSITION_WIDTH], state[_COUNT_WIDTH]
    if state[_PASSED_BLOCK] != state[_BLOCK]:
        state[_PASSED_BLOCK] = state[_BLOCK]
        state[_PASSED] = state[_PASSED_COUNT] = 0
    before = state[_PASSED_COUNT]  # positions of the rows that were passed
    at = state[_COUNTS] + state[_PASSED] * count_width
    for _ in range(state[_PASSED], i):
        before += _bits(data, at, count_width) + 1
        at += count_width
    state[_PASSED], state[_PASSED_COUNT] = i, before
    count = _bits(data, at, count_width) + 1
    at = state[_COUNTS] + state[_SIZE] * count_width + before * width
    if count > len(out) or at + count * width + 64 > len(data) * 32:
        return count
    position: Int = 0
    for k in range(count):
        position += _bits(data, at, width)
        at += width
        out[k] = position
    return count


@kernel
def find_phrase(data: U32, records: I64, lengths: I32, field: int, found: Bools) -> bool:
    """Mark the rows in which terms follow each other.

    Args:
        data: From `postings.pack`.
        records: Bit where the record of each term starts, in the order of the phrase.
        lengths: (3, num_rows), from `words.invert`.
        field: 0 anywhere, 1 in the title, 2 in the heading.
        found: Receives True; all False before.

    Returns:
        False if the data cannot be right.
    """
    num_terms, num_rows = len(records), len(found)
    states = np.zeros((num_terms, _FIELDS), np.int64)
    rows = np.empty((num_terms, BLOCK), np.int32)
    rarest = 0
    for t in range(num_terms):
        if not _open(data, records[t], states[t], num_rows):
            return False
        if states[t, _TOTAL] < states[rarest, _TOTAL]:
            rarest = t
    starts, next_ones = np.empty(1024, np.int32), np.empty(1024, np.int32)
    for i in range(states[rarest, _TOTAL]):
        if i % BLOCK == 0:
            if i > 0:
                _go_to(data, states[rarest], states[rarest, _LAST] + 1)
            if not _load(data, states[rarest], rows[rarest], num_rows):
                return False
        row = rows[rarest, i % BLOCK]
        states[rarest, _INDEX] = i % BLOCK
        everywhere = True
        for t in range(num_terms):
            if t != rarest:
                at = _find(data, states[t], rows[t], row, num_rows)
                if at == -2:
                    return False
                if at < 0:
                    everywhere = False
                    break
        if not everywhere:
            continue
        n: Int = 0  # places where the phrase may start
        for t in range(num_terms):
            out = starts if t == 0 else next_ones
            count = _positions(data, states[t], states[t, _INDEX], out)
            if count > len(out):
                starts_now = starts
                starts, next_ones = np.empty(2 * count, np.int32), np.empty(2 * count, np.int32)
                for j in range(n):
                    starts[j] = starts_now[j]
                out = starts if t == 0 else next_ones
                count = _positions(data, states[t], states[t, _INDEX], out)
            if t == 0:
                first, stop = 0, 1 << 30
                if field == 1:
                    stop = lengths[1, row]
                elif field == 2:
                    first = 2 * lengths[1, row] + 2
                    stop = first + lengths[2, row]
                for j in range(count):
                    if first <= starts[j] < stop:
                        starts[n] = starts[j]
                        n += 1
                continue
            kept = j = 0
            for s in range(n):
                while j < count and next_ones[j] < starts[s] + t:
                    j += 1
                if j < count and next_ones[j] == starts[s] + t:
                    starts[kept] = starts[s]
                    kept += 1
            n = kept
            if n == 0:
                break
        if n > 0:
            found[row] = True
    return True
