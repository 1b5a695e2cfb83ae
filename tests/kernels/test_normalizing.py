from __future__ import annotations

import itertools
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import twins

from penstock.kernels import text_buffers, text_from_buffers
from penstock.kernels.normalizing import clean

# Texts that are dense in what the kernel decides on.
TRICKY = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "\r",
                "\n",
                "\r\n",
                " ",
                "\t",
                "\x00",
                "\x85",
                "\x9f",
                "\xa0",
                "\u2028",
                "\u2029",
                "\ufeff",
                "\u2000",
                "a",
                "é",
                "́",
                "é",
                "中",
                "👩\u200d💻",
                "\x7f",
                "\x0c",
            ]
        ),
        st.text(max_size=5),
    ),
    max_size=15,
).map("".join)


@settings(deadline=None)  # the first example may compile
@given(
    texts=st.lists(TRICKY, max_size=5),
    first=st.integers(0, 3),
    parts=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_clean_equals_its_twin(
    texts: list[str], first: int, parts: tuple[bool, bool, bool]
) -> None:
    column = pa.array(texts, pa.large_string()).slice(min(first, len(texts)))

    offsets, utf8, _, changed = clean(*text_buffers(column), *parts)

    expected = [twins.clean(text, *parts) for text in column.to_pylist()]
    assert text_from_buffers(offsets, utf8).to_pylist() == expected
    assert changed == (expected != column.to_pylist())


@pytest.mark.parametrize(
    "found",
    [
        " \n",
        "\t\n",
        "\r",
        "\r\n",
        " \r\n",
        "\r\0\n",
        " \0\n",
        "\x7f\n",
        "\n\n",
        "é \n",
        "\x85",
        "\u2028",
    ],
    ids=ascii,
)
def test_it_makes_no_difference_where_in_64_bytes_a_place_is(found: str) -> None:
    texts = ["a" * start + found + "b" * (140 - start) for start in range(140)]

    offsets, utf8, _, changed = clean(*text_buffers(pa.array(texts)), True, True, True)

    expected = [twins.clean(text, True, True, True) for text in texts]
    assert text_from_buffers(offsets, utf8).to_pylist() == expected
    assert changed == (expected != texts)


def test_every_character_that_nfc_may_touch_is_flagged() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]

    flags = clean(*text_buffers(pa.array(characters)), False, False, False)[2]

    unflagged = [characters[i] for i in np.flatnonzero(flags == 0)]
    # Stands alone, does not reorder, and is nobody's second half.
    assert all(unicodedata.is_normalized("NFC", char) for char in unflagged)
    assert not any(unicodedata.combining(char) for char in unflagged)
    decomposed = (unicodedata.decomposition(char) for char in characters)
    seconds = {chr(int(d.split()[1], 16)) for d in decomposed if " " in d and "<" not in d}
    seconds |= {chr(code) for code in range(0x1161, 0x11C3)}  # Hangul vowels and finals
    assert not seconds & set(unflagged)
    assert set("é“”—…中나😀") <= set(unflagged)  # common texts are not checked for nothing


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pa.array([], pa.large_string()), id="no-rows"),
        pytest.param(pa.array(["", ""], pa.string()), id="no-bytes"),
        pytest.param(pa.array(["a", "bc", "d"]).slice(1, 1), id="slice"),
        pytest.param(pa.array(["a", None, "c"], pa.large_string()), id="null-reads-as-empty"),
        pytest.param(pa.array([b"a", b"bc"], pa.binary()), id="bytes"),
    ],
)
def test_buffers_hold_the_rows_of_a_column(column: pa.Array) -> None:
    offsets, utf8 = text_buffers(column)

    rows = [utf8[a:b].tobytes() for a, b in itertools.pairwise(offsets)]
    expected = [value or "" for value in column.to_pylist()]
    assert rows == [value if isinstance(value, bytes) else value.encode() for value in expected]
    assert not offsets.flags.writeable
    assert not utf8.flags.writeable
