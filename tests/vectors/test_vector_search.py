"""What a search of one segment finds, however the segment is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.vectors import Vectors, VectorSettings, VectorWriter, build_search, measure_recall

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FLAT = VectorSettings(kind="flat")
SQ8 = VectorSettings(kind="ivf", codes="sq8")
RABITQ = VectorSettings(kind="ivf", codes="rabitq")
HNSW = VectorSettings(kind="hnsw")
ANN = [
    pytest.param(SQ8, id="ivf-sq8"),
    pytest.param(RABITQ, id="ivf-rabitq"),
    pytest.param(HNSW, id="hnsw"),
]


def segment(
    folder: Path, vectors: F32, how: VectorSettings = FLAT, name: str = "vectors"
) -> Vectors:
    with VectorWriter(folder / name, vectors.shape[1]) as writer:
        for start in range(0, len(vectors), 700):
            writer.add(vectors[start : start + 700])
    build_search(folder / name, how)
    return Vectors.open(folder / name)


def clustered(num_rows: int, dim: int, seed: int = 0) -> F32:
    """Rows of length 1 around the same 40 centres for any seed."""
    centres = np.random.default_rng(dim).normal(size=(40, dim))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 40, num_rows)] + 0.7 * rng.normal(size=(num_rows, dim))
    unit: F32 = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def brute_force(vectors: Vectors, query: F32, k: int, allowed: Mask | None) -> I64:
    """Places of the k best by `scores`: high scores first, and of equal ones low places."""
    places = np.arange(vectors.num_rows) if allowed is None else np.flatnonzero(allowed)
    scores = vectors.scores(query, places)
    places, scores = places[~np.isnan(scores)], scores[~np.isnan(scores)]
    best: I64 = places[np.lexsort((places, -scores))][:k]
    return best


@st.composite
def cases(draw: st.DrawFn) -> tuple[F32, F32, int, Mask | None]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_rows, dim = draw(st.integers(0, 90)), draw(st.sampled_from([1, 2, 7, 64, 65, 130]))
    rows = rng.normal(size=(num_rows, dim)).astype(np.float32)
    if num_rows and draw(st.booleans()):  # few different vectors, so many ties
        rows = rows[rng.integers(0, min(num_rows, 4), num_rows)]
    rows[rng.random(num_rows) < draw(st.sampled_from([0, 0.3, 1]))] = np.nan
    allowed = draw(st.sampled_from([None, 0.0, 0.1, 0.6, 1.0]))
    mask = None if allowed is None else rng.random(num_rows) < allowed
    return rows, rng.normal(size=dim).astype(np.float32), draw(st.integers(0, 120)), mask


@settings(max_examples=150, deadline=None)
@given(case=cases(), how=st.sampled_from([FLAT, SQ8, RABITQ]))
def test_small_segments_equal_brute_force(
    case: tuple[F32, F32, int, Mask | None], how: VectorSettings
) -> None:
    rows, query, k, allowed = case
    with tempfile.TemporaryDirectory() as folder:
        vectors = segment(Path(folder), rows, how)
        expected = brute_force(vectors, query, k, allowed)

        exact = vectors.search(query, k, allowed, exact=True)
        wide = vectors.search(query, k, allowed, effort=1e6)

        assert exact.places.tolist() == wide.places.tolist() == expected.tolist()
        assert exact.scores.tobytes() == vectors.scores(query, expected).tobytes()
        assert wide.scores.tobytes() == exact.scores.tobytes()
        present = ~np.isnan(rows).any(axis=1)
        halves = rows[present].astype(np.float16).astype(np.float64)
        assert vectors.num_vectors == present.sum()
        np.testing.assert_allclose(
            vectors.scores(query, np.flatnonzero(present)), halves @ query, rtol=1e-4, atol=1e-4
        )


@pytest.fixture(scope="module")
def rows() -> F32:
    data = clustered(6000, 48)
    data[17::100] = np.nan
    return data


@pytest.fixture(scope="module", params=ANN)
def built(
    request: pytest.FixtureRequest, rows: F32, tmp_path_factory: pytest.TempPathFactory
) -> Vectors:
    return segment(tmp_path_factory.mktemp("built"), rows, request.param)


@pytest.fixture(
    params=[pytest.param(1e6, id="planned-for-lists"), pytest.param(27.0, id="planned")]
)
def planned(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, built: Vectors
) -> Iterator[None]:
    """Two costs of a gathered row for the planner: with the first it never gathers."""
    built.plans.clear()
    monkeypatch.setattr("penstock.vectors.segment._GATHER_NS", request.param)
    monkeypatch.setattr("penstock.vectors.segment._ROWS_A_STEP", 1000 / request.param)
    yield
    built.plans.clear()


@pytest.fixture(scope="module")
def flat(rows: F32, tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    return segment(tmp_path_factory.mktemp("flat"), rows)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.01, 0.001], ids=lambda s: f"{s:.1%}")
@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.usefixtures("planned")
def test_recall_is_at_least_95_percent_under_any_share_of_allowed_rows(
    built: Vectors, share: float, k: int
) -> None:
    queries = clustered(60, 48, seed=1)
    allowed = np.random.default_rng(2).random(built.num_rows) < share if share < 1 else None

    assert measure_recall(built, queries, allowed, k) >= 0.95


@pytest.mark.parametrize("built", ANN[:1], indirect=True)  # bits and graphs need more dimensions
@pytest.mark.usefixtures("planned")
def test_recall_holds_when_the_allowed_rows_lie_far_from_the_query(
    built: Vectors, rows: F32
) -> None:
    queries = clustered(40, 48, seed=3)
    found = []
    for query in queries:
        product = np.nan_to_num(rows @ query, nan=1.0)
        far = product < np.quantile(product, 0.2)
        found.append(measure_recall(built, query[None], far, 10))

    assert np.mean(found) >= 0.95


@pytest.mark.usefixtures("planned")
def test_every_way_gives_a_row_the_same_score(built: Vectors, flat: Vectors) -> None:
    for query in clustered(20, 48, seed=4):
        for how in (built.search(query, 50), flat.search(query, 50), built.search(query, 6000)):
            assert how.scores.tobytes() == flat.scores(query, how.places).tobytes()
        few = np.zeros(flat.num_rows, np.bool_)
        few[flat.search(query, 50).places] = True
        gathered = built.search(query, 50, few)

        assert gathered.scores.tobytes() == flat.search(query, 50).scores.tobytes()


def test_scores_do_not_depend_on_where_a_row_lies(flat: Vectors, tmp_path: Path) -> None:
    order = np.random.default_rng(5).permutation(flat.num_rows)
    with VectorWriter(tmp_path / "moved", flat.dim) as writer:
        for block in flat.blocks(order=order, block_rows=997):
            writer.add(block)
    moved = Vectors.open(tmp_path / "moved")
    query = clustered(1, 48, seed=6)[0]

    again = moved.scores(query, np.arange(flat.num_rows))

    assert again.tobytes() == flat.scores(query, order).tobytes()


def test_copies_of_one_vector_tie_and_come_in_the_order_of_their_places(
    tmp_path: Path, rows: F32
) -> None:
    data = rows.copy()
    copies = np.sort(np.random.default_rng(7).permutation(len(data))[:400])
    data[copies] = data[0]
    for how in (FLAT, SQ8, RABITQ):
        vectors = segment(tmp_path, data, how, f"{how.kind}-{how.codes}")
        found = vectors.search(data[0], 30)

        assert len(set(found.scores.tolist())) == 1, how
        assert found.places.tolist() == np.union1d([0], copies)[:30].tolist(), how


@pytest.mark.usefixtures("planned")
def test_many_queries_at_once_find_what_each_finds_alone(built: Vectors, flat: Vectors) -> None:
    queries = clustered(70, 48, seed=8)
    half = np.random.default_rng(9).random(flat.num_rows) < 0.5
    for vectors in (built, flat):
        for allowed in (None, half):
            together = vectors.search_many(queries, 7, allowed)

            for query, found in zip(queries, together, strict=True):
                alone = vectors.search(query, 7, allowed)
                assert found.places.tolist() == alone.places.tolist()
                assert found.scores.tobytes() == alone.scores.tobytes()
                assert found.plan == alone.plan
    assert flat.search_many(queries[:0], 7) == []


def test_threads_may_search_one_segment_at_once(built: Vectors) -> None:
    queries = clustered(200, 48, seed=10)
    expected = [built.search(query, 10).places.tolist() for query in queries]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: built.search(query, 10).places.tolist(), queries))

    assert found == expected


@pytest.mark.usefixtures("planned")
def test_as_many_rows_come_back_as_are_allowed(built: Vectors, rows: F32) -> None:
    query = clustered(1, 48, seed=11)[0]
    product = np.nan_to_num(rows @ query, nan=1.0)
    farthest = product <= np.sort(product)[2500]

    assert len(built.search(query, 2400, farthest).places) == 2400
    assert len(built.search(query, 10**6).places) == built.num_vectors
    assert len(built.search(query, 5, np.isnan(rows[:, 0])).places) == 0
    assert len(built.search(query, 0).places) == 0


def test_the_plan_tells_what_was_done(
    built: Vectors, flat: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = clustered(1, 48, seed=12)[0]
    monkeypatch.setattr("penstock.vectors.segment._AGAIN_NS", 20.0)
    built.plans.clear()
    most = np.arange(flat.num_rows) % 10 != 0
    few = np.arange(flat.num_rows) % 500 == 0

    plan = built.search(query, 10, most, num_allowed=5400).plan
    assert (plan.kind, plan.rows, plan.allowed, plan.selectivity) == (built.kind, 6000, 5400, 0.9)
    assert plan.probes > 0
    assert plan.rescored >= 10
    assert 0.9 <= plan.estimated_recall <= 1
    if built.kind == "ivf":
        assert 10 <= plan.codes_scanned <= 5400
        assert plan.probes <= plan.lists
        assert built.search(query, 10, most, effort=1.5).plan.probes > plan.probes
    plan = built.search(query, 10, few).plan
    assert (plan.kind, plan.allowed, plan.estimated_recall) == ("gather", 12, 1.0)
    assert built.search(query, 10, exact=True).plan.kind == "flat"
    assert flat.search(query, 10).plan.kind == "flat"
    assert flat.search(query, 10, np.ones(6000, np.bool_)).plan.kind == "flat"


def test_vectors_of_any_length_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    data = clustered(3000, 20) * rng.lognormal(0, 1, size=(3000, 1)).astype(np.float32)
    data[5], data[6] = 0, 60_000
    for how in (SQ8, RABITQ, HNSW):
        vectors = segment(tmp_path, data, how, f"{how.kind}-{how.codes}")

        assert measure_recall(vectors, clustered(50, 20, seed=14), k=10) >= 0.95


def test_auto_is_flat_for_few_rows(tmp_path: Path) -> None:
    vectors = segment(tmp_path, clustered(500, 8), VectorSettings())

    assert vectors.kind == "flat"
    assert sorted(path.name for path in vectors.folder.iterdir()) == [
        "vectors.json",
        "vectors.npy",
    ]


@pytest.mark.parametrize("how", ANN[:2])
def test_the_same_vectors_and_seed_give_the_same_files(
    tmp_path: Path, rows: F32, how: VectorSettings
) -> None:
    one, two = (segment(tmp_path, rows, how, name) for name in ("one", "two"))

    for path in one.folder.iterdir():
        assert path.read_bytes() == (two.folder / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("field", "value"),
    [pytest.param("kind", "graph", id="kind"), pytest.param("codes", "pq", id="codes")],
)
def test_an_unknown_setting_names_the_choices(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"VectorSettings.{field} is '{value}': must be one of"):
        VectorSettings(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("codes", ["sq8", "rabitq"])
@pytest.mark.parametrize("dim", [3, 64, 130])
def test_codes_lead_to_the_nearest(tmp_path: Path, dim: int, codes: Any) -> None:
    rng = np.random.default_rng(dim)
    rows = rng.normal(size=(3000, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with VectorWriter(tmp_path / "v", dim) as writer:
        writer.add(rows)
    build_search(tmp_path / "v", VectorSettings(kind="ivf", codes=codes))
    vectors = Vectors.open(tmp_path / "v")
    queries = rows[:40] + 0.3 * rng.normal(size=(40, dim)).astype(np.float32) / np.sqrt(dim)

    assert measure_recall(vectors, queries) >= 0.9
    assert measure_recall(vectors, queries, rng.random(3000) < 0.2) >= 0.9


@pytest.mark.parametrize("how", [FLAT, VectorSettings(kind="ivf")], ids=["flat", "ivf"])
def test_a_few_deleted_rows_are_left_out_and_cost_no_other(
    tmp_path: Path, how: VectorSettings
) -> None:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((3000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = segment(tmp_path, rows, how)
    query = rows[7] + 0.1 * rows[8]
    best = vectors.search(query, 60, exact=True).places
    allowed = np.ones(len(rows), np.bool_)
    allowed[best[:2]] = False

    found = vectors.search(query, 40, allowed, effort=100)

    assert found.places.tolist() == best[2:42].tolist()
    assert found.plan.allowed == 2998
