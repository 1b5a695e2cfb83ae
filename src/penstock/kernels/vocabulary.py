"""Look up terms in a sorted vocabulary, exactly or by what they nearly are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel

U32 = npt.NDArray[np.uint32]

MAX_LETTERS = 64
"""Letters of the longest word that is looked for by what it nearly is."""


@kernel
def _is_less(terms: U8, start: Int, stop: Int, utf8: U8, first: Int, end: Int) -> bool:
    """Whether the term comes before these bytes."""
    for k in range(min(stop - start, end - first)):
        if terms[start + k] != utf8[first + k]:
            return bool(terms[start + k] < utf8[first + k])
    return bool(stop - start < end - first)


@kernel
def look_up(terms: U8, offsets: U32, utf8: U8, ends: I64) -> tuple[I64, I64]:
    """The first term that is not before each of these byte strings.

    Args:
        terms: The bytes of all terms, in ascending order.
        offsets: (num_terms + 1,).
        utf8: What to look up, end to end.
        ends: (num_strings + 1,), beginning with 0.

    Returns:
        Its number, which may be `num_terms`; and the same, but -1 if it is not equal.
    """
    found, equal = np.empty(len(ends) - 1, np.int64), np.full(len(ends) - 1, -1, np.int64)
    size = np.int64(len(terms))
    for i in range(len(ends) - 1):
        low, high = 0, len(offsets) - 1
        while low < high:
            middle = (low + high) >> 1
            stop = min(np.int64(offsets[middle + 1]), size)  # whatever a damaged file says
            if _is_less(terms, np.int64(offsets[middle]), stop, utf8, ends[i], ends[i + 1]):
                low = middle + 1
            else:
                high = middle
        found[i] = low
        if low + 1 < len(offsets):
            start = np.int64(offsets[low])
            stop = min(np.int64(offsets[low + 1]), size)
            if stop - start == ends[i + 1] - ends[i]:
                equal[i] = low
                for k in range(stop - start):
                    if terms[start + k] != utf8[ends[i] + k]:
                        equal[i] = -1
    return found, equal


@kernel
def count_rows(data: U32, records: U32, numbers: I64) -> I64:
    """In how many rows terms occur, by their records; 0 for a negative number."""
    counts = np.zeros(len(numbers), np.int64)
    for i in range(len(numbers)):
        if numbers[i] < 0:
            continue
        at = np.int64(records[numbers[i]]) * 8
        if at + 64 > len(data) * 32:
            continue
        j, shift = at >> 5, at & 31
        pair = (np.int64(data[j]) | (np.int64(data[j + 1]) << 32)) >> shift
        counts[i] = (pair >> 5) & ((1 << (pair & 31)) - 1)
    return counts


@kernel
def find_similar(terms: U8, offsets: U32, word: I64, max_edits: int) -> tuple[I64, I64]:
    """Terms at most so many edits away from a word: letters added, left out, replaced, swapped.

    The vocabulary is sorted, so it is walked as a tree: the rows of the table of
    distances that a term shares with the one before are kept, and a beginning
    that is already too far away is left behind with all that begin alike.

    Args:
        terms: The bytes of all terms, in ascending order.
        offsets: (num_terms + 1,).
        word: Its characters' codes, `MAX_LETTERS` at most.
        max_edits: The most edits.

    Returns:
        Numbers of the terms, and the edits of each.

    Source: the restricted Damerau-Levenshtein distance (optimal string alignment).
    """
    size = len(word)
    deepest = size + max_edits
    table = np.zeros((deepest + 3, size + 1), np.int64)
    for j in range(size + 1):
        table[0, j] = j
    codes = np.zeros(deepest + 3, np.int64)  # of the term's characters
    stops = np.zeros(deepest + 3, np.int64)  # bytes of the term up to each
    numbers, edits = np.empty(1024, np.int64), np.empty(1024, np.int64)
    n = depth = 0
    previous: Int = 0  # start of the term before
    previous_size: Int = 0
    num_terms = len(offsets) - 1
    term = 0
    while term < num_terms:
        start = np.int64(offsets[term])
        stop = min(np.int64(offsets[term + 1]), np.int64(len(terms)))
        common = 0
        while common < min(stop - start, previous_size):
            if terms[start + common] != terms[previous + common]:
                break
            common += 1
        while depth > 0 and stops[depth] > common:
            depth -= 1
        previous, previous_size = start, stop - start
        i = start + stops[depth]
        lost = False
        while i < stop:
            if depth == deepest:
                lost = True
                break
            byte = np.int64(terms[i])
            width = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            code = byte if width == 1 else byte & (0x7F >> width)
            for k in range(1, width):
                if i + k < stop:
                    code = (code << 6) | (np.int64(terms[i + k]) & 0x3F)
            i += width
            depth += 1
            codes[depth], stops[depth] = code, i - start
            table[depth, 0] = best = depth
            for j in range(1, size + 1):
                value = table[depth - 1, j - 1] + (code != word[j - 1])
                value = min(value, table[depth - 1, j] + 1, table[depth, j - 1] + 1)
                if depth > 1 and j > 1 and code == word[j - 2] and codes[depth - 1] == word[j - 1]:
                    value = min(value, table[depth - 2, j - 2] + 1)
                table[depth, j] = value
                best = min(best, value)
            if best > max_edits:
                lost = True
                break
        if not lost and table[depth, size] <= max_edits:
            if n == len(numbers):
                more_numbers, more_edits = np.empty(2 * n, np.int64), np.empty(2 * n, np.int64)
                for k in range(n):
                    more_numbers[k], more_edits[k] = numbers[k], edits[k]
                numbers, edits = more_numbers, more_edits
            numbers[n], edits[n] = term, table[depth, size]
            n += 1
        term += 1
        if lost:  # go on after all terms that begin with what is too far away
            length = stops[depth]
            low, step = term, 1
            while low < num_terms and _begins(terms, offsets, low, start, length):
                low = min(low + step, num_terms)
                step *= 2
            high, low = low, max(term, low - step // 2)
            while low < high:
                middle = (low + high) >> 1
                if _begins(terms, offsets, middle, start, length):
                    low = middle + 1
                else:
                    high = middle
            term = low
    return numbers[:n], edits[:n]


@kernel
def _begins(terms: U8, offsets: U32, term: Int, first: Int, length: Int) -> bool:
    """Whether a term begins with the `length` bytes at `first`."""
    start, stop = np.int64(offsets[term]), np.int64(offsets[term + 1])
    if min(stop, np.int64(len(terms))) - start < length:
        return False
    same = True
    for k in range(length):
        same = same and terms[start + k] == terms[first + k]
    return same
