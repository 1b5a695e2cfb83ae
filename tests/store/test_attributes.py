"""Columns of a table by row id: conditions and counts, as plain Python has them."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import QueryError, StoreError
from penstock.index.facets import count_values
from penstock.index.where import Column
from penstock.store.attributes import Attributes
from penstock.store.tables import take_rows

_DOCUMENTS: dict[str, dict[str, Any]] = {
    "a.md": {"year": 2020, "tags": ["x", "y"], "published": "2024-01-31", "title": "shadowed"},
    "b.md": {"year": 2021, "tags": [], "author": {"name": "Ada"}},
    "c.txt": {"year": None, "tags": ["y", "y", None], "published": "2024-01-31T23:00:00-05:00"},
}
_ROWS: list[dict[str, Any]] = [
    {
        "chunk_id": f"{doc_id}#{ordinal}",
        "doc_id": doc_id,
        "ordinal": ordinal,
        "text": f"{doc_id} part {ordinal}",
        "title": doc_id.upper(),
        "heading_path": ["", "Top", "Top > Sub"][ordinal],
        "num_tokens": 10 * ordinal + at,
        "metadata": json.dumps(metadata),
        "cut_key": b"x",
        "embedding": None if doc_id == "b.md" else [1.0, 0.0],
    }
    for at, (doc_id, metadata) in enumerate(_DOCUMENTS.items())
    for ordinal in range(3)
]
_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("heading_path", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("cut_key", pa.binary()),
        pa.field("embedding", pa.list_(pa.float32(), 2)),
    ]
)


def _dataset(path: Path, rows: list[dict[str, Any]], *, moved: str = "") -> Any:
    """A table in several fragments; the rows `moved` come last in it and keep their ids."""
    dataset: Any = None
    for start in range(0, max(len(rows), 1), 4):
        dataset = lance.write_dataset(
            pa.Table.from_pylist(rows[start : start + 4], _SCHEMA),
            dataset or str(path),
            mode="append" if dataset else "create",
            enable_stable_row_ids=True,
            data_storage_version="2.1",
        )
    if moved:
        dataset.update({"cut_key": "cut_key"}, where=moved)
    return lance.dataset(str(path))


@pytest.fixture(params=["as-written", "moved"])
def attributes(request: pytest.FixtureRequest, tmp_path: Path) -> Attributes:
    moved = "doc_id = 'a.md'" if request.param == "moved" else ""
    return Attributes(_dataset(tmp_path / "chunks.lance", _ROWS, moved=moved))


def _found(attributes: Attributes, where: str) -> list[str]:
    ids = attributes.row_ids[attributes.mask(where)]
    found: list[str] = take_rows(attributes._dataset, ids, ["chunk_id"])["chunk_id"].to_pylist()
    assert attributes.values("chunk_id", ids).to_pylist() == found
    return found


def _chunks(keep: Callable[[dict[str, Any]], bool]) -> list[str]:
    return [row["chunk_id"] for row in _ROWS if keep(row)]


def test_row_ids_ascend(attributes: Attributes, request: pytest.FixtureRequest) -> None:
    scanned = attributes._dataset.to_table(columns=[], with_row_id=True)["_rowid"].to_pylist()

    assert (scanned != sorted(scanned)) == ("moved" in request.node.name)
    assert attributes.row_ids.dtype == np.uint64
    assert attributes.row_ids.tolist() == sorted(attributes.row_ids.tolist())
    assert len(attributes.row_ids) == len(_ROWS)


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        pytest.param("ordinal = 2", lambda r: r["ordinal"] == 2, id="number-of-a-row"),
        pytest.param("heading_path LIKE 'Top%'", lambda r: r["ordinal"] > 0, id="text-of-a-row"),
        pytest.param("title = 'A.MD'", lambda r: r["doc_id"] == "a.md", id="of-a-document"),
        pytest.param("doc_id <> 'a.md'", lambda r: r["doc_id"] != "a.md", id="document"),
        pytest.param("text LIKE '%part 1'", lambda r: r["ordinal"] == 1, id="text"),
        pytest.param("chunk_id = 'b.md#1'", lambda r: r["chunk_id"] == "b.md#1", id="chunk-id"),
        pytest.param("year > 2020", lambda r: r["doc_id"] == "b.md", id="field"),
        pytest.param("author.name = 'Ada'", lambda r: r["doc_id"] == "b.md", id="nested-field"),
        pytest.param("'y' = ANY(tags)", lambda r: r["doc_id"] != "b.md", id="list"),
        pytest.param("published <= DATE '2024-01-31'", lambda r: r["doc_id"] == "a.md", id="date"),
        pytest.param(
            "metadata.title = 'shadowed'", lambda r: r["doc_id"] == "a.md", id="shadowed-field"
        ),
        pytest.param(
            "metadata LIKE '%Ada%'", lambda r: r["doc_id"] == "b.md", id="metadata-as-text"
        ),
        pytest.param("embedding IS NULL", lambda r: r["doc_id"] == "b.md", id="vectors"),
        pytest.param(
            "year = 2020 AND ordinal = 0 OR text LIKE 'c%' AND num_tokens >= 12",
            lambda r: r["chunk_id"] in ("a.md#0", "c.txt#1", "c.txt#2"),
            id="of-rows-and-documents",
        ),
        pytest.param(
            "num_tokens > ordinal AND title > doc_id OR year > num_tokens AND ordinal = 0",
            lambda r: r["ordinal"] == 0 and r["doc_id"] != "c.txt",
            id="columns-beside-columns",
        ),
        pytest.param("TRUE", lambda _: True, id="true"),
        pytest.param("NULL", lambda _: False, id="unknown"),
    ],
)
def test_finds_the_rows(
    attributes: Attributes, where: str, keep: Callable[[dict[str, Any]], bool]
) -> None:
    assert sorted(_found(attributes, where)) == _chunks(keep)


def test_columns_are_told_with_their_types_but_for_internal_ones(attributes: Attributes) -> None:
    columns = attributes.columns()

    assert columns["year"] == pa.int64()
    assert columns["tags"] == pa.list_(pa.string())
    assert columns["title"] == pa.string()
    assert "cut_key" not in columns
    assert list(columns)[:2] == ["chunk_id", "doc_id"]


@pytest.mark.parametrize("ask", [Attributes.mask, Attributes.facet, Attributes.values])
def test_an_unknown_column_lists_the_columns_nearest_first(
    attributes: Attributes, ask: Callable[[Attributes, str], Any]
) -> None:
    name = "yaer" if ask is not Attributes.mask else "yaer = 1"

    with pytest.raises(QueryError, match=r"yaer: there is no such column; there are year, .*title"):
        ask(attributes, name)


@pytest.mark.parametrize(
    ("column", "counts"),
    [
        pytest.param("year", [(2020, 3), (2021, 3), (None, 3)], id="numbers-and-null"),
        pytest.param("tags", [("y", 6), ("x", 3), (None, 3)], id="elements-once-a-row"),
        pytest.param("doc_id", [("a.md", 3), ("b.md", 3), ("c.txt", 3)], id="documents"),
        pytest.param("heading_path", [("", 3), ("Top", 3), ("Top > Sub", 3)], id="of-rows"),
        pytest.param("author.name", [("Ada", 3), (None, 6)], id="null-last"),
        pytest.param("ordinal", [(0, 3), (1, 3), (2, 3)], id="ties-by-value"),
    ],
)
def test_counts_values(attributes: Attributes, column: str, counts: list[Any]) -> None:
    assert attributes.facet(column) == counts
    assert attributes.facet(column, limit=2) == counts[:2]
    assert attributes.facet(column, np.empty(0, np.uint64)) == []


def test_counts_only_the_rows_asked_for(attributes: Attributes) -> None:
    mask = attributes.mask("ordinal > 0 AND doc_id <> 'c.txt'")
    counts = [("a.md", 2), ("b.md", 2)]

    assert attributes.facet("doc_id", mask) == counts
    assert attributes.facet("doc_id", attributes.row_ids[mask][::-1]) == counts
    assert attributes.facet("tags", mask) == [("x", 2), ("y", 2), (None, 2)]


@pytest.mark.parametrize("column", ["text", "chunk_id", "embedding", "cut_key"])
def test_does_not_count_what_differs_everywhere(attributes: Attributes, column: str) -> None:
    with pytest.raises(QueryError, match="a value of its own"):
        attributes.facet(column)


def test_documents_of_rows_come_in_the_order_asked_for(attributes: Attributes) -> None:
    ids = attributes.row_ids[::-1]

    codes = attributes.document_codes(ids)

    assert codes.dtype == np.int64
    assert attributes.doc_ids(ids) == attributes.values("doc_id", ids).to_pylist()
    assert len(set(zip(codes.tolist(), attributes.doc_ids(ids), strict=True))) == 3
    assert attributes.values("year", ids[:0]).to_pylist() == []


def test_gives_tables_of_columns_and_fields(attributes: Attributes) -> None:
    rows = attributes.table(["year", "chunk_id", "title"], "ordinal = 1").sort_by("chunk_id")

    assert rows.to_pydict() == {
        "year": [2020, 2021, None],
        "chunk_id": ["a.md#1", "b.md#1", "c.txt#1"],
        "title": ["A.MD", "B.MD", "C.TXT"],
    }
    assert attributes.table(["author.name"]).num_rows == len(_ROWS)
    assert attributes.table(["doc_id", "year"], "FALSE").schema.names == ["doc_id", "year"]
    with pytest.raises(QueryError, match="there are year"):
        attributes.table(["doc_id", "yaer"])


@pytest.mark.parametrize("row_id", [100, 2**64 - 1])
def test_a_row_that_the_table_lacks_is_named_with_the_command(
    attributes: Attributes, row_id: int
) -> None:
    with pytest.raises(StoreError, match=f"row {row_id} of the index .*penstock index rebuild"):
        attributes.doc_ids(np.array([row_id], np.uint64))


def test_masks_are_remembered_and_cannot_be_changed(attributes: Attributes) -> None:
    mask = attributes.mask("ordinal = 2")

    assert attributes.mask("ordinal = 2") is mask
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = True


def test_remembers_so_many_masks(attributes: Attributes) -> None:
    first = attributes.mask("ordinal = 0")
    for number in range(64):
        attributes.mask(f"ordinal = {number + 1}")

    assert len(attributes._masks) == 64
    assert attributes.mask("ordinal = 0") is not first


@pytest.mark.parametrize("max_bytes", [0, 40, 200])
def test_answers_are_the_same_with_little_memory(tmp_path: Path, max_bytes: int) -> None:
    dataset = _dataset(tmp_path / "chunks.lance", _ROWS)
    attributes = Attributes(dataset, max_bytes=max_bytes)
    plenty = Attributes(dataset)

    for where in ("year > 2020", "'x' = ANY(tags)", "title = 'A.MD'", "ordinal = 1", "year = 2020"):
        assert attributes.mask(where).tolist() == plenty.mask(where).tolist()
        assert attributes._used <= max_bytes


def test_a_rare_field_among_very_many_is_found(tmp_path: Path) -> None:
    rows = [
        {**_ROWS[0], "doc_id": str(at), "metadata": json.dumps({f"user {at}": at, "year": at})}
        for at in range(150)
    ]
    attributes = Attributes(_dataset(tmp_path / "chunks.lance", rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.index.metadata._MAX_CELLS", 1)

        assert "user 99" not in attributes.columns()
        assert np.flatnonzero(attributes.mask('"user 99" = 99 OR year = 3')).tolist() == [3, 99]
        assert np.flatnonzero(attributes.mask('metadata."user 99" > 1')).tolist() == [99]
        with pytest.raises(QueryError, match="there are year"):
            attributes.mask("yaer = 1")


def test_many_threads_get_the_same(attributes: Attributes) -> None:
    wheres = ["year > 2020", "'y' = ANY(tags)", "text LIKE '%2'", "title = 'A.MD'"] * 4
    found: dict[int, list[bool]] = {}

    def ask(at: int) -> None:
        found[at] = attributes.mask(wheres[at]).tolist()

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(wheres))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == len(wheres)
    assert all(found[at] == found[at % 4] for at in found)


def test_an_empty_table_has_no_rows_and_no_fields(tmp_path: Path) -> None:
    attributes = Attributes(_dataset(tmp_path / "chunks.lance", []))

    assert attributes.mask("ordinal = 1 OR text LIKE '%' OR doc_id = 'a'").tolist() == []
    assert attributes.mask("TRUE").tolist() == []
    assert attributes.facet("doc_id") == attributes.facet("ordinal") == []
    assert attributes.doc_ids(np.empty(0, np.uint64)) == []
    with pytest.raises(QueryError, match="no such column"):
        attributes.mask("year = 1")


def test_a_table_with_one_row_a_document_needs_no_metadata(tmp_path: Path) -> None:
    rows = pa.table({"doc_id": ["b", "a", "c"], "score": [0.5, None, 2.0]})
    dataset = lance.write_dataset(rows, str(tmp_path / "t.lance"), enable_stable_row_ids=True)
    attributes = Attributes(dataset)

    assert attributes.mask("score >= 0.5 AND doc_id < 'c'").tolist() == [True, False, False]
    assert attributes.document_codes(attributes.row_ids).tolist() == [0, 1, 2]
    assert attributes.facet("score") == [(0.5, 1), (2.0, 1), (None, 1)]
    with pytest.raises(QueryError, match="there are doc_id, score"):
        attributes.mask("year = 1")


_ANY = st.one_of(
    st.tuples(st.just(pa.int64()), st.lists(st.none() | st.integers(-3, 3), min_size=1)),
    st.tuples(st.just(pa.string()), st.lists(st.none() | st.text("ab", max_size=2), min_size=1)),
    st.tuples(st.just(pa.bool_()), st.lists(st.none() | st.booleans(), min_size=1)),
    st.tuples(
        st.just(pa.list_(pa.string())),
        st.lists(st.none() | st.lists(st.none() | st.sampled_from("abc"), max_size=4), min_size=1),
    ),
)


@settings(deadline=None)
@given(column=_ANY, data=st.data())
def test_counts_as_plain_python_does(column: tuple[Any, list[Any]], data: st.DataObject) -> None:
    kind, values = column
    owners = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=20))
    rows = data.draw(st.none() | st.lists(st.sampled_from(range(len(owners))))) if owners else None
    expected: Counter[Any] = Counter()
    for row in range(len(owners)) if rows is None else rows:
        value = values[owners[row]]
        elements = set(value or ()) - {None} if isinstance(kind, pa.ListType) else {value}
        expected.update(elements or {None})
    ranked = sorted(expected.items(), key=lambda p: (p[0] is None, -p[1], (p[0] is None, p[0])))

    counted = count_values(
        Column.of(pa.array(values, kind), owners=np.array(owners, np.int32)),
        None if rows is None else np.array(rows, np.int64),
    )

    assert counted == ranked


def test_counts_not_a_number_after_the_numbers() -> None:
    column = Column.of(pa.array([float("nan"), 1.0, None, float("nan"), 1.0, -1.0, -1.0]))

    assert str(count_values(column)) == "[(-1.0, 2), (1.0, 2), (nan, 2), (None, 1)]"
