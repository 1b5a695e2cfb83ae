"""Rows of equal score are ordered and cut off as their chunks' ids say, whatever came first."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest

from penstock.index import Index, IndexManifest, Query, update_index

_NUM = 240
_KINDS = 3  # distinct texts and vectors: each stands in a third of the rows
_VECTORS = np.eye(_KINDS, 4, dtype=np.float32)


def _batch(first_row: int, chunks: Iterable[int]) -> pa.RecordBatch:
    """Rows from `first_row` on; a chunk's number decides all of it but the row id."""
    numbers = list(chunks)
    texts = [("apple", "apple pear", "pear plum")[number % _KINDS] for number in numbers]
    flat = np.concatenate([_VECTORS[number % _KINDS] for number in numbers])
    nothing = pa.array([""] * len(numbers), pa.string())
    return pa.record_batch(
        {
            "row_id": pa.array(range(first_row, first_row + len(numbers)), pa.uint64()),
            "title": nothing,
            "heading_path": nothing,
            "text": pa.array(texts, pa.large_string()),
            "doc_id": pa.array([f"doc{number}" for number in numbers]),
            "chunk_id": pa.array([f"doc{number}#0" for number in numbers]),
            "media_type": nothing,
            "metadata": pa.array(["{}"] * len(numbers)),
            "start": pa.array([0] * len(numbers), pa.int64()),
            "end": pa.array([1] * len(numbers), pa.int64()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), 4),
        }
    )


def _found(index: Index, k: int, query: Query) -> list[tuple[str, float]]:
    hits = index.search(query, k)
    rows = index.passages([hit.position for hit in hits])
    return [(row["chunk_id"], hit.score) for row, hit in zip(rows, hits, strict=True)]


@pytest.fixture(scope="module")
def indices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Index]:
    """The same chunks: at once in their order, and in four segments in another one."""
    folder = tmp_path_factory.mktemp("fresh")
    fresh = Index.open(folder, update_index(folder, None, "r", [], [_batch(0, range(_NUM))]))
    folder = tmp_path_factory.mktemp("history")
    manifest: IndexManifest | None = None
    order = np.random.default_rng(1).permutation(_NUM).tolist()
    first = 0
    for run, size in enumerate((180, 40, 15, 5)):
        batch = _batch(first, order[first : first + size])
        manifest = update_index(folder, manifest, f"r{run}", [], [batch])
        first += size
    assert manifest is not None
    assert len(manifest.segments) > 1
    return fresh, Index.open(folder, manifest)


@pytest.mark.parametrize("fusion", ["weighted", "rrf"])
@pytest.mark.parametrize("mode", ["hybrid", "vector", "words"])
@pytest.mark.parametrize("k", [1, 7, 60, _NUM])
def test_equal_scores_are_cut_off_and_ordered_whatever_came_first(
    indices: tuple[Index, Index], mode: str, fusion: str, k: int
) -> None:
    fresh, history = indices
    vector = np.array([0.5, 0.5, 0.1, 0.0], np.float32)
    query = Query(text="apple", vector=vector, mode=mode, fusion=fusion)  # type: ignore[arg-type]

    found = _found(history, k, query)

    assert len(found) == min(k, 160 if mode == "words" else _NUM)
    assert found == _found(fresh, k, query)
    assert found == _found(fresh, _NUM, query)[:k]
