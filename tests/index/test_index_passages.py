"""Passages come back as they were written, from any place."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import StoreError
from penstock.index.passages import COLUMNS, NUMBERS, TEXTS, Passages, PassagesWriter

_TEXT = st.text(max_size=40) | st.sampled_from(["", "\0", "é" * 9000, "x" * 20_000])
_ROW = st.fixed_dictionaries(
    dict.fromkeys(TEXTS, _TEXT) | {name: st.integers(0, 2**62) for name in NUMBERS}
)


def _batch(rows: list[dict[str, object]]) -> pa.RecordBatch:
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return pa.record_batch({"extra": pa.array([0] * len(rows)), **columns})


@settings(max_examples=40, deadline=None)
@given(data=st.data(), batches=st.lists(st.lists(_ROW, min_size=1, max_size=6), max_size=4))
def test_any_rows_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    batches: list[list[dict[str, object]]],
) -> None:
    folder = tmp_path_factory.mktemp("passages") / "new"
    with PassagesWriter(folder) as writer:
        for rows in batches:
            writer.add(_batch(rows))
    every = [row for rows in batches for row in rows]

    passages = Passages.open(folder)

    assert passages.num_rows == len(every)
    places = data.draw(st.lists(st.integers(0, len(every) - 1))) if every else []
    assert passages.get(places) == [every[place] for place in places]


def test_rows_are_copied_as_they_are(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {**dict.fromkeys(TEXTS, f"text {i} " * 50), "start": i, "end": i + 1} for i in range(300)
    ]
    with PassagesWriter(tmp_path / "one") as writer:
        writer.add(_batch(rows))
    one = Passages.open(tmp_path / "one")

    with PassagesWriter(tmp_path / "other") as writer:
        for record in one.records(range(299, -1, -3)):
            writer.add_record(bytes(record))

    assert Passages.open(tmp_path / "other").get(range(100)) == rows[::-3]


@pytest.mark.parametrize("name", ["blocks.npy", "blocks.lz4"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    with PassagesWriter(tmp_path / "new") as writer:
        writer.add(_batch([{**dict.fromkeys(TEXTS, "text"), "start": 0, "end": 4}]))
    path = tmp_path / "new" / name
    data = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(data[:-1])

    with pytest.raises(StoreError, match=f"{name}.*penstock index rebuild"):
        Passages.open(tmp_path / "new")
