"""Another model: the old vectors answer until new ones are published, if they are good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.models.tiny_bert import random_weights, write_model

import penstock as ps
from penstock.build import chunks as chunks_phase
from penstock.build import decide
from penstock.build import run as run_phase
from penstock.errors import ConfigError, GateError, ModelError, QueryError
from penstock.store import manifest

# The tiny model knows w0 to w59.
_TEXTS = {f"{i:02}.txt": f"w{i} w{i + 1} w{i + 2}\n" for i in range(40)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    root.mkdir()
    for name, text in _TEXTS.items():
        (root / name).write_text(text)
    return root


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Ten queries that ask for a document by its words, and one for what is not there."""
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    queries = [{"_id": f"q{i}", "text": f"w{i} w{i + 1} w{i + 2}"} for i in range(0, 40, 4)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries))
    rows = "".join(f"q{i}\t{i:02}.txt\t1\n" for i in range(0, 40, 4))
    (folder / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}q0\tnone.txt\t1\n")
    return folder


Flow = Callable[..., ps.Flow]


@pytest.fixture
def flow(docs: Path, tmp_path: Path) -> Flow:
    """A flow with one of two models."""
    models = {
        name: write_model(tmp_path / name, weights=random_weights(seed))
        for seed, name in enumerate("ab")
    }

    def make(name: str = "a") -> ps.Flow:
        steps: list[Any] = [ps.Normalize(), ps.Chunk(), ps.Embed(model=str(models[name]))]
        return ps.Flow(source=ps.files(docs), steps=steps)

    return make


def _found(store: ps.Store) -> list[tuple[str, float]]:
    return [(hit.doc_id, hit.score) for hit in store.search("w7 w8 w9", 5, mode="vector")]


def test_search_answers_from_the_old_vectors_until_the_new_ones_are_published(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    flow("a").run(path)
    reader = ps.Store.open(path)
    before = _found(reader)
    looked: list[str] = []

    def look(place: Any, name: str) -> None:
        real = getattr(place, name)

        def with_a_look(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            reader.refresh()
            assert _found(reader) == before == _found(ps.Store.open(path))
            looked.append(name)
            return result

        monkeypatch.setattr(place, name, with_a_look)

    look(chunks_phase.Chunks, "flush")
    look(run_phase, "bring_index")
    look(run_phase, "flush")
    report = flow("b").run(path)

    assert report.counts.chunks_embedded == 40
    assert set(looked) == {"flush", "bring_index"}
    assert _found(reader) == before
    assert reader.refresh()
    assert _found(reader) != before
    monkeypatch.undo()
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    flow("b").run(tmp_path / "fresh")
    assert _found(reader) == _found(ps.Store.open(tmp_path / "fresh"))
    assert _found(reader.at(1)) == before


def test_an_interrupted_change_of_model_goes_on_and_the_old_one_answers_meanwhile(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    flow("a").run(path)
    before = _found(ps.Store.open(path))
    monkeypatch.setattr(chunks_phase, "_WINDOW_ROWS", 8)
    with monkeypatch.context() as patch:
        patch.setattr(chunks_phase, "CHECKPOINT_S", 0.0)
        saved: list[int] = []

        def stop(*arguments: Any) -> None:
            real(*arguments)
            saved.append(1)
            if len(saved) == 2:
                raise RuntimeError

        real = manifest.save_checkpoint
        patch.setattr(run_phase, "save_checkpoint", stop)
        with pytest.raises(RuntimeError):
            flow("b").run(path)
    assert _found(ps.Store.open(path)) == before
    report = flow("b").run(path)
    flow("b").run(tmp_path / "fresh")

    assert 0 < report.counts.chunks_embedded < 40
    assert _found(ps.Store.open(path)) == _found(ps.Store.open(tmp_path / "fresh"))


def test_a_run_that_misses_what_is_required_is_not_published(
    flow: Flow, judged: Path, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    flow("a").run(path)
    before = _found(ps.Store.open(path))

    with pytest.raises(GateError) as caught:
        flow("b").run(path, require=["map>=0.0", "ndcg@10>=1.0"], judgements=judged)
    ((measure, least, found),) = caught.value.missed
    assert (measure, least, caught.value.run) == ("ndcg@10", 1.0, "000002")
    assert 0 < found < 1
    assert f"{1 - found:.4f} below" in str(caught.value)
    assert ps.Store.open(path).manifest.run == "000001"
    assert _found(ps.Store.open(path)) == before

    again = flow("b").run(path, require="ndcg@10>=0.1", judgements=judged)
    assert (again.run, again.counts.chunks_embedded, again.counts.items_read) == ("000002", 0, 0)
    flow("b").run(tmp_path / "fresh")
    assert _found(ps.Store.open(path)) == _found(ps.Store.open(tmp_path / "fresh"))


def test_after_a_candidate_that_failed_the_old_model_computes_nothing_anew(
    flow: Flow, judged: Path, docs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    flow("a").run(path)
    before = _found(ps.Store.open(path))
    with pytest.raises(GateError):
        flow("b").run(path, require="ndcg@10>=1", judgements=judged)
    (docs / "new.txt").write_text("w50 w51\n")
    report = flow("a").run(path)

    assert report.counts.chunks_embedded == 1
    assert _found(ps.Store.open(path)) == before


def test_a_model_whose_bytes_changed_under_its_name_is_refused(flow: Flow, tmp_path: Path) -> None:
    path = tmp_path / "store"
    flow("a").run(path)
    reader = ps.Store.open(path)
    before = _found(reader)
    shutil.rmtree(tmp_path / "a")
    write_model(tmp_path / "a", weights=random_weights(7))

    assert _found(reader) == before  # it has the old bytes open
    with pytest.raises(ModelError, match="not the model that embedded this store"):
        ps.Store.open(path).search("w7 w8 w9")
    assert ps.Store.open(path).search("w7", mode="words")
    report = flow("a").run(path)
    assert report.counts.chunks_embedded == 40
    assert _found(ps.Store.open(path)) != before


def test_a_model_that_changes_while_a_run_goes_on_is_refused(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    real = decide.decide

    def replaced(*arguments: Any) -> Any:
        shutil.rmtree(tmp_path / "a")
        write_model(tmp_path / "a", weights=random_weights(7))
        return real(*arguments)

    monkeypatch.setattr(run_phase, "decide", replaced)

    with pytest.raises(ModelError, match="changed while the run went on"):
        flow("a").run(path)


@pytest.mark.parametrize(
    ("require", "folder", "error", "says"),
    [
        pytest.param("ndcg>=0.4", True, ConfigError, "ndcg@10", id="measure"),
        pytest.param("ndcg@10>0.4", True, ConfigError, "MEASURE>=NUMBER", id="form"),
        pytest.param("ndcg@10>=4", True, ConfigError, r"in \[0, 1\]", id="range"),
        pytest.param("ndcg@10>=0.4", False, ConfigError, "together", id="no-judgements"),
        pytest.param([], True, ConfigError, "together", id="nothing-required"),
    ],
)
def test_a_requirement_that_cannot_be_read_is_an_error_before_anything_is_done(
    require: Any,
    folder: bool,
    error: type[Exception],
    says: str,
    flow: Flow,
    judged: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=says):
        flow().run(tmp_path / "store", require=require, judgements=judged if folder else None)
    assert not (tmp_path / "store").exists()


def test_judgements_without_a_test_set_are_an_error(
    flow: Flow, judged: Path, tmp_path: Path
) -> None:
    (judged / "qrels/test.tsv").rename(judged / "qrels/one.tsv")
    flow().run(tmp_path / "store", require="map>=0", judgements=judged)
    shutil.copy(judged / "qrels/one.tsv", judged / "qrels/two.tsv")

    with pytest.raises(QueryError, match="found one, two"):
        flow().run(tmp_path / "store", require="map>=0", judgements=judged)
