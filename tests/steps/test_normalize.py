from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.protocols import DocumentStep
from penstock.steps.normalize import Normalize


def normalized(texts: list[str], step: Normalize | None = None) -> list[str]:
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    result: list[str] = (step or Normalize()).apply(batch)["text"].to_pylist()
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\r\nb\rc\n", "a\nb\nc\n", id="line-ends"),
        pytest.param("a\x85b\u2028c\u2029d", "a\nb\nc\nd", id="unicode-line-ends"),
        pytest.param("a\r\r\nb", "a\n\nb", id="cr-crlf-is-two-lines"),
        pytest.param("a\r\0\nb", "a\nb", id="control-inside-crlf"),
        pytest.param("\ufeffa\0b\x7f\x1b[0m\x80", "ab[0m", id="controls"),
        pytest.param("a\tb", "a\tb", id="tab-stays"),
        pytest.param("a \t\n  b  ", "a\n  b", id="trailing-blanks"),
        pytest.param("a\n\n \n\n", "a\n", id="one-line-end-stays"),
        pytest.param("a", "a", id="no-line-end-is-added"),
        pytest.param("a\n\n\nb", "a\n\n\nb", id="blank-lines-within-stay"),
        pytest.param(" \n\t\n", "", id="blank"),
        pytest.param("", "", id="empty"),
        pytest.param("e\u0301", "é", id="nfc"),
        pytest.param("e\0\u0301", "é", id="nfc-across-a-control"),
        pytest.param("\u212b", "Å", id="nfc-singleton"),
        pytest.param("naïve 中文 👩‍💻", "naïve 中文 👩‍💻", id="already-normal"),
    ],
)
def test_normalizes(text: str, expected: str) -> None:
    assert normalized(["before ", text, "\tafter"]) == ["before", expected, "\tafter"]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(Normalize(nfc=False), "e\u0301\nb\nc\n", id="nfc"),
        pytest.param(Normalize(line_ends=False), "é\r\nb\x85c\r\n", id="line-ends"),
        pytest.param(Normalize(control_characters=False), "é\nb\0\nc\n", id="controls"),
        pytest.param(Normalize(trailing_blanks=False), "é \nb\nc\t\n\n", id="trailing-blanks"),
    ],
)
def test_each_part_can_be_switched_off(step: Normalize, expected: str) -> None:
    assert normalized(["e\u0301 \r\nb\0\x85c\t\r\n\n"], step) == [expected]


@settings(deadline=None)  # the first example may compile
@given(
    texts=st.lists(
        st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("\r\n \t\0\u0301e")))
    ),
    step=st.builds(
        Normalize,
        nfc=st.booleans(),
        line_ends=st.booleans(),
        control_characters=st.booleans(),
        trailing_blanks=st.booleans(),
    ),
)
def test_a_second_pass_changes_nothing(texts: list[str], step: Normalize) -> None:
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})

    once = step.apply(batch)

    assert step.apply(once) is once
    if step.nfc:
        assert all(unicodedata.is_normalized("NFC", text) for text in once["text"].to_pylist())


@settings(deadline=None)  # the first example may compile
@given(texts=st.lists(st.text()), cut=st.integers(0, 5))
def test_neighbours_in_the_batch_make_no_difference(texts: list[str], cut: int) -> None:
    assert normalized(texts[:cut]) + normalized(texts[cut:]) == normalized(texts)


@settings(deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            ["\n", "e", "\u0301", "\u0327", "é", "각", "\u1100", "\u1161", "a" * 40, "中"]
        )
    )
)
def test_composing_line_by_line_is_composing_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    step = Normalize(line_ends=False, control_characters=False, trailing_blanks=False)

    assert normalized([text], step) == [unicodedata.normalize("NFC", text)]


def test_other_columns_and_the_schema_stay() -> None:
    field = pa.field("text", pa.large_string(), nullable=False, metadata={b"k": b"v"})
    schema = pa.schema([pa.field("doc_id", pa.string()), field])
    batch = pa.record_batch([["x"], ["a "]], schema=schema)

    result = Normalize().apply(batch)

    assert result.schema.equals(schema, check_metadata=True)
    assert result.to_pylist() == [{"doc_id": "x", "text": "a"}]


def test_a_batch_that_is_normal_is_returned_as_it_is() -> None:
    batch = pa.record_batch({"text": pa.array(["a\n", "é"], pa.large_string())})

    assert Normalize().apply(batch) is batch


def test_is_a_document_step() -> None:
    assert isinstance(Normalize(), DocumentStep)
