"""Decisions by vectors: what they drop leaves the index, and comes back with its vectors."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.models.tiny_bert import write_model

import penstock as ps
from penstock.errors import ConfigError
from penstock.store.tables import open_table

# The tiny model knows w0 to w59; all else is one unknown word, so these pairs have equal vectors.
TEXTS = {
    "a.txt": "w1 w2 w3 apple w4\n",
    "b.txt": "w1 w2 w3 pear w4\n",
    "c.txt": "w9 w8 w30 w31 w32 w33 w34\n",
    "d.txt": "\n",
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    return write_model(tmp_path / "model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for name, text in TEXTS.items():
        (root / name).write_text(text)
    return root


def _flow(folder: Path, model: Path, *more: Any, **settings: Any) -> ps.Flow:
    dedup = ps.SemanticDedup(**{"eps": 0.01} | settings)
    steps: list[Any] = [ps.Normalize(), *more, ps.Chunk(), ps.Embed(model=str(model)), dedup]
    return ps.Flow(source=ps.files(folder), steps=steps)


def _plain(folder: Path, model: Path) -> ps.Flow:
    steps: list[Any] = [ps.Normalize(), ps.Chunk(), ps.Embed(model=str(model))]
    return ps.Flow(source=ps.files(folder), steps=steps)


def _dropped(store: Path) -> dict[str, tuple[str, str]]:
    rows = ps.Store.open(store).verdicts(where="verdict = 'dropped'").to_pylist()
    return {row["doc_id"]: (row["rule"], row["duplicate_of"]) for row in rows}


def _chunked(store: Path) -> set[str]:
    return set(ps.Store.open(store).chunks(["doc_id"])["doc_id"].to_pylist())


def test_a_semantic_duplicate_leaves_chunks_and_index(folder: Path, model: Path) -> None:
    store = folder.parent / "store"
    report = _flow(folder, model).run(store)

    assert _dropped(store) == {"b.txt": ("semantic_duplicate", "a.txt")}
    assert _chunked(store) == {"a.txt", "c.txt"}
    assert {hit.doc_id for hit in ps.Store.open(store).search("pear w1", 9)} <= {"a.txt", "c.txt"}
    assert (report.kept, report.chunks) == (3, 2)
    assert [(s.step, s.dropped) for s in report.funnel][-1] == ("SemanticDedup", 1)


def test_a_deleted_survivor_promotes_its_twin_without_embedding(
    folder: Path, model: Path, equals_fresh: Any
) -> None:
    store = folder.parent / "store"
    _flow(folder, model).run(store)
    (folder / "a.txt").unlink()
    report = _flow(folder, model).run(store)

    assert _dropped(store) == {}
    assert report.counts.chunks_embedded == report.counts.chunks_cut == 0
    assert "b.txt" in {hit.doc_id for hit in ps.Store.open(store).search("pear", 9)}
    equals_fresh(_flow(folder, model), store)


def test_a_threshold_re_decides_without_embedding(
    folder: Path, model: Path, equals_fresh: Any
) -> None:
    store = folder.parent / "store"
    _flow(folder, model).run(store)
    report = _flow(folder, model, eps=0.9).run(store)

    assert set(_dropped(store)) == {"b.txt", "c.txt"}
    assert report.counts.chunks_embedded == 0
    equals_fresh(_flow(folder, model, eps=0.9), store)


def test_a_flow_without_the_decision_brings_all_back(
    folder: Path, model: Path, equals_fresh: Any
) -> None:
    store = folder.parent / "store"
    _flow(folder, model).run(store)
    report = _plain(folder, model).run(store)

    assert report.counts.chunks_embedded == 0
    assert _chunked(store) == {"a.txt", "b.txt", "c.txt"}
    equals_fresh(_plain(folder, model), store)


def test_chunks_put_aside_go_with_their_document(folder: Path, model: Path) -> None:
    store = folder.parent / "store"
    _flow(folder, model).run(store)
    (folder / "b.txt").unlink()
    _flow(folder, model).run(store)

    version = ps.Store.open(store).manifest.tables["spare"]
    assert open_table(store / "spare.lance", version).count_rows() == 0


def test_a_run_without_changes_does_nothing(folder: Path, model: Path) -> None:
    store = folder.parent / "store"
    _flow(folder, model).run(store)
    before = ps.Store.open(store).manifest
    report = _flow(folder, model).run(store)
    after = ps.Store.open(store).manifest

    assert (after.tables, after.index) == (before.tables, before.index)
    assert "vectors" not in report.seconds


def test_a_document_is_judged_by_the_mean_of_its_chunks(folder: Path, model: Path) -> None:
    store = folder.parent / "store"
    parts = ["w1 w2 w3 w4 w5 w6\n", "w40 w41 w42 w43 w44 w45\n"]
    for path in folder.iterdir():
        path.unlink()
    (folder / "a.txt").write_text("\n".join(parts))
    (folder / "b.txt").write_text("\n".join(parts[::-1]))
    chunk, embed = ps.Chunk(max_tokens=20, overlap_tokens=0), ps.Embed(model=str(model))
    steps: list[Any] = [ps.Normalize(), chunk, embed, ps.SemanticDedup(eps=1e-6)]
    ps.Flow(source=ps.files(folder), steps=steps).run(store)

    assert len(ps.Store.open(store).chunks()) == 2
    assert set(_dropped(store)) == {"b.txt"}


def test_it_stands_behind_embed(folder: Path, model: Path) -> None:
    both: list[list[Any]] = [
        [ps.Normalize(), ps.SemanticDedup(), ps.Chunk(), ps.Embed(model=str(model))],
        [ps.Normalize(), ps.Chunk(), ps.SemanticDedup()],
    ]
    for steps in both:
        with pytest.raises(ConfigError, match=r"Flow\.steps"):
            ps.Flow(source=ps.files(folder), steps=steps)


@pytest.mark.parametrize("seed", range(2))
def test_after_any_history_the_store_equals_a_fresh_one(
    folder: Path, model: Path, equals_fresh: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenOffError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise BrokenOffError

    rng, store = random.Random(seed), folder.parent / "store"
    flows = [
        lambda: _flow(folder, model),
        lambda: _flow(folder, model, ps.ExactDedup(), eps=0.3, keep="hardest"),
        lambda: _plain(folder, model),
    ]
    for _ in range(10):
        for _ in range(2):
            path = folder / rng.choice([*TEXTS, "e.txt"])
            if rng.random() < 0.3:
                path.unlink(missing_ok=True)
            else:
                path.write_text(rng.choice([*TEXTS.values(), "w1 w2 w3 plum w5\n"]))
        if rng.random() < 0.3:
            (folder / "always.txt").write_text(f"w1 {rng.random()}\n")
            with monkeypatch.context() as patch:
                patch.setattr("penstock.build.run.bring_index", stop)
                with pytest.raises(BrokenOffError):
                    flows[0]().run(store)
        rng.choice(flows)().run(store)
    equals_fresh(flows[1](), _run(flows[1](), store))
    shutil.rmtree(store)


def _run(flow: ps.Flow, store: Path) -> Path:
    flow.run(store)
    return store
