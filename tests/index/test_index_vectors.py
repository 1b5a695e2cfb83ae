"""A segment of vectors finds exactly what NumPy finds."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import StoreError
from penstock.index.vectors import SegmentWriter, VectorSegment, write_deleted, write_vectors

F32 = npt.NDArray[np.float32]


def _segment(vectors: F32, deleted: npt.NDArray[np.bool_] | None = None) -> VectorSegment:
    return VectorSegment(np.arange(len(vectors), dtype=np.uint64), vectors, deleted)


def _random(seed: int, num_rows: int, dim: int) -> F32:
    return np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    num_rows=st.integers(1, 600),
    dim=st.sampled_from([1, 3, 8, 33]),
    k=st.integers(1, 700),
    share=st.sampled_from([None, 0.0, 0.002, 0.1, 0.9]),
    num_deleted=st.integers(0, 300),
    levels=st.sampled_from([1, 2, 1000]),
)
def test_search_equals_brute_force(
    seed: int,
    num_rows: int,
    dim: int,
    k: int,
    share: float | None,
    num_deleted: int,
    levels: int,
) -> None:
    random = np.random.default_rng(seed)
    # Few levels give many equal scores, and whole numbers give them exactly.
    vectors = random.integers(-levels, levels + 1, (num_rows, dim)).astype(np.float32)
    query = random.integers(-levels, levels + 1, dim).astype(np.float32)
    deleted = np.zeros(num_rows, np.bool_)
    deleted[random.permutation(num_rows)[:num_deleted]] = True
    segment = _segment(vectors, deleted if num_deleted else None)
    live = ~deleted
    allowed = None
    if share is not None:
        rows = np.flatnonzero(random.random(num_rows) < share).astype(np.uint64)
        allowed = segment.locate(rows)
        live &= np.isin(segment.rows, rows)

    ((scores, places),) = segment.search(query[None], k, allowed)

    exact = vectors @ query
    expected = np.flatnonzero(live)[np.lexsort((np.flatnonzero(live), -exact[live]))]
    order = np.lexsort((places, -scores))
    assert places[order][:k].tolist() == expected[:k].tolist()
    assert scores.tolist() == exact[places].tolist()


def _all_scores(segment: VectorSegment, queries: F32, places: npt.NDArray[np.int64] | None) -> F32:
    scores = np.full((len(queries), len(segment.rows)), np.nan, np.float32)
    for row, (values, found) in zip(
        scores, segment.search(queries, len(segment.rows), places), strict=True
    ):
        row[found] = values
    return scores


def test_a_score_depends_on_query_and_row_alone() -> None:
    # Enough rows for Faiss to multiply many at once, were it free to.
    vectors, queries = _random(0, 10_000, 384), _random(1, 25, 384)
    segment = _segment(vectors)
    some = np.sort(np.random.default_rng(2).permutation(10_000)[:1001])
    moved = _segment(np.ascontiguousarray(vectors[some]))

    scores = _all_scores(segment, queries[:1], None)

    assert np.array_equal(_all_scores(segment, queries, None)[:1], scores)
    assert np.array_equal(_all_scores(segment, queries[:1], some)[:, some], scores[:, some])
    assert np.array_equal(
        _all_scores(segment, queries[:1], some[:5])[:, some[:5]], scores[:, some[:5]]
    )
    assert np.array_equal(_all_scores(moved, queries[:1], None), scores[:, some])
    assert np.array_equal(segment.scores(queries[0], some), scores[0, some])


def test_ties_with_the_last_all_come() -> None:
    vectors = np.ones((500, 4), np.float32)
    vectors[7] = 2

    ((scores, places),) = _segment(vectors).search(np.ones((1, 4), np.float32), 3)

    assert sorted(places.tolist()) == list(range(500))
    assert scores[0] == 8


def test_a_row_without_a_vector_is_never_found() -> None:
    vectors = _random(0, 50, 8)
    vectors[::5] = np.nan
    segment = _segment(vectors)

    ((_, places),) = segment.search(vectors[1:2], 50)

    assert sorted(places.tolist()) == [i for i in range(50) if i % 5]
    scores = segment.scores(vectors[1], np.arange(50))
    assert np.isnan(scores[::5]).all()
    assert scores[1] == pytest.approx(float(vectors[1] @ vectors[1]), rel=1e-5)


def test_reads_back_what_it_wrote(tmp_path: Path) -> None:
    vectors = _random(0, 100, 5)
    rows = np.random.default_rng(1).permutation(1000)[:100].astype(np.uint64) + 2**63
    with SegmentWriter(tmp_path / "new" / "s", 5) as writer:
        for start in range(0, 100, 33):
            writer.add(rows[start : start + 33], vectors[start : start + 33])
    deleted = np.arange(100) % 7 == 0
    write_deleted(tmp_path / "deleted.npy", deleted)

    segment = VectorSegment.open(tmp_path / "new" / "s", tmp_path / "deleted.npy")

    assert np.array_equal(segment.rows, rows)
    assert np.array_equal(segment.vectors, vectors)
    assert np.array_equal(np.load(tmp_path / "new" / "s" / "vectors.npy"), vectors)
    assert segment.num_live == len(segment.live_rows) == 85
    blocks = list(segment.live_blocks(16))
    assert np.array_equal(np.concatenate([block[0] for block in blocks]), rows[~deleted])
    assert np.array_equal(np.concatenate([block[1] for block in blocks]), vectors[~deleted])


def test_the_vectors_are_mapped_not_read(tmp_path: Path) -> None:
    write_vectors(tmp_path / "s", np.arange(9, dtype=np.uint64), _random(0, 9, 4))

    vectors: object = VectorSegment.open(tmp_path / "s").vectors

    while isinstance(vectors, np.ndarray) and not isinstance(vectors, np.memmap):
        vectors = vectors.base
    assert isinstance(vectors, np.memmap)


def test_locates_rows_in_any_order() -> None:
    rows = np.array([30, 10, 20, 50], np.uint64)
    segment = VectorSegment(rows, _random(0, 4, 2), np.array([False, False, True, False]))

    assert segment.locate(np.array([5, 10, 20, 30, 60], np.uint64)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("vectors.npy", lambda path: path.unlink(), id="missing"),
        pytest.param("rows.npy", lambda path: path.write_bytes(b""), id="empty"),
        pytest.param("rows.npy", lambda path: path.write_bytes(b"\0" * 999), id="zeros"),
        pytest.param(
            "vectors.npy", lambda path: path.write_bytes(path.read_bytes()[:-4]), id="cut-off"
        ),
        pytest.param("rows.npy", lambda path: np.save(path, np.arange(3)), id="another-length"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, damage: object) -> None:
    write_vectors(tmp_path / "s", np.arange(9, dtype=np.uint64), _random(0, 9, 4))
    assert callable(damage)
    damage(tmp_path / "s" / name)

    with pytest.raises(StoreError, match=r"rebuild the index|damaged"):
        VectorSegment.open(tmp_path / "s")


def _fail_half_way(folder: Path) -> None:
    with SegmentWriter(folder, 4) as writer:
        writer.add(np.arange(9, dtype=np.uint64), _random(0, 9, 4))
        raise RuntimeError


def test_a_failed_write_leaves_nothing_that_opens(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        _fail_half_way(tmp_path / "s")

    with pytest.raises(StoreError):
        VectorSegment.open(tmp_path / "s")
