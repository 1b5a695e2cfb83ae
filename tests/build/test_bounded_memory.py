"""What a build gathers stays bounded, and is the same however it is gathered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.build import chunks, documents, memory
from penstock.build.documents import SeenIds
from penstock.store.manifest import starting_point
from penstock.store.tables import open_table

BATCHES = st.lists(st.lists(st.text(max_size=2), unique=True, min_size=1, max_size=20), max_size=20)


@given(BATCHES)
def test_seen_ids_tell_what_a_set_tells(batches: list[list[str]]) -> None:
    ids, known = SeenIds(), set[str]()

    for batch in batches:
        assert ids.add(pa.array(batch)).to_pylist() == [each in known for each in batch]
        known.update(batch)


def test_an_id_that_comes_again_blocks_later_leaves_the_unchanged_first_row(
    tmp_path: Path,
) -> None:
    rows = [{"_id": str(i), "text": f"{i} " + "word " * 20_000} for i in range(100)]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert lines.stat().st_size > 2 * (4 << 20)
    flow = ps.Flow(source=ps.jsonl(lines), steps=[])
    flow.run(tmp_path / "store")
    rows[90]["_id"] = "7"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))

    report = flow.run(tmp_path / "store")

    assert (report.documents, report.failures) == (99, 1)
    store = ps.Store.open(tmp_path / "store")
    [failure] = store.failures().to_pylist()
    assert (failure["doc_id"], failure["error"]) == ("7", "duplicate-id")
    assert store.documents(where="doc_id = '7'")["text"][0].as_py().startswith("7 ")


def test_a_flush_after_every_batch_changes_only_the_number_of_fragments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    contents: Callable[[Path], Any],
) -> None:
    lines = tmp_path / "lines"
    lines.mkdir()
    for name in "abcd":
        row = {"_id": name, "title": name, "text": f"Text\r\nof {name}."}
        (lines / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    flow = ps.Flow(source=ps.jsonl(lines), steps=[ps.Normalize(), ps.Chunk()])
    flow.run(tmp_path / "once")
    monkeypatch.setattr(documents, "_FLUSH_BYTES", 0)
    monkeypatch.setattr(chunks, "_FLUSH_BYTES", 0)
    flow.run(tmp_path / "often")

    assert contents(tmp_path / "often") == contents(tmp_path / "once")
    assert _num_fragments(tmp_path / "once", "blobs") == 1
    assert _num_fragments(tmp_path / "often", "blobs") == 4


def test_giving_memory_back_works_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.give_back()
    monkeypatch.setattr(memory, "_trim", lambda: None)
    memory.give_back()


def _num_fragments(store: Path, table: str) -> int:
    manifest = starting_point(store)
    dataset = open_table(store / f"{table}.lance", manifest.tables[table])
    return len(dataset.get_fragments())
