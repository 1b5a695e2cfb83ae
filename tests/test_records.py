import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.records import Failure, content_hash, failure_table, hash_column, to_json


@given(values=st.lists(st.text()), start=st.integers(0, 5))
def test_hash_column_equals_the_hash_of_each_value(values: list[str], start: int) -> None:
    column = pa.array(values, pa.large_string()).slice(start)

    assert hash_column(column).to_pylist() == [content_hash(v.encode()) for v in values[start:]]


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.large_binary()], ids=str)
def test_hash_column_takes_every_layout_of_bytes(kind: pa.DataType) -> None:
    column = pa.array([b"a", b"", b"bc"], pa.binary()).cast(kind)

    assert hash_column(column).to_pylist() == [content_hash(v) for v in (b"a", b"", b"bc")]


def test_to_json_does_not_depend_on_the_order_of_keys() -> None:
    assert to_json({"b": 1, "a": "ä"}) == '{"a":"ä","b":1}'
    assert to_json({"a": "ä", "b": 1}) == to_json({"b": 1, "a": "ä"})


def test_a_failure_becomes_a_row() -> None:
    failure = Failure(
        doc_id="a", item="i", step="read", error="e", message="m", advice="do", transient=True
    )

    assert failure_table([failure], tries=2).to_pylist() == [
        {
            "doc_id": "a",
            "item": "i",
            "step": "read",
            "error": "e",
            "message": "m",
            "advice": "do",
            "transient": True,
            "tries": 2,
        }
    ]
