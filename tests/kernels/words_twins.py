"""The word kernels' plain-Python twins: slow, obvious, and what the kernels must equal."""

from __future__ import annotations

from collections import defaultdict

from penstock.kernels.words import (
    DIGIT,
    LETTER,
    MARK,
    MAX_CHANGES,
    MAX_DIGIT_CHANGES,
    MAX_WORD,
    NONE,
    UNSPACED,
    UPPER,
)
from penstock.words.analysis import characters


def char_class(char: str) -> int:
    code = ord(char)
    if code < 0x20000:
        return int(characters()[code])
    if code < 0x32000:
        return UNSPACED
    return MARK if 0xE0100 <= code < 0xE01F0 else NONE


def cut(text: str) -> list[str]:
    words = []
    i = 0
    while i < len(text):
        kind = char_class(text[i])
        if kind in (NONE, MARK):
            i += 1
        elif kind == UNSPACED:
            stop = _letter_end(text, i)
            if stop < len(text) and char_class(text[stop]) == UNSPACED:
                words.append(text[i : _letter_end(text, stop)])
            words.append(text[i:stop])
            i = stop
        else:
            stop = i
            while stop < len(text) and _goes_on(text, i, stop):
                stop += 1
            words.append(text[i:stop].rstrip("_"))
            i = stop
    return [word for word in words if len(word.encode()) <= MAX_WORD]


def _letter_end(text: str, i: int) -> int:
    i += 1
    while i < len(text) and char_class(text[i]) == MARK:
        i += 1
    return i


def _goes_on(text: str, start: int, i: int) -> bool:
    kind = char_class(text[i])
    if text[i] == "." and i + 1 < len(text):
        before = text[start:i]
        while before and char_class(before[-1]) == MARK:
            before = before[:-1]
        ascii_digit = text[i + 1] in "0123456789"
        return bool(before) and char_class(before[-1]) == DIGIT and ascii_digit
    return text[i] == "_" or kind in (LETTER, UPPER, DIGIT, MARK)


def split(word: str) -> tuple[str, list[str]]:
    """The word as a whole, empty if it is one part, and its parts; nothing is folded."""
    if char_class(word[0]) == UNSPACED:
        return ("", [word]) if _letter_end(word, 0) == len(word) else (word, [])
    parts, changes, digit_changes = _parts(word, soft=True)
    if changes + digit_changes > MAX_CHANGES or digit_changes > MAX_DIGIT_CHANGES:
        parts, _, _ = _parts(word, soft=False)
    return (word.replace("_", "") if len(parts) > 1 else ""), parts


def _parts(word: str, *, soft: bool) -> tuple[list[str], int, int]:
    letters = [i for i, char in enumerate(word) if char_class(char) in (LETTER, UPPER, DIGIT)]
    kinds = {i: char_class(word[i]) for i in letters}
    begins, changes, digit_changes = [], 0, 0
    for n, i in enumerate(letters):
        between = word[letters[n - 1] + 1 : i] if n else "_"
        if any(char_class(char) == NONE for char in between):
            begins.append(i)
            continue
        if not soft or kinds[i] == kinds[letters[n - 1]]:
            continue
        if DIGIT in (kinds[i], kinds[letters[n - 1]]):
            begins.append(i)
            digit_changes += 1
        elif kinds[i] == UPPER:
            begins.append(i)
            changes += 1
        elif (
            n > 1
            and kinds[letters[n - 2]] == UPPER
            and not any(char_class(c) == NONE for c in word[letters[n - 2] + 1 : i])
            and not (
                word[i] == "s" and (i + 1 == len(word) or char_class(word[i + 1]) in (NONE, UPPER))
            )
        ):
            begins.append(letters[n - 1])
            changes += 1
    pieces = [word[i:j] for i, j in zip(begins, [*begins[1:], len(word)], strict=True)]
    return [piece.rstrip("_.") for piece in pieces], changes, digit_changes


def invert(
    rows: list[list[list[list[int]]]],
) -> tuple[dict[int, list[tuple[int, int]]], list[list[int]]]:
    """Occurrences per term, and per row its lengths.

    Args:
        rows: Per row its title, heading and text; of each its words; of each
            the terms, the whole's first, -1 for none.
    """
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    lengths = []
    for row, (title, heading, text) in enumerate(rows):
        position, sizes = 0, []
        for field in (title, title, heading, text):
            first = position
            for whole, *parts in field:
                found[whole].append((row, position))
                for part in parts:
                    found[part].append((row, position))
                    position += 1
            sizes.append(position - first)
            position += 1
        lengths.append([sum(sizes), sizes[1], sizes[2]])
    found.pop(-1, None)
    return dict(found), lengths


def edits(a: str, b: str) -> int:
    """Optimal string alignment: letters added, left out, replaced, and neighbours swapped."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]
