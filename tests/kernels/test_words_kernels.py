from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import words_twins as twins

from penstock.kernels import text_buffers
from penstock.kernels.postings import BLOCK, ENTRY, pack, unpack
from penstock.kernels.vocabulary import count_rows, find_similar, look_up
from penstock.kernels.words import (
    DIGIT,
    LETTER,
    MARK,
    NONE,
    UNSPACED,
    UPPER,
    cut,
    intern,
    invert,
    rehash,
    split,
)
from penstock.words.analysis import characters

# Texts that are dense in what the kernels decide on.
TRICKY = st.lists(
    st.one_of(
        st.sampled_from(["_", ".", "1", "23", "a", "B", "HTTP", "Server", "s", "URLs", " ", "é"]),
        st.sampled_from(
            ["e\u0301", "\u0301", "東", "京", "ー", "ไ", "ท", "ี", "İ", "ß", "\u200d", "½"]
        ),
        st.text(max_size=4),
    ),
    max_size=14,
).map("".join)


def empty_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(64, np.uint64), np.zeros(64, np.int64), np.zeros(4096, np.uint8)


@settings(deadline=None)  # the first example may compile
@given(texts=st.lists(TRICKY, max_size=4), first=st.integers(0, 2))
def test_cut_equals_its_twin(texts: list[str], first: int) -> None:
    column = pa.array(texts, pa.large_string()).slice(min(first, len(texts)))
    offsets, utf8 = text_buffers(column)

    rows, numbers, starts, stops = cut(offsets, utf8, characters(), *empty_table())

    words = [bytes(utf8[a:b]).decode() for a, b in zip(starts, stops, strict=True)]
    expected = [twins.cut(text) for text in column.to_pylist()]
    assert [words[a:b] for a, b in pairwise(rows)] == expected
    assert (numbers == -1).all()


@settings(deadline=None)
@given(text=TRICKY)
def test_words_are_found_once_they_are_interned(text: str) -> None:
    offsets, utf8 = text_buffers(pa.array([text], pa.large_string()))
    slots, ends, arena = empty_table()
    _, _, starts, stops = cut(offsets, utf8, characters(), slots, ends, arena)
    starts, stops = starts[:30], stops[:30]

    numbers, count = intern(slots, ends, arena, 0, utf8, starts, stops)

    words = [bytes(utf8[a:b]) for a, b in zip(starts, stops, strict=True)]
    assert numbers.tolist() == [list(dict.fromkeys(words)).index(word) for word in words]
    assert [bytes(arena[a:b]) for a, b in pairwise(ends[: count + 1])] == (
        list(dict.fromkeys(words))
    )
    larger = np.zeros(128, np.uint64)
    rehash(slots, larger)
    found = cut(offsets, utf8, characters(), larger, ends, arena)[1][:30]
    assert found.tolist() == numbers.tolist()


@settings(deadline=None)
@given(text=TRICKY, fold=st.booleans())
def test_split_equals_its_twin(text: str, fold: bool) -> None:
    words = list(dict.fromkeys(twins.cut(text)))
    ends, arena = text_buffers(pa.array([*words, "x"], pa.large_string()))

    rows, part_ends, utf8 = split(ends, arena, 0, len(words), characters(), fold)

    parts = [bytes(utf8[a:b]).decode() for a, b in pairwise(part_ends)]
    expected = [[whole, *pieces] for whole, pieces in map(twins.split, words)]
    if fold:
        expected = [[p.lower() if p.isascii() else p for p in pieces] for pieces in expected]
    assert [parts[a:b] for a, b in pairwise(rows)] == expected


TERMS = st.lists(st.integers(-1, 6), min_size=1, max_size=4)
FIELD = st.lists(TERMS, max_size=4)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(FIELD, FIELD, FIELD).map(list), max_size=6))
def test_invert_equals_its_twin(rows: list[list[list[list[int]]]]) -> None:
    columns: list[tuple[np.ndarray, np.ndarray]] = []
    word_ends: list[int] = [0]
    word_terms: list[int] = []
    words = 0
    for field in range(3):
        offsets: list[int] = [0]
        words_of: list[int] = []
        for row in rows:
            for word in row[field]:
                words_of.append(words)
                words += 1
                word_terms += word
                word_ends.append(len(word_terms))
            offsets.append(len(words_of))
        columns.append((np.array(offsets), np.array(words_of, np.int32)))

    terms, pointers, found, positions, lengths = invert(
        *columns[0],
        *columns[1],
        *columns[2],
        np.array(word_ends),
        np.array(word_terms, np.int32),
        7,
    )

    expected, expected_lengths = twins.invert(rows)
    assert terms.tolist() == sorted(expected)
    for term, first, end in zip(terms.tolist(), pointers[:-1], pointers[1:], strict=True):
        pairs = zip(found[first:end].tolist(), positions[first:end].tolist(), strict=True)
        assert list(pairs) == expected[term]
    assert lengths.T.tolist() == expected_lengths


@st.composite
def occurrences(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Of one term: now and then of many blocks, with wide gaps and counts."""
    if draw(st.integers(0, 3)) == 0:
        generator = np.random.default_rng(draw(st.integers(0, 1 << 30)))
        rows = np.sort(generator.choice(40_000, generator.integers(100, 600), replace=False))
        counts = generator.geometric(generator.uniform(0.01, 1.0), len(rows))
        steps = [generator.integers(0, 50, count).cumsum() for count in counts]
        return [(int(row), int(at)) for row, s in zip(rows, steps, strict=True) for at in s]
    pairs = st.tuples(st.integers(0, 39_999), st.integers(0, 60_000))
    return sorted(draw(st.lists(pairs, min_size=1, max_size=12)))


@settings(deadline=None, max_examples=60)
@given(terms=st.lists(occurrences(), min_size=1, max_size=4), small=st.booleans())
def test_what_is_packed_unpacks_to_the_same(
    terms: list[list[tuple[int, int]]], small: bool
) -> None:
    pointers = np.cumsum([0, *map(len, terms)])
    rows = np.array([row for term in terms for row, _ in term], np.int32)
    positions = np.array([at for term in terms for _, at in term], np.int32)
    lengths = np.full(40_000, 60_000, np.int32)
    data, starts = np.zeros(1 << 18, np.uint32), np.zeros(len(terms) + 1, np.int64)
    if small:  # too small for all
        n, needed = pack(pointers, rows, positions, lengths, data[:20].copy(), starts)
        assert n == len(terms) or needed > 0

    assert pack(pointers, rows, positions, lengths, data, starts) == (len(terms), 0)

    # The distinct pairs of a term, with a row left out and the others renamed.
    new_rows = np.arange(40_000, dtype=np.int32) * 2
    left_out = int(rows[0])
    new_rows[left_out] = -1
    expected = [[(2 * row, at) for row, at in term if row != left_out] for term in terms]
    counts, found = np.zeros(len(terms), np.int64), np.zeros(len(terms), np.int64)
    nothing = np.empty(0, np.int32)
    records = starts[:-1] * 8
    assert unpack(data, records, new_rows, 40_000, counts, found, nothing, nothing) == 0
    assert counts.tolist() == [len(term) for term in expected]
    assert found.tolist() == [len({row for row, _ in term}) for term in expected]
    out_rows, out_positions = np.empty(counts.sum(), np.int32), np.empty(counts.sum(), np.int32)
    cursors = np.cumsum(counts) - counts
    if len(out_rows):
        assert not unpack(data, records, new_rows, 40_000, cursors, found, out_rows, out_positions)
    unpacked = list(zip(out_rows.tolist(), out_positions.tolist(), strict=True))
    assert unpacked == [pair for term in expected for pair in term]
    numbers = np.arange(-1, len(terms))
    stored = count_rows(data, starts.astype(np.uint32), numbers)
    assert stored.tolist() == [0, *(len({row for row, _ in term}) for term in terms)]


def test_an_entry_bounds_the_rows_of_its_block() -> None:
    generator = np.random.default_rng(3)
    counts = generator.geometric(0.4, 1000)
    rows = np.repeat(np.arange(1000, dtype=np.int32), counts)
    positions = np.concatenate([np.arange(count) for count in counts]).astype(np.int32)
    lengths = generator.integers(5, 90, 1000).astype(np.int32)
    data, starts = np.zeros(1 << 14, np.uint32), np.zeros(2, np.int64)
    pack(np.array([0, len(rows)]), rows, positions, lengths, data, starts)

    bits = np.unpackbits(data.view(np.uint8), bitorder="little")
    for block in range(8):
        at = 15 + block * ENTRY + 64  # 5 bits, 10 of the number 1000, and the entries
        for group, (low, high) in enumerate([(1, 1), (2, 3), (4, 1000)]):
            inside = slice(block * BLOCK, (block + 1) * BLOCK)
            among = (counts[inside] >= low) & (counts[inside] <= high)
            entry = int((bits[at : at + 32].astype(object) << np.arange(32)).sum())
            assert entry & 255 == min(255, counts[inside][among].max(initial=0)), group
            if among.any():
                assert entry >> 8 == lengths[inside][among].min()
            at += 32


WORDS = st.lists(st.text("abcé東", max_size=7), min_size=1, max_size=40, unique=True)


def joined(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    data = [word.encode() for word in words]
    offsets = np.cumsum([0, *map(len, data)])
    return np.frombuffer(b"".join(data), np.uint8), offsets


@settings(deadline=None)
@given(words=WORDS, others=WORDS)
def test_terms_are_looked_up_by_their_bytes(words: list[str], others: list[str]) -> None:
    terms = sorted(word.encode() for word in words)
    utf8, offsets = joined([term.decode() for term in terms])

    first, equal = look_up(utf8, offsets.astype(np.uint32), *joined(others))

    asked = [word.encode() for word in others]
    assert first.tolist() == [sum(term < word for term in terms) for word in asked]
    assert equal.tolist() == [terms.index(w) if w in terms else -1 for w in asked]


@settings(deadline=None)
@given(words=WORDS, word=st.text("abcé東", min_size=1, max_size=7), most=st.integers(0, 2))
def test_similar_terms_are_those_of_few_edits(words: list[str], word: str, most: int) -> None:
    terms = [term.decode() for term in sorted(w.encode() for w in words)]
    utf8, offsets = joined(terms)
    letters = np.array([ord(char) for char in word], np.int64)

    numbers, edits = find_similar(utf8, offsets.astype(np.uint32), letters, most)

    expected = {i: twins.edits(word, term) for i, term in enumerate(terms)}
    expected = {i: n for i, n in expected.items() if n <= most}
    assert dict(zip(numbers.tolist(), edits.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("char", "expected"),
    [
        ("a", LETTER),
        ("ß", LETTER),
        ("א", LETTER),
        ("한", LETTER),
        ("É", UPPER),
        ("٣", DIGIT),
        ("½", DIGIT),
        ("中", UNSPACED),
        ("ー", UNSPACED),
        ("ท", UNSPACED),
        ("\u0301", MARK),
        ("\u200d", MARK),
        ("_", NONE),
        ("-", NONE),
        ("😀", NONE),
        ("\x00", NONE),
    ],
)
def test_class_of_a_character(char: str, expected: int) -> None:
    assert twins.char_class(char) == expected


def test_classes_are_those_of_unicode_where_it_is_as_old() -> None:
    kinds = {"L": (LETTER, UPPER, UNSPACED), "N": (DIGIT, UNSPACED), "M": (MARK,)}
    joiners = {0xAD, 0x200C, 0x200D}
    for code, kind in enumerate(characters().tolist()):
        category = unicodedata.category(chr(code))
        if kind != NONE and code not in joiners:
            assert kind in kinds[category[0]], hex(code)
        elif kind == NONE and category[0] in kinds:
            # Assigned after Unicode 14.
            assert unicodedata.unidata_version != "14.0.0", hex(code)
