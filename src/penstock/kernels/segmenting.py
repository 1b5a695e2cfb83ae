"""Cut text into the words that quality filters count: spaCy's English rules, or Unicode's classes.

The reference filters count what spaCy's rule-based English tokenizer cuts, so
their thresholds mean those words: punctuation at the ends of a run between
blanks comes off one piece at a time, contractions and abbreviations are known
by a list, what looks like a URL stays whole, and only then is the middle cut at
hyphens and the like. Those rules are written here by hand as looks at one
character and its neighbours; no regular expression runs.

A character's classes are bits of `flags[code point]`. A string of the list of
exceptions is known by its hash, a polynomial modulo 2**64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel
from penstock.kernels.leaves import leaf

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

BLANK, LINE_END, PREFIX, SUFFIX, ICON, ALPHA, LOWER, UPPER, QUOTE, CURRENCY = (
    1 << i for i in range(10)
)
BEFORE_DOT, HOST, SCHEME, DIGIT, LETTER, SYMBOL, TERMINAL, PUNCTUATION = (
    1 << i for i in range(10, 18)
)
SENTENCE_END, ALPHABETIC, PLAIN, WORD, UNSPACED, MARK, JOINS = (1 << i for i in range(18, 25))
"""Bits of `flags`. `PLAIN` characters alone are a word unless an exception says otherwise;
with a character that `JOINS` begins an exception that affixes alone would cut."""

MAX_RUN = 1 << 20
"""Bytes of the longest run between blanks that is looked into; a longer one is one word."""

ENGLISH, UNICODE = 0, 1

MAX_EXCEPTION = 32
"""Bytes of the longest string that the table of exceptions and units may hold."""

UNIT, MERGES = 1 << 40, 32
"""A string's code: the ends of up to three words, a byte each; from bit `MERGES` on the number of
words that it is cut into unless it is known, if they are to be joined; whether it is a unit."""

_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_SHIFT = np.uint64(32)
_ONE = np.uint64(1)
_DOT, _DASH, _QUOTE, _AT, _COLON, _SLASH, _PLUS = 0x2E, 0x2D, 0x27, 0x40, 0x3A, 0x2F, 0x2B
_CAPITAL_S, _SMALL_S, _ZERO, _NINE, _DEGREE = 0x53, 0x73, 0x30, 0x39, 0xB0


@leaf
def _char(flags: U32, utf8: U8, i: Int, end: Int) -> tuple[Int, Int, Int]:
    """Flags, code point and width of the character at `i`, which is before `end`."""
    byte = np.int64(utf8[i])
    if byte < 0x80:
        return np.int64(flags[byte]), byte, 1
    width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
    if byte < 0xC0 or i + width > end:
        return 0, 0, 1  # no UTF-8
    code = byte & (0x7F >> width)
    for k in range(1, width):
        code = (code << 6) | (np.int64(utf8[i + k]) & 0x3F)
    if code >= len(flags):
        return 0, 0, width
    return np.int64(flags[code]), code, width


@leaf
def _before(flags: U32, utf8: U8, low: Int, i: Int) -> tuple[Int, Int, Int]:
    """Flags, code point and width of the character that ends at `i`; zeros at the start."""
    if i <= low:
        return 0, 0, 0
    k = i - 1
    while k > low and (utf8[k] & 0xC0) == 0x80:
        k -= 1
    found, code, _ = _char(flags, utf8, k, i)
    return found, code, i - k


@leaf
def hash_bytes(utf8: U8, start: Int, end: Int) -> Int:
    """Polynomial hash of these bytes, never 0."""
    value = np.uint64(0)
    for i in range(start, end):
        value = value * _BASE + np.uint64(utf8[i]) + _ONE
    return value if value != 0 else _ONE


@kernel
def fill_table(keys: U64, codes: I64, utf8: U8, ends: I64, values: I64) -> None:
    """Put the strings that end at `ends` in a table with room; values of equal ones are joined."""
    mask = np.uint64(len(keys) - 1)
    start = 0
    for number in range(len(ends)):
        value = hash_bytes(utf8, start, ends[number])
        start = ends[number]
        slot = (value ^ (value >> _SHIFT)) & mask
        while keys[slot] != 0 and keys[slot] != value:
            slot = (slot + _ONE) & mask
        keys[slot] = value
        codes[slot] |= values[number]


@leaf
def _code_of(keys: U64, codes: I64, utf8: U8, start: Int, end: Int) -> Int:
    """What the table knows of these bytes; 0 if nothing."""
    if end - start > MAX_EXCEPTION or start >= end:
        return 0
    value = hash_bytes(utf8, start, end)
    mask = np.uint64(len(keys) - 1)
    slot = (value ^ (value >> _SHIFT)) & mask
    while keys[slot] != 0:
        if keys[slot] == value:
            return codes[slot]
        slot = (slot + _ONE) & mask
    return 0


@leaf
def _exception(keys: U64, codes: I64, utf8: U8, start: Int, end: Int) -> Int:
    """The code of the exception that these bytes are, or 0."""
    return _code_of(keys, codes, utf8, start, end) & ~UNIT


@leaf
def _prefix(flags: U32, utf8: U8, start: Int, end: Int) -> Int:
    """Bytes of the punctuation or symbol that comes off the front."""
    if start >= end:
        return 0
    found, code, width = _char(flags, utf8, start, end)
    if code == _DOT:
        i = start
        while i < end and utf8[i] == _DOT:
            i += 1
        return i - start if i - start > 1 else 0
    if code == _PLUS:
        return 0 if start + 1 < end and _ZERO <= utf8[start + 1] <= _NINE else 1
    if found & PREFIX:
        return width
    if code in (0x43, 0x41) and start + 1 < end and utf8[start + 1] == 0x24:  # C$ A$
        return 2
    if code == 0x55 and start + 2 < end and utf8[start + 1] == 0x53 and utf8[start + 2] == 0x24:
        return 3  # US$
    return 0


@leaf
def _suffix(flags: U32, keys: U64, codes: I64, utf8: U8, start: Int, end: Int) -> Int:
    """Bytes of what comes off the back: the longest of the rules that apply."""
    if start >= end:
        return 0
    found, code, width = _before(flags, utf8, start, end)
    before, before_code, before_width = _before(flags, utf8, start, end - width)
    if code == _DOT:
        i = end
        while i > start and utf8[i - 1] == _DOT:
            i -= 1
        if end - i > 1:
            return end - i
        if before & BEFORE_DOT:
            return 1
        second, second_code, _ = _before(flags, utf8, start, end - width - before_width)
        if before & UPPER and second & UPPER:
            return 1
        degree = second_code == _DEGREE and before_code in (0x46, 0x66, 0x43, 0x63, 0x4B, 0x6B)
        return 1 if degree else 0
    if code == 0x2026 and before_code == 0x2026:
        return width + before_width
    if code in (_SMALL_S, _CAPITAL_S) and before_code in (_QUOTE, 0x2019):
        return width + before_width
    if found & SUFFIX:
        return width
    if code == _PLUS:
        return 1 if _ZERO <= before_code <= _NINE else 0
    return _unit(keys, codes, utf8, start, end)


@leaf
def _unit(keys: U64, codes: I64, utf8: U8, start: Int, end: Int) -> Int:
    """Bytes of the unit or currency after the last digit, if that is what stands there."""
    i = end
    while i > start and end - i <= 12 and not (_ZERO <= utf8[i - 1] <= _NINE):
        i -= 1
    if i in (start, end) or end - i > 12:
        return 0
    return end - i if _code_of(keys, codes, utf8, i, end) & UNIT else 0


@leaf
def _is_url(flags: U32, utf8: U8, start: Int, end: Int) -> bool:
    """Whether this is a host, with or without scheme, user, port and path."""
    has_dot = False
    for i in range(start, end):
        has_dot = has_dot or utf8[i] == _DOT
    if not has_dot:
        return False
    if _is_host(flags, utf8, start, end):
        return True
    i, num_chars = start, 0
    while i < end:
        found, _, width = _char(flags, utf8, i, end)
        if not found & SCHEME:
            break
        i += width
        num_chars += 1
    if (
        num_chars >= 2
        and i + 3 < end
        and utf8[i] == _COLON
        and utf8[i + 1] == _SLASH
        and utf8[i + 2] == _SLASH
        and _is_host(flags, utf8, i + 3, end)
    ):
        return True
    for k in range(start + 1, end):  # noqa: SIM110 - numba has no `any`
        if utf8[k] == _AT and _is_host(flags, utf8, k + 1, end):
            return True
    return False


@leaf
def _is_host(flags: U32, utf8: U8, start: Int, end: Int) -> bool:
    """Whether this is labels, dots and a small-letter domain, or an address; port; path."""
    i = start
    num_labels = 0
    while i < end:
        label, num_chars, last = i, 0, 0
        small = True
        while i < end:
            found, code, width = _char(flags, utf8, i, end)
            if not found & HOST and code not in (_DASH, 0x5F):
                break
            if i == label and not found & HOST:
                return False
            small = small and (found & LOWER) != 0
            last = found
            i += width
            num_chars += 1
        if i < end and utf8[i] == _DOT and num_chars and num_chars <= 64 and last & HOST:
            num_labels += 1
            i += 1
            continue
        if num_labels and small and 2 <= num_chars <= 63 and _is_after_host(utf8, i, end):
            return True
        return num_labels == 3 and _is_address(utf8, start, end)
    return False


@leaf
def _is_after_host(utf8: U8, i: Int, end: Int) -> bool:
    if i < end and utf8[i] == _COLON:
        first = i + 1
        i = first
        while i < end and _ZERO <= utf8[i] <= _NINE:
            i += 1
        if not 2 <= i - first <= 5:
            return False
    return bool(i == end or utf8[i] in (_SLASH, 0x3F, 0x23))


@leaf
def _is_address(utf8: U8, start: Int, end: Int) -> bool:
    """Whether this begins with four numbers that may be a public address."""
    i = start
    first: Int = 0
    second: Int = 0
    for part in range(4):
        value: Int = 0
        begin = i
        while i < end and i - begin < 3 and _ZERO <= utf8[i] <= _NINE:
            value = value * 10 + utf8[i] - _ZERO
            i += 1
        if i == begin or value > 255:
            return False
        if part in (0, 3) and (utf8[begin] == _ZERO or value > (223 if part == 0 else 254)):
            return False
        first = value if part == 0 else first
        second = value if part == 1 else second
        if part < 3:
            if i == end or utf8[i] != _DOT:
                return False
            i += 1
    if first in (10, 127) or (first == 172 and 16 <= second <= 31):
        return False
    if (first == 169 and second == 254) or (first == 192 and second == 168):
        return False
    return bool(_is_after_host(utf8, i, end))


@leaf
def _infix(flags: U32, utf8: U8, start: Int, i: Int, end: Int, before: Int, digit: bool) -> Int:
    """Bytes of the separator at `i` inside a word, or 0.

    `before` are the flags of the character before, `digit` says that it is one of 0 to 9.
    """
    found, code, width = _char(flags, utf8, i, end)
    if code == _DOT:
        k = i
        while k < end and utf8[k] == _DOT:
            k += 1
        if k - i > 1:
            return k - i
        if not before & (LOWER | QUOTE) or k == end:
            return 0
        after = _char(flags, utf8, k, end)[0]
        return 1 if after & (UPPER | QUOTE) else 0
    if code == 0x2026 or found & ICON:
        return width
    if i + width >= end:
        return 0
    after, after_code, after_width = _char(flags, utf8, i + width, end)
    joins_numbers = digit and code in (_PLUS, _DASH, 0x2A, 0x5E)
    if joins_numbers and (after_code == _DASH or _ZERO <= after_code <= _NINE):
        return 1
    if code == 0x2C:
        return 1 if before & ALPHA and after & ALPHA else 0
    if not before & ALPHA and not digit:
        return 0
    if code in (_COLON, 0x3C, 0x3E, 0x3D, _SLASH):
        return 1 if after & ALPHA else 0
    if code in (_DASH, 0x2013, 0x2014, 0x7E):
        if after & ALPHA:
            return width
        size = width
        most = 3 if code == _DASH else 2 if code == 0x2014 else 1
        for _ in range(1, most):  # two or three hyphens, two long dashes
            if after_code != code:
                return 0
            size += after_width
            if i + size >= end:
                return 0
            after, after_code, after_width = _char(flags, utf8, i + size, end)
            if after & ALPHA:
                return size
    return 0


@leaf
def _add_exception(code: Int, start: Int, at: I64, n: Int) -> Int:
    """Append the ends of the words of an exception."""
    for k in range(3):
        end = (code >> (8 * k)) & 0xFF
        if end > 0:
            at[n] = start + end
            n += 1
    return n


@leaf
def _cut_english(
    flags: U32, keys: U64, codes: I64, utf8: U8, start: Int, end: Int, at: I64, back: I64
) -> Int:
    """Write the ends of the words of a run between blanks to `at`; returns how many."""
    n = num_back = 0
    low, high = start, end
    code = _exception(keys, codes, utf8, low, high)
    while low < high and code == 0:
        front = _prefix(flags, utf8, low, high)
        if front:
            code = _exception(keys, codes, utf8, low + front, high)
            if code:
                low += front
                at[n] = low
                n += 1
                break
        tail = _suffix(flags, keys, codes, utf8, low + front, high)
        if tail and high - tail > low:
            code = _exception(keys, codes, utf8, low, high - tail)
            if code:
                back[num_back] = high
                num_back += 1
                high -= tail
                break
        if front == 0 and tail == 0:
            break
        if front:
            low += front
            at[n] = low
            n += 1
        if tail:
            back[num_back] = high
            num_back += 1
            high -= tail
        code = _exception(keys, codes, utf8, low, high)
    if code:
        n = _add_exception(code, low, at, n)
    elif low < high:
        n = _cut_inside(flags, utf8, low, high, at, n)
    for k in range(num_back - 1, -1, -1):
        at[n] = back[k]
        n += 1
    return _merged(flags, keys, codes, utf8, start, at, n, back) if n > 1 else n


@leaf
def _cut_inside(flags: U32, utf8: U8, low: Int, high: Int, at: I64, n: Int) -> Int:
    """Cut what is left between the affixes; a URL stays whole."""
    if not _is_url(flags, utf8, low, high):
        i = word = low
        before: Int = 0
        digit = False
        while i < high:
            size = _infix(flags, utf8, low, i, high, before, digit)
            if size:
                last, code, _ = _before(flags, utf8, low, i + size)
                if i > low:  # at the very start it is no separator
                    if i > word:
                        at[n] = i
                        n += 1
                    word = i + size
                    at[n] = word
                    n += 1
                i += size
            else:
                last, code, width = _char(flags, utf8, i, high)
                i += width
            before, digit = last, _ZERO <= code <= _NINE
        if word == high:
            return n
    at[n] = high
    return n + 1


@leaf
def _merged(
    flags: U32, keys: U64, codes: I64, utf8: U8, start: Int, at: I64, n: Int, seen: I64
) -> Int:
    """Join neighbours that the list of exceptions knows as a whole: first the most words."""
    marked = False
    for size in range(min(n, 11), 1, -1):
        for i in range(n - size + 1):
            first = start if i == 0 else at[i - 1]
            last = at[i + size - 1]
            if last - first > MAX_EXCEPTION or not _char(flags, utf8, first, last)[0] & JOINS:
                continue
            code = _exception(keys, codes, utf8, first, last)
            if (code >> MERGES) & 0xFF != size:
                continue
            if not marked:
                seen[:n] = 0
                marked = True
            if seen[i] == 0 and seen[i + size - 1] == 0:
                seen[i] = code  # becomes the exception's own words
                for k in range(i + 1, i + size):
                    seen[k] = -1
            for k in range(i, i + size):
                seen[k] = seen[k] if seen[k] else 1  # stays, and joins nothing smaller
    return _replaced(start, at, n, seen) if marked else n


@leaf
def _replaced(start: Int, at: I64, n: Int, seen: I64) -> Int:
    """Put the words of the marked exceptions in the place of their pieces."""
    for i in range(n):
        at[n + i] = at[i]  # words may get more: "°C." is cut in two, and becomes three
    m = 0
    i = 0
    while i < n:
        if seen[i] < 2:
            at[m] = at[n + i]
            m += 1
            i += 1
            continue
        m = _add_exception(seen[i], start if i == 0 else at[n + i - 1], at, m)
        i += 1
        while i < n and seen[i] == -1:
            i += 1
    return m


@leaf
def _cut_unicode(flags: U32, utf8: U8, start: Int, end: Int, at: I64) -> Int:
    """Cut a run into words of letters and digits, single ideographs, and single symbols.

    In scripts without spaces each letter is a word; an apostrophe, dot or
    hyphen inside a word does not end it.
    """
    n = 0
    i = start
    while i < end:
        found, _, width = _char(flags, utf8, i, end)
        i += width
        if found & WORD and not found & UNSPACED:
            while i < end:
                found, code, width = _char(flags, utf8, i, end)
                if code in (_QUOTE, 0x2019, _DOT, _DASH) and i + width < end:
                    after = _char(flags, utf8, i + width, end)[0]
                    if after & WORD and not after & UNSPACED:
                        i += width
                        continue
                if not found & (WORD | MARK) or found & UNSPACED:
                    break
                i += width
        while i < end:
            found, _, width = _char(flags, utf8, i, end)
            if not found & MARK:
                break
            i += width
        at[n] = i
        n += 1
    return n


@leaf
def _add_word(
    flags: U32,
    utf8: U8,
    start: Int,
    stop: Int,
    n: Int,
    starts: I64,
    sizes: I32,
    chars: I32,
    some: U32,
    every: U32,
    hashes: U64,
) -> None:
    any_flags, all_flags, num_chars, i = 0, -1, 0, start
    while i < stop:
        found, _, width = _char(flags, utf8, i, stop)
        any_flags |= found
        all_flags &= found
        num_chars += 1
        i += width
    starts[n], sizes[n], chars[n] = start, stop - start, num_chars
    some[n], every[n] = any_flags, all_flags
    hashes[n] = hash_bytes(utf8, start, stop)


@leaf
def _cut_runs(
    utf8: U8,
    i: Int,
    end: Int,
    flags: U32,
    keys: U64,
    codes: I64,
    rules: Int,
    n: Int,
    starts: I64,
    sizes: I32,
    chars: I32,
    some: U32,
    every: U32,
    hashes: U64,
    at: I64,
    back: I64,
) -> tuple[Int, Int, Int]:
    """Cut from `i` on as long as there is room.

    Returns:
        Where the rest begins, the number of words now, and the bytes of the run that needs room.
    """
    while i < end:
        first = i
        any_flags: Int = 0
        all_flags: Int = -1
        num_chars = 0
        value = np.uint64(0)
        while i < end:
            byte = utf8[i]
            if byte < 0x80:  # what follows is `_char` and `hash_bytes`, in one look
                found, width = np.int64(flags[byte]), 1
            else:
                found, _, width = _char(flags, utf8, i, end)
            if found & BLANK:
                break
            any_flags |= found
            all_flags &= found
            num_chars += 1
            for k in range(i, i + width):
                value = value * _BASE + np.uint64(utf8[k]) + _ONE
            i += width
        size = i - first
        if size == 0:
            i += width
            continue
        if n + size > len(starts) or 4 * min(size, MAX_RUN) > len(at):
            return first, n, size
        pieces = 1
        if rules == ENGLISH and all_flags & PLAIN:
            code = _exception(keys, codes, utf8, first, i)
            if code:
                pieces = _add_exception(code, first, at, 0)
        elif size <= MAX_RUN:
            if rules == ENGLISH:
                pieces = _cut_english(flags, keys, codes, utf8, first, i, at, back)
            elif not all_flags & WORD or any_flags & UNSPACED:
                pieces = _cut_unicode(flags, utf8, first, i, at)
        if pieces == 1:
            starts[n], sizes[n], chars[n] = first, size, num_chars
            some[n], every[n] = any_flags, all_flags
            hashes[n] = value if value != 0 else _ONE
            n += 1
            continue
        word = first
        for piece in range(pieces):
            _add_word(flags, utf8, word, at[piece], n, starts, sizes, chars, some, every, hashes)
            word = at[piece]
            n += 1
    return i, n, 0


@kernel
def _longer(array: npt.NDArray[Any], size: Int, used: Int) -> npt.NDArray[Any]:
    new = np.empty(size, array.dtype)
    new[:used] = array[:used]
    return new


@kernel
def cut_words(
    offsets: I64, utf8: U8, flags: U32, keys: U64, codes: I64, rules: Int
) -> tuple[I64, I64, I32, I32, U32, U32, U64]:
    """Cut each row into words.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        flags: Classes of each character.
        keys: The table of exceptions and units that `fill_table` makes, as the next.
        codes: See `keys`.
        rules: `ENGLISH` or `UNICODE`.

    Returns:
        Offsets of each row's words; per word its start, bytes, characters, the flags that any and
        that all of its characters have, and its hash. No word holds a blank.
    """
    num_rows = len(offsets) - 1
    room = (offsets[num_rows] - offsets[0]) // 4 + 64
    rows = np.zeros(num_rows + 1, np.int64)
    starts, sizes = np.empty(room, np.int64), np.empty(room, np.int32)
    chars, hashes = np.empty(room, np.int32), np.empty(room, np.uint64)
    some, every = np.empty(room, np.uint32), np.empty(room, np.uint32)
    at, back = np.empty(1024, np.int64), np.empty(1024, np.int64)
    n = 0
    for row in range(num_rows):
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            i, n, needs = _cut_runs(
                utf8, i, end, flags, keys, codes, rules,
                n, starts, sizes, chars, some, every, hashes, at, back,
            )  # fmt: skip
            if n + needs > room:
                room = max(2 * room, n + needs)
                starts, sizes = _longer(starts, room, n), _longer(sizes, room, n)
                chars, hashes = _longer(chars, room, n), _longer(hashes, room, n)
                some, every = _longer(some, room, n), _longer(every, room, n)
            if 4 * min(needs, MAX_RUN) > len(at):
                at, back = np.empty(8 * needs, np.int64), np.empty(8 * needs, np.int64)
        rows[row + 1] = n
    return rows, starts[:n], sizes[:n], chars[:n], some[:n], every[:n], hashes[:n]
