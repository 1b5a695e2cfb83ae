"""The files of a segment: (num_rows, dim) float16 written as a stream, arrays that are mapped."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from penstock import arrays
from penstock.errors import ConfigError, FormatError, StoreError
from penstock.vectors.plan import F16, F32

VECTORS = "vectors.npy"
_FACTS = "vectors.json"
_VERSION = 1
_REBUILD = "rebuild the index: penstock index rebuild"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What `vectors.json` says of a segment.

    Attributes:
        num_rows: Rows, with and without a vector.
        num_vectors: Rows with a vector.
        dim: Width of the vectors.
        kind: `flat`, `ivf` or `hnsw`.
        codes: What the lists hold, `sq8` or `rabitq`; empty without lists.
        lists: How many lists.
        blocks: How many blocks of 8 rows they fill.
        efforts: Numbers of probes (or of HNSW's ef) that were tried, ascending.
        recall: For each depth of `calibrate.DEPTHS`, the recall at each of `efforts`.
        faiss: Version of Faiss that wrote the graph; empty without one.
        graph_bytes: Length of the graph's file.
        version: Of this format.
    """

    num_rows: int
    num_vectors: int
    dim: int
    kind: str = "flat"
    codes: str = ""
    lists: int = 0
    blocks: int = 0
    efforts: list[int] = field(default_factory=list)
    recall: list[list[float]] = field(default_factory=list)
    faiss: str = ""
    graph_bytes: int = 0
    version: int = _VERSION


def write_facts(folder: Path, facts: Facts) -> None:
    """Put `vectors.json` in place, replacing it at once and whole."""
    new = folder / f"{_FACTS}.new"
    new.write_text(json.dumps(asdict(facts)) + "\n")
    os.replace(new, folder / _FACTS)


def read_facts(folder: Path) -> Facts:
    """Read `vectors.json`.

    Raises:
        StoreError: It is missing or is not what `write_facts` wrote.
        FormatError: A newer Penstock wrote it.
    """
    path = folder / _FACTS
    try:
        found = json.loads(path.read_text())
        if found["version"] > _VERSION:
            raise FormatError(str(path), "written by a newer Penstock: upgrade, or " + _REBUILD)
        return Facts(**found)
    except (OSError, ValueError, TypeError, KeyError) as err:
        raise damaged(path, err) from err


def damaged(path: Path, problem: object) -> StoreError:
    """The error for a file that is missing, short or not what was written."""
    return StoreError(str(path), f"this file of the index cannot be read ({problem}); {_REBUILD}")


class VectorWriter:
    """Write a segment's vectors as a stream; `with` closes the file with its true length.

    Args:
        folder: New folder, made here.
        dim: Width of the vectors, at least 1.

    Attributes:
        num_rows: Rows written so far.
        num_vectors: Those of them that have a vector.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        assert dim >= 1, "a segment of vectors has a width"
        folder.mkdir(parents=True)
        self.dim, self.num_rows, self.num_vectors = dim, 0, 0
        self._folder = folder
        self._file: BinaryIO = open(folder / VECTORS, "xb")  # noqa: SIM115 - closed by `with`
        self._write_header()

    def add(self, vectors: F32 | F16) -> None:
        """Append rows, (num_rows, dim) float32, or float16 straight from `Vectors.blocks`.

        A row that holds a NaN has no vector: it keeps its place and is never found.

        Raises:
            ConfigError: A value is beyond what float16 can hold, 65504.
        """
        assert vectors.shape == (len(vectors), self.dim), (vectors.shape, self.dim)
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(vectors, np.float16)
        # The sum of a row is finite unless a value is not, for 65504 times any width is.
        bad = ~np.isfinite(halves.sum(axis=1, dtype=np.float32))
        if bad.any():
            missing = np.isnan(vectors[bad]).any(axis=1)
            if not missing.all():
                largest = float(np.abs(vectors[bad][~missing]).max())
                problem = "the values of a vector must be finite and at most 65504: scale them"
                raise ConfigError("embedding", largest, problem)
            halves = halves.copy()
            halves[bad] = np.nan
        self._file.write(halves.data)
        self.num_rows += len(halves)
        self.num_vectors += len(halves) - int(bad.sum())

    def _write_header(self) -> None:
        # NumPy pads the header so that the first length can grow in place.
        self._file.seek(0)
        shape = (self.num_rows, self.dim)
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                self._write_header()
                facts = Facts(num_rows=self.num_rows, num_vectors=self.num_vectors, dim=self.dim)
                write_facts(self._folder, facts)


def map_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Any:
    """Map a .npy file, read-only, that must hold this type and shape; -1 is any length.

    Raises:
        StoreError: It is missing, short or holds something else.
    """
    try:
        array = arrays.map_array(path)
        fits = array.ndim == len(shape) and all(
            want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if array.dtype != np.dtype(dtype) or not fits:
            expected = f"expected {np.dtype(dtype)} {shape}"
            raise ValueError(f"it holds {array.dtype} {array.shape}, {expected}")
        return array
    except (OSError, ValueError) as err:
        raise damaged(path, err) from err
