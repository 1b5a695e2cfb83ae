"""A reader moves to the newest run when it likes, and never shows half of two."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.errors import StoreError
from penstock.store import manifest as manifests


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.md").write_text(f"# Note {number}\n\nA heron stood, version one.\n")
    return folder


@pytest.fixture
def build(tree: Path, tmp_path: Path) -> Callable[..., Path]:
    """Build the store, with embeddings or without."""

    def run(*, embed: bool = False) -> Path:
        steps: list[Any] = [ps.Normalize(), ps.Chunk(), *([ps.Embed()] if embed else [])]
        ps.Flow(source=ps.files(tree), steps=steps).run(tmp_path / "store")
        return tmp_path / "store"

    return run


def test_refresh_moves_to_the_newest_run_and_says_whether_it_did(
    build: Callable[..., Path], tree: Path
) -> None:
    store = ps.Store.open(build())
    assert store.refresh() is False
    assert len(store.search("heron", 20)) == 8
    (tree / "0.md").write_text("An egret.\n")
    (tree / "1.md").unlink()
    build()

    assert [len(store.search("heron", 20)), store.manifest.run] == [8, "000001"]
    assert store.refresh() is True
    assert [len(store.search("heron", 20)), store.manifest.run] == [6, "000002"]
    assert store.search("egret").run == "000002"
    assert store.documents(["doc_id"]).num_rows == store.chunks(["doc_id"]).num_rows == 7
    assert store.facet("extension") == [("md", 7)]
    assert store.refresh() is False


def test_refresh_keeps_the_model_and_the_segments_that_are_shared(
    build: Callable[..., Path], tree: Path
) -> None:
    store = ps.Store.open(build(embed=True))
    store.search("a bird")
    (tree / "0.md").unlink()  # what is deleted of a segment is beside its files
    encoder, (segment,) = store.searcher.encoder, store.searcher.index.segments
    words = segment.words
    (tree / "new.md").write_text("A crane.\n")
    build(embed=True)
    store.refresh()
    store.search("a bird")

    assert store.searcher.encoder is encoder
    assert len(store.searcher.index.segments) == 2
    assert store.searcher.index.segments[0].words is words
    assert store.search("crane", 1)[0].doc_id == "new.md"


def test_a_run_of_another_model_is_never_asked_with_the_vectors_of_the_one_before(
    build: Callable[..., Path], tree: Path, tmp_path: Path
) -> None:
    store = ps.Store.open(build(embed=True))
    before = store.searcher.encoder
    steps: list[Any] = [ps.Normalize(), ps.Chunk(), ps.Embed(precision="int8")]
    ps.Flow(source=ps.files(tree), steps=steps).run(tmp_path / "store")

    assert store.search("a bird").run == "000001"
    assert store.searcher.encoder is before
    store.refresh()
    assert store.searcher.encoder.precision == "int8"
    assert store.searcher.encoder.fingerprint == store.manifest.flow["embed"]["fingerprint"]


def test_a_run_that_cannot_be_opened_leaves_the_reader_where_it_was(
    build: Callable[..., Path], tree: Path
) -> None:
    store = ps.Store.open(build())
    store.search("heron")
    (tree / "new.md").write_text("A crane.\n")
    path = build()
    broken = ps.Store.open(path).manifest.index
    assert broken is not None
    (path / "index" / broken["segments"][-1]["folder"] / "rows.npy").unlink()

    with pytest.raises(StoreError, match=r"rows\.npy"):
        store.refresh()
    assert len(store.search("heron", 20)) == 8


def test_searches_in_other_threads_see_one_run_or_the_other(
    build: Callable[..., Path], tree: Path
) -> None:
    store = ps.Store.open(build())
    done = threading.Event()
    seen: set[tuple[str, frozenset[str]]] = set()
    errors: list[Exception] = []

    def search() -> None:
        try:
            while not done.is_set():
                hits = store.search("version", 20, where="extension = 'md'", facets=["doc_id"])
                versions = frozenset(hit.text.split()[-1] for hit in hits)
                assert sum(count for _, count in hits.facets["doc_id"]) == len(hits) == 8
                seen.add((hits.run, versions))
        except Exception as err:
            errors.append(err)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(search)
        try:
            for number in range(2, 6):
                for path in tree.iterdir():
                    path.write_text(f"A heron stood, version {number}.\n")
                build()
                store.refresh()
        finally:
            done.set()

    assert not errors
    assert all(len(versions) == 1 for _, versions in seen)
    assert {run for run, _ in seen} <= {f"{number:06}" for number in range(1, 6)}


def test_a_refresh_with_nothing_new_reads_only_the_name_of_the_last_run(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ps.Store.open(build())

    def read(path: Path) -> Any:
        raise AssertionError(path)

    monkeypatch.setattr(manifests, "read_manifest", read)
    monkeypatch.setattr("penstock.store.store.read_manifest", read)

    assert store.refresh() is False
