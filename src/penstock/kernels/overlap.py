"""Overlap of texts with evaluation sets: runs of words that both have, and what they cover.

Texts come as the hashes of their words (`penstock.kernels.minhash.fill_words`).
A run's hash is a polynomial in those of its words, mixed. Runs that are looked
for have `least` to `size` words; each is found by its *anchor*, its first
`least` words, so that one window slides over a text whatever lengths there
are. Anchors are looked up in a small filter first (two bits of one 64-bit
word), which says no to nearly every place of a text that has nothing in
common, then in a hash table that tells which lengths to try there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, Int
from penstock.kernels.leaves import leaf

I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15
"""Base of the polynomial."""

_BASE = np.uint64(BASE)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_0, _1, _6, _63 = np.uint64(0), np.uint64(1), np.uint64(6), np.uint64(63)
_27, _30, _31 = np.uint64(27), np.uint64(30), np.uint64(31)


@leaf
def _finish(value: Int) -> Int:
    """The hash of a run whose polynomial this is (splitmix64's mixing); never 0."""
    value = (value ^ (value >> _30)) * _MIX_1
    value = (value ^ (value >> _27)) * _MIX_2
    return max(value ^ (value >> _31), _1)


@leaf
def item_runs(
    rows: I64, words: U64, size: Int, least: Int, runs: U64, anchors: U64, items: I32, places: I32
) -> Int:
    """Write each item's runs of `size` words, or its one run if it has `least` to `size` words.

    Args:
        rows: (num_items + 1,) offsets into `words`.
        words: Hashes of words.
        size: Words in a run.
        least: Words in an anchor, 1 to `size`.
        runs: Room for the hashes, as long as `words`.
        anchors: The same for the hashes of their first words.
        items: The same for the item of each.
        places: The same for the number of its first word in the item.

    Returns:
        How many there are.
    """
    n = np.int64(0)
    for item in range(len(rows) - 1):
        start, end = rows[item], rows[item + 1]
        if end - start < least:
            continue
        length = min(size, end - start)
        for k in range(start, end - length + 1):
            value = _0
            for j in range(length):
                if j == least:
                    anchors[n] = _finish(value)
                value = value * _BASE + words[k + j]
            runs[n] = _finish(value)
            if length == least:
                anchors[n] = runs[n]
            items[n] = item
            places[n] = k - start
            n += 1
    return n


@leaf
def fill_table(anchors: U64, lengths: U64, shift: Int, bits: U64, slots: U64, masks: U64) -> None:
    """Enter anchors in the filter and in the hash table.

    Args:
        anchors: Hashes, some more than once.
        lengths: One bit for each: bit ``j`` for a run of ``least + j`` words.
        shift: 64 less the logarithm of the size of `bits`.
        bits: The filter, a power of two of zeros.
        slots: Keys of the table, a power of two of zeros, more than there are anchors.
        masks: Its values, zeros.
    """
    last = np.uint64(len(slots) - 1)
    for i in range(len(anchors)):
        key = anchors[i]
        bits[key >> shift] |= (_1 << (key & _63)) | (_1 << ((key >> _6) & _63))
        slot = key & last
        while slots[slot] != _0 and slots[slot] != key:
            slot = (slot + _1) & last
        slots[slot] = key
        masks[slot] |= lengths[i]


@leaf
def _mask(key: Int, slots: U64, masks: U64) -> Int:
    """Lengths to try at this anchor; 0 if it is not in the table."""
    last = np.uint64(len(slots) - 1)
    slot = key & last
    while slots[slot] != _0:
        if slots[slot] == key:
            return masks[slot]
        slot = (slot + _1) & last
    return _0


@leaf
def _find(keys: U64, key: Int) -> Int:
    """Place of the key among ascending ones, or -1."""
    low, high = np.int64(0), np.int64(len(keys))
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < len(keys) and keys[low] == key else np.int64(-1)


@leaf
def scan(
    rows: I64,
    words: U64,
    least: Int,
    shift: Int,
    bits: U64,
    slots: U64,
    masks: U64,
    keys: U64,
    out_rows: I64,
    out_keys: I64,
    out_places: I64,
) -> Int:
    """Find the runs of texts that are among the keys.

    Args:
        rows: (num_rows + 1,) offsets into `words`.
        words: Hashes of words.
        least: Words in an anchor.
        shift: As of `fill_table`, which filled `bits`, `slots` and `masks`.
        bits: The filter.
        slots: Keys of the table.
        masks: Its values.
        keys: The runs, ascending and distinct.
        out_rows: Room for the row of each run that is found.
        out_keys: Room for its number among the keys.
        out_places: Room for the number of its first word in the text.

    Returns:
        How many were found; more than there is room for are counted only.
    """
    found = np.int64(0)
    leave = _1
    for _ in range(least):
        leave = leave * _BASE
    for row in range(len(rows) - 1):
        start, end = rows[row], rows[row + 1]
        if end - start < least:
            continue
        value = _0
        for k in range(start, start + least):
            value = value * _BASE + words[k]
        for after in range(start + least, end + 1):  # the word behind the anchor
            key = _finish(value)
            both = (_1 << (key & _63)) | (_1 << ((key >> _6) & _63))
            if bits[key >> shift] & both == both:
                mask = _mask(key, slots, masks)
                longer, at = value, after
                while mask != _0:
                    if mask & _1:
                        number = _find(keys, _finish(longer))
                        if number >= 0:
                            if found < len(out_rows):
                                out_rows[found] = row
                                out_keys[found] = number
                                out_places[found] = after - least - start
                            found += 1
                    mask = mask >> _1
                    if at >= end:
                        break
                    longer = longer * _BASE + words[at]
                    at += 1
            if after < end:
                value = value * _BASE + words[after] - words[after - least] * leave
    return found


@leaf
def cover(
    texts: I64,
    found: I64,
    posts: I64,
    items: I32,
    places: I32,
    rows: I64,
    size: Int,
    above: Int,
    seen_words: I64,
    seen_items: I64,
    covered: I32,
    matched: I32,
    touched: I64,
    out: I64,
) -> Int:
    """What of each item the runs found in each text cover.

    Args:
        texts: (num_texts + 1,) offsets into `found`.
        found: Numbers of runs, distinct within a text.
        posts: (num_keys + 1,) offsets of each run into `items` and `places`.
        items: Where runs occur: the item.
        places: The number of the first word in it.
        rows: (num_items + 1,) offsets of the items into all their words.
        size: Words in a run; an item of fewer words is one run.
        above: Share of an item's words that must be exceeded; below 0, all are told.
        seen_words: Zeros, one for each word of all items; changed.
        seen_items: Zeros, one for each item; changed, as are the next three of this length.
        covered: For the words of an item that are covered.
        matched: For the runs of an item that are found.
        touched: For the items of a text.
        out: (room, 4): text, item, covered words, matched runs; by text.

    Returns:
        How many rows there are; more than there is room for are counted only.
    """
    n = np.int64(0)
    for text in range(len(texts) - 1):
        num_touched = np.int64(0)
        for f in range(texts[text], texts[text + 1]):
            for p in range(posts[found[f]], posts[found[f] + 1]):
                item = items[p]
                if seen_items[item] != text + 1:
                    seen_items[item] = text + 1
                    covered[item] = 0
                    matched[item] = 0
                    touched[num_touched] = item
                    num_touched += 1
                matched[item] += 1
                first = rows[item] + places[p]
                for w in range(first, min(first + size, rows[item + 1])):
                    if seen_words[w] != text + 1:
                        seen_words[w] = text + 1
                        covered[item] += 1
        for t in range(num_touched):
            item = touched[t]
            if covered[item] / (rows[item + 1] - rows[item]) > above:
                if n < len(out):
                    out[n, 0] = text
                    out[n, 1] = item
                    out[n, 2] = covered[item]
                    out[n, 3] = matched[item]
                n += 1
    return n
