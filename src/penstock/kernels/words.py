"""From text to the occurrences of terms: cut words, number them, split identifiers, sort by term.

A *word* here is a run of letters, digits, marks and inner underscores, as it
stands in the text; equal words share a number. What a word means, its *terms*,
is worked out once per distinct word, elsewhere. In scripts without spaces each
letter is a word, and so is each pair of neighbours.

A table of strings is open addressing. A slot is 0 if it is free; else its upper
half is half of a hash, from which its place follows, and its lower half is the
string's number and 1. `ends` has per number where its bytes end in `arena`.
Readers need no lock: bytes are compared, so what is half written is a miss.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel

I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

NONE, LETTER, UPPER, DIGIT, UNSPACED, MARK = range(6)
"""Classes of characters. A mark, or a joiner such as U+200D, belongs to what is before it."""

MAX_WORD = 255
"""Bytes of the longest word that is kept; longer ones are data, not language."""

MAX_CHANGES = 8
"""Changes of case or to digits in a word, above which it is no name but a code such as base64."""

MAX_DIGIT_CHANGES = 4
"""Changes between letter and digit, above which a word is no name but a hash."""

_OFFSET_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_UPPER_HALF = np.uint64(0xFFFFFFFF00000000)
_LOWER_HALF = np.uint64(0x00000000FFFFFFFF)
_ONE = np.uint64(1)
_UNDERSCORE, _DOT, _LOWER_S = 0x5F, 0x2E, 0x73


@kernel
def _find(
    slots: U64, ends: I64, arena: U8, utf8: U8, start: Int, end: Int, value: Int
) -> tuple[Int, Int, Int]:
    """The number of these bytes, or -1; the slot where it is or may go; and that slot's key.

    `value` is the FNV-1a hash of the bytes.
    """
    key = ((value ^ (value >> _HALF)) * _MIX) & _UPPER_HALF
    mask = np.uint64(len(slots) - 1)
    slot = (key >> _HALF) & mask
    while slots[slot] != 0:
        number = np.int64(slots[slot] & _LOWER_HALF) - 1
        # A reader's arrays may be older than what is in a slot, and too small.
        if slots[slot] & _UPPER_HALF == key and number < len(ends) - 1:
            first = ends[number]
            if ends[number + 1] - first == end - start and ends[number + 1] <= len(arena):
                i = start
                while i < end and arena[first + i - start] == utf8[i]:
                    i += 1
                if i == end:
                    return number, np.int64(slot), key
        slot = (slot + _ONE) & mask
    return -1, np.int64(slot), key


@kernel
def intern(
    slots: U64, ends: I64, arena: U8, count: Int, utf8: U8, starts: I64, stops: I64
) -> tuple[I32, Int]:
    """Number these byte strings, the new ones from `count` on; the table must have room.

    One writer at a time, any number of readers.

    Returns:
        (num_strings,) numbers, and the count now.
    """
    numbers = np.empty(len(starts), np.int32)
    for i in range(len(starts)):
        start, stop = starts[i], stops[i]
        value = _OFFSET_BASIS
        for k in range(start, stop):
            value = (value ^ utf8[k]) * _PRIME
        number, slot, key = _find(slots, ends, arena, utf8, start, stop, value)
        if number < 0:
            number = count
            first = ends[count]
            for k in range(stop - start):
                arena[first + k] = utf8[start + k]
            count += 1
            ends[count] = first + stop - start
            slots[slot] = key | np.uint64(count)  # last, for it makes the string visible
        numbers[i] = number
    return numbers, count


@kernel
def rehash(slots: U64, larger: U64) -> None:
    """Put every slot of a table into a larger one, over the same ends and arena."""
    mask = np.uint64(len(larger) - 1)
    for i in range(len(slots)):
        if slots[i] != 0:
            slot = (slots[i] >> _HALF) & mask
            while larger[slot] != 0:
                slot = (slot + _ONE) & mask
            larger[slot] = slots[i]


@kernel
def _char(classes: U8, utf8: U8, i: Int, end: Int) -> tuple[Int, Int]:
    """Class and width of the character at `i`, which is before `end`."""
    byte = np.int64(utf8[i])
    if byte < 0x80:
        return np.int64(classes[byte]), 1
    width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
    if byte < 0xC0 or i + width > end:
        return NONE, 1
    code = byte & (0x7F >> width)
    for k in range(1, width):
        code = (code << 6) | (np.int64(utf8[i + k]) & 0x3F)
    if code < len(classes):
        return np.int64(classes[code]), width
    if code < 0x32000:  # ideographs alone, now and in what Unicode has reserved
        return UNSPACED, width
    return (MARK if 0xE0100 <= code < 0xE01F0 else NONE), width  # variation selectors


@kernel
def _run_end(classes: U8, utf8: U8, i: Int, end: Int) -> tuple[Int, Int, Int]:
    """Where the run of word characters from `i` ends.

    Returns:
        That, where it ends without underscores, and the hash of its bytes up to there.
    """
    last = i
    digit = False
    value: Int = _OFFSET_BASIS
    last_value: Int = value
    while i < end:
        byte = utf8[i]
        if byte < 0x80:
            kind = classes[byte]
            if kind == NONE:
                if byte == _UNDERSCORE:
                    digit = False
                elif byte == _DOT and digit and i + 1 < end:
                    after = utf8[i + 1]
                    if after >= 0x80 or classes[after] != DIGIT:
                        break
                else:
                    break
                value = (value ^ byte) * _PRIME
                i += 1
                continue
            digit = kind == DIGIT
            value = (value ^ byte) * _PRIME
            i += 1
        else:
            wide, width = _char(classes, utf8, i, end)
            if wide in (NONE, UNSPACED):
                break
            if wide != MARK:
                digit = wide == DIGIT
            for k in range(i, i + width):
                value = (value ^ utf8[k]) * _PRIME
            i += width
        last, last_value = i, value
    return i, last, last_value


@kernel
def _letter_end(classes: U8, utf8: U8, i: Int, end: Int) -> Int:
    """Where the letter at `i` ends with its marks."""
    _, width = _char(classes, utf8, i, end)
    i += width
    while i < end:
        kind, width = _char(classes, utf8, i, end)
        if kind != MARK:
            break
        i += width
    return i


@kernel
def cut(
    offsets: I64, utf8: U8, classes: U8, slots: U64, ends: I64, arena: U8
) -> tuple[I64, I32, I64, I64]:
    """Cut each row into words and look them up.

    A word is a maximal run of letters, digits and marks; an underscore stays
    inside one, and so does a dot between digits. Where scripts have no spaces,
    a letter with its marks is a word; before it comes the pair that it begins.

    Args:
        offsets: (num_rows + 1,).
        utf8: The data.
        classes: Class of each character, for as many as have no rule here.
        slots: A table, as the next two.
        ends: See `slots`.
        arena: See `slots`.

    Returns:
        Offsets of each row's words; per word its id, -1 if the table lacks it,
        where it starts and where it ends.
    """
    num_rows = len(offsets) - 1
    rows = np.zeros(num_rows + 1, np.int64)
    room = offsets[num_rows] - offsets[0] + 1  # untouched memory costs nothing
    numbers = np.empty(room, np.int32)
    starts, stops = np.empty(room, np.int64), np.empty(room, np.int64)
    n = 0
    for row in range(num_rows):
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            byte = utf8[i]
            if byte < 0x80 and classes[byte] == NONE:
                i += 1
                continue
            kind = np.int64(LETTER)
            if byte >= 0x80:
                kind, width = _char(classes, utf8, i, end)
                if kind in (NONE, MARK):
                    i += width
                    continue
            if kind != UNSPACED:
                next_i, stop, value = _run_end(classes, utf8, i, end)
                if stop - i <= MAX_WORD:
                    numbers[n] = _find(slots, ends, arena, utf8, i, stop, value)[0]
                    starts[n], stops[n] = i, stop
                    n += 1
                i = next_i
                continue
            stop = _letter_end(classes, utf8, i, end)
            last = stop
            if stop < end and _char(classes, utf8, stop, end)[0] == UNSPACED:
                last = _letter_end(classes, utf8, stop, end)  # the pair comes first
            while True:
                if last - i <= MAX_WORD:
                    value = _OFFSET_BASIS
                    for k in range(i, last):
                        value = (value ^ utf8[k]) * _PRIME
                    numbers[n] = _find(slots, ends, arena, utf8, i, last, value)[0]
                    starts[n], stops[n] = i, last
                    n += 1
                if last == stop:
                    break
                last = stop
            i = stop
        rows[row + 1] = n
    return rows, numbers[:n], starts[:n], stops[:n]


@kernel
def _breaks(classes: U8, utf8: U8, start: Int, end: Int, at: I64, hard: bool) -> tuple[Int, bool]:
    """Write where parts of a word begin to `at`; only after underscores and dots if `hard`.

    Returns:
        How many, and whether there are so many that the word is no name.
    """
    n = changes = digit_changes = 0
    before = previous = NONE  # classes of the last two letters or digits
    previous_i = i = start
    while i < end:
        byte = utf8[i]
        kind, width = _char(classes, utf8, i, end)
        if kind == NONE:
            before = previous = NONE
            i += width
            continue
        if kind == MARK:
            i += width
            continue
        if previous == NONE:
            at[n] = i
            n += 1
        elif not hard and kind != previous:
            if kind == DIGIT or previous == DIGIT:
                at[n] = i
                n += 1
                digit_changes += 1
            elif kind == UPPER:
                at[n] = i
                n += 1
                changes += 1
            elif before == UPPER and previous == UPPER:
                # HTTPServer: the last capital begins a part; but URLs is a plural.
                ends_word = i + 1 == end or _char(classes, utf8, i + 1, end)[0] in (NONE, UPPER)
                if not (byte == _LOWER_S and ends_word):
                    at[n] = previous_i
                    n += 1
                    changes += 1
        before, previous, previous_i = previous, kind, i
        i += width
    coded = changes + digit_changes > MAX_CHANGES or digit_changes > MAX_DIGIT_CHANGES
    return n, coded


@kernel
def _copy(utf8: U8, start: Int, end: Int, fold: bool, out: U8, o: Int) -> Int:
    """Append what stands in a part, without underscores at its end; fold if all is ASCII."""
    while end > start and (utf8[end - 1] == _UNDERSCORE or utf8[end - 1] == _DOT):
        end -= 1
    for i in range(start, end):
        out[o] = utf8[i]
        fold = fold and utf8[i] < 0x80
        o += 1
    if fold:
        for k in range(o - (end - start), o):
            if 0x41 <= out[k] <= 0x5A:
                out[k] |= 0x20
    return o


@kernel
def split(
    ends: I64, arena: U8, first: Int, count: Int, classes: U8, fold: bool
) -> tuple[I64, I64, U8]:
    """Split the words of a table, from `first` to `count`, into parts.

    A new part begins after an underscore or a dot, before a capital after a
    small letter, before the last of several capitals that a small letter
    follows, and between letters and digits. What has too many changes of
    case or of digits is a code, and stays as it is but for its underscores.

    Args:
        ends: A table, as the next.
        arena: See `ends`.
        first: The first word.
        count: The words of the table.
        classes: See `cut`.
        fold: Make the letters of a part small if they are all ASCII.

    Returns:
        Offsets of each word's parts; ends of the parts, beginning with 0; their
        bytes. A word's first part is the word as a whole without underscores;
        it is empty if the word is one part. A pair of unspaced letters is a
        whole without parts.
    """
    size = ends[count] - ends[first]
    out = np.empty(2 * size + 1, np.uint8)
    parts = np.zeros(size + 2 * (count - first) + 2, np.int64)
    rows = np.zeros(count - first + 1, np.int64)
    at = np.empty(MAX_WORD + 1, np.int64)
    o = p = 0
    for word in range(first, count):
        start, end = ends[word], ends[word + 1]
        kind, _ = _char(classes, arena, start, end)
        if kind == UNSPACED:
            o = _copy(arena, start, end, fold, out, o)
            n = 0 if _letter_end(classes, arena, start, end) < end else 1
            if n == 1:  # the whole is empty, and the only part is the letter
                parts[p + 1] = o - (end - start)
                p += 1
            p += 1
            parts[p] = o
            rows[word - first + 1] = p
            continue
        n, coded = _breaks(classes, arena, start, end, at, False)
        if coded:
            n, coded = _breaks(classes, arena, start, end, at, True)
        if n > 1:
            whole = o
            for i in range(start, end):
                if arena[i] != _UNDERSCORE:
                    out[o] = arena[i]
                    o += 1
            ascii_only = fold
            for i in range(whole, o):
                ascii_only = ascii_only and out[i] < 0x80
            if ascii_only:
                for i in range(whole, o):
                    if 0x41 <= out[i] <= 0x5A:
                        out[i] |= 0x20
        p += 1
        parts[p] = o
        for k in range(n):
            stop = at[k + 1] if k + 1 < n else end
            o = _copy(arena, at[k], stop, fold, out, o)
            p += 1
            parts[p] = o
        rows[word - first + 1] = p
    return rows, parts[: p + 1], out[:o]


@kernel
def invert(
    title_rows: I64,
    titles: I32,
    heading_rows: I64,
    headings: I32,
    text_rows: I64,
    texts: I32,
    word_ends: I64,
    word_terms: I32,
    num_terms: Int,
) -> tuple[I32, I64, I32, I32, I32]:
    """Sort the occurrences of all terms by term, then row, then position.

    A row is its title, its title once more, its heading and its text, with a
    position left free after each, so that no phrase reaches over. A word takes
    a position for each of its parts; the word as a whole stands where its first
    part does. What has no term takes its place nevertheless.

    Args:
        title_rows: Offsets of the rows' words, from `cut`.
        titles: Their words.
        heading_rows: As for titles.
        headings: As for titles.
        text_rows: As for titles.
        texts: As for titles.
        word_ends: Offsets of each word's terms, the first being the whole's.
        word_terms: Terms, -1 where there is none.
        num_terms: All terms are below it.

    Returns:
        Terms that occur, ascending; offsets of their occurrences; per occurrence
        its row and its position; (3, num_rows): per row the words in all (the
        title's twice), those of its title and those of its heading.
    """
    num_rows = len(title_rows) - 1
    lengths = np.zeros((3, num_rows), np.int32)
    counts = np.zeros(num_terms + 1, np.int64)
    total = 0
    for field in range(3):
        times = 2 if field == 0 else 1
        words = titles if field == 0 else headings if field == 1 else texts
        for i in range(len(words)):
            for k in range(word_ends[words[i]], word_ends[words[i] + 1]):
                term = word_terms[k]
                if term >= 0:
                    counts[term] += times
                    total += times
    num_found = 0
    for term in range(num_terms):
        if counts[term] > 0:
            num_found += 1
    terms = np.empty(num_found, np.int32)
    pointers = np.zeros(num_found + 1, np.int64)
    n = at = 0
    for term in range(num_terms):
        if counts[term] > 0:
            terms[n] = term
            size = counts[term]
            counts[term] = at  # from here on: where the next occurrence goes
            at += size
            n += 1
            pointers[n] = at
    rows, positions = np.empty(total, np.int32), np.empty(total, np.int32)
    for row in range(num_rows):
        position = 0
        for turn in range(4):
            first = position
            if turn < 2:
                words, begin, end = titles, title_rows[row], title_rows[row + 1]
            elif turn == 2:
                words, begin, end = headings, heading_rows[row], heading_rows[row + 1]
            else:
                words, begin, end = texts, text_rows[row], text_rows[row + 1]
            for i in range(begin, end):
                whole = word_ends[words[i]]
                for k in range(whole, word_ends[words[i] + 1]):
                    term = word_terms[k]
                    if term >= 0:
                        rows[counts[term]], positions[counts[term]] = row, position
                        counts[term] += 1
                    if k > whole:
                        position += 1
            lengths[0, row] += position - first
            if 1 <= turn <= 2:
                lengths[turn, row] = position - first
            position += 1
    return terms, pointers, rows, positions, lengths
