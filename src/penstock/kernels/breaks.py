"""Where a text may be cut, and how well: one mark per line, found in one pass over the bytes.

A mark is a byte position and a strength: cutting before the first word at or
after the position is as good as the strength says. What a line means depends
on the kind of text; each kind has one function here that looks at one line,
with a little state for what began on an earlier line (a fence, a comment, a
string). Words and sentences have no marks: `tokens.scan` sees them itself.

Headings, and in code the lines that define something, are listed too, each
with its parent, so that a chunk can say what it stands under.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel

PLAIN, MARKDOWN, RST, PYTHON, CODE, HTML, DATA = range(7)
"""Kinds of text."""

NEVER, PIECE, WORD, SENTENCE, LINE, PARAGRAPH, BLOCK, BORDER, SECTION, FORCED, END = range(11)
"""Strengths: `BLOCK` is a blank line before an unindented line, `PARAGRAPH` one before an
indented line; `BORDER` is a fence or a nested definition; `SECTION` a heading or a definition
at the left edge. At `FORCED` a cut must be, for the counts on both sides stand alone."""

# The state of a line-wise look, reset per document.
_FENCE, _FENCE_SIZE, _AFTER_FENCE, _FRONT, _SKIP, _AFTER_HEADING, _LAST = range(7)
_COMMENT, _TRIPLE, _OPEN = 0, 1, 2  # in code, where there are no fences
_STYLES, _NUM_STYLES = 8, 16

_LF, _CR, _SPACE, _TAB = 0x0A, 0x0D, 0x20, 0x09


def _hash_of(word: str) -> int:
    value = 5381
    for byte in word.encode():
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def _hashes(words: str) -> npt.NDArray[np.int64]:
    return np.array(sorted(_hash_of(word) for word in words.split()), np.int64)


_DEFINERS = _hashes(
    "def class function func fn fun struct enum union interface trait impl type module mod"
    " namespace record protocol extension sub proc procedure macro_rules workflow actor object"
    " create alter defmodule defp"
)
_MODIFIERS = _hashes(
    "pub public private protected internal static export default async abstract final virtual"
    " override inline extern unsafe const constexpr declare open sealed partial data local"
    " synchronized native readonly"
)
_CONTROL = _hashes(
    "if else elif elsif elseif for foreach while until unless switch case match return do try"
    " catch finally with loop print echo assert raise throw import from using include require"
    " goto break continue yield await new delete let var end fi done esac then in set describe"
    " it test expect begin when select defer go"
)
_PY_DEFINERS = _hashes("def class")
_BLOCK_TAGS = _hashes(
    "p div section article main header footer nav aside ul ol li dl dt dd table thead tbody tr"
    " pre blockquote figure form fieldset details summary hr body script style"
)


@kernel
def find_breaks(offsets: I64, utf8: U8, kinds: U8) -> tuple[I64, U8, I64, I64, I64, I64, I64, I64]:
    """Mark every line that is not blank, and list the headings.

    Returns:
        Marks: position, strength, and offsets per row. Headings: position,
        start and end of the title (equal where a scope of code ends), the
        parent's number or -1, and offsets per row. Both sorted by position.
    """
    num_rows = len(offsets) - 1
    capacity = num_rows + 1
    for row in range(num_rows):
        for i in range(offsets[row], offsets[row + 1]):
            capacity += utf8[i] == _LF or (utf8[i] == 0x3C and kinds[row] == HTML)
    at = np.empty(capacity, np.int64)
    strength = np.empty(capacity, np.uint8)
    rows = np.zeros(num_rows + 1, np.int64)
    # Position, title's start and end, parent, level. Untouched memory costs nothing.
    heads = np.empty((capacity, 5), np.int64)
    head_rows = np.zeros(num_rows + 1, np.int64)
    state = np.zeros(_STYLES + _NUM_STYLES, np.int64)
    head = np.zeros(4, np.int64)  # level, title's start and end, and whether it attaches
    n = h = 0
    for row in range(num_rows):
        kind, end = kinds[row], offsets[row + 1]
        state[:] = 0
        blank, attached, attached_indent = True, -1, 0
        pos = offsets[row]
        while pos < end:
            stop = _line_end(utf8, pos, end)
            first, last = _trimmed(utf8, pos, stop)
            if first == last:
                blank, attached = True, -1
                pos = stop + 1
                continue
            indent = first - pos
            base = LINE
            if blank:
                base = BLOCK if indent == 0 else PARAGRAPH
            head[:] = 0
            if kind == MARKDOWN:
                value = _markdown(utf8, first, last, stop + 1, end, indent, base, state, head)
                state[_FRONT] = state[_FRONT] or -1
            elif kind == RST:
                value = _rst(utf8, first, last, stop + 1, end, indent, base, state, head)
            elif kind in (PYTHON, CODE):
                value = _code(utf8, first, last, stop + 1, end, indent, base, kind, state, head)
            elif kind == DATA:
                value = base
            else:
                value = _wrapped(utf8, first, base, state)
            state[_LAST] = utf8[last - 1] if kind not in (PYTHON, CODE) else 0
            if kind in (PYTHON, CODE):
                # A comment or decorator directly above a definition belongs to it.
                if head[3]:
                    if attached < 0 or (indent != attached_indent and head[3] == 1):
                        attached, attached_indent = n, indent
                elif head[0] and attached >= 0 and indent == attached_indent:
                    strength[attached] = value
                    value = NEVER
                if (
                    head[0] == 0
                    and head[3] == 0
                    and _leaves(utf8, first, last, indent, heads, h, head_rows[row])
                ):
                    head[0], head[1], head[2] = indent + 1, first, first
            at[n], strength[n] = pos, value
            n += 1
            if head[0]:
                heads[h, 0] = pos if attached < 0 or value != NEVER else at[attached]
                _add_heading(heads, h, head, head_rows[row])
                h += 1
            if kind == HTML:
                n, h = _tags(
                    utf8, first, last, end, at, strength, n, heads, h, head, head_rows[row]
                )
            if head[3] == 0:
                attached = -1
            blank = False
            pos = stop + 1
        rows[row + 1], head_rows[row + 1] = n, h
    return (
        at[:n],
        strength[:n],
        rows,
        heads[:h, 0].copy(),
        heads[:h, 1].copy(),
        heads[:h, 2].copy(),
        heads[:h, 3].copy(),
        head_rows,
    )


@kernel
def _line_end(utf8: U8, pos: Int, end: Int) -> Int:
    while pos < end and utf8[pos] != _LF:
        pos += 1
    return pos


@kernel
def _trimmed(utf8: U8, first: Int, last: Int) -> tuple[Int, Int]:
    while first < last and (utf8[first] in (_SPACE, _TAB, _CR)):
        first += 1
    while last > first and (utf8[last - 1] in (_SPACE, _TAB, _CR)):
        last -= 1
    return first, last


@kernel
def _add_heading(heads: I64, h: Int, head: I64, lowest: Int) -> None:
    """Fill in number `h`: what `head` says, under the last one of a smaller level."""
    parent = h - 1
    while parent >= lowest and heads[parent, 4] >= head[0]:
        parent = heads[parent, 3]
    heads[h, 1], heads[h, 2] = head[1], head[2]
    heads[h, 3] = parent if parent >= lowest else -1
    heads[h, 4] = head[0]


@kernel
def _run(utf8: U8, first: Int, last: Int) -> Int:
    """How often the first byte stands at the start."""
    i = first
    while i < last and utf8[i] == utf8[first]:
        i += 1
    return i - first


@kernel
def _wrapped(utf8: U8, first: Int, base: Int, state: I64) -> Int:
    """The strength of a line of prose: a line that runs on is no better a place than a word."""
    before = state[_LAST]
    if (
        base == LINE
        and 0x61 <= utf8[first] <= 0x7A
        and before not in (0x2E, 0x21, 0x3F, 0x3A, 0x3B)
    ):
        return WORD
    return base


@kernel
def _is_item(utf8: U8, first: Int, last: Int) -> bool:
    """Whether the line begins a list item: a bullet, or digits and a dot or bracket."""
    i = first
    if utf8[i] in (0x2D, 0x2A, 0x2B):
        i += 1
    else:
        while i < last and i - first < 9 and 0x30 <= utf8[i] <= 0x39:
            i += 1
        if i in (first, last) or utf8[i] not in (0x2E, 0x29):
            return False
        i += 1
    return bool(i == last or utf8[i] in (_SPACE, _TAB))


@kernel
def _markdown(
    utf8: U8,
    first: Int,
    last: Int,
    following: Int,
    end: Int,
    indent: Int,
    base: Int,
    state: I64,
    head: I64,
) -> Int:
    lead, run = utf8[first], _run(utf8, first, last)
    if state[_FENCE]:
        if (
            lead == state[_FENCE]
            and run >= state[_FENCE_SIZE]
            and first + run == last
            and indent < 4
        ):
            state[_FENCE], state[_AFTER_FENCE] = 0, 1
        return min(base, PARAGRAPH)
    is_rule = lead == 0x2D and run >= 3 and first + run == last
    if state[_FRONT] == 1:  # YAML before the text, between two rules
        if is_rule:
            state[_FRONT], state[_AFTER_FENCE] = -1, 1
        return min(base, LINE)
    if state[_FRONT] == 0 and is_rule and indent == 0:
        state[_FRONT] = 1
        return base
    if state[_SKIP]:
        state[_SKIP] -= 1
        return NEVER
    after_fence, after_heading = state[_AFTER_FENCE], state[_AFTER_HEADING]
    state[_AFTER_FENCE] = state[_AFTER_HEADING] = 0
    value = base
    if indent < 4 and run >= 3 and (lead == 0x60 or lead == 0x7E):
        is_code = True
        for i in range(first + run, last):
            is_code = is_code and not (lead == 0x60 and utf8[i] == 0x60)
        if is_code:
            state[_FENCE], state[_FENCE_SIZE] = lead, run
            value = BORDER
    elif (
        indent < 4
        and lead == 0x23
        and run <= 6
        and (first + run == last or utf8[first + run] == _SPACE or utf8[first + run] == _TAB)
    ):
        title_end = last
        while title_end > first + run and utf8[title_end - 1] == 0x23:
            title_end -= 1
        if title_end > first + run and utf8[title_end - 1] not in (_SPACE, _TAB):
            title_end = last  # the hash belongs to the title, as in C#
        _set_head(utf8, head, run, first + run, title_end)
        value = SECTION
    elif _is_item(utf8, first, last):
        pass
    elif indent < 4 and (base > LINE or after_heading) and lead not in (0x3E, 0x7C):
        underline, width = _underline(utf8, following, end)
        if (underline == 0x3D and width >= 2) or (underline == 0x2D and width >= 3):
            _set_head(utf8, head, 1 if underline == 0x3D else 2, first, last)
            state[_SKIP] = 1
            value = SECTION
    if value == base and base == LINE and not _is_item(utf8, first, last):
        value = _wrapped(utf8, first, base, state)
    if after_fence:
        value = max(value, BORDER)
    if head[0]:
        state[_AFTER_HEADING] = 1
    # A heading stays with what it is the heading of, be it a smaller heading.
    return WORD if after_heading else value


@kernel
def _set_head(utf8: U8, head: I64, level: Int, start: Int, stop: Int) -> None:
    start, stop = _trimmed(utf8, start, stop)
    head[0], head[1], head[2] = level, start, stop


@kernel
def _underline(utf8: U8, pos: Int, end: Int) -> tuple[Int, Int]:
    """The byte that the line at `pos` repeats, and how often; 0 where it is not such a line."""
    if pos >= end:
        return 0, 0
    stop = _line_end(utf8, pos, end)
    first, last = _trimmed(utf8, pos, stop)
    if first == last or first - pos > 3 or _run(utf8, first, last) != last - first:
        return 0, 0
    lead = np.int64(utf8[first])
    is_mark = 0x21 <= lead <= 0x2F or 0x3A <= lead <= 0x40 or 0x5B <= lead <= 0x60 or lead == 0x7E
    return (lead, last - first) if is_mark else (0, 0)


@kernel
def _rst(
    utf8: U8,
    first: Int,
    last: Int,
    following: Int,
    end: Int,
    indent: Int,
    base: Int,
    state: I64,
    head: I64,
) -> Int:
    if state[_SKIP]:
        state[_SKIP] -= 1
        return NEVER
    after_heading = state[_AFTER_HEADING]
    state[_AFTER_HEADING] = 0
    value = base if _is_item(utf8, first, last) else _wrapped(utf8, first, base, state)
    if indent == 0 and (base > LINE or after_heading):
        style, over = 0, 0
        title_first, title_last = first, last
        if _run(utf8, first, last) == last - first and last - first >= 3:
            # An overline: the title is the next line, the same line again below it.
            stop = _line_end(utf8, following, end)
            below, width = _underline(utf8, stop + 1, end)
            if below == utf8[first] and width == last - first and stop > following:
                title_first, title_last = _trimmed(utf8, following, stop)
                style, over = below, 1
        else:
            below, width = _underline(utf8, following, end)
            letters = 0
            for i in range(first, last):
                letters += (utf8[i] & 0xC0) != 0x80
            if below and width >= 2 and width >= letters:
                style = below
        if style and title_first < title_last:
            _set_head(utf8, head, _style_level(state, style * 2 + over), title_first, title_last)
            state[_SKIP] = 1 + over
            state[_AFTER_HEADING] = 1
            value = SECTION
    return WORD if after_heading else value


@kernel
def _style_level(state: I64, style: Int) -> Int:
    """The levels of reStructuredText are the order in which its adornments first occur."""
    for i in range(_NUM_STYLES):
        if state[_STYLES + i] == style or state[_STYLES + i] == 0:
            state[_STYLES + i] = style
            return i + 1
    return _NUM_STYLES


@kernel
def _word(utf8: U8, first: Int, last: Int, fold: bool) -> tuple[Int, Int]:
    """Where the word at `first` ends, and its hash."""
    value: Int = 5381
    i = first
    while i < last:
        byte = np.int64(utf8[i])
        if fold and 0x41 <= byte <= 0x5A:
            byte += 0x20
        if not (
            0x61 <= byte <= 0x7A or byte == 0x5F or 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x5A
        ):
            break
        value = (value * 33 + byte) & 0xFFFFFFFF
        i += 1
    return i, value


@kernel
def _contains(hashes: I64, value: Int) -> bool:
    place = np.searchsorted(hashes, value)
    return bool(place < len(hashes) and hashes[place] == value)


@kernel
def _code(
    utf8: U8,
    first: Int,
    last: Int,
    following: Int,
    end: Int,
    indent: Int,
    base: Int,
    kind: Int,
    state: I64,
    head: I64,
) -> Int:
    lead = utf8[first]
    if state[_TRIPLE]:
        _skip_strings(utf8, first, last, state)
        return min(base, PARAGRAPH)
    if state[_COMMENT] or state[_OPEN] > 0:
        # Inside a comment of many lines, or the brackets of a decorator.
        if state[_COMMENT]:
            state[_COMMENT] = not _has_pair(utf8, first, last, 0x2A, 0x2F)
        else:
            state[_OPEN] += _depth(utf8, first, last)
        head[3] = 2
        return min(base, LINE)
    second = utf8[first + 1] if first + 1 < last else 0
    is_comment = lead == 0x23 and not (kind == CODE and 0x61 <= second <= 0x7A)  # but #include
    if kind == CODE:
        is_comment = is_comment or (lead in (0x2F, 0x2D) and second == lead)
    if is_comment or lead == 0x40:
        if lead == 0x40 or (lead == 0x23 and second == 0x5B):
            state[_OPEN] = max(0, _depth(utf8, first, last))
        head[3] = 1
        return base
    if lead == 0x2F and second == 0x2A and kind == CODE:
        state[_COMMENT] = not _has_pair(utf8, first + 2, last, 0x2A, 0x2F)
        head[3] = 1
        return base
    if kind == PYTHON:
        _skip_strings(utf8, first, last, state)
    start, stop = _definition(utf8, first, last, following, end, indent, kind)
    if stop > start:
        _set_head(utf8, head, indent + 1, start, stop)
        return SECTION if indent == 0 else BORDER
    return base


@kernel
def _has_pair(utf8: U8, first: Int, last: Int, a: Int, b: Int) -> bool:
    i = first
    while i < last - 1 and not (utf8[i] == a and utf8[i + 1] == b):
        i += 1
    return bool(i < last - 1)


@kernel
def _depth(utf8: U8, first: Int, last: Int) -> Int:
    """Brackets that the line opens less those that it closes."""
    depth = 0
    for i in range(first, last):
        byte = utf8[i]
        depth += (byte in (0x28, 0x5B)) - (byte in (0x29, 0x5D))
    return depth


@kernel
def _skip_strings(utf8: U8, first: Int, last: Int, state: I64) -> None:
    """Note whether a Python string in triple quotes is open at the end of the line."""
    i = first
    quote: Int = 0
    while i < last:
        byte = utf8[i]
        if byte == 0x5C:
            i += 2
            continue
        if byte in (0x22, 0x27):
            triple = i + 2 < last and utf8[i + 1] == byte and utf8[i + 2] == byte
            if state[_TRIPLE]:
                if triple and state[_TRIPLE] == byte:
                    state[_TRIPLE] = 0
                    i += 2
            elif quote:
                quote = 0 if quote == byte else quote
            elif triple:
                state[_TRIPLE] = byte
                i += 2
            else:
                quote = np.int64(byte)
        elif byte == 0x23 and not quote and not state[_TRIPLE]:
            break
        i += 1


@kernel
def _definition(
    utf8: U8, first: Int, last: Int, following: Int, end: Int, indent: Int, kind: Int
) -> tuple[Int, Int]:
    """The span that names what this line defines; empty where it defines nothing."""
    if kind == PYTHON:
        stop, word = _word(utf8, first, last, False)
        start = first
        if stop - first == 5 and stop < last and utf8[first] == 0x61:  # async
            start, _ = _trimmed(utf8, stop, last)
            stop, word = _word(utf8, start, last, False)
        if _contains(_PY_DEFINERS, word) and stop < last and utf8[stop] in (_SPACE, _TAB):
            return start, _name_end(utf8, stop, last)
        return first, first
    start, num_modifiers = first, 0
    stop, word = _word(utf8, first, last, True)
    while _contains(_MODIFIERS, word) and num_modifiers < 6:
        if stop < last and utf8[stop] == 0x28:  # pub(crate)
            while stop < last and utf8[stop] != 0x29:
                stop += 1
            stop += 1
        start, _ = _trimmed(utf8, min(stop, last), last)
        stop, word = _word(utf8, start, last, True)
        num_modifiers += 1
    if _contains(_DEFINERS, word) and (stop == last or utf8[stop] in (_SPACE, _TAB, 0x3C, 0x21)):
        # A declaration alone is no scope: `struct x;`, `type = 3`.
        after, _ = _trimmed(utf8, stop, last)
        if after < last and utf8[after] not in (0x3D, 0x2E, 0x3A, 0x2C, 0x29):
            return start, _name_end(utf8, after, last)
        return first, first
    if _contains(_CONTROL, word) or stop == start or (indent > 0 and num_modifiers == 0):
        return first, first
    bracket = start
    while bracket < last and utf8[bracket] != 0x28:
        bracket += 1
    equals = start
    while equals < bracket and utf8[equals] != 0x3D:
        equals += 1
    opens = utf8[last - 1] == 0x7B
    if not opens and utf8[last - 1] == 0x29 and following < end and indent == 0:
        opens = utf8[following] == 0x7B
    if bracket == last or not opens:
        return first, first
    return start, equals


@kernel
def _name_end(utf8: U8, pos: Int, last: Int) -> Int:
    """Where a definition's name ends: at its parameters, bases or body."""
    i, _ = _trimmed(utf8, pos, last)
    if i < last and utf8[i] == 0x28:  # the receiver of a Go method
        while i < last and utf8[i] != 0x29:
            i += 1
        i += 1
    elif i < last and utf8[i] == 0x3C:  # impl<T>
        while i < last and utf8[i] != 0x3E:
            i += 1
    while i < last and utf8[i] not in (0x28, 0x7B, 0x3A, 0x3B, 0x3D, 0x3C, 0x2C):
        i += 1
    return min(i, last)


@kernel
def _leaves(utf8: U8, first: Int, last: Int, indent: Int, heads: I64, h: Int, lowest: Int) -> bool:
    """Whether this line of code stands outside the scope that the line before was in."""
    if h == lowest or heads[h - 1, 4] <= indent:
        return False
    if heads[h - 1, 1] == heads[h - 1, 2] and heads[h - 1, 4] == indent + 1:
        return False  # an earlier line has left it
    lead = utf8[first]
    if last - first >= 3 and lead == 0x65 and utf8[first + 1] == 0x6E and utf8[first + 2] == 0x64:
        return False  # end
    return lead not in (0x7D, 0x29, 0x5D, 0x7B)  # } ) ] {


@kernel
def _tags(
    utf8: U8,
    first: Int,
    last: Int,
    end: Int,
    at: I64,
    strength: U8,
    n: Int,
    heads: I64,
    h: Int,
    head: I64,
    lowest: Int,
) -> tuple[Int, Int]:
    """Mark the tags in a line of HTML that begin a block."""
    for i in range(first, last - 2):
        if utf8[i] != 0x3C:
            continue
        stop, word = _word(utf8, i + 1, last, True)
        level: Int = 0
        if stop - i == 3 and utf8[i + 1] in (0x68, 0x48) and 0x31 <= utf8[i + 2] <= 0x36:
            level = np.int64(utf8[i + 2]) - 0x30
        if level == 0 and not _contains(_BLOCK_TAGS, word):
            continue
        value = SECTION if level else BLOCK
        if i == first:
            strength[n - 1] = value
        else:
            at[n], strength[n] = i, value
            n += 1
        if level:
            start = stop
            while start < end and utf8[start] != 0x3E:
                start += 1
            start = min(start + 1, end)
            stop = start
            limit = min(end, start + 400)
            while stop + 2 < limit and not (
                utf8[stop] == 0x3C and utf8[stop + 1] == 0x2F and utf8[stop + 2] in (0x68, 0x48)
            ):
                stop += 1
            _set_head(utf8, head, level, start, stop)
            heads[h, 0] = at[n - 1]
            _add_heading(heads, h, head, lowest)
            h += 1
            head[:] = 0
    return n, h
