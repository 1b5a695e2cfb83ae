"""What is forgotten is gone from every answer at once, stays out, and goes from disk by gc."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lance.file import LanceFileReader
from tests.tokens.tokenizers_json import byte_tokenizer
from tokenizers import Tokenizer

import penstock as ps
from penstock.errors import ConfigError, LeaseError, QueryError, StoreError
from penstock.export import export
from penstock.index.passages import Passages
from penstock.records import content_hash
from penstock.store.lease import Lease


def _write(folder: Path, documents: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in documents.items():
        (folder / name).write_text(text)


_SECRET = "Quincunx Vermilion, 12 Larkspur Lane"

_DOCUMENTS = {
    "jane.md": f"# Jane\n\n{_SECRET} called about her order.\r\n",
    "copy.md": "# Twins\n\nThe same story twice.\n",
    "twin.md": "# Twins\n\nThe same story twice.\n",
    "other.md": "# Other\n\nAn order was sent.\n",
    "last.md": "# Last\n\nNothing else was said about that order.\n",
}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    _write(tmp_path / "docs", _DOCUMENTS)
    return tmp_path / "docs"


@pytest.fixture
def build(docs: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(store: str = "store", **options: Any) -> Path:
        steps: list[Any] = [ps.Normalize(), ps.ExactDedup(), ps.Chunk()]
        ps.Flow(source=ps.files(docs), steps=steps).run(tmp_path / store, **options)
        return tmp_path / store

    return run


def _contents(path: Path, *, words: bool = True) -> dict[str, Any]:
    store = ps.Store.open(path)
    tables = {
        "documents": store.documents(),
        "verdicts": store.verdicts(),
        "chunks": store.chunks(),
        "failures": store.failures(),
    }
    found: dict[str, Any] = {name: rows.to_pylist() for name, rows in tables.items()}
    hits = store.search("order story called", 100, mode="words") if words else []
    found["hits"] = sorted((hit.chunk_id, hit.score, hit.text) for hit in hits)
    counts = store.manifest.counts
    found["counts"] = {
        name: counts[name] for name in ("documents", "kept", "chunks", "failures", "funnel")
    }
    return found


def test_a_forgotten_document_is_gone_at_once_and_stays_out(
    build: Callable[..., Path], docs: Path
) -> None:
    path = build()
    before = ps.Store.open(path)
    receipt = before.forget("jane.md", reason="asked for on paper")
    (docs / "jane.md").rename(docs.parent / "jane.md")
    fresh = _contents(build("fresh"))
    (docs.parent / "jane.md").rename(docs / "jane.md")

    assert _contents(path) == fresh
    assert [hit.doc_id for hit in before.search("Quincunx")] == ["jane.md"]
    assert before.refresh()
    assert before.search("Quincunx") == []
    (docs / "jane.md").write_text(f"{_SECRET} called once more.\n")
    again = build()
    assert _contents(again) == fresh
    assert ps.Store.open(again).manifest.counts["counts"]["documents_forgotten"] == 1
    assert _contents(build(verify=True)) == fresh
    assert ps.Store.open(path).manifest.counts["counts"]["items_read"] == 5
    assert receipt.reason == "asked for on paper"


def test_a_document_that_the_forgotten_one_had_pushed_out_comes_back_with_the_next_build(
    build: Callable[..., Path], docs: Path
) -> None:
    path = build()
    ps.Store.open(path).forget("copy.md")
    between = ps.Store.open(path).verdicts(where="doc_id = 'twin.md'").to_pylist()
    build()
    (docs / "copy.md").unlink()

    assert [(row["verdict"], row["duplicate_of"]) for row in between] == [("dropped", None)]
    assert _contents(path) == _contents(build("fresh"))
    assert ps.Store.open(path).search("story", 1)[0].doc_id == "twin.md"


def test_a_receipt_tells_where_the_documents_had_been_and_holds_neither_content_nor_ids(
    build: Callable[..., Path], docs: Path
) -> None:
    build()
    (docs / "new.md").write_text("# New\n\nSomething new.\n")
    path = build()
    receipt = ps.Store.open(path).forget(["jane.md", "copy.md"])
    stored = (path / "receipts/000003.json").read_text()

    assert json.loads(stored) == json.loads(json.dumps(receipt.to_json()))
    assert receipt.run == ps.Store.open(path).manifest.run == "000003"
    assert receipt.runs == ["000001", "000002"]
    assert set(receipt.documents) == {content_hash(name).hex() for name in (b"jane.md", b"copy.md")}
    assert {name: receipt.rows[name] for name in ("documents", "verdicts", "chunks", "blobs")} == {
        "documents": 2,
        "verdicts": 2,
        "chunks": 2,
        "blobs": 1,
    }
    assert set(receipt.versions) >= {"documents", "verdicts", "chunks"}
    assert receipt.segments["index/segment-000001"] == 2
    assert receipt.same_content == 1  # twin.md
    assert receipt.purged is None
    assert not any(word in stored for word in ("Quincunx", "jane", "copy.md"))
    assert ps.Store.open(path).receipts() == [receipt]


def test_a_condition_forgets_every_document_that_satisfies_it(build: Callable[..., Path]) -> None:
    path = build()
    receipt = ps.Store.open(path).forget(where="text LIKE '%order%' AND doc_id <> 'last.md'")

    assert len(receipt.documents) == 2
    left = ps.Store.open(path).documents(["doc_id"])["doc_id"].to_pylist()
    assert left == ["copy.md", "last.md", "twin.md"]


def test_a_restored_document_comes_back_with_the_next_build(build: Callable[..., Path]) -> None:
    path = build()
    before = _contents(path)
    store = ps.Store.open(path)
    store.forget(["jane.md", "copy.md"])
    build()
    store.restore("jane.md")
    store.restore(["copy.md"])
    build()

    assert _contents(path) == before
    with pytest.raises(QueryError, match="not told to forget"):
        store.restore("jane.md")
    build()
    assert ps.Store.open(path).manifest.counts["counts"]["items_read"] == 0


def test_one_row_of_a_file_of_many_is_forgotten_alone(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [{"_id": f"r{i}", "text": f"Row {i} of the table."} for i in range(6)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flow = ps.Flow(source=ps.jsonl(source), steps=[ps.Normalize(), ps.Chunk()])
    flow.run(tmp_path / "store")
    ps.Store.open(tmp_path / "store").forget("r3")
    source.write_text("".join(json.dumps(row | {"n": 1}) + "\n" for row in rows))
    report = flow.run(tmp_path / "store")

    left = ps.Store.open(tmp_path / "store").documents(["doc_id"])["doc_id"].to_pylist()
    assert left == ["r0", "r1", "r2", "r4", "r5"]
    assert (report.counts.documents_forgotten, report.documents) == (1, 5)


def test_a_failed_row_can_be_forgotten_too(docs: Path, build: Callable[..., Path]) -> None:
    (docs / "bad.txt").write_bytes(b"some text\x00 with a NUL\n")
    path = build()
    ps.Store.open(path).forget("bad.txt")
    build()

    assert ps.Store.open(path).failures().num_rows == 0
    assert ps.Store.open(path).manifest.counts["failures"] == 0
    (docs / "bad.txt").write_bytes(b"some text\x00 with a NUL and more\n")
    build()
    assert ps.Store.open(path).failures().num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        pytest.param({}, ConfigError, "ids of documents or a condition", id="nothing"),
        pytest.param({"doc_ids": "a", "where": "b = 1"}, ConfigError, "or a condition", id="both"),
        pytest.param({"doc_ids": ["none.md", "x"]}, QueryError, "no run has", id="unknown"),
        pytest.param({"where": "nope = 1"}, QueryError, "no such column", id="column"),
    ],
)
def test_a_wrong_call_forgets_nothing(
    arguments: dict[str, Any], error: type[Exception], says: str, build: Callable[..., Path]
) -> None:
    path = build()

    with pytest.raises(error, match=says):
        ps.Store.open(path).forget(**arguments)
    assert ps.Store.open(path).manifest.run == "000001"
    assert not (path / "receipts").exists()


def test_forgetting_waits_for_no_other_writer(build: Callable[..., Path]) -> None:
    path = build()

    with Lease(path), pytest.raises(LeaseError):
        ps.Store.open(path).forget("jane.md")


@pytest.mark.parametrize("point", ["update_index", "flush", "publish", "write_receipt"])
def test_a_forgetting_that_stops_half_way_is_ended_by_the_next_build(
    point: str, build: Callable[..., Path], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build()

    def stop(*_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(f"penstock.store.forget.{point}", stop)
        with pytest.raises(RuntimeError):
            ps.Store.open(path).forget("jane.md")
    assert len(ps.Store.open(path).documents(["doc_id"])) == 5
    build()
    after = _contents(path)
    (docs / "jane.md").unlink()

    assert after == _contents(build("fresh"))


def test_a_damaged_list_stops_the_build_that_would_bring_documents_back(
    build: Callable[..., Path],
) -> None:
    path = build()
    ps.Store.open(path).forget("jane.md")
    (path / "forgotten.arrow").write_bytes(b"not a list")

    with pytest.raises(StoreError, match="bring back"):
        build()


def _traces(path: Path, markers: tuple[bytes, ...]) -> set[str]:
    """The files of a store that hold one of these, as they are or packed, deleted rows too."""
    found = set()
    for file in (file for file in path.rglob("*") if file.is_file()):
        data = file.read_bytes().lower()
        if file.suffix == ".lance":
            rows = LanceFileReader(str(file)).read_all().to_table()
            data += str(rows.to_pydict()).lower().encode()
        if file.name == "blocks.lz4":
            passages = Passages.open(file.parent)
            data += b"".join(map(bytes, passages.records(list(range(passages.num_rows))))).lower()
        if file.name == "tokens.npy":
            data += _TOKENIZER.decode(np.load(file).tolist()).lower().encode()
        if any(marker in data for marker in markers):
            found.add(str(file.relative_to(path)))
    return found


_TOKENIZER = Tokenizer.from_str(byte_tokenizer())
_MARKERS = (b"quincunx", b"vermilion", b"larkspur")


@pytest.mark.parametrize("tokens", [False, True], ids=["search", "training"])
def test_after_gc_no_file_of_the_store_holds_a_trace(
    tokens: bool, docs: Path, tmp_path: Path
) -> None:
    steps: list[Any] = [ps.Normalize(), ps.ExactDedup()]
    steps += [ps.Tokenize(tokenizer=byte_tokenizer())] if tokens else [ps.Chunk()]
    flow, path = ps.Flow(source=ps.files(docs), steps=steps), tmp_path / "store"
    flow.run(path)
    # An earlier version of the document, too, and rows of others that came meanwhile.
    (docs / "jane.md").write_text(f"# Jane\r\n\n{_SECRET} called anew.\r\n")
    (docs / "more.md").write_text("# More\n\nOne more document.\n")
    flow.run(path)
    parts = {Path(name).parts[0] for name in _traces(path, _MARKERS)}
    assert parts == {"documents.lance", "blobs.lance"} | (
        {"tokens"} if tokens else {"chunks.lance", "index"}
    )

    receipt = ps.Store.open(path).forget("jane.md")
    (docs / "jane.md").rename(tmp_path / "jane.md")
    flow.run(tmp_path / "fresh")
    (tmp_path / "jane.md").rename(docs / "jane.md")
    assert _traces(path, _MARKERS)  # earlier runs are whole still
    ps.Store.open(path).gc(keep=9)

    assert _traces(path, _MARKERS) == set()
    assert _contents(path, words=not tokens) == _contents(tmp_path / "fresh", words=not tokens)
    run = ps.Store.open(path).manifest.run
    assert [each.purged for each in ps.Store.open(path).receipts()] == [run]
    assert receipt.purged is None
    assert any(name.startswith("tokens/" if tokens else "index/") for name in receipt.segments)
    flow.run(path)
    ps.Store.open(path).gc()
    assert _traces(path, _MARKERS) == set()
    assert _contents(path, words=not tokens) == _contents(tmp_path / "fresh", words=not tokens)
    if tokens:
        shown, fresh = (ps.Store.open(each).tokens() for each in (path, tmp_path / "fresh"))
        assert shown.fingerprint == fresh.fingerprint


def test_a_tag_keeps_no_trace_and_a_run_from_before_the_document_stays(
    build: Callable[..., Path], docs: Path
) -> None:
    (docs / "jane.md").rename(docs.parent / "jane.md")
    store = ps.Store.open(build())
    (docs.parent / "jane.md").rename(docs / "jane.md")
    build()
    (docs / "jane.md").unlink()
    path = build()
    store.tag("before", 1)
    store.tag("after", 3)  # its files have the document's rows, deleted
    receipt = store.forget("jane.md")
    store.gc()

    assert receipt.runs == ["000002", "000003"]
    assert _traces(path, _MARKERS) == set()
    assert ps.Store.open(path).tags() == {"before": "000001"}
    assert len(ps.Store.open(path, "before").search("order", 9)) == 2


def test_a_rollback_does_not_bring_a_document_back_for_long(build: Callable[..., Path]) -> None:
    path = build()
    store = ps.Store.open(path)
    store.forget("jane.md")
    store.rollback(1)
    assert ps.Store.open(path).search("Quincunx")
    build()

    assert ps.Store.open(path).search("Quincunx") == []
    assert ps.Store.open(path).documents(where="doc_id = 'jane.md'").num_rows == 0


def test_a_receipt_names_the_exported_shards(build: Callable[..., Path], tmp_path: Path) -> None:
    store = ps.Store.open(build())
    export(store, tmp_path / "out", format="parquet")
    receipt = store.forget("jane.md")

    assert [each["path"] for each in receipt.exports] == [str(tmp_path / "out")]
    assert len(receipt.exports[0]["shards"]) == 1
