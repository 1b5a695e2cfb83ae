from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penstock.store import merging
from penstock.store.tables import Table, open_table

SCHEMA = pa.schema([pa.field("a", pa.string(), nullable=False), pa.field("b", pa.int64())])


def _rows(*names: str) -> pa.Table:
    return pa.table({"a": list(names), "b": list(range(len(names)))}, schema=SCHEMA)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = Table(tmp_path / "t.lance", None)
    table.require(SCHEMA, keep_rows=False)
    table.append(_rows("x", "y", "z"))
    return table


def test_rows_keep_their_ids_through_deletes_and_compaction(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_MANY", 2)
    table.append(_rows("w"))
    table.delete([1])
    table.compact()

    assert table.scan(["a"]).to_pydict() == {"a": ["x", "z", "w"], "_rowid": [0, 2, 3]}
    assert table.take(np.array([3, 0], np.uint64), ["a"])["a"].to_pylist() == ["w", "x"]


def test_take_gives_the_order_asked_for_and_nothing_for_nothing(table: Table) -> None:
    assert table.take(np.array([2, 0, 1], np.uint64), ["b"])["b"].to_pylist() == [2, 0, 1]
    assert table.take(np.empty(0, np.uint64), ["b"]).num_rows == 0


def test_columns_come_and_go_without_touching_the_rows(table: Table) -> None:
    wanted = pa.schema([SCHEMA.field("a"), pa.field("c", pa.binary(16))])

    table.require(wanted, keep_rows=True)

    assert table.scan(["a", "c"])["c"].to_pylist() == [None, None, None]
    assert table.schema is not None
    assert set(table.schema.names) == {"a", "c"}


def test_other_columns_without_keeping_rows_empty_the_table(table: Table) -> None:
    table.require(pa.schema([SCHEMA.field("a")]), keep_rows=False)

    assert table.num_rows() == 0


def test_a_writer_discards_what_an_earlier_one_left_unpublished(
    table: Table, tmp_path: Path
) -> None:
    published = table.version
    assert published is not None
    table.append(_rows("lost"))
    # What a power cut leaves: the newest manifest with no bytes in it.
    broken = tmp_path / "t.lance/_versions" / f"{2**64 - 1 - (published + 2)}.manifest"
    broken.touch()

    again = Table(tmp_path / "t.lance", published)
    again.append(_rows("kept"))

    assert again.scan(["a"])["a"].to_pylist() == ["x", "y", "z", "kept"]


def test_a_writer_of_an_older_version_leaves_the_newer_ones_that_runs_name(
    table: Table, tmp_path: Path
) -> None:
    older = table.version
    table.delete([0])
    newer = table.version
    assert older is not None
    assert newer is not None
    table.append(_rows("unpublished"))

    again = Table(tmp_path / "t.lance", older, newest=newer)
    again.append(_rows("w"))

    assert again.scan(["a"]).to_pydict() == {"a": ["x", "y", "z", "w"], "_rowid": [0, 1, 2, 3]}
    assert open_table(tmp_path / "t.lance", newer).to_table()["a"].to_pylist() == ["y", "z"]


def test_a_table_that_was_left_out_begins_anew_beside_its_versions(
    table: Table, tmp_path: Path
) -> None:
    named = table.version
    assert named is not None

    again = Table(tmp_path / "t.lance", None, newest=named)
    assert again.version is None
    again.require(SCHEMA, keep_rows=False)
    again.append(_rows("w"))

    assert again.scan(["a"])["a"].to_pylist() == ["w"]
    assert open_table(tmp_path / "t.lance", named).count_rows() == 3


def test_many_small_changes_leave_few_fragments_and_write_each_row_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_TIERS", (64 << 10, 8 << 10))
    table = Table(tmp_path / "t.lance", None)
    table.require(SCHEMA, keep_rows=False)
    random = np.random.default_rng(0)
    live: dict[int, str] = {}
    for step in range(150):
        gone = random.choice(sorted(live), 15, replace=False).tolist() if len(live) > 60 else []
        texts = [random.bytes(60).hex() for _ in range(20)]
        table.delete(gone)
        table.append(pa.table({"a": texts, "b": [step] * 20}, schema=SCHEMA))
        live = {row: live[row] for row in live if row not in set(gone)}
        added = table.scan_last_append(["a"])
        live |= dict(zip(added["_rowid"].to_pylist(), added["a"].to_pylist(), strict=True))
        table.compact()
    rows = table.scan(["a"])
    size = sum(path.stat().st_size for path in (tmp_path / "t.lance/data").iterdir())

    assert dict(zip(rows["_rowid"].to_pylist(), rows["a"].to_pylist(), strict=True)) == live
    assert len(table.reader().get_fragments()) <= 2 * 16
    assert size < 4 * 150 * 20 * 130


def test_a_fragment_is_rid_of_its_deleted_rows_when_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_TIERS", (64 << 10, 1 << 10))
    table = Table(tmp_path / "t.lance", None)
    table.require(SCHEMA, keep_rows=False)
    table.append(_rows(*(f"row {i}" for i in range(200))))
    table.delete(range(40))
    table.compact()
    few = [fragment.metadata.num_deletions for fragment in table.reader().get_fragments()]
    table.delete(range(40, 60))
    table.compact()
    many = [fragment.metadata.num_deletions for fragment in table.reader().get_fragments()]

    assert (few, many) == ([40], [0])
    assert table.num_rows() == 140


def test_a_table_that_no_manifest_names_starts_empty(table: Table, tmp_path: Path) -> None:
    again = Table(tmp_path / "t.lance", None)
    again.require(SCHEMA, keep_rows=False)

    assert again.num_rows() == 0


def test_a_reader_stays_on_its_version(table: Table, tmp_path: Path) -> None:
    before = table.reader()
    version = table.version
    assert version is not None
    table.delete([0, 1, 2])

    assert before.count_rows() == 3
    assert open_table(tmp_path / "t.lance", version).count_rows() == 3


def test_replace_writes_no_version_when_nothing_differs(table: Table) -> None:
    version = table.version
    table.replace(_rows("x", "y", "z"))
    same = table.version
    table.replace(_rows("x"))

    assert same == version
    assert table.scan(["a"])["a"].to_pylist() == ["x"]


def test_scan_last_append_gives_only_the_newest_rows(table: Table) -> None:
    table.append(_rows("n", "m"))

    assert table.scan_last_append(["a"]).to_pydict() == {"a": ["n", "m"], "_rowid": [3, 4]}


def test_batches_give_every_row_in_order_and_nothing_of_no_table(
    table: Table, tmp_path: Path
) -> None:
    table.append(_rows("n", "m"))
    table.delete([1])

    batches = list(table.batches(["a"]))

    assert pa.Table.from_batches(batches).to_pydict() == {
        "a": ["x", "z", "n", "m"],
        "_rowid": [0, 2, 3, 4],
    }
    assert list(Table(tmp_path / "none.lance", None).batches(["a"])) == []
