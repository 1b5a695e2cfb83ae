from __future__ import annotations

import datetime as dt
import decimal
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.protocols import Source
from penstock.sources import parquet

Everything = Callable[[Source], Any]


def write(path: Path, columns: dict[str, Any], **options: Any) -> None:
    pq.write_table(pa.table(columns), path, **options)


def test_every_row_is_a_document(tmp_path: Path, everything: Everything) -> None:
    columns = {"id": [1, 2], "text": ["one", "two"], "lang": ["en", None], "n": [1.5, 2.0]}
    write(tmp_path / "a.parquet", columns)

    found = everything(parquet(tmp_path))

    assert found.raw == {"1": b"one", "2": b"two"}
    assert found.metadata == {"1": {"lang": "en", "n": 1.5}, "2": {"n": 2.0}}
    assert {row["item"] for row in found.rows} == {"a.parquet"}
    assert found.finished == found.listed


def test_columns_are_chosen_by_name(tmp_path: Path, everything: Everything) -> None:
    columns = {"key": ["k"], "headline": ["H"], "body": [b"caf\xe9"], "a": [1], "b": [2]}
    path = tmp_path / "a.parquet"
    write(path, columns)

    named = everything(parquet(path, id="key", title="headline", text="body", metadata=["a"]))
    rest = everything(parquet(path, id=None, title="headline", text="body", media_type="text/html"))

    assert named.raw == {"k": b"H\n\ncaf\xe9"}
    assert named.metadata == {"k": {"a": 1}}
    assert rest.ids == ["a.parquet:1"]
    assert rest.metadata == {"a.parquet:1": {"key": "k", "a": 1, "b": 2, "title": "H"}}
    assert rest.rows[0]["media_type"] == "text/html"


def test_row_groups_are_streamed_in_order(tmp_path: Path, everything: Everything) -> None:
    ids = [f"{n:05}" for n in range(10_000)]
    columns = {"id": ids, "text": ["x" * 2000] * 10_000}
    write(tmp_path / "a.parquet", columns, row_group_size=7000, use_dictionary=False)
    write(tmp_path / "b.parquet", {"id": ["last"], "text": ["y"]})
    source = parquet(tmp_path)

    tasks = list(source.tasks(["a.parquet", "b.parquet"]))

    assert max(task.rows.nbytes for task in tasks if task.rows is not None) < 8 << 20
    assert len(tasks) > 4
    assert everything(source).ids == [*ids, "last"]
    assert [item for task in tasks for item, _ in task.finished] == ["a.parquet", "b.parquet"]
    assert pickle.loads(pickle.dumps(tasks[0])).rows.equals(tasks[0].rows)


METADATA = {
    "list": pa.array([[1, None]]),
    "struct": pa.array([{"a": 1, "when": dt.datetime(2020, 1, 2, 3), "none": None}]),
    "whole": pa.array([{"b": "é", "a": True}]),
    "date": pa.array([dt.date(2020, 1, 2)]),
    "nanos": pa.array([1_577_934_245_123_456_789], pa.timestamp("ns")),
    "zone": pa.array([0], pa.timestamp("s", "UTC")),
    "clock": pa.array([dt.time(1, 2, 3)]),
    "price": pa.array([decimal.Decimal("1.50")]),
    "nan": pa.array([float("nan")]),
    "bytes": pa.array([b"\xff"]),
    "category": pa.array(["c"]).dictionary_encode(),
    "flag": pa.array([False]),
    "unsigned": pa.array([2**64 - 1], pa.uint64()),
    "quote": pa.array(['"\\\n\x00']),
    "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    "vector": pa.array([[1.5, 2.5]], pa.list_(pa.float32(), 2)),
    "null": pa.array([None], pa.null()),
}


def test_any_type_becomes_metadata(tmp_path: Path, everything: Everything) -> None:
    write(tmp_path / "a.parquet", {"id": ["1"], "text": ["x"], **METADATA})

    assert everything(parquet(tmp_path)).metadata["1"] == {
        "list": [1, None],
        "struct": {"a": 1, "when": "2020-01-02T03:00:00", "none": None},
        "whole": {"a": True, "b": "é"},
        "date": "2020-01-02",
        "nanos": "2020-01-02T03:04:05.123456",
        "zone": "1970-01-01T00:00:00+00:00",
        "clock": "01:02:03",
        "price": "1.50",
        "category": "c",
        "flag": False,
        "unsigned": 2**64 - 1,
        "quote": '"\\\n\x00',
        "map": [["k", 1]],
        "vector": [1.5, 2.5],
    }


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        pytest.param(pa.array([7]), "7", id="integer"),
        pytest.param(pa.array(["a"]).dictionary_encode(), "a", id="dictionary"),
        pytest.param(pa.array([dt.date(2020, 1, 2)]), "2020-01-02", id="date"),
        pytest.param(pa.array([b"\xff\x00" * 8], pa.binary(16)), "ff00" * 8, id="uuid"),
        pytest.param(pa.array([b"abc"]), "abc", id="bytes-of-text"),
        pytest.param(pa.array([True]), "true", id="bool"),
    ],
)
def test_an_id_may_be_of_any_scalar_type(
    tmp_path: Path, everything: Everything, ids: pa.Array, expected: str
) -> None:
    write(tmp_path / "a.parquet", {"id": ids, "text": ["x"]})

    assert everything(parquet(tmp_path)).ids == [expected]


def test_rows_without_id_or_text_cost_themselves(tmp_path: Path, everything: Everything) -> None:
    columns = {"id": ["1", None, "3", "", "5"], "text": ["a", "b", None, "d", ""]}
    write(tmp_path / "a.parquet", columns, row_group_size=2)

    found = everything(parquet(tmp_path))

    assert found.raw == {"1": b"a", "5": b""}
    assert found.errors == [
        ("a.parquet:2", "missing-id"),
        ("a.parquet:3", "missing-text"),
        ("a.parquet:4", "missing-id"),
    ]
    assert found.finished == found.listed


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        pytest.param({"id": ["1"], "body": ["x"]}, "found 'id', 'body'", id="no-text"),
        pytest.param({"text": ["x"]}, "expected the columns 'id'", id="no-id"),
        pytest.param({"id": ["1"], "text": [3]}, "found int64", id="number-for-a-text"),
    ],
)
def test_a_missing_column_is_one_failure_of_the_file(
    tmp_path: Path, everything: Everything, columns: dict[str, Any], says: str
) -> None:
    write(tmp_path / "a.parquet", columns)
    write(tmp_path / "b.parquet", {"id": ["ok"], "text": ["x"]})

    found = everything(parquet(tmp_path))

    assert found.ids == ["ok"]
    assert found.errors == [("a.parquet", "missing-column")]
    assert says in found.failures[0].message
    assert found.finished == found.listed


def test_a_missing_metadata_column_is_told(tmp_path: Path, everything: Everything) -> None:
    write(tmp_path / "a.parquet", {"id": ["1"], "text": ["x"]})

    assert everything(parquet(tmp_path, metadata=["lang"])).errors == [
        ("a.parquet", "missing-column")
    ]


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 50 + b"PAR1"]
)
def test_a_file_that_is_no_parquet_is_one_failure(
    tmp_path: Path, everything: Everything, data: bytes
) -> None:
    (tmp_path / "a.parquet").write_bytes(data)

    found = everything(parquet(tmp_path))

    assert found.errors == [("a.parquet", "malformed-parquet")]
    assert not found.failures[0].transient
    assert found.finished == found.listed


def test_what_comes_before_corrupt_pages_is_kept(tmp_path: Path, everything: Everything) -> None:
    path = tmp_path / "a.parquet"
    texts = [np.random.default_rng(n).bytes(500).hex() for n in range(200)]
    columns = {"id": [str(n) for n in range(200)], "text": texts}
    write(path, columns, row_group_size=100, compression="zstd", use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    start = group.data_page_offset
    data[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(data)

    found = everything(parquet(tmp_path))

    assert found.ids == [str(n) for n in range(100)]
    assert found.errors == [("a.parquet", "malformed-parquet")]
    assert "before row 101" in found.failures[0].message


def test_a_file_without_rows_is_finished(tmp_path: Path, everything: Everything) -> None:
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")

    found = everything(parquet(tmp_path))

    assert (found.rows, found.failures, found.finished) == ([], [], found.listed)


def test_a_file_that_is_gone_is_not_finished(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"id": ["1"], "text": ["x"]})
    source = parquet(tmp_path)
    (tmp_path / "a.parquet").unlink()

    (task,) = source.tasks(["a.parquet"])

    assert [failure.error for failure in source.read(task).failures] == ["vanished"]
    assert task.finished == ()


def test_a_source_is_a_picklable_value(tmp_path: Path) -> None:
    source = parquet(tmp_path, metadata=["a"])

    assert isinstance(source, Source)
    assert pickle.loads(pickle.dumps(source)) == source
