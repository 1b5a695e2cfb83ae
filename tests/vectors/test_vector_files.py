"""The files of a segment's vectors: written, copied, damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from penstock.errors import ConfigError, FormatError, StoreError
from penstock.vectors import Vectors, VectorSettings, VectorWriter, build_search


def some(num_rows: int, dim: int = 12) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(num_rows, dim)).astype(np.float32)


def test_what_was_written_in_pieces_reads_back_as_float16(tmp_path: Path) -> None:
    rows = some(1000)
    with VectorWriter(tmp_path / "v", 12) as writer:
        for start in range(0, 1000, 333):
            writer.add(rows[start : start + 333])
        assert (writer.num_rows, writer.num_vectors) == (1000, 1000)

    vectors = Vectors.open(tmp_path / "v")

    assert (vectors.num_rows, vectors.num_vectors, vectors.dim) == (1000, 1000, 12)
    assert vectors.read(np.arange(1000)).tobytes() == rows.astype(np.float16).tobytes()


def test_a_row_with_any_nan_has_no_vector(tmp_path: Path) -> None:
    rows = some(5)
    rows[1, 3], rows[4] = np.nan, np.nan
    with VectorWriter(tmp_path / "v", 12) as writer:
        writer.add(rows)
    vectors = Vectors.open(tmp_path / "v")

    assert vectors.num_vectors == 3
    assert np.isnan(vectors.read(np.array([1, 4]))).all()
    assert np.isnan(vectors.scores(rows[0], np.array([0, 1, 4]))).tolist() == [False, True, True]
    assert sorted(vectors.search(rows[0], 9).places.tolist()) == [0, 2, 3]


@pytest.mark.parametrize("value", [1e5, np.inf, -np.inf], ids=["too-large", "inf", "minus-inf"])
def test_a_value_that_float16_cannot_hold_is_refused(tmp_path: Path, value: float) -> None:
    rows = some(3)
    rows[2, 1] = value
    with (
        pytest.raises(ConfigError, match="at most 65504"),
        VectorWriter(tmp_path / "v", 12) as writer,
    ):
        writer.add(rows)


def test_the_largest_values_of_float16_are_kept(tmp_path: Path) -> None:
    rows = np.full((2, 300), 65504, np.float32)
    with VectorWriter(tmp_path / "v", 300) as writer:
        writer.add(rows)

    assert Vectors.open(tmp_path / "v").num_vectors == 2


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_blocks_copy_the_rows_kept_in_the_order_wanted(tmp_path: Path, block_rows: int) -> None:
    rows = some(50)
    rows[3] = np.nan
    with VectorWriter(tmp_path / "v", 12) as writer:
        writer.add(rows)
    vectors = Vectors.open(tmp_path / "v")
    keep = np.arange(50) % 3 != 1
    order = np.random.default_rng(1).permutation(50)[:30]
    stored = vectors.read(np.arange(50))

    for kept, ordered, expected in (
        (None, None, stored),
        (keep, None, stored[keep]),
        (None, order, stored[order]),
        (keep, order, stored[order[keep[order]]]),
        (np.zeros(50, np.bool_), None, stored[:0]),
    ):
        blocks = list(vectors.blocks(kept, ordered, block_rows))
        found = np.concatenate([stored[:0], *blocks])

        assert found.tobytes() == expected.tobytes()
        assert all(0 < len(block) <= block_rows for block in blocks)


def test_float16_is_written_as_it_is(tmp_path: Path) -> None:
    rows = some(40)
    rows[7] = np.nan
    for name, block in (("one", rows), ("two", rows.astype(np.float16))):
        with VectorWriter(tmp_path / name, 12) as writer:
            writer.add(block)

    one, two = ((tmp_path / name / "vectors.npy").read_bytes() for name in ("one", "two"))
    assert one == two


FILES = {
    "flat": ["vectors.npy", "vectors.json"],
    "ivf": [
        "vectors.npy",
        "vectors.json",
        "centres.npy",
        "centre_blocks.npy",
        "firsts.npy",
        "signs.npy",
        "spread.npy",
        "blocks.npy",
    ],
    "hnsw": ["vectors.npy", "vectors.json", "slots.npy", "graph.faiss"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a segment of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    kinds: tuple[Literal["flat", "ivf", "hnsw"], ...] = ("flat", "ivf", "hnsw")
    for kind in kinds:
        with VectorWriter(folder / kind, 12) as writer:
            writer.add(some(600))
        build_search(folder / kind, VectorSettings(kind=kind, codes="sq8"))
    return folder


@pytest.mark.parametrize("harm", ["missing", "short", "empty", "other"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(kind, name, id=f"{kind}-{name}") for kind in FILES for name in FILES[kind]],
)
def test_a_damaged_file_is_named_with_the_command_that_helps(
    tmp_path: Path, whole: Path, kind: str, name: str, harm: str
) -> None:
    shutil.copytree(whole / kind, tmp_path / "v")
    path = tmp_path / "v" / name
    assert sorted(FILES[kind]) == sorted(found.name for found in (tmp_path / "v").iterdir())
    data = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes({"short": data[:-5], "empty": b"", "other": b"x" * len(data)}[harm])

    with pytest.raises(StoreError, match="penstock index rebuild") as caught:
        Vectors.open(tmp_path / "v")

    assert caught.value.place == str(path)


def test_a_newer_format_says_so(tmp_path: Path) -> None:
    with VectorWriter(tmp_path / "v", 12) as writer:
        writer.add(some(3))
    path = tmp_path / "v" / "vectors.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99, "new": 1}))

    with pytest.raises(FormatError, match="upgrade"):
        Vectors.open(tmp_path / "v")


def test_a_writer_that_failed_leaves_nothing_that_opens(tmp_path: Path) -> None:
    writer = VectorWriter(tmp_path / "v", 12)
    writer.add(some(3))
    writer.__exit__(RuntimeError, RuntimeError(), None)

    with pytest.raises(StoreError):
        Vectors.open(tmp_path / "v")
