"""An export holds what the store keeps, after any history; unchanged shards stay as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tokens.tokenizers_json import END, byte_tokenizer

import penstock as ps
from penstock.errors import ConfigError, LeaseError, QueryError
from penstock.export import exported_shards, read_exports
from penstock.export import folder as folder_module
from penstock.export import writer as writer_module
from penstock.export.plan import Changed
from penstock.loader.formats.find import find_reader, units_of_manifest
from penstock.loader.formats.manifest import (
    MANIFEST,
    FormatName,
    read_manifest,
    rows_of,
)
from penstock.loader.places import Folder

FORMATS = ["mds", "parquet", "webdataset", "lance"]
# Some shards of some documents each; a tar has a header for each member.
SIZES = {"mds": 2000, "parquet": 2000, "webdataset": 30_000, "lance": 2000}
Rows = dict[str, tuple[str, dict[str, Any]]]


def flow(source: Path) -> ps.Flow:
    return ps.Flow(source=ps.jsonl(source, id="id", text="text"), steps=[ps.ExactDedup()])


class Corpus:
    """A source to change, and the store of it."""

    def __init__(self, folder: Path) -> None:
        self.source, self.store = folder / "rows.jsonl", folder / "store"
        self.texts = {f"d{i:03}": f"Document {i} says {i * 7}. " * 3 for i in range(60)}
        self.build()

    def build(self) -> ps.Store:
        lines = [json.dumps({"id": name, "text": t}) for name, t in sorted(self.texts.items())]
        self.source.write_text("\n".join(lines))
        flow(self.source).run(self.store)
        return ps.Store.open(self.store)

    def open(self) -> ps.Store:
        return ps.Store.open(self.store)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def held(out: Path) -> dict[str, str]:
    """Text by document, of the rows that count, as any reader of ours gives them."""
    manifest = read_manifest(Folder(out))
    assert manifest is not None
    reader = find_reader(Folder(out), manifest)
    found: dict[str, str] = {}
    for shard in manifest.shards:
        names = []
        for unit in (u for u in units_of_manifest(manifest) if u.file.name == shard.name):
            rows = reader.open(unit).table(["doc_id", "text"]).to_pylist()
            names += [row["doc_id"] for row in rows]
            for at, row in enumerate(rows):
                if at not in unit.dead:
                    assert row["doc_id"] not in found
                    found[row["doc_id"]] = row["text"]
        assert rows_of(Folder(out), shard)["doc_id"].to_pylist() == names
    return found


def files(out: Path) -> dict[str, bytes]:
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != "writer.lock")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_holds_the_kept_documents(
    corpus: Corpus, tmp_path: Path, kind: FormatName
) -> None:
    corpus.texts["twin"] = corpus.texts["d001"]
    store = corpus.build()

    report = store.export(tmp_path / "out", format=kind, shard_bytes=SIZES[kind])

    kept = {name: text for name, text in corpus.texts.items() if name != "twin"}
    assert held(tmp_path / "out") == kept
    assert report.documents == report.written == 60
    assert report.shards == report.shards_written > 2


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("changed", ["rewrite", "tombstone"])
def test_a_later_export_writes_the_difference_alone(
    corpus: Corpus, tmp_path: Path, kind: FormatName, changed: Changed
) -> None:
    out = tmp_path / "out"
    corpus.open().export(out, format=kind, shard_bytes=SIZES[kind], changed=changed)
    before = files(out)
    corpus.texts["d010"] = "Changed."
    del corpus.texts["d050"]
    corpus.texts["new"] = "A new document."

    report = corpus.build().export(out, format=kind, shard_bytes=SIZES[kind], changed=changed)

    after = files(out)
    assert held(out) == corpus.texts
    if changed == "tombstone":
        assert (report.written, report.tombstones, report.shards_removed) == (2, 2, 0)
        assert report.shards_written == 1
    else:
        assert (report.tombstones, report.shards_removed) == (0, 2)
        assert report.written < 60
    shards = [name for name in before if name.endswith((".mds", ".parquet", ".tar", ".lance"))]
    stayed = [name for name in shards if name in after]
    assert len(stayed) == len(shards) - report.shards_removed
    assert all(after[name] == before[name] for name in stayed)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_of_the_same_run_changes_nothing(
    corpus: Corpus, tmp_path: Path, kind: FormatName
) -> None:
    out = tmp_path / "out"
    corpus.open().export(out, format=kind, shard_bytes=SIZES[kind])
    before = files(out)

    report = corpus.open().export(out, format=kind, shard_bytes=SIZES[kind])

    assert (report.written, report.shards_written, report.shards_removed) == (0, 0, 0)
    assert files(out) == before


def test_a_document_that_comes_back_as_it_was_is_no_tombstone_any_more(
    corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = corpus.open().export(out, shard_bytes=2000, changed="tombstone")
    text = corpus.texts.pop("d010")
    assert corpus.build().export(out, changed="tombstone").tombstones == 1
    corpus.texts["d010"] = text

    report = corpus.build().export(out, changed="tombstone")

    assert (report.written, report.tombstones, report.shards) == (0, 0, first.shards)
    assert held(out) == corpus.texts


def test_what_was_marked_is_written_anew_on_demand(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "out"
    corpus.open().export(out, shard_bytes=2000)
    secret = corpus.texts.pop("d010").encode()
    store = corpus.build()
    store.export(out, shard_bytes=2000, changed="tombstone")
    assert any(secret in data for data in files(out).values())

    store.export(out, shard_bytes=2000, changed="rewrite")

    assert not any(secret in data for data in files(out).values())
    assert held(out) == corpus.texts


@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    history=st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, 70), st.integers(0, 3), max_size=12),
            st.sampled_from(["rewrite", "tombstone"]),
            st.sampled_from([800, 2000, 100_000]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_after_any_history_an_export_holds_what_a_fresh_one_holds(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[dict[int, int], Changed, int]],
) -> None:
    folder = tmp_path_factory.mktemp("history")
    corpus = Corpus(folder)
    corpus.open().export(folder / "out", shard_bytes=1500)
    for changes, changed, shard_bytes in history:
        for number, version in changes.items():
            name = f"d{number:03}"
            if version == 0:
                corpus.texts.pop(name, None)
            else:
                corpus.texts[name] = f"Version {version} of {name}. " * version
        store = corpus.build()
        store.export(folder / "out", shard_bytes=shard_bytes, changed=changed)

        assert held(folder / "out") == corpus.texts


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_export_goes_on_without_writing_finished_shards_again(
    corpus: Corpus, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    store = corpus.open()
    store.export(whole, shard_bytes=1000)
    write = writer_module._write
    count = iter(range(100))

    def dying(*arguments: Any) -> Any:
        if next(count) == after:
            raise Killed
        return write(*arguments)

    monkeypatch.setattr(writer_module, "_write", dying)
    with pytest.raises(Killed):
        store.export(out, shard_bytes=1000)
    monkeypatch.setattr(writer_module, "_write", write)
    assert not (out / MANIFEST).exists()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mds")}
    assert len(times) == after

    store.export(out, shard_bytes=1000)

    assert files(out) == files(whole)
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times


@pytest.mark.parametrize("step", range(12))
def test_killed_at_any_step_of_replacing_it_is_the_old_export_or_the_new(
    corpus: Corpus, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    corpus.open().export(out, shard_bytes=2000)
    old = dict(corpus.texts)
    corpus.texts["d010"] = "Changed."
    store = corpus.build()
    count = iter(range(100))

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(count) == step:
                raise Killed
            return original(*arguments, **options)

        return call

    for module in (folder_module, writer_module):
        monkeypatch.setattr(module, "replace_file", dying(module.replace_file))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))
    try:
        store.export(out, shard_bytes=2000)
    except Killed:
        monkeypatch.undo()
        assert held(out) in (old, corpus.texts)
    monkeypatch.undo()

    store.export(out, shard_bytes=2000)

    assert held(out) == corpus.texts
    names = {
        shard["raw_data"]["basename"] for shard in json.loads(files(out)["index.json"])["shards"]
    }
    assert {path.name for path in out.glob("*.mds")} == names


def test_a_condition_chooses_documents(tmp_path: Path) -> None:
    lines = [{"id": str(i), "text": f"text {i}", "lang": "en" if i % 3 else "de"} for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flow(tmp_path / "rows.jsonl").run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    report = store.export(tmp_path / "out", where="lang = 'de'")

    assert sorted(held(tmp_path / "out")) == ["0", "3", "6"]
    assert report.documents == 3
    with pytest.raises(QueryError, match="nothing to export"):
        store.export(tmp_path / "none", where="lang = 'fr'")
    assert not (tmp_path / "none/index.json").exists()


def test_the_store_knows_where_its_documents_went(corpus: Corpus, tmp_path: Path) -> None:
    store = corpus.open()
    store.export(tmp_path / "a", shard_bytes=2000)
    store.export(tmp_path / "b", format="parquet", where="doc_id < 'd020'")
    del corpus.texts["d010"]
    corpus.build().export(tmp_path / "b", format="parquet", changed="tombstone")

    holdings = exported_shards(corpus.store, ["d010", "d040", "nothing"])

    listed = [(Path(h.path).name, h.doc_id, h.counts) for h in holdings]
    assert listed == [
        ("a", "d010", True),
        ("a", "d040", True),
        ("b", "d010", False),
        ("b", "d040", True),
    ]
    for holding in holdings:
        assert (Path(holding.path) / holding.shard).is_file()
    assert [(Path(e.path).name, e.format, e.run) for e in read_exports(corpus.store)] == [
        ("a", "mds", "000001"),
        ("b", "parquet", "000002"),
    ]
    shutil.rmtree(tmp_path / "a")
    assert {Path(h.path).name for h in exported_shards(corpus.store, ["d010"])} == {"b"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        pytest.param({"format": "hdf5"}, "must be one of lance, mds", id="format"),
        pytest.param({"shard_bytes": 0}, "from 1 to 4 GiB", id="size"),
        pytest.param({"changed": "ignore"}, "'tombstone' or 'rewrite'", id="changed"),
        pytest.param({"compression": "lzma"}, "must be one of br", id="compression"),
        pytest.param({"compression": "zstd:40"}, "must be one of br", id="level"),
        pytest.param(
            {"compression": "zstd", "format": "parquet"},
            "of MDS alone",
            id="compression-of-parquet",
        ),
        pytest.param({"out": "s3://bucket/x"}, "copy it to the URL after", id="url"),
    ],
)
def test_wrong_arguments_are_refused(
    corpus: Corpus, tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        corpus.open().export(**{"out": tmp_path / "out", **settings})


def test_a_folder_with_something_else_is_left_alone(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/index.json").write_text("mine")

    with pytest.raises(ConfigError, match="new or empty folder"):
        corpus.open().export(tmp_path / "out")

    assert (tmp_path / "out/index.json").read_text() == "mine"


def test_an_export_keeps_its_format(corpus: Corpus, tmp_path: Path) -> None:
    corpus.open().export(tmp_path / "out")

    with pytest.raises(ConfigError, match="must be 'mds'"):
        corpus.open().export(tmp_path / "out", format="parquet")


def test_two_exports_into_one_folder_are_not_mixed(corpus: Corpus, tmp_path: Path) -> None:
    from penstock.store.lease import Lease

    corpus.open().export(tmp_path / "out")

    with Lease(tmp_path / "out/_penstock"), pytest.raises(LeaseError):
        corpus.open().export(tmp_path / "out")


@pytest.mark.parametrize("changed", ["rewrite", "tombstone"])
def test_lance_itself_sees_the_documents_that_count(
    corpus: Corpus, tmp_path: Path, changed: Changed
) -> None:
    import lance

    out = tmp_path / "out"
    corpus.open().export(out, format="lance", shard_bytes=2000, changed=changed)
    corpus.texts["d010"] = "Changed."
    del corpus.texts["d050"]
    corpus.build().export(out, format="lance", shard_bytes=2000, changed=changed)

    rows = lance.dataset(str(out)).to_table().to_pylist()
    assert {row["doc_id"]: row["text"] for row in rows} == corpus.texts
    assert len(rows) == len(corpus.texts)


def test_other_readers_of_parquet_see_the_rows_alone(corpus: Corpus, tmp_path: Path) -> None:
    import pyarrow.dataset as ds

    corpus.open().export(tmp_path / "out", format="parquet", shard_bytes=2000)

    rows = ds.dataset(tmp_path / "out", format="parquet").to_table().to_pylist()
    assert {row["doc_id"]: row["text"] for row in rows} == corpus.texts
    assert [row["doc_id"] for row in rows] == sorted(corpus.texts)


@pytest.mark.parametrize("kind", FORMATS)
def test_training_on_an_export_is_training_on_the_store(tmp_path: Path, kind: FormatName) -> None:
    rows = [{"id": f"d{i}", "text": f"Document {i}. " * (i % 5)} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = ps.jsonl(tmp_path / "rows.jsonl", id="id", text="text")
    tokenizer = byte_tokenizer()
    ps.Flow(source=source, steps=[ps.Tokenize(tokenizer=tokenizer)]).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")
    store.export(tmp_path / "out", format=kind, shard_bytes=SIZES[kind])

    shards = ps.open_shards(tmp_path / "out")

    stored = store.tokens()
    by_name = {}
    for samples in (stored, shards):
        everything = np.arange(samples.num_samples)
        found, offsets = samples.gather(everything)
        names = samples.doc_ids(everything).to_pylist()
        parts = [part.tolist() for part in np.split(found, offsets[1:-1])]
        by_name[type(samples).__name__] = dict(zip(names, parts, strict=True))
    assert by_name["Shards"] == by_name["StoredTokens"]
    assert shards.dtype == stored.dtype
    loader = shards.loader(seq_len=32, global_batch_size=4, tokenizer=tokenizer)
    assert sum(int((batch["labels"] >= 0).sum()) for batch in loader) > 0
    assert loader.audit().digest == loader.audit().total
    with pytest.raises(ConfigError, match="not the one that made the tokens"):
        shards.loader(seq_len=32, global_batch_size=4, tokenizer=byte_tokenizer(extra=1))


def test_another_tokenizer_is_another_content_of_every_document(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "text": "Some text."}))
    source = ps.jsonl(tmp_path / "rows.jsonl", id="id", text="text")
    for end in (None, END):
        tokenize = ps.Tokenize(tokenizer=byte_tokenizer(), end_of_document=end)
        ps.Flow(source=source, steps=[tokenize]).run(tmp_path / "store")
        report = ps.Store.open(tmp_path / "store").export(tmp_path / "out", changed="tombstone")

        assert (report.written, report.shards, report.tombstones) == (1, 1, 0)
        tokens, _ = ps.open_shards(tmp_path / "out").gather(np.array([0]))
        assert len(tokens) == len("Some text.") + (end is not None)
