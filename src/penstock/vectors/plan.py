"""What a search of one segment did, and what it found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F16 = npt.NDArray[np.float16]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """How one segment was searched: what `explain=True` tells.

    Attributes:
        kind: `flat` (every row scored), `gather` (the allowed rows scored, one by one),
            `ivf` or `hnsw`.
        rows: Rows in the segment.
        allowed: Rows that the search might return.
        selectivity: Their share of the rows, in [0, 1].
        lists: Lists in the segment; 0 where it has none.
        probes: Lists that were read.
        codes_scanned: Rows that were scored by their codes.
        rescored: Rows that were scored from float16.
        estimated_recall: Expected share of the true best rows among those found, from the
            segment's calibration; 1.0 where the search was exact.
    """

    kind: str
    rows: int
    allowed: int
    selectivity: float
    lists: int = 0
    probes: int = 0
    codes_scanned: int = 0
    rescored: int = 0
    estimated_recall: float = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """The best rows of one segment.

    Attributes:
        scores: Inner products, (num_found,) float32, best first.
        places: Where those rows lie, (num_found,) int64; of equal scores the lower place first.
        plan: How they were found.
    """

    scores: F32
    places: I64
    plan: SegmentPlan
