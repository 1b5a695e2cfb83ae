"""A segment's HNSW graph, by Faiss: for a store that is read far more than written."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from penstock.cores import num_cores
from penstock.vectors.calibrate import DEPTHS, draw_questions
from penstock.vectors.files import Facts, damaged, map_array
from penstock.vectors.plan import F32, I64
from penstock.vectors.threads import faiss_threads

_FILE = "graph.faiss"
_LINKS = 16  # to neighbours of a row, on each layer but the lowest, which has twice as many
_WIDTH = 100  # candidates while building: 200 took twice as long for 0.003 of recall
_SAMPLE = 65_536
_BLOCK = 16_384
_EFS = (16, 32, 64, 128, 256, 512, 1024, 2048)


def build_graph(folder: Path, halves: Any, facts: Facts, seed: int) -> Facts:
    """Write the graph of all rows that have a vector; what is then known of the segment.

    Cost: some 0.3 ms a row and core at 200k x 384, twenty times what lists cost.
    """
    faiss = _faiss()
    rows = halves.view(np.float16)
    slots = np.nonzero(~np.isnan(rows[:, 0]))[0].astype(np.int32)
    kind = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexHNSWSQ(facts.dim, kind, _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _WIDTH
    rng = np.random.default_rng(seed)
    with faiss_threads(num_cores()):
        sample = np.sort(rng.permutation(slots)[:_SAMPLE])
        index.train(rows[sample].astype(np.float32))
        for start in range(0, len(slots), _BLOCK):
            index.add(rows[slots[start : start + _BLOCK]].astype(np.float32))
    np.save(folder / "slots.npy", slots)
    faiss.write_index(index, str(folder / _FILE))
    efforts, recall = _measure(index, halves, slots, rng)
    return replace(
        facts,
        kind="hnsw",
        efforts=efforts,
        recall=recall,
        faiss=faiss.__version__,
        graph_bytes=(folder / _FILE).stat().st_size,
    )


def _measure(
    index: Any, halves: Any, slots: Any, rng: np.random.Generator
) -> tuple[list[int], list[list[float]]]:
    """What share of the best 10, 100 and 1000 rows a walk returns, by its ef."""
    faiss = _faiss()
    queries, true = draw_questions(halves, slots, rng)
    recall: list[list[float]] = [[] for _ in DEPTHS]
    with faiss_threads(num_cores()):
        for ef in _EFS:
            params = faiss.SearchParametersHNSW(efSearch=ef)
            found = index.search(queries, min(ef, len(slots)), params=params)[1]
            for at, best in enumerate(DEPTHS):
                hits = [
                    np.isin(some[:best], slots[ids[ids >= 0]]).mean()
                    for some, ids in zip(true, found, strict=True)
                ]
                recall[at].append(round(float(np.mean(hits)), 4))
    return list(_EFS), recall


@dataclass(frozen=True)
class Graph:
    """A mapped graph.

    Attributes:
        index: Faiss's index; its ids count the rows that have a vector.
        slots: The place of each, (num_vectors,) int32.
    """

    index: Any
    slots: Any

    @classmethod
    def open(cls, folder: Path, facts: Facts) -> Self:
        """Map the files.

        Raises:
            StoreError: A file is missing, short or damaged.
        """
        faiss = _faiss()
        path = folder / _FILE
        slots = map_array(folder / "slots.npy", np.int32, (facts.num_vectors,))
        try:
            size = path.stat().st_size
            if size != facts.graph_bytes:
                raise ValueError(f"it has {size} bytes, expected {facts.graph_bytes}")
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except (OSError, ValueError, RuntimeError) as err:
            raise damaged(path, err) from err
        return cls(index, slots)

    def candidates(self, query: F32, count: int, ef: int, allowed: Any) -> I64:
        """Places of up to `count` rows near the query, among the allowed ones (empty: all)."""
        faiss = _faiss()
        selector, bits = None, None
        if len(allowed):
            # The selector keeps only a pointer: `bits` must live until the search is over.
            bits = np.packbits(allowed[self.slots].view(np.bool_), bitorder="little")
            selector = faiss.IDSelectorBitmap(len(self.slots), faiss.swig_ptr(bits))
        params = faiss.SearchParametersHNSW(efSearch=max(ef, count), sel=selector)
        with faiss_threads(1):
            ids = self.index.search(query[None], count, params=params)[1][0]
        places: I64 = self.slots[ids[ids >= 0]]
        return places


def _faiss() -> Any:
    """Faiss as an untyped module: its stubs lack some of its classes."""
    return importlib.import_module("faiss")
