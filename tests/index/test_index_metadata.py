"""Metadata becomes typed columns, the same whichever way it is parsed."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.index.metadata import _parse_at_once, _parse_each, metadata_columns
from penstock.records import to_json

_TEXTS = pa.list_(pa.string())


@pytest.mark.parametrize(
    ("rows", "name", "kind", "values"),
    [
        pytest.param([1, 2], "a", pa.int64(), [1, 2], id="integers"),
        pytest.param([1, 2.5], "a", pa.float64(), [1.0, 2.5], id="floats-among-integers"),
        pytest.param([True, None], "a", pa.bool_(), [True, None], id="booleans"),
        pytest.param(["x", None], "a", pa.string(), ["x", None], id="text"),
        pytest.param(["2024-01-01"], "a", pa.string(), ["2024-01-01"], id="dates-stay-text"),
        pytest.param([["x", None], []], "a", _TEXTS, [["x", None], []], id="lists-of-text"),
        pytest.param([["2024-01-01"]], "a", _TEXTS, [["2024-01-01"]], id="lists-of-dates"),
        pytest.param([[None, ""]], "a", _TEXTS, [[None, ""]], id="list-that-begins-with-null"),
        pytest.param([[None]], "a", _TEXTS, [[None]], id="list-of-null"),
        pytest.param([[]], "a", _TEXTS, [[]], id="empty-list"),
        pytest.param([None], "a", pa.null(), [None], id="only-null"),
        pytest.param([1, "1"], "a", pa.string(), ["1", "1"], id="mixed-is-json"),
        pytest.param([1, True], "a", pa.string(), ["1", "true"], id="booleans-are-no-integers"),
        pytest.param([[1], "x"], "a", pa.string(), ["[1]", "x"], id="list-of-numbers-is-json"),
        pytest.param([2**63, 1], "a", pa.string(), [str(2**63), "1"], id="beyond-int64"),
        pytest.param([2**63, 0.5], "a", pa.string(), [str(2**63), "0.5"], id="huge-and-float"),
        pytest.param([2**63 - 1], "a", pa.int64(), [2**63 - 1], id="end-of-int64"),
        pytest.param([{"b": {"c d": 1}}], "a.b.c d", pa.int64(), [1], id="nested"),
        pytest.param([{"t": "2024-01-01"}], "a.t", pa.string(), ["2024-01-01"], id="nested-date"),
        pytest.param([1, {"b": 2}], "a.b", pa.int64(), [None, 2], id="object-and-number"),
    ],
)
def test_infers_the_type(rows: list[Any], name: str, kind: pa.DataType, values: list[Any]) -> None:
    table = metadata_columns(pa.array([json.dumps({"a": value}) for value in rows]))

    assert table.column(name).type == kind
    assert table.column(name).to_pylist() == values


def test_a_missing_key_is_null() -> None:
    table = metadata_columns(pa.array(['{"a":1}', "{}", '{"b":"x"}'], pa.large_string()))

    assert table.to_pydict() == {"a": [1, None, None], "b": [None, None, "x"]}


def test_columns_come_as_asked() -> None:
    rows = pa.array(['{"a":1,"b":2,"c":3}'])

    assert metadata_columns(rows, ["c", "none", "a", "c"]).column_names == ["c", "a"]


@pytest.mark.parametrize("num_rows", [0, 3])
def test_rows_are_counted_without_columns(num_rows: int) -> None:
    table = metadata_columns(pa.array(["{}"] * num_rows, pa.string()))

    assert (table.num_rows, table.num_columns) == (num_rows, 0)


def test_the_dotted_key_itself_wins() -> None:
    assert metadata_columns(pa.array(['{"a":{"b":1},"a.b":2}'])).to_pydict() == {"a.b": [2]}


def test_null_beside_objects_is_a_missing_object() -> None:
    for extra in ([], ['{"a":{"c":[1]}}']):
        table = metadata_columns(pa.array(['{"a":null}', '{"a":{"b":1}}', *extra]))

        assert table.column_names == ["a.b", "a.c"][: 1 + len(extra)]


def test_takes_a_chunked_column() -> None:
    rows = pa.chunked_array([['{"a":1}'], ['{"a":2}', '{"a":1}']])

    assert metadata_columns(rows).column("a").to_pylist() == [1, 2, 1]


def test_of_too_many_fields_the_most_frequent_are_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.index.metadata._MAX_CELLS", 1)
    rows = pa.array([to_json({f"user {at}": at, "year": at, "b": None}) for at in range(150)])

    table = metadata_columns(rows)

    assert table.num_columns == 100
    assert table.column_names[0] == "b"
    assert table["year"].to_pylist() == list(range(150))
    assert metadata_columns(rows, ["user 149", "none"]).column_names == ["user 149"]


def test_deep_nesting_is_kept_as_json() -> None:
    value: Any = {"x": 1}
    for _ in range(800):
        value = {"k": value}
    name = ".".join("k" * 50)

    table = metadata_columns(pa.array([to_json(value), '{"k":null}']))

    assert table.column_names == [name]
    assert json.loads(table[name][0].as_py())["k"]
    assert table[name][1].as_py() is None


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70) | st.integers(-5, 5),
    st.floats(allow_nan=False),
    st.sampled_from(["", "x", "2024-01-01", "2024-01-01 10:00:00", "10:00:00", "1", "é\n", "\0"]),
)
_KEYS = st.sampled_from(["a", "b", "a.b", "é", ""])
_OBJECTS = st.dictionaries(
    _KEYS,
    st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=2),
        max_leaves=3,
    ),
    max_size=3,
)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(_OBJECTS, min_size=1, max_size=4))
def test_both_parsers_agree(rows: list[dict[str, Any]]) -> None:
    distinct = pa.array(sorted({to_json(row) for row in rows}))

    fast = _parse_at_once(distinct)

    if fast is not None:
        slow = _parse_each(distinct)
        assert {name: (c.type, c.to_pylist()) for name, c in fast.items()} == {
            name: (c.type, c.to_pylist()) for name, c in slow.items()
        }


@settings(deadline=None)
@given(rows=st.lists(_OBJECTS, min_size=1, max_size=4), data=st.data())
def test_order_does_not_matter(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    texts = pa.array([to_json(row) for row in rows])

    table = metadata_columns(texts)
    reordered = metadata_columns(texts.take(pa.array(order, pa.int64())))

    assert reordered.schema == table.schema
    assert reordered.to_pylist() == [table.to_pylist()[at] for at in order]
