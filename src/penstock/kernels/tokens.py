"""Count the tokens of BERT-style tokenizers without running them: words are looked up.

Such a tokenizer splits a text at white space and around punctuation before it
looks at anything else, so a text's count is a sum over *atoms*: an ASCII
punctuation mark is one token, and a run of other bytes has a count of its own,
whatever stands beside it. Runs are looked up in an open-addressing table; what
is not there is counted once, by `count_pieces` or by the tokenizer, and added.

A table is three arrays. A slot's `keys` entry is the run's hash, 0 if free;
its `meta` entry packs where the run's bytes lie in `arena`, their number and
the count. Readers need no lock: a slot that is being written looks like a miss.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from penstock.kernels.breaks import FORCED, NEVER, PIECE, SENTENCE, WORD
from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel

I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

_Scalar = TypeVar("_Scalar", bound=np.generic)

MAX_RUN = 4096
"""Bytes after which a run, or white space, is cut by force: no chunk is one endless word."""

MAX_WORD = 255
"""Bytes of the longest run that a table holds."""

_MAX_COUNT = (1 << 15) - 1
_OFFSET_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_FOLD = np.uint64(32)
_COUNT_BITS = np.uint64(15)
_OFFSET_SHIFT = np.uint64(24)
_COUNT_MASK = np.uint64(_MAX_COUNT)
_LENGTH_MASK = np.uint64(0x1FF)
_ONE = np.uint64(1)

_RUN, _SPACE, _MARK, _LEAD = 0, 1, 2, 3
# Other ASCII controls are dropped by the tokenizer, joining what is beside them: part of a run.
_CLASS = np.zeros(256, np.uint8)
_CLASS[[0x09, 0x0A, 0x0D, 0x20]] = _SPACE
_CLASS[[*range(0x21, 0x30), *range(0x3A, 0x41), *range(0x5B, 0x61), *range(0x7B, 0x7F)]] = _MARK
_CLASS[0xC2:] = _LEAD

# Last bytes of what may end a sentence: . ! ? and closing quotes and brackets.
_MAY_END = np.zeros(256, np.bool_)
_MAY_END[[0x2E, 0x21, 0x3F, 0x22, 0x27, 0x29, 0x5D]] = True
_MAY_END[0x80:] = True


@kernel
def _hash(utf8: U8, start: Int, end: Int) -> Int:
    value = _OFFSET_BASIS
    for i in range(start, end):
        value = (value ^ utf8[i]) * _PRIME
    return value | _ONE  # 0 says that a slot is free


@kernel
def find(keys: U64, meta: U64, arena: U8, utf8: U8, start: Int, end: Int, value: Int) -> Int:
    """The count of these bytes, whose hash is `value`; -1 if the table does not hold them."""
    mask = np.uint64(len(keys) - 1)
    slot = (value ^ (value >> _FOLD)) & mask
    while True:
        key = keys[slot]
        if key == 0:
            return -1
        if key == value:
            packed = meta[slot]
            if np.int64((packed >> _COUNT_BITS) & _LENGTH_MASK) == end - start:
                place = np.int64(packed >> _OFFSET_SHIFT)
                same = True
                for i in range(end - start):
                    if arena[place + i] != utf8[start + i]:
                        same = False
                        break
                if same:
                    return np.int64(packed & _COUNT_MASK)
        slot = (slot + _ONE) & mask


@kernel
def insert(
    keys: U64, meta: U64, arena: U8, used: Int, utf8: U8, starts: I64, ends: I64, counts: I32
) -> tuple[Int, Int]:
    """Add these runs; the table must have room. One writer at a time, any number of readers.

    Returns:
        How many were new, and the bytes of the arena now in use.
    """
    mask = np.uint64(len(keys) - 1)
    num_new = 0
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        value = _hash(utf8, start, end)
        if end - start > MAX_WORD or counts[i] > _MAX_COUNT:
            continue
        if find(keys, meta, arena, utf8, start, end, value) >= 0:
            continue
        slot = (value ^ (value >> _FOLD)) & mask
        while keys[slot] != 0:
            slot = (slot + _ONE) & mask
        for k in range(end - start):
            arena[used + k] = utf8[start + k]
        meta[slot] = (
            (np.uint64(used) << _OFFSET_SHIFT)
            | (np.uint64(end - start) << _COUNT_BITS)
            | np.uint64(counts[i])
        )
        keys[slot] = value  # last, for it makes the slot visible
        used += end - start
        num_new += 1
    return num_new, used


@kernel
def rehash(keys: U64, meta: U64, new_keys: U64, new_meta: U64) -> None:
    """Put every slot of a table into a larger one, over the same arena."""
    mask = np.uint64(len(new_keys) - 1)
    for i in range(len(keys)):
        if keys[i] != 0:
            slot = (keys[i] ^ (keys[i] >> _FOLD)) & mask
            while new_keys[slot] != 0:
                slot = (slot + _ONE) & mask
            new_keys[slot], new_meta[slot] = keys[i], meta[i]


@kernel
def distinct(utf8: U8, starts: I64, ends: I64) -> tuple[I64, I64]:
    """Number equal runs alike.

    Returns:
        For each run the number of its group, and for each group its first run.
    """
    size = 16
    while size < 2 * len(starts):
        size *= 2
    slots = np.full(size, -1, np.int64)
    groups = np.empty(len(starts), np.int64)
    firsts = np.empty(len(starts), np.int64)
    num = 0
    for i in range(len(starts)):
        value = _hash(utf8, starts[i], ends[i])
        slot = np.int64((value ^ (value >> _FOLD)) & np.uint64(size - 1))
        while slots[slot] >= 0:
            j = firsts[slots[slot]]
            same = ends[j] - starts[j] == ends[i] - starts[i]
            k = 0
            while same and k < ends[i] - starts[i]:
                same = utf8[starts[j] + k] == utf8[starts[i] + k]
                k += 1
            if same:
                break
            slot = (slot + 1) & (size - 1)
        if slots[slot] < 0:
            slots[slot] = num
            firsts[num] = i
            num += 1
        groups[i] = slots[slot]
    return groups, firsts[:num].copy()


@kernel
def count_pieces(
    utf8: U8,
    starts: I64,
    ends: I64,
    fold: bool,
    max_letters: Int,
    first_keys: U64,
    first_meta: U64,
    first_arena: U8,
    next_keys: U64,
    next_meta: U64,
    next_arena: U8,
) -> I32:
    """WordPiece on runs of ASCII letters and digits: the longest known piece, again and again.

    Args:
        utf8: The text.
        starts: Where the runs start.
        ends: Where they end.
        fold: Whether the tokenizer lower-cases.
        max_letters: A longer word is one unknown token.
        first_keys: With the next two, a table of the pieces that begin a word.
        first_meta: See `first_keys`.
        first_arena: See `first_keys`.
        next_keys: With the next two, a table of the pieces that go on with one.
        next_meta: See `next_keys`.
        next_arena: See `next_keys`.

    Returns:
        (num_runs,) int32; -1 for a run with any other byte.
    """
    counts = np.empty(len(starts), np.int32)
    word = np.empty(MAX_RUN, np.uint8)
    hashes = np.empty(MAX_WORD + 1, np.uint64)
    for run in range(len(starts)):
        size = ends[run] - starts[run]
        plain = size <= MAX_RUN
        for i in range(size if plain else 0):
            byte = utf8[starts[run] + i]
            if 0x41 <= byte <= 0x5A and fold:
                byte += 0x20
            plain = plain and (0x61 <= byte <= 0x7A or 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x5A)
            word[i] = byte
        if not plain:
            counts[run] = -1
            continue
        count = 0
        pos = size if size > max_letters else 0
        while pos < size:
            value = _OFFSET_BASIS
            longest = min(size - pos, MAX_WORD)
            for i in range(longest):
                value = (value ^ word[pos + i]) * _PRIME
                hashes[i + 1] = value | _ONE
            while longest > 0:
                if pos == 0:
                    found = find(
                        first_keys, first_meta, first_arena, word, 0, longest, hashes[longest]
                    )
                else:
                    found = find(
                        next_keys, next_meta, next_arena, word, pos, pos + longest, hashes[longest]
                    )
                if found >= 0:
                    break
                longest -= 1
            if longest == 0:
                count = 0
                break
            pos += longest
            count += 1
        counts[run] = max(count, 1)
    return counts


@kernel
def _isolated(utf8: U8, pos: Int, end: Int, ideographs: bool) -> Int:
    """Bytes of the character at `pos` if it stands alone; negative for white space, 0 if not.

    Only characters whose class every version of Unicode agrees on, so the list is short:
    what is missing costs speed alone, for it is counted as part of its run.
    """
    lead = utf8[pos]
    if lead == 0xC2:
        return -2 if utf8[pos + 1] == 0xA0 else 0
    if lead < 0xE1 or lead > 0xEF:
        return 0
    code = (
        (np.int64(lead & 0x0F) << 12)
        | (np.int64(utf8[pos + 1] & 0x3F) << 6)
        | np.int64(utf8[pos + 2] & 0x3F)
    )
    if code < 0x2000:
        return -3 if code == 0x1680 else 0
    if code <= 0x2043:
        if code <= 0x200A or code == 0x2028 or code == 0x2029 or code == 0x202F:
            return -3
        return 3 if 0x2010 <= code <= 0x2027 or code >= 0x2030 else 0
    if code < 0x3000:
        return -3 if code == 0x205F else 0
    if code <= 0x301F:
        if code == 0x3000:
            return -3
        return 3 if code <= 0x3003 or 0x3008 <= code <= 0x3011 or code >= 0x3014 else 0
    if code < 0xA000:
        # The ideographs of Unicode 3.0; later ones lie in runs.
        return 3 if ideographs and (0x3400 <= code <= 0x4DB5 or 0x4E00 <= code <= 0x9FA5) else 0
    if 0xFF01 <= code <= 0xFF20:
        is_mark = code <= 0xFF0F or code >= 0xFF1A
        return 3 if is_mark and code not in (0xFF04, 0xFF0B, 0xFF1C, 0xFF1D, 0xFF1E) else 0
    return 0


@kernel
def is_extending(utf8: U8, pos: Int, end: Int) -> bool:
    """Whether the character at `pos` belongs to the one before: an accent, a joiner, a tone."""
    lead = utf8[pos]
    if lead < 0xCC or pos + 1 >= end:
        return False
    second = utf8[pos + 1]
    if lead <= 0xCD:
        return bool(lead == 0xCC or second < 0xB0)  # U+0300 to U+036F
    if lead < 0xE1 or pos + 2 >= end:
        return False
    third = utf8[pos + 2]
    if lead == 0xE1:
        return bool((second == 0xAA and third >= 0xB0) or second == 0xAB or second == 0xB7)
    if lead == 0xE2:
        return bool((second == 0x80 and third == 0x8D) or (second == 0x83 and third >= 0x90))
    if lead == 0xE3:
        return bool(second == 0x82 and (third == 0x99 or third == 0x9A))
    if lead == 0xEF:
        return bool(second == 0xB8 and (third <= 0x8F or third >= 0xA0))
    if lead == 0xF0:
        return bool(second == 0x9F and third == 0x8F and pos + 3 < end and utf8[pos + 3] >= 0xBB)
    return bool(lead == 0xF3 and second == 0xA0)


@kernel
def _ends_sentence(utf8: U8, begin: Int, end: Int) -> Int:
    """1 if a sentence may end at `end` before white space, 2 if it does without any."""
    for _ in range(3):  # closing quotes and brackets
        last = utf8[end - 1] if end > begin else 0
        if last in (0x22, 0x27, 0x29, 0x5D):
            end -= 1
        elif (
            end - begin >= 3
            and last >= 0x80
            and (
                (utf8[end - 3] == 0xE2 and utf8[end - 2] == 0x80 and last in (0x99, 0x9D))
                or (utf8[end - 3] == 0xE3 and utf8[end - 2] == 0x80 and last in (0x8D, 0x8F))
            )
        ):
            end -= 3
        else:
            break
    if end <= begin:
        return 0
    last = utf8[end - 1]
    if last in (0x2E, 0x21, 0x3F):
        return 1
    if end - begin < 3 or last < 0x80:
        return 0
    if utf8[end - 3] == 0xE3 and utf8[end - 2] == 0x80 and last == 0x82:
        return 2
    if utf8[end - 3] == 0xEF and utf8[end - 2] == 0xBC and last in (0x81, 0x9F):
        return 2
    return 1 if utf8[end - 3] == 0xE2 and utf8[end - 2] == 0x80 and last == 0xA6 else 0


@kernel
def _added_token(utf8: U8, pos: Int, end: Int, added: U8, added_ends: I64) -> Int:
    """Bytes of the special token, such as ``[SEP]``, that the text holds at `pos`; 0 if none."""
    longest = start = 0
    for stop in added_ends:
        size = stop - start
        if longest < size <= end - pos:
            same = True
            for i in range(size):
                if utf8[pos + i] != added[start + i]:
                    same = False
                    break
            if same:
                longest = size
        start = stop
    return longest


@kernel
def scan(
    utf8: U8,
    begins: I64,
    stops: I64,
    break_at: I64,
    break_strength: U8,
    break_lo: I64,
    break_hi: I64,
    ideographs: bool,
    added: U8,
    added_ends: I64,
    added_first: U8,
    keys: U64,
    meta: U64,
    arena: U8,
) -> tuple[I64, I64, I32, U8, I64]:
    """Split texts into atoms.

    Args:
        utf8: The data.
        begins: Where each text begins.
        stops: Where it ends.
        break_at: Marks of `find_breaks`.
        break_strength: Their strengths.
        break_lo: Number of each text's first mark.
        break_hi: Number of the mark after its last.
        ideographs: Whether the tokenizer sets ideographs apart.
        added: Special tokens, one after the other.
        added_ends: Where each ends.
        added_first: (256,), 1 at the bytes that one of them begins with.
        keys: With the next two, the table of known runs.
        meta: See `keys`.
        arena: See `keys`.

    Returns:
        Per atom: start and end in `utf8`, tokens (-1 if unknown), strength of
        the place before it. And the atoms' offsets per text.
    """
    longest = total = 0
    for text in range(len(begins)):
        longest = max(longest, stops[text] - begins[text])
        total += stops[text] - begins[text]
    # An atom a byte at worst, some four bytes an atom as a rule; untouched memory costs nothing.
    capacity = min(total, total // 3 + longest)
    starts, ends = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    counts, strengths = np.empty(capacity, np.int32), np.empty(capacity, np.uint8)
    rows = np.zeros(len(begins) + 1, np.int64)
    for text in range(len(begins)):
        n = rows[text]
        if n + stops[text] - begins[text] > capacity:
            capacity = 2 * capacity + longest
            starts, ends = _grown(starts, capacity), _grown(ends, capacity)
            counts, strengths = _grown(counts, capacity), _grown(strengths, capacity)
        # A loop in which the arrays may change runs several times slower: it is a function.
        rows[text + 1] = _scan_text(
            utf8, begins[text], stops[text], break_at, break_strength, break_lo[text],
            break_hi[text], ideographs, added, added_ends, added_first, keys, meta, arena,
            starts, ends, counts, strengths, n,
        )  # fmt: skip
    n = rows[-1]
    return starts[:n], ends[:n], counts[:n], strengths[:n], rows


@kernel
def _scan_text(
    utf8: U8, begin: Int, end: Int, break_at: I64, break_strength: U8, mark: Int, num_marks: Int,
    ideographs: bool, added: U8, added_ends: I64, added_first: U8, keys: U64, meta: U64, arena: U8,
    starts: I64, ends: I64, counts: I32, strengths: U8, n: Int,
) -> Int:  # fmt: skip
    """Append the atoms of one text; see `scan`."""
    pos = last_end = begin
    forced = False
    while pos < end:
        byte = utf8[pos]
        kind = _CLASS[byte]
        if kind == _SPACE:
            pos += 1
            continue
        start, count = pos, -1
        if kind == _MARK:
            pos += 1
            count = 1
            if added_first[byte]:
                pos = max(pos, start + _added_token(utf8, start, end, added, added_ends))
        else:
            width = _isolated(utf8, pos, end, ideographs) if kind == _LEAD else 0
            if width < 0:
                pos -= width
                continue
            value: Int = _OFFSET_BASIS
            if width > 0:
                for _ in range(width):
                    value = (value ^ utf8[pos]) * _PRIME
                    pos += 1
            else:
                limit = min(end, start + MAX_RUN)
                while pos < limit:
                    byte = utf8[pos]
                    kind = _CLASS[byte]
                    if kind != _RUN and (
                        kind != _LEAD
                        or (pos > start and _isolated(utf8, pos, end, ideographs) != 0)
                    ):
                        break
                    value = (value ^ byte) * _PRIME
                    pos += 1
            if pos - start >= MAX_RUN:
                while (
                    pos < end
                    and pos > start + MAX_RUN - 64
                    and ((utf8[pos] & 0xC0) == 0x80 or is_extending(utf8, pos, end))
                ):
                    pos -= 1
                while pos < end and (utf8[pos] & 0xC0) == 0x80:
                    pos -= 1
            elif pos - start <= MAX_WORD:
                count = find(keys, meta, arena, utf8, start, pos, value | _ONE)
        strength: Int = PIECE
        if forced or start - last_end > MAX_RUN:
            strength = FORCED
        elif start > last_end:
            strength = WORD
            if (
                _MAY_END[utf8[last_end - 1]]
                and not 0x61 <= utf8[start] <= 0x7A
                and last_end > begin
                and _ends_sentence(utf8, begin, last_end)
            ):
                strength = SENTENCE
        elif start > begin and utf8[start] >= 0x80:
            if is_extending(utf8, start, end):
                strength = NEVER
            elif _ends_sentence(utf8, begin, start) == 2:
                strength = SENTENCE
        while mark < num_marks and break_at[mark] <= start:
            if strength != FORCED:
                strength = break_strength[mark]
            mark += 1
        forced = pos - start >= MAX_RUN - 67
        starts[n], ends[n], counts[n], strengths[n] = start, pos, count, strength
        n += 1
        last_end = pos
    return n


@kernel
def _grown(array: npt.NDArray[_Scalar], capacity: Int) -> npt.NDArray[_Scalar]:
    new = np.empty(capacity, array.dtype)
    for i in range(len(array)):
        new[i] = array[i]
    return new
