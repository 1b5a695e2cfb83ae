"""Searching a store: every way to ask, and every way to ask wrongly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock as ps
from penstock.build.index import rebuild_index
from penstock.errors import QueryError, StoreError

_SUBJECTS = ("river", "bridge", "harbour", "lighthouse", "railway", "orchard")
_DOCUMENTS = {
    f"{subject}.md": "".join(
        f"# {subject.title()} {part}\n\nThe {subject} of part {part} lies {'far ' * part}away.\n\n"
        for part in range(4)
    )
    for subject in _SUBJECTS
} | {
    "tools.py": "def read_tide_table(path):\n    return parse_rows(path)\n",
    "zh.txt": "北京的大桥\n",
}


def _write(folder: Path, documents: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in documents.items():
        (folder / name).write_text(text)


def _flow(folder: Path, *, embed: bool = True) -> ps.Flow:
    steps: list[Any] = [ps.Normalize(), ps.ExactDedup(), ps.Chunk(max_tokens=24, overlap_tokens=0)]
    return ps.Flow(source=ps.files(folder), steps=[*steps, ps.Embed()] if embed else steps)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two runs; in the first the orchard is missing."""
    folder = tmp_path_factory.mktemp("search")
    _write(folder / "docs", {k: v for k, v in _DOCUMENTS.items() if k != "orchard.md"})
    _flow(folder / "docs").run(folder / "store")
    _write(folder / "docs", _DOCUMENTS)
    _flow(folder / "docs").run(folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def store(path: Path) -> ps.Store:
    return ps.Store.open(path)


def _chunks(hits: Sequence[ps.Hit]) -> list[str]:
    return [hit.chunk_id for hit in hits]


def test_a_hit_carries_its_passage_and_where_it_stands(store: ps.Store) -> None:
    (hit,) = store.search("lighthouse part 2", 1)

    document = store.documents(where="doc_id = 'lighthouse.md'").to_pylist()[0]["text"].encode()
    assert hit.doc_id == "lighthouse.md"
    assert document[hit.start : hit.end].decode() == hit.text
    assert hit.heading_path == "Lighthouse 2"
    assert (hit.title, hit.media_type) == ("lighthouse.md", "text/markdown")
    assert hit.metadata["extension"] == "md"
    assert json.loads(json.dumps(hit.to_json()))["chunk_id"] == hit.chunk_id


@pytest.mark.parametrize("mode", ["hybrid", "vector", "words"])
def test_pages_neither_overlap_nor_leave_a_gap(store: ps.Store, mode: Any) -> None:
    everything = _chunks(store.search("river bridge away", 1000, mode=mode))
    pages = [
        _chunks(store.search("river bridge away", 3, mode=mode, offset=i)) for i in range(0, 99, 3)
    ]

    assert [chunk for page in pages for chunk in page] == everything
    assert len(set(everything)) == len(everything) > 6


def test_hits_may_be_limited_per_document(store: ps.Store) -> None:
    hits = store.search("part away", 6, per_document=1)

    assert len({hit.doc_id for hit in hits}) == len(hits) == 6
    assert hits[0] == store.search("part away", 1)[0]


def test_a_vector_asks_like_its_text(store: ps.Store) -> None:
    vector = store.searcher.encoder.encode(["a beacon for ships"])[0]

    assert store.search(vector=vector) == store.search("a beacon for ships", mode="vector")
    assert store.search("harbour", vector=vector)[0].doc_id in ("harbour.md", "lighthouse.md")


def test_many_queries_at_once_find_what_each_finds(store: ps.Store) -> None:
    queries = ["river", "tide table", "far away", "orchard part 3"] * 3

    assert store.search_many(queries, 4) == [store.search(query, 4) for query in queries]


def test_more_like_a_chunk_leaves_it_out(store: ps.Store) -> None:
    hits = store.more_like("railway.md#1", 3)

    assert "railway.md#1" not in _chunks(hits)
    assert hits[0].doc_id == "railway.md"
    with pytest.raises(QueryError, match="no such chunk"):
        store.more_like("railway.md#99")


def test_facets_count_the_matches(store: ps.Store) -> None:
    hits = store.search("read_tide_table OR away", 1, facets=["extension", "doc_id"])

    with_away = [
        row for row in store.chunks(["text", "doc_id"]).to_pylist() if "away" in row["text"]
    ]
    assert dict(hits.facets["extension"]) == {"md": len(with_away), "py": 1}
    assert store.facet("extension", where="extension <> 'md'") == [("py", 1), ("txt", 1)]
    assert sum(count for _, count in store.facet("doc_id")) == store.chunks(["doc_id"]).num_rows


def test_highlights_mark_the_words_that_were_found(store: ps.Store) -> None:
    (hit,) = store.search("tide tables", 1, highlight=True)

    marked = [hit.text[start:end] for start, end in hit.highlights]
    assert any("tide" in word for word in marked)
    assert store.search("tide tables", 1)[0].highlights == ()


def test_a_phrase_and_a_prefix(store: ps.Store) -> None:
    phrase = store.search('"river of part 3"', mode="words")
    prefix = store.search("lightho*", mode="words")
    typo = store.search("lighthuose", mode="words", typos=1)

    assert _chunks(phrase) == [hit.chunk_id for hit in phrase if "river of part 3" in hit.text]
    assert len(phrase) == 1
    assert {hit.doc_id for hit in prefix} == {hit.doc_id for hit in typo} == {"lighthouse.md"}
    assert store.search("lighthuose", mode="words") == []


def test_explain_says_how(store: ps.Store) -> None:
    plan = store.search("river", explain=True, where="extension = 'py'").plan

    assert plan is not None
    assert (plan.mode, plan.fusion, plan.allowed) == ("hybrid", "weighted", 1)
    assert plan.alpha == 1.0  # no allowed chunk has the word
    assert plan.rows == store.chunks(["doc_id"]).num_rows
    assert plan.estimated_recall == 1.0
    assert sum(segment.rows for segment in plan.segments) >= plan.rows
    assert store.search("river").plan is None


def test_an_earlier_run_can_be_asked(store: ps.Store) -> None:
    assert {hit.doc_id for hit in store.search("orchard", mode="words")} == {"orchard.md"}
    assert store.search("orchard", mode="words", as_of=1) == []
    assert store.search("orchard", mode="words", as_of=1).run == "000001"


def test_a_reranker_has_the_last_word(store: ps.Store) -> None:
    def shortest(query: str, texts: list[str]) -> list[float]:
        return [-float(len(text)) for text in texts]

    hits = store.search("part away", 5, rerank=shortest)

    found = store.search("part away", 50)
    assert [hit.score for hit in hits] == sorted(
        (-float(len(h.text)) for h in found), reverse=True
    )[:5]
    with pytest.raises(QueryError, match=r"expected .* numbers"):
        store.search("part away", rerank=lambda query, texts: [1.0])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param({"query": None}, "a text, a vector, or both", id="nothing"),
        pytest.param({"vector": [1.0, 2.0]}, "(384,)", id="width"),
        pytest.param({"vector": [float("nan")] * 384}, "finite", id="nan"),
        pytest.param({"k": 0}, "at least 1", id="k"),
        pytest.param({"offset": -1}, "at least 0", id="offset"),
        pytest.param({"per_document": 0}, "at least 1", id="per-document"),
        pytest.param({"where": "exten = 'md'"}, "extension", id="unknown-column"),
        pytest.param({"facets": ["exten"]}, "extension", id="unknown-facet"),
        pytest.param({"mode": "fuzzy"}, "'hybrid', 'vector' or 'words'", id="mode"),
    ],
)
def test_wrong_questions_are_named(
    store: ps.Store, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(QueryError) as caught:
        store.search(**{"query": "river", **arguments})

    assert problem in str(caught.value)


@pytest.mark.parametrize("mode", ["hybrid", "words", "vector"])
@pytest.mark.parametrize(
    "query",
    ["", "   ", "?!", "river " * 20_000, "北京", "\0", "\udcff", '"', '"" *', "a" * 100_000],
    ids=["empty", "blanks", "signs", "long", "chinese", "nul", "surrogate", "quote", "odd", "word"],
)
def test_any_text_is_a_question(store: ps.Store, query: str, mode: Any) -> None:
    hits = store.search(query, 3, mode=mode)

    assert len(hits) <= 3
    if query == "北京":
        assert hits[0].doc_id == "zh.txt"


def test_more_hits_than_there_are(store: ps.Store) -> None:
    assert len(store.search("river", 10**9)) == store.chunks(["doc_id"]).num_rows


def test_a_store_without_chunks_or_documents(tmp_path: Path) -> None:
    _write(tmp_path / "docs", {})
    _flow(tmp_path / "docs").run(tmp_path / "store")

    assert ps.Store.open(tmp_path / "store").search("anything") == []
    assert ps.Store.open(tmp_path / "store").facet("doc_id") == []


def test_a_missing_segment_is_named_and_rebuilt(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "store"
    shutil.copytree(path, broken)
    expected = ps.Store.open(broken).search("river", 5)
    for folder in (broken / "index").glob("segment-*"):
        shutil.rmtree(folder)

    with pytest.raises(StoreError, match=r"segment-.*penstock index rebuild"):
        ps.Store.open(broken).search("river")
    done = _penstock("index", "rebuild", broken)

    assert (done.returncode, "published as run 000003" in done.stdout) == (0, True), done.stderr
    assert ps.Store.open(broken).search("river", 5) == expected


def test_the_next_build_mends_a_lost_index(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "store"
    shutil.copytree(path, broken)
    shutil.rmtree(broken / "index")
    _write(tmp_path / "docs", {**_DOCUMENTS, "new.md": "# Windmill\n\nIt turns.\n"})

    _flow(tmp_path / "docs").run(broken)

    assert ps.Store.open(broken).search("windmill", 1, mode="words")[0].doc_id == "new.md"


def test_rebuilding_keeps_everything_else_and_an_interrupted_runs_progress(
    path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(path, copy)
    before = ps.Store.open(copy)

    assert rebuild_index(copy) == before.chunks(["doc_id"]).num_rows
    after = ps.Store.open(copy)

    assert after.manifest.tables == before.manifest.tables
    assert after.manifest.flow == before.manifest.flow
    assert after.search("river", 50) == before.search("river", 50)
    with pytest.raises(StoreError, match="no store"):
        rebuild_index(tmp_path / "nowhere")


def test_the_check_tells_recall_and_repairs(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(path, copy)

    done = _penstock("index", "check", copy, "--samples", "5", "--json")

    facts = json.loads(done.stdout)
    assert (done.returncode, facts["reached"], facts["queries"]) == (0, True, 5)
    assert [each["recall"] for each in facts["recall"]] == [1.0] * 5


def test_another_language_indexes_anew(tmp_path: Path) -> None:
    _write(tmp_path / "docs", {"a.txt": "Die Häuser stehen am Fluss.\n"})
    flow = _flow(tmp_path / "docs", embed=False)
    flow.run(tmp_path / "store")
    assert ps.Store.open(tmp_path / "store").search("Haus") == []

    german = ps.Flow(
        source=flow.source, steps=flow.steps, index=ps.IndexSettings(language="german")
    )
    report = german.run(tmp_path / "store")

    assert report.counts.chunks_cut == 0
    assert len(ps.Store.open(tmp_path / "store").search("Haus")) == 1


def test_what_tuning_found_is_what_searches_do(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(path, copy)
    queries = {f"{subject}{i}": f"{subject} part {i}" for subject in _SUBJECTS for i in range(4)}
    qrels = {name: {f"{name[:-1]}.md": 1} for name in queries}

    tuned = ps.Store.open(copy).tune(queries, qrels, folds=3)

    assert (tuned.num_queries, tuned.improved) == (24, False)  # the default finds them all
    assert tuned.default_score == 1.0
    kept = json.loads((copy / "search.json").read_text())
    assert (kept["mode"], kept["alpha"], kept["tuned"]["improved"]) == ("hybrid", None, False)
    (copy / "search.json").write_text(json.dumps({**kept, "mode": "words"}))
    assert ps.Store.open(copy).search("river", 9) == ps.Store.open(copy).search(
        "river", 9, mode="words"
    )
    (copy / "search.json").write_text("{")
    with pytest.raises(StoreError, match=r"search.json.*delete it"):
        ps.Store.open(copy).search("river")


def test_readers_are_not_disturbed_while_a_writer_publishes(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(path, copy)
    _write(tmp_path / "docs", _DOCUMENTS)
    code = (
        "import sys, penstock as ps\n"
        "for _ in range(60):\n"
        "    store = ps.Store.open(sys.argv[1])\n"
        "    hits = store.search('river part', 5, mode='words')\n"
        "    assert hits and all(hit.text for hit in hits)\n"
    )
    readers = [subprocess.Popen([sys.executable, "-c", code, str(copy)]) for _ in range(2)]
    for i in range(100):
        if all(reader.poll() is not None for reader in readers):
            break
        _write(tmp_path / "docs", {f"extra{i % 3}.md": f"# River {i}\n\nPart {i}.\n"})
        _flow(tmp_path / "docs", embed=False).run(copy)

    assert [reader.wait() for reader in readers] == [0, 0]


def test_scores_are_those_of_the_vectors(store: ps.Store) -> None:
    vector = np.asarray(store.searcher.encoder.encode(["a beacon"])[0])
    rows = store.chunks(["chunk_id", "embedding"]).to_pylist()
    cosines = {row["chunk_id"]: float(np.dot(row["embedding"], vector)) for row in rows}

    for hit in store.search(vector=vector):
        assert hit.vector_score == pytest.approx(cosines[hit.chunk_id], abs=2e-3)


def _penstock(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from penstock.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
