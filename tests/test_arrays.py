"""Arrays come back from files as NumPy wrote them; anything else is refused."""

from pathlib import Path

import numpy as np
import pytest

from penstock.arrays import map_array


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint64),
        np.arange(12, dtype=np.float16).reshape(3, 4),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.uint8),
        np.array([True, False]),
    ],
    ids=["flat", "two-dimensions", "no-rows", "empty", "bool"],
)
def test_what_numpy_wrote_is_read(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)

    found = map_array(tmp_path / "a.npy")

    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)
    with pytest.raises(ValueError, match="read-only"):
        found[...] = 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(lambda data: data[:-1], "expected", id="short"),
        pytest.param(lambda data: data + b"x", "expected", id="long"),
        pytest.param(lambda data: b"", "too few", id="empty"),
        pytest.param(lambda data: b"junk" + data[4:], "begin", id="magic"),
        pytest.param(lambda data: data.replace(b"descr", b"disco"), "header", id="header"),
        pytest.param(lambda data: data.replace(b"False", b"True "), "Fortran", id="order"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: object, problem: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(9))
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]

    with pytest.raises(ValueError, match=problem):
        map_array(path)
