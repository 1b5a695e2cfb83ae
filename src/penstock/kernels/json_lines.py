"""One pass over JSON lines that takes each line's text out and leaves the rest to be parsed."""

from __future__ import annotations

import numpy as np

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel
from penstock.kernels.lanes import LANE, copy_lane, first_bit, not_literal

# numba's cache looks at this file alone; this tells it which lanes are in here.
_LANES = 0x176A9972

_NUL, _TAB, _LF, _CR, _SPACE = 0x00, 0x09, 0x0A, 0x0D, 0x20
_QUOTE, _COMMA, _COLON, _BACKSLASH = 0x22, 0x2C, 0x3A, 0x5C
_LOWER_U, _OPEN, _CLOSE = 0x75, 0x7B, 0x7D

# Bytes of a string that stand for themselves.
_PLAIN = np.ones(256, np.bool_)
_PLAIN[:0x20] = False
_PLAIN[[_QUOTE, _BACKSLASH]] = False

# What an escaped byte stands for; 0 is no escape.
_ESCAPED = np.zeros(256, np.uint8)
for _byte, _meaning in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_byte] = _meaning

# Value of a hexadecimal digit; 16 is none.
_HEX = np.full(256, 16, np.uint8)
for _value, _byte in enumerate(b"0123456789abcdef"):
    _HEX[_byte] = _HEX[ord(chr(_byte).upper())] = _value


@kernel
def lift(data: U8, name: U8, max_depth: int) -> tuple[int, I64, U8, U8]:
    """Take the string of one top-level key out of every line.

    What is left has an empty string in its place, so it is JSON if and only if
    the lines are, for a string that is lifted is checked here. Nothing else is:
    whatever the rest holds is its parser's to judge.

    Args:
        data: Lines of UTF-8; the last may lack its line end.
        name: The key, in UTF-8. One that is written with escapes is not found.
        max_depth: Levels of brackets that a line may have.

    Returns:
        Number of lines, or 0 where a line is not one pair of outer braces,
        holds a NUL, nests too deeply, or has not exactly one such key with a
        valid string; the rest is then meaningless. ``(num_lines + 1,)`` offsets
        and the bytes of the strings, without escapes; and what is left of the
        lines.
    """
    size = len(data)
    offsets = np.zeros(size // (len(name) + 7) + 2, np.int64)
    text = np.empty(size + LANE, np.uint8)
    rest = np.empty(size + 1, np.uint8)
    num_lines, i, o, r = 0, 0, 0, 0
    while i < size:
        depth, num_lifted = 0, 0
        is_key, is_value = False, False
        while i < size:
            byte = data[i]
            if byte == _QUOTE and is_value and depth == 1:
                i, o = _unescape(data, i + 1, text, o)
                if i < 0:
                    return 0, offsets, text, rest
                rest[r] = rest[r + 1] = _QUOTE
                r += 2
                num_lifted += 1
                is_value = False
                continue
            if byte == _QUOTE:
                end = _string_end(data, i + 1)
                if end < 0:
                    return 0, offsets, text, rest
                is_key = depth == 1 and _equal(data, i + 1, end - 1, name)
                for k in range(i, end):
                    rest[r] = data[k]
                    r += 1
                i = end
                continue
            if byte | 0x20 == _OPEN:  # `[` and `{` differ in that bit
                depth += 1
                if depth > max_depth or (depth == 1 and byte != _OPEN):
                    return 0, offsets, text, rest
            elif byte | 0x20 == _CLOSE:
                depth -= 1
            elif byte == _COLON:
                is_value = is_key and depth == 1
            elif byte == _COMMA:
                is_key = is_value = False
            elif byte in (_LF, _NUL):
                return 0, offsets, text, rest
            rest[r] = byte
            r += 1
            i += 1
            if depth == 0:
                break
        if depth != 0 or num_lifted != 1 or rest[r - 1] != _CLOSE:
            return 0, offsets, text, rest
        while i < size and (data[i] == _SPACE or data[i] == _TAB or data[i] == _CR):
            i += 1
        if i < size and data[i] != _LF:
            return 0, offsets, text, rest
        i += 1
        rest[r] = _LF
        r += 1
        num_lines += 1
        offsets[num_lines] = o
    return num_lines, offsets[: num_lines + 1], text[:o], rest[:r]


@kernel
def _string_end(data: U8, i: Int) -> Int:
    """The byte after the string whose first byte is `i`; -1 if it does not end on its line."""
    size = len(data)
    while i < size:
        byte = data[i]
        if byte == _QUOTE:
            return i + 1
        if byte == _BACKSLASH and i + 1 < size:
            i += 1
            byte = data[i]
        if byte in (_LF, _NUL):
            return -1
        i += 1
    return -1


@kernel
def _equal(data: U8, start: Int, end: Int, name: U8) -> bool:
    same = bool(end - start == len(name))
    k = 0
    while same and k < len(name):
        same = bool(data[start + k] == name[k])
        k += 1
    return same


@kernel
def _unescape(data: U8, i: Int, out: U8, o: Int) -> tuple[Int, Int]:
    """Write the string from byte `i` on; the byte after it, and the end of what was written.

    -1 instead of the former if it is no JSON string of whole characters.
    """
    size = len(data)
    while i < size:
        if i + LANE <= size:
            copy_lane(data, i, out, o)
            mask = not_literal(data, i)
            if mask == 0:
                i += LANE
                o += LANE
                continue
            width = first_bit(mask)
            i += width
            o += width
        byte = data[i]
        if _PLAIN[byte]:  # near the end of the data
            out[o] = byte
            o += 1
            i += 1
            continue
        if byte == _QUOTE:
            return i + 1, o
        if byte != _BACKSLASH or i + 1 >= size:
            return -1, o
        escape = data[i + 1]
        if escape != _LOWER_U:
            if _ESCAPED[escape] == 0:
                return -1, o
            out[o] = _ESCAPED[escape]
            o += 1
            i += 2
            continue
        code = _hex(data, i)
        i += 6
        if 0xD800 <= code < 0xDC00:  # the first half of a pair
            low = _hex(data, i)
            i += 6
            if low < 0xDC00 or low > 0xDFFF:
                return -1, o
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        elif code < 0 or 0xDC00 <= code < 0xE000:
            return -1, o
        o = _write(code, out, o)
    return -1, o


@kernel
def _hex(data: U8, i: Int) -> Int:
    r"""The code of the `\uXXXX` at byte `i`; -1 if there is none."""
    if i + 6 > len(data) or data[i] != _BACKSLASH or data[i + 1] != _LOWER_U:
        return -1
    code = 0
    for k in range(i + 2, i + 6):
        digit = _HEX[data[k]]
        if digit > 15:
            return -1
        code = code * 16 + int(digit)
    return code


@kernel
def _write(code: Int, out: U8, o: Int) -> Int:
    """Write a character in UTF-8; where it ends."""
    if code < 0x80:
        out[o] = code
        return o + 1
    if code < 0x800:
        out[o] = 0xC0 | code >> 6
    else:
        if code < 0x10000:
            out[o] = 0xE0 | code >> 12
        else:
            out[o] = 0xF0 | code >> 18
            o += 1
            out[o] = 0x80 | code >> 12 & 0x3F
        o += 1
        out[o] = 0x80 | code >> 6 & 0x3F
    out[o + 1] = 0x80 | code & 0x3F
    return o + 2
