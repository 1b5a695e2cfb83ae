"""What is asked of an index, and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from penstock.errors import QueryError
from penstock.vectors import SegmentPlan

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

Mode = Literal["hybrid", "vector", "words"]
Fusion = Literal["weighted", "rrf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One row that was found.

    Attributes:
        row_id: The chunk's row id.
        position: Its place, counted through the segments; for `Index.passages`.
        score: What the hits are ordered by; comparable within one search only.
        vector_score: Inner product with the query; None in mode "words", or
            where the row has no vector.
        words_score: BM25; None in mode "vector"; 0 where no word occurs.
    """

    row_id: int
    position: int
    score: float
    vector_score: float | None
    words_score: float | None


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked of an index.

    Attributes:
        text: The query's words; needed but for mode "vector".
        vector: The query's vector, (dim,); needed but for mode "words".
        mode: Which sides count.
        allowed: The only rows that may be found, from `Index.filter`; None for
            all. It holds before the best are taken.
        fusion: How the sides are joined in mode "hybrid".
        alpha: Weight of the vector side in [0, 1] for "weighted"; None for one
            per query, `fusion.adaptive_alpha`.
        typos: Wrong letters forgiven in a word that is not in the index: 0, 1 or 2.
        effort: Multiplies how much of large segments of vectors is read.
    """

    text: str | None = None
    vector: npt.ArrayLike | None = None
    mode: Mode = "hybrid"
    allowed: Filter | None = None
    fusion: Fusion = "weighted"
    alpha: float | None = None
    typos: int = 0
    effort: float = 1.0


@dataclass(frozen=True, slots=True)
class Filter:
    """Rows that may be found.

    Attributes:
        masks: Per segment (num_rows,) bool, False for deleted rows; None for every row.
        counts: Per segment how many rows that is.
    """

    masks: tuple[Mask | None, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a search was done.

    Attributes:
        mode: Which sides counted.
        fusion: How they were joined; None for one side.
        alpha: Weight of the vector side; None unless it counted.
        rows: Rows in the index.
        allowed: Those that might be found.
        selectivity: Their share of all rows.
        candidates: Rows that were scored on every side that counts.
        estimated_recall: Expected share of the true best vectors among those
            found, by the calibration of the segments; 1.0 where exact, None for words.
        segments: How each segment's vectors were searched.
    """

    mode: Mode
    fusion: Fusion | None
    alpha: float | None
    rows: int
    allowed: int
    selectivity: float
    candidates: int
    estimated_recall: float | None
    segments: tuple[SegmentPlan, ...]


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides' scores of the candidates of one query.

    Attributes:
        positions: Of the candidates, (num_candidates,) int64, ascending.
        row_ids: Their row ids, (num_candidates,) uint64.
        keys: What puts equal scores in order, (num_candidates,) uint64.
        vector: Inner products, (num_candidates,) float64; NaN where a row has no vector.
        words: BM25, (num_candidates,) float64; 0 where no word occurs.
        in_vector: Which the vector side found, (num_candidates,) bool.
        in_words: Which the words' side found.
    """

    positions: I64
    row_ids: U64
    keys: U64
    vector: F64
    words: F64
    in_vector: Mask
    in_words: Mask


def check(query: Query) -> None:
    """Look at what a query says by itself.

    Raises:
        QueryError: An argument is out of range or missing.
    """
    if query.mode not in ("hybrid", "vector", "words"):
        raise QueryError(f"mode={query.mode!r}", "expected 'hybrid', 'vector' or 'words'")
    if query.fusion not in ("weighted", "rrf"):
        raise QueryError(f"fusion={query.fusion!r}", "expected 'weighted' or 'rrf'")
    if query.alpha is not None and not 0 <= query.alpha <= 1:
        raise QueryError(f"alpha={query.alpha!r}", "expected a weight in [0, 1]")
    if query.typos not in (0, 1, 2):
        raise QueryError(f"typos={query.typos!r}", "expected 0, 1 or 2")
    if query.text is None and query.mode != "vector":
        raise QueryError(f"mode={query.mode!r}", "needs the query's text; or use mode='vector'")
