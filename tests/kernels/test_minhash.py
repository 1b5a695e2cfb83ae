from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import near_twins as twins

from penstock.kernels import minhash, text_buffers

# Letters of every class, what joins and what parts words, and folding in every width.
LETTERS = "aAbBkK01_-. \t\néÉßẞİǅΣσ漢字かカไทยक्षि한👍\x00"
LETTERS += "\u00ad\u200d\u0301\u212a\u3000\U00020001\U000e0100"
TEXTS = st.lists(
    st.text(st.sampled_from(LETTERS) | st.characters(codec="utf-8"), max_size=40), max_size=4
)
FLIPS = np.random.default_rng(0).integers(0, 1 << 32, 9, np.uint32)
MULTIPLIERS = np.random.default_rng(1).integers(0, 1 << 32, 9, np.uint32) | np.uint32(1)


def sign(texts: list[str], by_words: bool, size: int) -> list[bytes]:
    buffers = text_buffers(pa.array(texts, pa.large_string()))
    data = minhash.sign(*buffers, minhash.characters(), by_words, size, FLIPS, MULTIPLIERS)
    return [row.tobytes() for row in data]


def shingle_sets(texts: list[str], by_words: bool, size: int) -> list[list[int]]:
    buffers = text_buffers(pa.array(texts, pa.large_string()))
    rows, found = minhash.shingle_hashes(*buffers, minhash.characters(), by_words, size)
    return [found[rows[i] : rows[i + 1]].tolist() for i in range(len(texts))]


@settings(deadline=None, max_examples=100)  # the first example may compile
@given(texts=TEXTS, by_words=st.booleans(), size=st.integers(1, 6))
def test_signatures_equal_their_twin(texts: list[str], by_words: bool, size: int) -> None:
    cut = twins.words if by_words else twins.chars
    flips, multipliers = FLIPS.tolist(), MULTIPLIERS.tolist()
    expected = [twins.signature(cut(t), size, by_words, flips, multipliers) for t in texts]

    assert sign(texts, by_words, size) == expected


@settings(deadline=None, max_examples=100)
@given(texts=TEXTS, by_words=st.booleans(), size=st.integers(1, 6))
def test_shingle_sets_equal_their_twin(texts: list[str], by_words: bool, size: int) -> None:
    cut = twins.words if by_words else twins.chars
    expected = [sorted(set(twins.shingles(cut(t), size, by_words))) for t in texts]

    assert shingle_sets(texts, by_words, size) == expected


@pytest.mark.parametrize("by_words", [True, False], ids=["words", "chars"])
@pytest.mark.parametrize("more", [-1, 0, 1, 7], ids=str)
def test_texts_longer_than_a_block_are_seamless(by_words: bool, more: int) -> None:
    num = 2 * minhash.BLOCK + more
    text = " ".join(str(i) for i in range(num)) if by_words else "".join(map(chr, range(99, num)))
    cut = twins.words if by_words else twins.chars

    assert shingle_sets([text], by_words, 5) == [
        sorted(set(twins.shingles(cut(text), 5, by_words)))
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("The quick, brown fox.", ["the", "quick", "brown", "fox"], id="english"),
        pytest.param("snake_case kebab-case", ["snake", "case", "kebab", "case"], id="joined"),
        pytest.param("É e\u0301 ẞ ß", ["é", "e\u0301", "ß", "ß"], id="folding-and-marks"),
        pytest.param("co\u00adop नहीं", ["coop", "नहीं"], id="soft-hyphen-and-vowel-signs"),
        pytest.param("日本 go カナ", ["日", "本", "go", "カ", "ナ"], id="unspaced-letters"),
        pytest.param("ที่นี่", ["ที่", "นี่"], id="thai-letters-with-marks"),
        pytest.param("한국어 שלום", ["한국어", "שלום"], id="spaced-scripts-stay-whole"),
        pytest.param("... \n\t!?", [], id="none"),
    ],
)
def test_words_are_what_the_rule_says(text: str, expected: list[str]) -> None:
    assert twins.words(text) == expected


def test_long_words_differ_by_every_letter() -> None:
    word = "abcdefghijklmnopqrstuvwxyzäöü"
    words = [word, *(word[:i] + "1" + word[i + 1 :] for i in range(len(word))), word + "a", "ab慢"]

    assert len(set(sign(words, True, 1))) == len(words)
    assert len(set(sign(["ab", "慢", "\u212ab", "kb"], True, 1))) == 3


def test_case_and_punctuation_make_no_difference_to_words() -> None:
    assert len(set(sign(["Straße, É! ΣΑΣ", "straße é  σασ"], True, 2))) == 1


def test_white_space_makes_no_difference_to_characters() -> None:
    assert len(set(sign([" a\n\n b ", "a b", "A\u3000B\t"], False, 2))) == 1


def test_a_text_without_words_is_all_zeros() -> None:
    assert sign(["", "...", "a"], True, 5)[:2] == [bytes(13)] * 2
    assert sign(["a"], True, 5) != [bytes(13)]


def test_a_slice_of_a_column_has_the_rows_of_the_slice() -> None:
    column = pa.array(["one two three", "four five", None, "six"], pa.large_string())
    table = minhash.characters()

    whole = minhash.sign(*text_buffers(column), table, True, 2, FLIPS, MULTIPLIERS)
    part = minhash.sign(*text_buffers(column[1:]), table, True, 2, FLIPS, MULTIPLIERS)

    assert np.array_equal(whole[1:], part)


def test_jaccard_is_the_share_of_common_shingles() -> None:
    texts = ["a b c d", "c d e", "x", "", ""]
    buffers = text_buffers(pa.array(texts, pa.large_string()))
    rows, found = minhash.shingle_hashes(*buffers, minhash.characters(), True, 1)
    pairs = np.array([[0, 1], [0, 0], [0, 2], [3, 4], [2, 3]])

    similarity = minhash.jaccard(rows, found, pairs[:, 0].copy(), pairs[:, 1].copy())

    assert similarity.tolist() == [2 / 5, 1.0, 0.0, 0.0, 0.0]
