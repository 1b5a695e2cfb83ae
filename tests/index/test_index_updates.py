"""An index that was updated many times holds and finds what a fresh one does."""

import json
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock.index
from penstock.errors import PenstockError, QueryError, StoreError
from penstock.index import Hit, Index, IndexManifest, Query, update_index

_DIM = 6
_WORDS = ("apple", "pear", "plum", "fig", "quince")


def _vector(row: int, version: int = 0) -> npt.NDArray[np.float32]:
    vector = np.random.default_rng([row, version]).standard_normal(_DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def _text(row: int, version: int = 0) -> str:
    return " ".join(_WORDS[(row + version * i) % 5] for i in range(1 + row % 3))


def _title(row: int) -> str:
    """One word for each row: digits would be words of their own."""
    return "title" + "".join("abcdefghij"[int(digit)] for digit in str(row))


def _batches(
    rows: Iterable[int], version: int = 0, *, size: int = 7, vectors: bool = True
) -> Iterator[pa.RecordBatch]:
    rows = list(rows)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        columns = {
            "row_id": pa.array(part, pa.uint64()),
            "title": pa.array([_title(row) for row in part]),
            "heading_path": pa.array([""] * len(part), pa.string()),
            "text": pa.array([_text(row, version) for row in part], pa.large_string()),
            "doc_id": pa.array([f"doc{row // 3}" for row in part]),
            "chunk_id": pa.array([f"doc{row // 3}#{row % 3}" for row in part]),
            "media_type": pa.array(["text/plain"] * len(part)),
            "metadata": pa.array([f'{{"row":{row}}}' for row in part]),
            "start": pa.array(part, pa.int64()),
            "end": pa.array([row + 10 for row in part], pa.int64()),
        }
        if vectors:
            flat = np.concatenate([_vector(row, version) for row in part])
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), _DIM)
        yield pa.record_batch(columns)


def _bytes(folder: Path, manifest: IndexManifest) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in manifest.files(folder)}


def _search(
    index: Index,
    text: str | None,
    vector: npt.NDArray[np.float32] | None,
    *,
    k: int = 10,
    allowed: Sequence[int] | None = None,
    **options: object,
) -> list[Hit]:
    chosen = None
    if allowed is not None:
        ids = index.row_ids
        chosen = index.filter(ids, np.isin(ids, np.array(allowed, np.uint64)))
    return index.search(Query(text=text, vector=vector, allowed=chosen, **options), k)  # type: ignore[arg-type]


def _ids(hits: Sequence[Hit]) -> list[int]:
    return [hit.row_id for hit in hits]


_STEP = st.tuples(
    st.sets(st.integers(0, 60), max_size=50), st.sets(st.integers(0, 60), max_size=50)
)


@settings(max_examples=12, deadline=None)
@given(history=st.lists(_STEP, min_size=1, max_size=5))
def test_any_history_holds_what_a_set_would(history: list[tuple[set[int], set[int]]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, manifest = Path(name), None
        model: dict[int, int] = {}
        published: list[tuple[IndexManifest, dict[int, int], dict[Path, bytes]]] = []
        for run, (removed, added) in enumerate(history):
            manifest = update_index(
                folder, manifest, f"run-{run}", sorted(removed), _batches(sorted(added), run)
            )
            model = {row: v for row, v in model.items() if row not in removed}
            model |= dict.fromkeys(added, run)
            published.append((manifest, model, _bytes(folder, manifest)))

        for manifest, model, contents in published:
            assert _bytes(folder, manifest) == contents
            index = Index.open(folder, manifest)
            assert index.row_ids.tolist() == sorted(model)
            _check_searches(index, model)
            _check_against_fresh(index, model)


def _check_against_fresh(index: Index, model: dict[int, int]) -> None:
    """To the last bit: what was deleted, and in how many steps it all came, leaves no trace."""
    batches = (batch for row in sorted(model) for batch in _batches([row], model[row]))
    with tempfile.TemporaryDirectory() as name:
        fresh = Index.open(Path(name), update_index(Path(name), None, "fresh", [], batches))
        for mode in ("hybrid", "words", "vector"):
            found, expected = (
                _search(which, "apple fig", _vector(1000), mode=mode, k=100)
                for which in (index, fresh)
            )
            assert [replace(hit, position=0) for hit in found] == [
                replace(hit, position=0) for hit in expected
            ]


def _check_searches(index: Index, model: dict[int, int]) -> None:
    query = _vector(1000)
    kept = {row: _vector(row, v).astype(np.float16).astype(np.float64) for row, v in model.items()}
    exact = {row: float(vector @ query) for row, vector in kept.items()}
    best = sorted(exact, key=lambda row: (-exact[row], row))
    hits = _search(index, None, query, mode="vector", k=100)
    assert _ids(hits) == best
    assert [hit.score for hit in hits] == pytest.approx([exact[row] for row in best], abs=1e-6)

    apples = {row for row, version in model.items() if "apple" in _text(row, version).split()}
    assert set(_ids(_search(index, "apple", None, mode="words", k=100))) == apples

    allowed = [*sorted(model)[::2], 10**6]
    assert (
        _ids(_search(index, None, query, mode="vector", k=3, allowed=allowed))
        == [row for row in best if row in allowed][:3]
    )
    hybrid = _search(index, "apple", query, k=100, allowed=allowed)
    assert set(_ids(hybrid)) == set(allowed) & set(model)
    for hit in hybrid:
        assert hit.vector_score == pytest.approx(exact[hit.row_id], abs=1e-6)
        assert hit.words_score is not None
        assert (hit.words_score > 0) == (hit.row_id in apples)


def test_runs_without_deletions_equal_one_fresh_run(tmp_path: Path) -> None:
    fresh = update_index(tmp_path / "fresh", None, "r", [], _batches(range(200)))
    manifest: IndexManifest | None = None
    for run in range(20):
        rows = range(run * 10, run * 10 + 10)
        manifest = update_index(tmp_path / "runs", manifest, f"r{run}", [], _batches(rows))
    assert manifest is not None

    one, other = Index.open(tmp_path / "fresh", fresh), Index.open(tmp_path / "runs", manifest)

    assert manifest.num_rows == fresh.num_rows == 200
    for mode in ("hybrid", "vector", "words"):
        for text in ("apple pear", f"{_title(7)} fig"):
            expected = _search(one, text, _vector(500), mode=mode, k=50)
            found = _search(other, text, _vector(500), mode=mode, k=50)
            scores = [(hit.row_id, hit.score, hit.vector_score, hit.words_score) for hit in found]
            assert scores == [
                (hit.row_id, hit.score, hit.vector_score, hit.words_score) for hit in expected
            ]


def test_segments_stay_few_and_old_ones_large(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(1000), size=1000))
    for run in range(1, 30):
        rows = range(1000 + run * 3, 1003 + run * 3)
        manifest = update_index(tmp_path, manifest, f"r{run}", [], _batches(rows))
        sizes = [segment.num_rows for segment in manifest.segments]
        assert all(old >= 4 * new for old, new in pairwise(sizes))

    assert sizes[0] == 1000
    assert len(sizes) <= 4


def test_a_segment_that_is_mostly_deleted_is_rewritten(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(100)))
    manifest = update_index(tmp_path, manifest, "r1", range(30), [])
    assert [(s.folder, s.num_rows, s.num_deleted) for s in manifest.segments] == [
        ("segment-r0", 100, 30)
    ]

    manifest = update_index(tmp_path, manifest, "r2", range(40), [])

    assert [(s.folder, s.num_rows, s.num_deleted) for s in manifest.segments] == [
        ("segment-r2", 60, 0)
    ]
    assert Index.open(tmp_path, manifest).row_ids.tolist() == list(range(40, 100))


def test_deleted_rows_are_written_only_where_they_changed(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(400), size=400))
    manifest = update_index(tmp_path, manifest, "r1", [5], _batches(range(400, 410)))
    again = update_index(tmp_path, manifest, "r2", [401], [])

    assert again.segments[0] == manifest.segments[0]
    assert again.segments[1].deleted == "deleted-r2-of-segment-r1.npy"


def test_a_run_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(20)))
    before = sorted(tmp_path.rglob("*"))

    same = update_index(tmp_path, manifest, "r1", [99], [])

    assert same == manifest
    assert sorted(tmp_path.rglob("*")) == before


def test_everything_may_go_and_another_width_come(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(20)))
    emptied = update_index(tmp_path, manifest, "r1", range(20), [])
    assert _search(Index.open(tmp_path, emptied), "apple", _vector(1)) == []

    words_only = update_index(tmp_path, manifest, "r2", range(20), _batches([3], vectors=False))

    index = Index.open(tmp_path, words_only)
    assert (words_only.dim, index.row_ids.tolist()) == (0, [3])


def test_what_a_crashed_attempt_left_is_cleared(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(40)))

    def broken() -> Iterator[pa.RecordBatch]:
        yield from _batches(range(40, 50))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        update_index(tmp_path, manifest, "r1", [1], broken())
    assert Index.open(tmp_path, manifest).row_ids.tolist() == list(range(40))

    manifest = update_index(tmp_path, manifest, "r1", [1, 2], _batches([70]))

    index = Index.open(tmp_path, manifest)
    assert index.row_ids.tolist() == [0, *range(3, 40), 70]
    assert _ids(_search(index, _title(45), None, mode="words")) == []


def test_a_name_in_use_is_refused(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(4)))

    with pytest.raises(StoreError, match="new name"):
        update_index(tmp_path, manifest, "r0", [], _batches([9]))

    assert Index.open(tmp_path, manifest).row_ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("batches", "problem"),
    [
        pytest.param([*_batches([8]), *_batches([8])], "added twice", id="one-id-twice"),
        pytest.param(_batches([8], vectors=False), "afresh", id="vectors-are-missing"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    tmp_path: Path, batches: Iterable[pa.RecordBatch], problem: str
) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(4)))

    with pytest.raises(StoreError, match=problem):
        update_index(tmp_path, manifest, "r1", [], batches)


def test_the_manifest_survives_json_and_names_every_file(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(400), size=400))
    manifest = update_index(tmp_path, manifest, "r1", [5], _batches(range(400, 410)))

    read = IndexManifest.from_json(json.loads(json.dumps(manifest.to_json())))

    assert read == manifest
    assert set(read.files(tmp_path)) == {p for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match="penstock index rebuild"):
        IndexManifest.from_json(manifest.to_json() | {"format": 99})


def test_a_row_without_an_embedding_is_found_by_words(tmp_path: Path) -> None:
    (batch,) = _batches(range(3))
    vectors = pa.array([_vector(0), None, _vector(2)], pa.list_(pa.float32(), _DIM))
    where = batch.schema.get_field_index("embedding")
    batch = batch.set_column(where, "embedding", vectors).slice(1)
    index = Index.open(tmp_path, update_index(tmp_path, None, "r", [], [batch]))

    assert _ids(_search(index, None, _vector(2), mode="vector")) == [2]
    hits = {hit.row_id: hit for hit in _search(index, _title(1), _vector(2))}
    assert hits[1].vector_score is None
    assert hits[1].words_score == pytest.approx(hits[1].words_score)
    assert hits[2].words_score == 0.0


def test_words_only(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], _batches(range(9), vectors=False))
    index = Index.open(tmp_path, update_index(tmp_path, manifest, "r1", [7], []))

    assert index.row_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 8]
    (hit,) = _search(index, _title(8), None, mode="words")
    assert (hit.row_id, hit.vector_score, hit.words_score) == (8, None, hit.score)
    with pytest.raises(QueryError, match="no vectors"):
        _search(index, "apple", _vector(1))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("index")
    return Index.open(folder, update_index(folder, None, "r", [], _batches(range(300), size=300)))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param({"k": 0}, "at least 1", id="no-hits"),
        pytest.param({"k": -3}, "at least 1", id="negative"),
        pytest.param({"typos": 3}, "0, 1 or 2", id="typos"),
        pytest.param({"mode": "fuzzy"}, "'hybrid', 'vector' or 'words'", id="mode"),
        pytest.param({"fusion": "sum"}, "'weighted' or 'rrf'", id="fusion"),
        pytest.param({"alpha": 1.5}, "alpha", id="alpha"),
        pytest.param({"alpha": float("nan")}, "alpha", id="alpha-nan"),
        pytest.param({"vector": [1.0] * 5}, "(6,)", id="width"),
        pytest.param({"vector": [[1.0] * 6]}, "(6,)", id="two-dimensions"),
        pytest.param({"vector": [float("nan")] * 6}, "finite", id="nan"),
        pytest.param({"vector": None}, "vector", id="no-vector"),
        pytest.param({"text": None}, "text", id="no-text"),
    ],
)
def test_wrong_arguments_are_named(
    index: Index, arguments: dict[str, object], problem: str
) -> None:
    call: dict[str, object] = {"text": "apple", "vector": _vector(1), **arguments}
    text, vector = call.pop("text"), call.pop("vector")

    with pytest.raises(PenstockError) as caught:
        _search(index, text, vector, **call)  # type: ignore[arg-type]

    assert isinstance(caught.value, QueryError)
    assert problem in str(caught.value)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "words"])
@pytest.mark.parametrize("fusion", ["weighted", "rrf"])
def test_gives_what_there_is(index: Index, mode: str, fusion: str) -> None:
    def search(k: int, allowed: Sequence[int] | None) -> list[Hit]:
        return _search(
            index,
            "apple",
            _vector(1),
            mode=mode,
            fusion=fusion,
            k=k,
            allowed=allowed,
        )

    assert len(search(10**9, None)) <= 300
    assert search(10, []) == []
    assert search(10, [10**6]) == []
    assert sorted(_ids(search(10, [5, 0]))) == [0, 5]


@pytest.mark.parametrize("fusion", ["weighted", "rrf"])
def test_hybrid_order_does_not_depend_on_k(index: Index, fusion: str) -> None:
    many = _search(index, "apple pear", _vector(7), k=100, fusion=fusion)

    few = _search(index, "apple pear", _vector(7), k=5, fusion=fusion)

    assert few == many[:5]
    assert [hit.score for hit in many] == sorted((hit.score for hit in many), reverse=True)


def test_alpha_leans_to_a_side(index: Index) -> None:
    vector, words = (
        _ids(_search(index, f"{_title(9)} fig", _vector(7), mode="vector"))[0],
        _ids(_search(index, f"{_title(9)} fig", _vector(7), mode="words"))[0],
    )

    assert _ids(_search(index, f"{_title(9)} fig", _vector(7), alpha=1.0))[0] == vector
    assert _ids(_search(index, f"{_title(9)} fig", _vector(7), alpha=0.0))[0] == words


def test_many_threads_may_search_one_index(index: Index) -> None:
    expected = _search(index, "apple pear", _vector(7))
    found: list[list[Hit]] = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(_search(index, "apple pear", _vector(7)) for _ in range(20))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [expected] * 80


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    manifest = update_index(tmp_path, None, "r0", [], [])
    index = Index.open(tmp_path, manifest)

    assert index.row_ids.tolist() == []
    assert _search(index, "apple", _vector(1)) == []
    assert manifest.files(tmp_path) == []


def test_public_names_are_sorted_and_there() -> None:
    names = penstock.index.__all__

    assert names == sorted(names)
    assert all(hasattr(penstock.index, name) for name in names)
