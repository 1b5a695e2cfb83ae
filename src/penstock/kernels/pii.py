"""Where a text may hold an e-mail address, an IP address, a phone number or a key.

A loop looks each byte up in a table; nearly all begin nothing. Those that may
are looked at more closely here, so that Python sees only spans that have the
right shape, and judges what takes a registry or a regular expression.
"""

from __future__ import annotations

import numpy as np

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel
from penstock.kernels.leaves import leaf

EMAIL, IPV4, IPV6, PHONE, KEY, QUOTED = 1, 2, 4, 8, 16, 32
"""Kinds of spans, a bit each; of `KEY` and `QUOTED` (a long token in quotes) only the start is
known."""

_DIGIT, _LETTER, _LOCAL, _HEX, _TOKEN, _PHONE = 1, 2, 4, 8, 16, 32
_MAX_LOCAL, _MAX_DOMAIN, _MAX_IPV6, _MAX_PHONE = 64, 255, 45, 32
_MIN_QUOTED = 20
_DOT, _AT, _COLON, _DASH, _LOW_LINE, _PLUS, _OPEN = 0x2E, 0x40, 0x3A, 0x2D, 0x5F, 0x2B, 0x28


def _classes() -> U8:
    table = np.zeros(256, np.uint8)
    members = {
        _DIGIT: b"0123456789",
        _LETTER: bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B)),
        _HEX: b"0123456789abcdefABCDEF",
    }
    members[_LOCAL] = members[_DIGIT] + members[_LETTER] + b"._%+-"
    members[_TOKEN] = members[_DIGIT] + members[_LETTER] + b"_-+/=."
    members[_PHONE] = members[_DIGIT] + b" ()-./"
    for flag, characters in members.items():
        table[list(characters)] |= flag
    return table


def _triggers() -> U8:
    table = np.zeros(256, np.uint8)
    table[_AT] = EMAIL
    table[list(b"0123456789")] = IPV4 | PHONE
    table[_COLON] = IPV6
    table[[_PLUS, _OPEN]] = PHONE
    table[list(b"-_JKSz")] = KEY
    table[list(b"'\"")] = QUOTED
    return table


_CLASS = _classes()
_TRIGGER = _triggers()


@leaf
def _email(utf8: U8, at: Int, low: Int, end: Int) -> tuple[Int, Int]:
    """The address around an ``@``, from `low` on; two equal numbers if there is none."""
    start = at
    while start > low and at - start < _MAX_LOCAL and _CLASS[utf8[start - 1]] & _LOCAL:
        if utf8[start - 1] == _DOT and (start == at or utf8[start] == _DOT):
            break
        start -= 1
    if start > low and at - start == _MAX_LOCAL and _CLASS[utf8[start - 1]] & _LOCAL:
        return at, at
    while start < at and not (_CLASS[utf8[start]] & (_DIGIT | _LETTER) or utf8[start] == _LOW_LINE):
        start += 1
    if start == at or utf8[at - 1] == _DOT:
        return at, at
    i, stop, good, labels = at + 1, min(end, at + 1 + _MAX_DOMAIN), at, 0
    while i < stop and _CLASS[utf8[i]] & (_DIGIT | _LETTER):
        first, others = i, 0
        while i < stop and (_CLASS[utf8[i]] & (_DIGIT | _LETTER) or utf8[i] == _DASH):
            others += not _CLASS[utf8[i]] & _LETTER
            i += 1
        last = i
        while utf8[last - 1] == _DASH:
            last -= 1
            others -= 1
        labels += 1
        is_encoded = last - first > 4 and utf8[first] | 0x20 == 0x78 and utf8[first + 2] == _DASH
        if labels > 1 and (others == 0 or is_encoded) and last - first >= 2:
            good = last
        if last < i or i >= stop or utf8[i] != _DOT:
            break
        i += 1
    return (start, good) if good > at else (at, at)


@leaf
def _ipv4(utf8: U8, i: Int, end: Int) -> Int:
    """Where the four numbers that begin at `i` end; `i` if they are not four."""
    start = i
    for part in range(4):
        first = i
        value: Int = 0
        while i < end and i - first < 4 and _CLASS[utf8[i]] & _DIGIT:
            value = 10 * value + utf8[i] - 0x30
            i += 1
        if i == first or value > 255 or (utf8[first] == 0x30 and i - first > 1):
            return start
        if part < 3:
            if i >= end or utf8[i] != _DOT:
                return start
            i += 1
    if i < end and _CLASS[utf8[i]] & (_LETTER | _DIGIT):
        return start
    if i < end and utf8[i] == _LOW_LINE:
        return start
    if i + 1 < end and utf8[i] in (_DOT, _DASH) and _CLASS[utf8[i + 1]] & (_DIGIT | _LETTER):
        return start
    return i


@leaf
def _ipv6(utf8: U8, colon: Int, low: Int, end: Int) -> tuple[Int, Int]:
    """The run of hexadecimal digits and colons around the first of its colons."""
    start = colon
    while start > low and colon - start < 5 and _CLASS[utf8[start - 1]] & _HEX:
        start -= 1
    # Global addresses begin with four digits, the first of them 2 or 3.
    if colon - start != 4 or utf8[start] not in (0x32, 0x33):
        return colon, colon
    i, num_colons = start, 0
    while i < end and i - start <= _MAX_IPV6 and (_CLASS[utf8[i]] & _HEX or utf8[i] == _COLON):
        num_colons += utf8[i] == _COLON
        i += 1
    if num_colons < 2:
        return i, i
    if start > low and (_CLASS[utf8[start - 1]] & (_LOCAL | _DIGIT) or utf8[start - 1] == _COLON):
        return i, i
    stop = i
    if stop - start > 1 and utf8[stop - 1] == _COLON and utf8[stop - 2] != _COLON:
        stop -= 1
    if i < end and (_CLASS[utf8[i]] & _LETTER or utf8[i] == _LOW_LINE):
        return i, i
    return (start, stop) if stop - start <= _MAX_IPV6 else (i, i)


@leaf
def _phone(utf8: U8, start: Int, end: Int) -> Int:
    """Where the digits and separators that begin at `start` end; `start` if too few are digits."""
    i, num_digits, last = start + 1, np.int64(_CLASS[utf8[start]] & _DIGIT), start + 1
    while i < end and i - start < _MAX_PHONE and _CLASS[utf8[i]] & _PHONE:
        if _CLASS[utf8[i]] & _DIGIT:
            num_digits += 1
            last = i + 1
        i += 1
    return last if num_digits >= 7 else start


@leaf
def _is_key(utf8: U8, i: Int, low: Int, end: Int) -> Int:
    """Where a key may start whose telling byte is at `i`; -1 if none does.

    Telling are the last byte of ``eyJ``, ``AIz``, of three letters before a
    hyphen or a low line, and others that ordinary text has seldom there.
    """
    byte = utf8[i]
    if byte == 0x4A:  # eyJ
        return i - 2 if i - 2 >= low and utf8[i - 1] == 0x79 and utf8[i - 2] == 0x65 else -1
    if byte == 0x4B:  # AKIA
        is_aws = i + 2 < end and i > low and utf8[i - 1] == 0x41 and utf8[i + 1] == 0x49
        return i - 1 if is_aws and utf8[i + 2] == 0x41 else -1
    if byte == 0x53:  # ASIA, and SG. of SendGrid
        if i + 2 < end and i > low and utf8[i - 1] == 0x41 and utf8[i + 1] == 0x49:
            return i - 1 if utf8[i + 2] == 0x41 else -1
        return i if i + 2 < end and utf8[i + 1] == 0x47 and utf8[i + 2] == _DOT else -1
    if byte == 0x7A:  # AIza
        return i - 2 if i - 2 >= low and utf8[i - 1] == 0x49 and utf8[i - 2] == 0x41 else -1
    if byte == _DASH and i + 10 < end and utf8[i + 5] == 0x42 and utf8[i + 4] == _DASH:
        return i  # -----BEGIN
    start = i
    while start > low and i - start < 6 and _CLASS[utf8[start - 1]] & _LETTER:
        start -= 1
    size = i - start
    if size < 2 or (start > low and _CLASS[utf8[start - 1]] & (_LETTER | _DIGIT)):
        return -1
    if start > low and utf8[start - 1] in (_DASH, _LOW_LINE):
        return -1
    first, second = utf8[start], utf8[start + 1]
    # sk rk | hf | gh? github glpat | xox? | npm | pypi | aws, whatever its case
    found = (
        (size == 2 and second == 0x6B and (first == 0x73 or first == 0x72))
        or (size == 2 and first == 0x68 and second == 0x66)
        or (first == 0x67 and (second == 0x68 or second == 0x6C or second == 0x69))
        or (first == 0x78 and second == 0x6F)
        or (first == 0x6E and second == 0x70)
        or (first == 0x70 and second == 0x79)
        or (size == 3 and first | 0x20 == 0x61 and second | 0x20 == 0x77)
    )
    return start if found else -1


@leaf
def _is_quoted(utf8: U8, i: Int, low: Int, end: Int) -> bool:
    """Whether the quote at `i` opens a long token that something is set to."""
    if i + _MIN_QUOTED >= end:
        return False
    before = i - 1
    if before >= low and utf8[before] == 0x20:
        before -= 1
    if before < low or (utf8[before] != _COLON and utf8[before] != 0x3D):
        return False
    for k in range(i + 1, i + 1 + _MIN_QUOTED):  # noqa: SIM110 - numba has no all()
        if not _CLASS[utf8[k]] & _TOKEN:
            return False
    return True


@leaf
def _next(utf8: U8, i: Int, low: Int, end: Int, wanted: Int) -> tuple[Int, Int, Int, Int]:
    """The first span that may be something from `i` on: kind, start, end, where to go on.

    The kind is 0 if there is none.
    """
    while i < end:
        kinds = _TRIGGER[utf8[i]] & wanted
        if kinds == 0:
            i += 1
            continue
        if kinds & EMAIL:
            start, stop = _email(utf8, i, low, end)
            if stop > start:
                return EMAIL, start, stop, stop
        elif kinds & IPV6:
            start, stop = _ipv6(utf8, i, low, end)
            if stop > start:
                return IPV6, start, stop, stop
        elif kinds & KEY:
            start = _is_key(utf8, i, low, end)
            if start >= 0:
                return KEY, start, start, i + 1
        elif kinds & QUOTED:
            if _is_quoted(utf8, i, low, end):
                return QUOTED, i, i, i + 1
        else:
            is_first = i == low or not (
                _CLASS[utf8[i - 1]] & (_DIGIT | _LETTER) or utf8[i - 1] == _LOW_LINE
            )
            if is_first and i > low + 1 and utf8[i - 1] in (_DOT, _DASH):
                is_first = not _CLASS[utf8[i - 2]] & (_DIGIT | _LETTER)
            if is_first and kinds & IPV4:
                stop = _ipv4(utf8, i, end)
                if stop > i:
                    return IPV4, i, stop, stop
            if is_first and kinds & PHONE:
                stop = _phone(utf8, i, end)
                if stop > i:
                    # What begins with a bracket or a sign may not be one, yet hold one.
                    return PHONE, i, stop, i + 1
            i += 1
            while i < end and _CLASS[utf8[i]] & _DIGIT:
                i += 1
            continue
        i += 1
    return 0, end, end, end


@kernel
def find_candidates(offsets: I64, utf8: U8, wanted: Int) -> I64:
    """Spans that have the shape of what is wanted.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        wanted: Kinds, as bits.

    Returns:
        (num_found, 4): row, kind, start and end in the data, ordered by row; spans
        may overlap, and those of keys end where they start.
    """
    found = np.empty((256, 4), np.int64)
    n = 0
    for row in range(len(offsets) - 1):
        i, low, end = offsets[row], offsets[row], offsets[row + 1]
        while i < end:
            kind, start, stop, i = _next(utf8, i, low, end, wanted)
            if kind == 0:
                break
            if n == len(found):
                more = np.empty((2 * n, 4), np.int64)
                more[:n] = found
                found = more
            found[n, 0], found[n, 1], found[n, 2], found[n, 3] = row, kind, start, stop
            n += 1
    return found[:n].copy()
