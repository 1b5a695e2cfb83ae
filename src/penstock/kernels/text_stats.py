"""What quality filters count in a text: its words, its lines, and what C4 leaves of its lines.

Every kernel fills arrays that its caller made, one row of counts per document,
so that none of them makes an array itself. Counts are exact: a share of two of
them compares with a threshold as the reference implementations compare it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.leaves import leaf

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

# Classes of characters, as `segmenting` numbers them; a file of kernels stands by itself.
BLANK, LINE_END, DIGIT, LETTER, SYMBOL = 1 << 0, 1 << 1, 1 << 13, 1 << 14, 1 << 15
TERMINAL, PUNCTUATION, SENTENCE_END = 1 << 16, 1 << 17, 1 << 18

WORDS, PLAIN_WORDS, PLAIN_CHARS, LETTER_WORDS, STOP_WORDS = range(5)
"""Columns of `count_words`: all words; those with more than symbols, and their characters; those
with a letter; how many of the stop words occur."""

HASHES, ELLIPSES, LINES, BULLET_LINES, ELLIPSIS_LINES = range(5)
"""Columns of `count_marks`; an ellipsis is three dots or one character."""

FULL_LINES, TERMINAL_LINES, SHORT_LINES, REPEATED_CHARS, CHARS, NEWLINES = range(6)
"""Columns of `count_lines`: lines that are not blank, those that end in terminal punctuation, short
ones, characters in second and later copies, all characters but line feeds, and line feeds."""

LOREM_LINE, CURLY_LINE = range(2)
"""Columns of `keep_lines`: the first line with each, counted from 0, or -1."""

LOREM, JAVASCRIPT, POLICY = 1, 2, 4
PHRASES = (
    ("lorem ipsum", LOREM),
    ("javascript", JAVASCRIPT),
    ("terms of use", POLICY),
    ("privacy policy", POLICY),
    ("cookie policy", POLICY),
    ("uses cookies", POLICY),
    ("use of cookies", POLICY),
    ("use cookies", POLICY),
)
"""What C4 looks for in a line, in small letters, and what it means."""

_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_ONE = np.uint64(1)
_SHIFT = np.uint64(32)
_LF, _CR, _SPACE, _DOT, _DASH, _HASH, _CURLY = 0x0A, 0x0D, 0x20, 0x2E, 0x2D, 0x23, 0x7B
_BULLET, _ELLIPSIS = 0x2022, 0x2026


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
def count_words(
    rows: I64, chars: I32, some: U32, every: U32, hashes: U64, stop_words: U64, out: I32
) -> None:
    """Count the words of each row.

    Args:
        rows: What `segmenting.cut_words` returns, as the next four.
        chars: See `rows`.
        some: See `rows`.
        every: See `rows`.
        hashes: See `rows`.
        stop_words: Their hashes, sorted; at most 62.
        out: (num_rows, 5), columns as `WORDS` and so on.
    """
    for row in range(len(rows) - 1):
        num_plain, num_chars, num_letters, found = 0, 0, 0, 0
        for i in range(rows[row], rows[row + 1]):
            if not every[i] & SYMBOL:
                num_plain += 1
                num_chars += chars[i]
            num_letters += (some[i] & LETTER) != 0
            low, high = 0, len(stop_words)
            while low < high:
                middle = (low + high) >> 1
                if stop_words[middle] < hashes[i]:
                    low = middle + 1
                else:
                    high = middle
            if low < len(stop_words) and stop_words[low] == hashes[i]:
                found |= 1 << low
        num_found = 0
        for k in range(len(stop_words)):
            num_found += (found >> k) & 1
        out[row, WORDS] = rows[row + 1] - rows[row]
        out[row, PLAIN_WORDS], out[row, PLAIN_CHARS] = num_plain, num_chars
        out[row, LETTER_WORDS], out[row, STOP_WORDS] = num_letters, num_found


@leaf
def count_marks(offsets: I64, utf8: U8, flags: U32, out: I32) -> None:
    """Count marks and the lines that begin or end with them; out is (num_rows, 5)."""
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        num_hashes, num_ellipses, num_lines, num_bullets, num_ends = 0, 0, 0, 0, 0
        num_dots, fresh, is_open, ends = 0, True, False, False
        while i < end:
            byte = utf8[i]
            if byte < 0x80:
                found, code, width = np.int64(flags[byte]), np.int64(byte), 1
            else:
                found, code, width = _char(flags, utf8, i, end)
            i += width
            is_open = True
            if code == _DOT:
                num_dots += 1
                num_ellipses += num_dots % 3 == 0
                ends, fresh = num_dots >= 3, False
                continue
            num_dots = 0
            if not found & BLANK:
                num_hashes += code == _HASH
                num_ellipses += code == _ELLIPSIS
                ends = code == _ELLIPSIS
                if fresh:
                    num_bullets += code in (_BULLET, _DASH)
                    fresh = False
            elif found & LINE_END:
                if code == _CR and i < end and utf8[i] == _LF:
                    i += 1
                num_lines += 1
                num_ends += ends
                fresh, is_open, ends = True, False, False
        if is_open:
            num_lines += 1
            num_ends += ends
        out[row, HASHES], out[row, ELLIPSES], out[row, LINES] = num_hashes, num_ellipses, num_lines
        out[row, BULLET_LINES], out[row, ELLIPSIS_LINES] = num_bullets, num_ends


@leaf
def _seen(keys: U64, stamps: I32, mask: Int, stamp: Int, value: Int) -> bool:
    """Whether a table has this value under this stamp; it has from now on."""
    slot = (value ^ (value >> _SHIFT)) & np.uint64(mask)
    while stamps[slot] == stamp:
        if keys[slot] == value:
            return True
        slot = (slot + _ONE) & np.uint64(mask)
    keys[slot], stamps[slot] = value, stamp
    return False


@leaf
def most_lines(offsets: I64, utf8: U8) -> Int:
    """Line feeds of the row that has most."""
    most = 0
    for row in range(len(offsets) - 1):
        count = 0
        for i in range(offsets[row], offsets[row + 1]):
            count += utf8[i] == _LF
        most = max(most, count)
    return most


@leaf
def count_lines(
    offsets: I64, utf8: U8, flags: U32, short: Int, keys: U64, stamps: I32, out: I32
) -> None:
    """Count what line feeds separate.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        flags: Classes of each character.
        short: Characters of the longest short line.
        keys: A table with room for a power of two above twice the lines of any row.
        stamps: Zeros, as many.
        out: (num_rows, 6), columns as `FULL_LINES` and so on.
    """
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        num_newlines = 0
        for k in range(i, end):
            num_newlines += utf8[k] == _LF
        mask = 4
        while mask < 2 * (num_newlines + 1):
            mask *= 2
        num_full, num_terminal, num_short, num_repeated, num_all = 0, 0, 0, 0, 0
        while i <= end:
            value = np.uint64(0)
            last: Int = 0
            num_chars, is_full = 0, False
            while i < end and utf8[i] != _LF:
                byte = utf8[i]
                if byte < 0x80:
                    last, width = np.int64(flags[byte]), 1
                else:
                    last, _, width = _char(flags, utf8, i, end)
                is_full = is_full or not last & BLANK
                for k in range(i, i + width):
                    value = value * _BASE + np.uint64(utf8[k]) + _ONE
                num_chars += 1
                i += width
            i += 1
            num_all += num_chars
            if is_full:
                num_full += 1
                num_terminal += (last & TERMINAL) != 0
                num_short += num_chars <= short
                if _seen(keys, stamps, mask - 1, row + 1, value):
                    num_repeated += num_chars
        out[row, FULL_LINES], out[row, TERMINAL_LINES] = num_full, num_terminal
        out[row, SHORT_LINES], out[row, REPEATED_CHARS] = num_short, num_repeated
        out[row, CHARS], out[row, NEWLINES] = num_all, num_newlines


@leaf
def _phrases(utf8: U8, start: Int, end: Int, phrases: U8, ends: I64, meanings: I64) -> Int:
    """What the phrases in this line mean, whatever the case of their letters."""
    found = 0
    for i in range(start, end):
        byte = utf8[i] | 0x20
        if not 0x63 <= byte <= 0x75:  # c to u
            continue
        first = 0
        for number in range(len(ends)):
            size = ends[number] - first
            if phrases[first] == byte and i + size <= end:
                k = 1
                while k < size:
                    other = utf8[i + k]
                    if 0x41 <= other <= 0x5A:
                        other |= 0x20
                    if other != phrases[first + k]:
                        break
                    k += 1
                if k == size:
                    found |= meanings[number]
            first = ends[number]
    return found


@leaf
def _citation(flags: U32, utf8: U8, i: Int, end: Int, citations: U8, ends: I64) -> Int:
    """Bytes of the citation mark that begins with the bracket at `i`, or 0."""
    k = i + 1
    while k < end:
        found, _, width = _char(flags, utf8, k, end)
        if not found & DIGIT:
            break
        k += width
    if k < end and utf8[k] == 0x5D:
        return k + 1 - i
    first = 0
    for number in range(len(ends)):
        size = ends[number] - first
        if i + size <= end:
            same = True
            for m in range(size):
                same = same and utf8[i + m] == citations[first + m]
            if same:
                return size
        first = ends[number]
    return 0


@leaf
def keep_lines(
    offsets: I64,
    utf8: U8,
    flags: U32,
    min_words: Int,
    max_word_chars: Int,
    cites: bool,
    must_end: bool,
    drops: Int,
    phrases: U8,
    ends: I64,
    meanings: I64,
    citations: U8,
    citation_ends: I64,
    strip: bool,
    out: U8,
    out_offsets: I64,
    firsts: I32,
) -> None:
    """Write the lines that C4 keeps, joined by line feeds, and note where its marks first stand.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        flags: Classes of each character.
        min_words: Words between blanks that a line has at least.
        max_word_chars: Characters of its longest word at most; negative for any.
        cites: Remove marks of citations.
        must_end: A line must end in terminal punctuation.
        drops: Meanings of phrases that drop a line.
        phrases: The phrases, one after the other, and where each ends and what it means.
        ends: See `phrases`.
        meanings: See `phrases`.
        citations: The marks, and where each ends; digits in brackets are known besides.
        citation_ends: See `citations`.
        strip: Remove blanks at both ends of a row's lines.
        out: At least as many bytes as `utf8`.
        out_offsets: (num_rows + 1,).
        firsts: (num_rows, 2), columns as `LOREM_LINE`.
    """
    o = 0
    out_offsets[0] = 0
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        firsts[row, LOREM_LINE] = firsts[row, CURLY_LINE] = -1
        number, begin = -1, o
        while i < end:
            number += 1
            # Find the line's end, its words, and where it begins and ends without blanks.
            first = last = -1
            num_words, num_chars, longest = 0, 0, 0
            while i < end:
                byte = utf8[i]
                if byte < 0x80:
                    found, width = np.int64(flags[byte]), 1
                else:
                    found, _, width = _char(flags, utf8, i, end)
                if found & BLANK:
                    if found & LINE_END:
                        break
                    num_chars = 0
                else:
                    num_words += num_chars == 0
                    num_chars += 1
                    longest = max(longest, num_chars)
                    first = i if first < 0 else first
                    last = i + width
                i += width
            if i < end:
                is_pair = utf8[i] == _CR and i + 1 < end and utf8[i + 1] == _LF
                i += 2 if is_pair else _char(flags, utf8, i, end)[2]
            if max_word_chars >= 0 and longest > max_word_chars:
                continue
            line = o
            if o > begin:
                out[o] = _LF
                o += 1
            o = _copy_line(flags, utf8, first, last, cites, citations, citation_ends, out, o)
            text = line + (line > begin)
            keeps = num_words >= min_words
            if keeps and must_end:
                keeps = o > text and out[o - 1] in (0x2E, 0x3F, 0x21, 0x22, 0x27)
                is_dots = o - text >= 3 and out[o - 1] == _DOT and out[o - 2] == _DOT
                keeps = keeps and not (is_dots and out[o - 3] == _DOT)
            if keeps:
                found = _phrases(out, text, o, phrases, ends, meanings)
                if found & LOREM and firsts[row, LOREM_LINE] < 0:
                    firsts[row, LOREM_LINE] = number
                if found & JAVASCRIPT & drops:
                    keeps = False
                else:
                    for k in range(text, o):
                        if out[k] == _CURLY and firsts[row, CURLY_LINE] < 0:
                            firsts[row, CURLY_LINE] = number
                    keeps = not found & POLICY & drops
            if not keeps:
                o = line
        if strip:
            o = _strip(flags, out, begin, o)
        out_offsets[row + 1] = o


@leaf
def _copy_line(
    flags: U32, utf8: U8, i: Int, end: Int, cites: bool, citations: U8, ends: I64, out: U8, o: Int
) -> Int:
    while i < end:
        if cites and utf8[i] == 0x5B:
            size = _citation(flags, utf8, i, end, citations, ends)
            if size:
                i += size
                continue
        out[o] = utf8[i]
        o += 1
        i += 1
    return o


@leaf
def _strip(flags: U32, out: U8, begin: Int, end: Int) -> Int:
    """Remove blanks at both ends of what was written; returns the new end."""
    first = begin
    while first < end:
        found, _, width = _char(flags, out, first, end)
        if not found & BLANK:
            break
        first += width
    while end > first:
        k = end - 1
        while k > first and (out[k] & 0xC0) == 0x80:
            k -= 1
        if not _char(flags, out, k, end)[0] & BLANK:
            break
        end = k
    if first > begin:
        for k in range(first, end):
            out[begin + k - first] = out[k]
    return begin + end - first


@leaf
def count_sentences(
    offsets: I64, utf8: U8, rows: I64, starts: I64, sizes: I32, chars: I32, every: U32, out: I32
) -> None:
    """Count sentences as spaCy's sentencizer does, each line by itself.

    A sentence ends with a full stop or the like; what is punctuation alone
    still belongs to it. Blanks other than one space are a word of their own.

    Args:
        offsets: (num_rows + 1,).
        utf8: Lines joined by line feeds.
        rows: What `segmenting.cut_words` returns of this text, as the next four.
        starts: See `rows`.
        sizes: See `rows`.
        chars: See `rows`.
        every: See `rows`.
        out: (num_rows,).
    """
    for row in range(len(rows) - 1):
        count = 0
        seen, fresh = False, True
        gap = offsets[row]
        for i in range(rows[row], rows[row + 1]):
            start = starts[i]
            k = gap
            while k < start and utf8[k] != _LF:
                k += 1
            # In the first line the gap is what stands before its first word.
            if k > gap and (k - gap > 1 or utf8[gap] != _SPACE) and seen:
                count += 1
                seen = False
            fresh = fresh or k < start
            is_end = chars[i] == 1 and every[i] & SENTENCE_END
            if fresh:
                count += 1
                seen, fresh = is_end != 0, False
            elif seen and not is_end and not every[i] & PUNCTUATION:
                count += 1
                seen = False
            elif is_end:
                seen = True
            gap = start + sizes[i]
        out[row] = count
