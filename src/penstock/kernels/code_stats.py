"""What code filters count: comments by a language's marks, letters, pieces, visible HTML."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.leaves import leaf

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]

HASH, SLASHES, BLOCK, DASHES, PERCENT, SEMICOLON, MARKUP, DOCSTRINGS, ANGLE_HASH = (
    1 << i for i in range(9)
)
DOUBLE, SINGLE, BACKTICK, IS_HTML = (1 << i for i in range(9, 13))
"""Marks of a language: how comments begin, which quotes make strings, and whether it is HTML.

`BLOCK` is ``/* */``, `MARKUP` ``<!-- -->``, `ANGLE_HASH` ``<# #>``; a string in three quotes that
begins a line, also behind r or u, is a comment to `DOCSTRINGS`."""

CHARS, NEWLINES, LETTERS, COMMENT_CHARS, PIECES, XML, VISIBLE_CHARS = range(7)
"""Columns of `count_code`."""

_BLANK, _DIGIT, _ALPHABETIC = 1 << 0, 1 << 13, 1 << 19
_LF, _SPACE = 0x0A, 0x20
_MAX_LETTERS, _MAX_DIGITS, _MAX_SYMBOLS = 10, 3, 4
_XML_CHARS = 100
_ENTITY_CHARS = 12


@leaf
def _char(flags: U32, utf8: U8, i: Int, end: Int) -> tuple[Int, Int]:
    """Flags and width of the character at `i`, which is before `end`."""
    byte = np.int64(utf8[i])
    if byte < 0x80:
        return np.int64(flags[byte]), 1
    width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
    if byte < 0xC0 or i + width > end:
        return 0, 1  # no UTF-8
    code = byte & (0x7F >> width)
    for k in range(1, width):
        code = (code << 6) | (np.int64(utf8[i + k]) & 0x3F)
    return (np.int64(flags[code]) if code < len(flags) else 0), width


@leaf
def _is_at(utf8: U8, i: Int, end: Int, text: U8, fold: bool) -> bool:
    """Whether this text stands at `i`."""
    if i + len(text) > end:
        return False
    for k in range(len(text)):
        byte = utf8[i + k]
        if fold and 0x41 <= byte <= 0x5A:
            byte |= 0x20
        if byte != text[k]:
            return False
    return True


@leaf
def _num_chars(utf8: U8, start: Int, end: Int) -> Int:
    count = 0
    for i in range(start, end):
        count += (utf8[i] & 0xC0) != 0x80
    return count


@leaf
def _after(utf8: U8, i: Int, end: Int, a: Int, b: Int) -> Int:
    """Where two bytes next stand, or the end."""
    while i < end and not (utf8[i] == a and i + 1 < end and utf8[i + 1] == b):
        i += 1
    return i


@leaf
def _opens_comment(utf8: U8, i: Int, end: Int) -> bool:
    """Whether ``<!--`` stands at `i`."""
    return bool(
        i + 3 < end
        and utf8[i] == 0x3C
        and utf8[i + 1] == 0x21
        and utf8[i + 2] == 0x2D
        and utf8[i + 3] == 0x2D
    )


@leaf
def _line_end(utf8: U8, i: Int, end: Int) -> Int:
    while i < end and utf8[i] != _LF:
        i += 1
    return i


@leaf
def _string_end(utf8: U8, i: Int, end: Int) -> Int:
    """Where the string that begins at `i` ends; a quote that nothing closes on its line is none."""
    quote = utf8[i]
    k = i + 1
    while k < end and (utf8[k] != _LF or quote == 0x60):
        if utf8[k] == 0x5C:
            k += 1
        elif utf8[k] == quote:
            return k + 1
        k += 1
    return i + 1


@leaf
def _triple_end(utf8: U8, i: Int, end: Int) -> Int:
    """Where the string in three quotes that begins at `i` ends."""
    quote = utf8[i]
    k = i + 3
    while k < end:
        if utf8[k] == 0x5C:
            k += 1
        elif utf8[k] == quote and k + 2 < end and utf8[k + 1] == quote and utf8[k + 2] == quote:
            return k + 3
        k += 1
    return end


@leaf
def _is_triple(utf8: U8, i: Int, end: Int) -> bool:
    """Whether three quotes stand at `i`."""
    if i + 2 >= end:
        return False
    return utf8[i] in (0x22, 0x27) and utf8[i + 1] == utf8[i] and utf8[i + 2] == utf8[i]


@leaf
def _comment_chars(utf8: U8, start: Int, end: Int, marks: Int) -> Int:
    """Characters inside comments, without the marks around them."""
    count = 0
    i = start
    fresh = True  # nothing but blanks stands before on this line
    while i < end:
        byte = utf8[i]
        second = utf8[i + 1] if i + 1 < end else np.uint8(0)
        if byte == _LF:
            fresh = True
            i += 1
            continue
        if byte in (_SPACE, 0x09, 0x0D):
            i += 1
            continue
        is_prefix = byte | 0x20 in (0x72, 0x75) and _is_triple(utf8, i + 1, end)  # r or u
        if fresh and marks & DOCSTRINGS and is_prefix:
            i += 1
            continue
        first, stop, skip = -1, i, 0
        if byte == 0x23 and marks & HASH:
            first, stop = i + 1, _line_end(utf8, i, end)
        elif byte == 0x2F and second == 0x2F and marks & SLASHES:
            first, stop = i + 2, _line_end(utf8, i, end)
        elif byte == 0x2F and second == 0x2A and marks & BLOCK:
            first, stop, skip = i + 2, _after(utf8, i + 2, end, 0x2A, 0x2F), 2
        elif byte == 0x2D and second == 0x2D and marks & DASHES:
            first, stop = i + 2, _line_end(utf8, i, end)
        elif (byte == 0x25 and marks & PERCENT) or (byte == 0x3B and marks & SEMICOLON):
            first, stop = i + 1, _line_end(utf8, i, end)
        elif byte == 0x3C and second == 0x23 and marks & ANGLE_HASH:
            first, stop, skip = i + 2, _after(utf8, i + 2, end, 0x23, 0x3E), 2
        elif marks & MARKUP and _opens_comment(utf8, i, end):
            first, stop, skip = i + 4, _after(utf8, i + 4, end, 0x2D, 0x2D), 3
        if first >= 0:
            count += _num_chars(utf8, min(first, stop), stop)
            i = min(stop + skip, end)
        elif marks & DOCSTRINGS and _is_triple(utf8, i, end):
            stop = _triple_end(utf8, i, end)
            if fresh:
                count += max(0, _num_chars(utf8, i, stop) - 6)
            i = stop
        elif (
            (byte == 0x22 and marks & DOUBLE)
            or (byte == 0x27 and marks & SINGLE)
            or (byte == 0x60 and marks & BACKTICK)
        ):
            i = _string_end(utf8, i, end)
        else:
            i += 1
        fresh = False
    return count


@leaf
def _num_pieces(flags: U32, utf8: U8, start: Int, end: Int) -> Int:
    """Pieces such as a tokenizer for code makes of a text it knows well.

    A run of letters up to a change to capitals, of at most ten; three digits;
    one symbol, up to four times; a run of blanks, unless it is one space.
    """
    count = 0
    last: Int = 0
    before, size = -1, 0  # 0 blank, 1 letter, 2 capital, 3 digit, 4 symbol
    i = start
    while i < end:
        byte = utf8[i]
        found, width = _char(flags, utf8, i, end)
        if found & _BLANK:
            kind = 0
        elif found & _DIGIT:
            kind = 3
        elif found & _ALPHABETIC:
            kind = 2 if 0x41 <= byte <= 0x5A else 1
        else:
            kind = 4
        if kind == 0:
            is_run = before == 0
            count += (is_run and size == 1 and last == _SPACE) or (not is_run and byte != _SPACE)
            size = size + 1 if is_run else 1
        elif (kind != before and not (before == 2 and kind == 1)) or (kind == 4 and byte != last):
            count += 1
            size = 1
        else:
            most = _MAX_DIGITS if kind == 3 else _MAX_SYMBOLS if kind == 4 else _MAX_LETTERS
            size += 1
            if size > most:
                count += 1
                size = 1
        before, last = kind, byte
        i += width
    return count


@leaf
def _after_entity(utf8: U8, i: Int, end: Int) -> Int:
    """Behind the byte at `i`, or behind ``&amp;`` and its like that stand there for a character."""
    if utf8[i] != 0x26:
        return i + 1
    k = i + 1
    while k < end and k < i + _ENTITY_CHARS:
        letter = utf8[k] | 0x20
        if not (0x61 <= letter <= 0x7A or 0x30 <= utf8[k] <= 0x39 or utf8[k] == 0x23):
            break
        k += 1
    return k + 1 if k > i + 1 and k < end and utf8[k] == 0x3B else i + 1


@leaf
def _visible_chars(utf8: U8, start: Int, end: Int, script: U8, style: U8) -> Int:
    """Characters of HTML outside tags, comments, scripts, styles; blanks between tags are one."""
    count = 0
    i, begins = start, True  # whether a text begins here
    while i < end:
        if begins:
            k = i
            while k < end and (utf8[k] == _SPACE or 0x09 <= utf8[k] <= 0x0D):
                k += 1
            if k > i and (k == end or utf8[k] == 0x3C):
                count += 1
                i, begins = k, False
                continue
        begins = False
        if utf8[i] != 0x3C:
            count += (utf8[i] & 0xC0) != 0x80
            i = _after_entity(utf8, i, end)
            continue
        after = utf8[i + 1] if i + 1 < end else np.uint8(0)
        is_tag = 0x41 <= after & 0xDF <= 0x5A or after in (0x2F, 0x21, 0x3F)
        if not is_tag:
            count += 1
            i += 1
            continue
        if _opens_comment(utf8, i, end):
            i, begins = min(_after(utf8, i + 4, end, 0x2D, 0x2D) + 3, end), True
            continue
        is_script = _is_at(utf8, i + 1, end, script, True)
        is_style = _is_at(utf8, i + 1, end, style, True)
        while i < end and utf8[i] != 0x3E:
            i += 1
        i, begins = i + 1, True
        while (is_script or is_style) and i < end:
            closes = utf8[i] == 0x3C and i + 1 < end and utf8[i + 1] == 0x2F
            if closes and _is_at(utf8, i + 2, end, script if is_script else style, True):
                break
            i += 1
    return count


@leaf
def count_code(
    offsets: I64, utf8: U8, flags: U32, marks: I32, xml: U8, script: U8, style: U8, out: I32
) -> None:
    """Count what tells code from data.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        flags: Classes of each character, as `segmenting` numbers them.
        marks: (num_rows,) marks of each row's language.
        xml: How XML begins.
        script: The tag's name.
        style: The tag's name.
        out: (num_rows, 7), columns as `CHARS` and so on.
    """
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        num_chars, num_newlines, num_letters, is_xml = 0, 0, 0, 0
        i = start
        while i < end:
            byte = utf8[i]
            found, width = np.int64(flags[byte]) if byte < 0x80 else 0, 1
            if byte >= 0x80:
                found, width = _char(flags, utf8, i, end)
            if byte == 0x3C and num_chars + len(xml) <= _XML_CHARS:
                is_xml |= _is_at(utf8, i, end, xml, False)
            num_newlines += byte == _LF
            num_letters += (found & _ALPHABETIC) != 0
            num_chars += 1
            i += width
        out[row, CHARS], out[row, NEWLINES] = num_chars, num_newlines
        out[row, LETTERS], out[row, XML] = num_letters, is_xml
        out[row, COMMENT_CHARS] = _comment_chars(utf8, start, end, marks[row])
        out[row, PIECES] = _num_pieces(flags, utf8, start, end)
        out[row, VISIBLE_CHARS] = num_chars
        if marks[row] & IS_HTML:
            out[row, VISIBLE_CHARS] = _visible_chars(utf8, start, end, script, style)
