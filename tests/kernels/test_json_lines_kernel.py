from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels import text_from_buffers
from penstock.kernels.json_lines import lift

# Text that is dense in what JSON escapes and in what takes each number of bytes.
TRICKY = st.text(
    st.sampled_from('a"\\/\b\f\n\r\t\0\x1f{}[]:,é€中\ud7ff\ue000\uffff\U00010000\U0010ffff')
)
# The kernel takes 64 bytes at a time where it has them.
PADDING = st.integers(0, 70).map(lambda size: "a" * size)
LONG = st.tuples(PADDING, TRICKY, PADDING).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TRICKY,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "a", '"']), inner, max_size=2)
    ),
    max_leaves=5,
)


def lifted(data: bytes, max_depth: int = 9) -> tuple[list[str], list[bytes]] | None:
    """The texts and the lines without them; None if the kernel declines."""
    name = np.frombuffer(b"text", np.uint8)
    num_lines, offsets, text, rest = lift(np.frombuffer(data, np.uint8), name, max_depth)
    if num_lines == 0:
        return None
    column = text_from_buffers(offsets, text)
    column.validate(full=True)
    assert len(column) == num_lines
    return column.to_pylist(), rest.tobytes().splitlines()


@settings(deadline=None)  # the first example may compile
@given(
    rows=st.lists(
        st.tuples(st.dictionaries(st.sampled_from(["a", "b", "texts"]), VALUES), TRICKY | LONG),
        min_size=1,
        max_size=4,
    ),
    ascii_only=st.booleans(),
    blanks=st.booleans(),
    first=st.booleans(),
)
def test_each_text_is_taken_out_and_the_rest_stays(
    rows: list[tuple[dict[str, object], str]], ascii_only: bool, blanks: bool, first: bool
) -> None:
    separators = (" , ", " : ") if blanks else (",", ":")
    whole = [{"text": text, **row} if first else {**row, "text": text} for row, text in rows]
    data = "\r\n".join(
        json.dumps(row, ensure_ascii=ascii_only, separators=separators) for row in whole
    )

    found = lifted(data.encode(), max_depth=99)

    assert found is not None
    assert found[0] == [text for _, text in rows]
    assert [json.loads(line) for line in found[1]] == [{**row, "text": ""} for row in whole]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(rb'{"text":"\ud83d\uDE00"}', "\U0001f600", id="pair"),
        pytest.param(rb'{"text":"\u00E9\u20ac\u0041"}', "é€A", id="one-to-three-bytes"),
        pytest.param(rb'{"text":"\/\b\f"}', "/\b\f", id="short-escapes"),
        pytest.param(b'{"text":"\x7f"}', "\x7f", id="delete"),
        pytest.param(b'{"a":{"text":"no"},"text":"yes"}', "yes", id="not-one-inside"),
        pytest.param(b'{"a":"text","text":"yes"}', "yes", id="not-a-value-of-that-name"),
        pytest.param(b'{"text" \t:\r "yes"}  \r\n', "yes", id="blanks"),
    ],
)
def test_a_string_is_read_as_json_has_it(data: bytes, text: str) -> None:
    found = lifted(data)

    assert found is not None
    assert found[0] == [text]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="no-text"),
        pytest.param(b'{"text":3}', id="number"),
        pytest.param(b'{"text":["a"]}', id="list"),
        pytest.param(b'{"text":"a","text":"b"}', id="twice"),
        pytest.param(b'{"texts":"a"}', id="longer-name"),
        pytest.param(b'["text","a"]', id="list-outside"),
        pytest.param(b' {"text":"a"}', id="blank-before"),
        pytest.param(b'{"text":"a"} x', id="something-after"),
        pytest.param(b'{"text":"a"}\n\n', id="blank-line"),
        pytest.param(b'{"text":"a"', id="open"),
        pytest.param(b'{"text":"a', id="open-text"),
        pytest.param(b'{"text":"a","b":"c', id="open-string"),
        pytest.param(b'{"text":"a\\', id="ends-in-an-escape"),
        pytest.param(b'{"text":"a","b":"\\', id="ends-in-an-escape-beside"),
        pytest.param(b'{"text":"\\u12', id="ends-in-a-code"),
        pytest.param(b'{"text":"a\nb"}', id="line-end-in-the-text"),
        pytest.param(b'{"text":"a\tb"}', id="tab-in-the-text"),
        pytest.param(b'{"text":"a","b":"\n"}', id="line-end-in-a-string"),
        pytest.param(b'{"text":"a","b":"\\\n"}', id="escaped-line-end"),
        pytest.param(b'{"text":"a","b":"\0"}', id="nul"),
        pytest.param(b'{"text":"a",\0"b":1}', id="nul-outside"),
        pytest.param(rb'{"text":"\x41"}', id="no-such-escape"),
        pytest.param(rb'{"text":"\u00g1"}', id="not-hexadecimal"),
        pytest.param(rb'{"text":"\ud83d"}', id="first-half"),
        pytest.param(rb'{"text":"\ud83dx\ude00"}', id="halves-apart"),
        pytest.param(rb'{"text":"\ud83d\u0041"}', id="wrong-half"),
        pytest.param(rb'{"text":"\ude00"}', id="second-half"),
        pytest.param(b'{"text":"a"]', id="wrong-bracket"),
        pytest.param(b'{"text":"a","b":[[[[[[[[[0]]]]]]]]]}', id="deep"),
    ],
)
def test_what_is_not_one_text_a_line_is_declined(data: bytes) -> None:
    assert lifted(data) is None


def test_brackets_in_strings_are_no_nesting() -> None:
    assert lifted(b'{"text":"[[[[[[[[[[[[","b":"{{{{{{{{{{{{"}') is not None
    assert lifted(b'{"text":"","b":[[[[[[[[0]]]]]]]]}') is not None
