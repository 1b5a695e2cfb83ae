"""Search a published index: vectors, words, or both joined.

A row is known here by its position: places count on through the segments in
their order. Positions turn into row ids where results leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from penstock.cores import num_cores
from penstock.errors import QueryError
from penstock.index import fusion as fuse
from penstock.index.manifest import IndexManifest
from penstock.index.query import Filter, Hit, Plan, Query, Sides, check
from penstock.index.rows import row_set
from penstock.index.segments import Segment
from penstock.index.update import open_segment
from penstock.vectors import SegmentPlan, Vectors
from penstock.words import WordsSearcher

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

CANDIDATES = 50
"""How many of each side are fused first. Measured on seven collections, nDCG@10 differs from that
of 100 by 0.4 % at most either way, 0.1 % on the average."""
AIM = 10
"""How many of the first candidates by vector are found as surely as in a search by vectors alone.
Of 200k chunks, the ten best of a hybrid search were 99.0 % those of an exact one; 99.7 % if all 50
are found so, for a quarter more time."""
_DEEPER = 10
"""How many times deeper each further look goes."""
_MORE_EQUALS = 8
"""How many times more rows are asked for while the last ones score the same."""


class _Column:
    """A uint64 of every row, in the segments' arrays, by position."""

    def __init__(self, parts: Sequence[U64], starts: I64) -> None:
        self._parts = [np.ascontiguousarray(part, np.uint64) for part in parts]
        self._addresses = np.array([part.ctypes.data for part in self._parts], np.int64)
        self._starts = starts

    def __call__(self, positions: I64) -> U64:
        if len(self._parts) == 1:
            return self._parts[0][positions]
        from penstock.kernels.fusing import gather

        values = np.empty(len(positions), np.uint64)
        gather(self._addresses, self._starts, positions, values)
        return values


class Index:
    """An open index. It never changes, and any number of threads may search it at once."""

    def __init__(self, manifest: IndexManifest, segments: Sequence[Segment]) -> None:
        self.manifest = manifest
        self.segments = tuple(segments)
        live = [segment.live for segment in self.segments]
        self._vectors = [segment.vectors for segment in self.segments]
        self._passages = [segment.passages for segment in self.segments]
        self._words = WordsSearcher(
            [segment.words for segment in self.segments], live, manifest.settings.words_settings()
        )
        self._starts = np.cumsum([0, *(len(segment.rows) for segment in self.segments)])
        self._everything = Filter(tuple(live), tuple(segment.num_live for segment in self.segments))
        self._ids = _Column([segment.rows for segment in self.segments], self._starts)
        self._aligned: tuple[U64, list[I64 | slice]] | None = None

    @classmethod
    def open(
        cls, folder: Path, manifest: IndexManifest, known: Mapping[Path, Segment] | None = None
    ) -> Self:
        """Map the files that a manifest names; nothing is read that is not searched.

        Args:
            folder: The index's folder.
            manifest: What to open.
            known: Segments that are open already, by their folder; their files are shared.

        Raises:
            StoreError: A file is missing or damaged.
        """
        opened = [open_segment(folder, segment, known) for segment in manifest.segments]
        return cls(manifest, opened)

    @cached_property
    def _keys(self) -> _Column:
        return _Column([segment.keys for segment in self.segments], self._starts)

    @property
    def num_rows(self) -> int:
        """Rows that can be found."""
        return sum(self._everything.counts)

    @cached_property
    def row_ids(self) -> U64:
        """Ids of all rows that can be found, ascending; (num_rows,) uint64."""
        none = np.empty(0, np.uint64)
        return row_set(np.concatenate([none, *(segment.live_rows for segment in self.segments)]))

    def filter(self, row_ids: U64, allowed: Mask) -> Filter:
        """Rows that may be found, for `Query.allowed`.

        Args:
            row_ids: The ids that are spoken of, (num_ids,) uint64, ascending; the
                same array in every call is quickest.
            allowed: Which of them, (num_ids,) bool. Rows not spoken of are not found.
        """
        masks: list[Mask] = []
        padded = np.append(allowed, False)
        for segment, where in zip(self.segments, self._alignment(row_ids), strict=True):
            mask = padded[where]
            masks.append(mask if segment.live is None else mask & segment.live)
        return Filter(tuple(masks), tuple(int(np.count_nonzero(mask)) for mask in masks))

    def _alignment(self, row_ids: U64) -> list[I64 | slice]:
        """Per segment, where each of its rows is in `row_ids`; its length where nowhere."""
        known = self._aligned
        if known is None or known[0] is not row_ids:
            places: list[I64 | slice] = []
            for segment in self.segments:
                where = np.searchsorted(row_ids, segment.rows)
                found = np.minimum(where, max(len(row_ids) - 1, 0))
                absent = row_ids[found] != segment.rows if len(row_ids) else np.True_
                where = np.where(absent, len(row_ids), where)
                first = int(where[0]) if len(where) else 0
                # A slice is copied forty times as fast.
                one_by_one = bool((where == np.arange(first, first + len(where))).all())
                places.append(slice(first, first + len(where)) if one_by_one else where)
            known = self._aligned = (row_ids, places)
        return known[1]

    def search(self, query: Query, k: int) -> list[Hit]:
        """The k best rows; fewer where there are fewer.

        Returns:
            Hits by score, high to low; equal scores in an order that the chunks' ids
            alone decide, so history does not. The first k of a search for more.

        Raises:
            QueryError: An argument is out of range, missing or of the wrong
                width, or the mode needs vectors and there are none.
        """
        if k <= 0:
            raise QueryError(f"k={k!r}", "expected at least 1")
        return list(islice(self.ranking(query, k), k))

    def search_many(self, queries: Sequence[Query], k: int) -> list[list[Hit]]:
        """What `search` finds for each query, using every core."""
        if len(queries) < 2 or num_cores() == 1:
            return [self.search(query, k) for query in queries]
        with ThreadPoolExecutor(num_cores()) as pool:
            return list(pool.map(lambda query: self.search(query, k), queries))

    def ranking(self, query: Query, k: int = 10) -> Iterator[Hit]:
        """Every row that answers the query, best first, found as it is asked for.

        Candidates are taken a tier at a time. Rows of a deeper tier come after
        all of the one before, so that hits do not move when more are asked for,
        and score no more than its last.

        Args:
            query: What is asked.
            k: How many will be looked at, as far as is known.
        """
        query = self._checked(query)
        listed: set[int] = set()
        ceiling = float("inf")
        for depth in self._depths(query, k):
            found, exhausted = self._tier(query, depth)
            new: list[int] = []
            least = ceiling
            for hit in self._hits(*found, listed, ceiling):
                new.append(hit.position)
                least = hit.score
                yield hit
            ceiling = least
            if exhausted:
                return
            listed.update(new)

    def explain(self, query: Query, k: int) -> Plan:
        """How the first k hits of a query are found."""
        query = self._checked(query)
        depth = next(self._depths(query, k))
        allowed = sum(self._allowed(query).counts)
        plans: list[SegmentPlan] = []
        recall: float | None = None
        if query.mode != "words":
            _, candidates, plans = self._best_vectors(query, depth)
            weight = sum(plan.allowed for plan in plans)
            shares = sum(plan.estimated_recall * plan.allowed for plan in plans)
            recall = shares / weight if weight else 1.0
        else:
            _, candidates = self._best_words(query, depth)
        alpha: float | None = None
        if query.mode == "hybrid":
            sides = self._sides(query, depth)
            candidates = sides.positions
            alpha = self._alpha(query, sides) if query.fusion == "weighted" else None
        return Plan(
            mode=query.mode,
            fusion=query.fusion if query.mode == "hybrid" else None,
            alpha=alpha,
            rows=self.num_rows,
            allowed=allowed,
            selectivity=allowed / self.num_rows if self.num_rows else 1.0,
            candidates=len(candidates),
            estimated_recall=recall,
            segments=tuple(plans),
        )

    def sides(self, query: Query, candidates: int = CANDIDATES) -> Sides:
        """Both sides' scores of the best candidates of either, for fusing in other ways."""
        return self._sides(self._checked(query), candidates)

    def _sides(self, query: Query, candidates: int) -> Sides:
        from penstock.kernels.fusing import join

        vector_scores, by_vector, _ = self._best_vectors(query, candidates)
        words_scores, by_words = self._best_words(query, candidates)
        size = len(by_vector) + len(by_words)
        positions, sides = np.empty(size, np.int64), np.empty((2, size))
        size = join(by_vector, vector_scores, by_words, words_scores, positions, *sides)
        positions, vector, words = positions[:size], *sides[:, :size]
        in_vector, in_words = ~np.isnan(vector), ~np.isnan(words)
        self._add_vector_scores(query, positions, vector)
        if len(by_words) == candidates:
            self._add_words_scores(query, positions, words)
        else:  # fewer than asked for: every other row is known to hold none of the words
            words[~in_words] = 0.0
        ids, keys = self._ids(positions), self._keys(positions)
        return Sides(positions, ids, keys, vector, words, in_vector, in_words)

    def nearest(self, query: Query, k: int, *, exact: bool = False) -> F64:
        """Scores of the k best vectors, high to low; `exact` looks at every one of them."""
        return self._best_vectors(self._checked(query), k, exact=exact)[0]

    def matches(self, text: str, allowed: Filter | None = None) -> U64:
        """Ids of the rows that hold a word of the text, ascending."""
        allowed = allowed or self._everything
        _, owners, places = self._words.search(text, max(1, self.num_rows), allowed.masks)
        return np.sort(self._ids(self._starts[owners] + places))

    def highlights(self, text: str, query: str) -> list[tuple[int, int]]:
        """Spans of characters of a text that answer the query's words."""
        return self._words.highlights(text, query)

    def passages(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """What hits show, in the order given.

        Raises:
            StoreError: A file is damaged.
        """
        owners, places = self._split(np.asarray(positions, np.int64))
        found: list[dict[str, Any]] = [{}] * len(positions)
        for i in np.unique(owners).tolist():
            here = np.flatnonzero(owners == i)
            rows = self._passages[i].get(places[here].tolist())
            for at, row in zip(here.tolist(), rows, strict=True):
                found[at] = row
        return found

    def position(self, row_id: int) -> int | None:
        """Where a row is; None if it cannot be found."""
        for start, segment in zip(self._starts.tolist(), self.segments, strict=False):
            places = segment.locate(np.array([row_id], np.uint64))
            if len(places):
                return int(start + places[0])
        return None

    def vector(self, position: int) -> F32 | None:
        """A row's vector, (dim,) float32; None without one."""
        owners, places = self._split(np.array([position], np.int64))
        vectors = self._vectors[int(owners[0])]
        found = None if vectors is None else vectors.read(places)[0].astype(np.float32)
        return None if found is None or np.isnan(found).any() else found

    def _depths(self, query: Query, k: int) -> Iterator[int]:
        """How deep each tier looks; of words alone, a deeper look changes nothing."""
        depth = {"hybrid": CANDIDATES, "vector": 10, "words": k}[query.mode]
        while True:
            yield depth
            depth *= _DEEPER

    def _tier(
        self, query: Query, depth: int
    ) -> tuple[tuple[F64, I64, F64 | None, F64 | None], bool]:
        """The best rows of this depth with their scores, and whether there are no others."""
        if query.mode == "words":
            scores, positions = self._best_words(query, depth)
            return (scores, positions, None, scores), len(positions) < depth
        allowed = sum(self._allowed(query).counts)
        if query.mode == "vector":
            scores, positions, _ = self._best_vectors(query, depth)
            return (scores, positions, scores, None), depth >= allowed
        sides = self._sides(query, depth)
        if query.fusion == "rrf":  # a side ranks only what it found itself
            vector = np.where(sides.in_vector, sides.vector, np.nan)
            words = np.where(sides.in_words, sides.words, np.nan)
            scores = fuse.rrf(vector, words, sides.keys)
        else:
            scores = fuse.weighted(sides.vector, sides.words, self._alpha(query, sides))
        return (scores, sides.positions, sides.vector, sides.words), depth >= allowed

    def _alpha(self, query: Query, sides: Sides) -> float:
        if query.alpha is not None:
            return query.alpha
        return fuse.adaptive_alpha(sides.words, self.num_rows)

    def _best_words(self, query: Query, k: int) -> tuple[F64, I64]:
        def search(k: int) -> tuple[F64, I64]:
            scores, owners, places = self._words.search(
                query.text or "", k, self._allowed(query).masks, typos=query.typos
            )
            return scores, self._starts[owners] + places

        return self._settled(search, k)

    def _best_vectors(
        self, query: Query, k: int, *, exact: bool = False
    ) -> tuple[F64, I64, list[SegmentPlan]]:
        aim = AIM if query.mode == "hybrid" and k == CANDIDATES else None
        scores, found = [np.empty(0, np.float64)], [np.empty(0, np.int64)]
        plans: list[SegmentPlan] = []
        allowed = self._allowed(query)
        for i, vectors in enumerate(self._vectors):
            assert vectors is not None
            asked: list[SegmentPlan] = []

            def search(
                k: int, i: int = i, vectors: Vectors = vectors, asked: list[SegmentPlan] = asked
            ) -> tuple[F64, I64]:
                best = vectors.search(
                    np.asarray(query.vector),
                    k,
                    allowed.masks[i],
                    num_allowed=allowed.counts[i],
                    aim=aim,
                    effort=query.effort,
                    exact=exact,
                )
                asked.append(best.plan)
                return best.scores.astype(np.float64), self._starts[i] + best.places

            best_scores, best_positions = self._settled(search, k)
            scores.append(best_scores)
            found.append(best_positions)
            plans.append(asked[0])
        if len(plans) == 1:
            return scores[1], found[1], plans
        values, positions = np.concatenate(scores), np.concatenate(found)
        order = self._order(values, positions)[:k]
        return values[order], positions[order], plans

    def _settled(self, search: Callable[[int], tuple[F64, I64]], k: int) -> tuple[F64, I64]:
        """The k best of a search that gives scores high to low, and equal ones in any order.

        Cost: one row more; where the k-th scores as the next does, all that score so.
        """
        asked = k + 1
        while True:
            scores, positions = search(asked)
            if len(scores) < asked or scores[-1] < scores[k - 1]:
                break
            asked *= _MORE_EQUALS
        if not _tied(scores):  # nearly always
            return scores[:k], positions[:k]
        order = fuse.best(scores, self._keys(positions))[:k]
        return scores[order], positions[order]

    def _order(self, scores: F64, positions: I64) -> I64:
        """Places of the scores, high to low; equal ones in order of their keys."""
        order: I64 = np.argsort(-scores, kind="stable")
        return fuse.best(scores, self._keys(positions)) if _tied(scores[order]) else order

    def _add_vector_scores(self, query: Query, positions: I64, scores: F64) -> None:
        """Put in the scores that are NaN, of ascending positions."""
        for i, part in self._parts(positions):
            vectors, some = self._vectors[i], scores[part]
            missing = np.flatnonzero(np.isnan(some))
            if vectors is not None and len(missing):
                places = positions[part][missing] - self._starts[i]
                some[missing] = vectors.scores(np.asarray(query.vector), places)

    def _add_words_scores(self, query: Query, positions: I64, scores: F64) -> None:
        """Put in the scores that are NaN, of ascending positions."""
        for i, part in self._parts(positions):
            some = scores[part]
            missing = np.flatnonzero(np.isnan(some))
            if len(missing):
                places = positions[part][missing] - self._starts[i]
                some[missing] = self._words.scores(query.text or "", i, places, typos=query.typos)

    def _parts(self, positions: I64) -> Iterator[tuple[int, slice]]:
        """The segments, and which of the ascending positions are in each."""
        if len(self.segments) == 1:
            yield 0, slice(None)
            return
        ends = np.searchsorted(positions, self._starts).tolist()
        for i, (start, end) in enumerate(pairwise(ends)):
            if start < end:
                yield i, slice(start, end)

    def _allowed(self, query: Query) -> Filter:
        return self._everything if query.allowed is None else query.allowed

    def _split(self, positions: I64) -> tuple[I64, I64]:
        """Segment and place of each position."""
        if len(self.segments) == 1:
            return np.zeros(len(positions), np.int64), positions
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        return owners, positions - self._starts[owners]

    def _hits(
        self,
        scores: F64,
        positions: I64,
        vector: F64 | None,
        words: F64 | None,
        listed: set[int],
        ceiling: float,
    ) -> Iterator[Hit]:
        """Hits in order of their scores, but for those `listed`, made as they are asked for."""
        ids = self._ids(positions)
        for i in self._order(scores, positions).tolist():
            position = int(positions[i])
            if position not in listed:
                by_vector = None if vector is None else float(vector[i])
                yield Hit(
                    row_id=int(ids[i]),
                    position=position,
                    score=min(float(scores[i]), ceiling),
                    vector_score=None if by_vector != by_vector else by_vector,  # NaN
                    words_score=None if words is None else float(words[i]),
                )

    def _checked(self, query: Query) -> Query:
        check(query)
        if query.mode == "words" or not self.num_rows:
            return query
        if not query.text and query.mode == "hybrid":
            query = replace(query, mode="vector")
        return replace(query, vector=self._query_vector(query))

    def _query_vector(self, query: Query) -> F32:
        dim, asked = self.manifest.dim, f"mode={query.mode!r}"
        if not dim:
            raise QueryError(asked, "this store has no vectors; search with mode='words'")
        if query.vector is None:
            raise QueryError(asked, "needs the query's vector; pass it, or use mode='words'")
        vector = np.ascontiguousarray(query.vector, np.float32)
        if vector.shape != (dim,):
            raise QueryError(
                "vector",
                f"expected shape ({dim},), found {vector.shape}; embed the query with "
                "the model that the store was built with",
            )
        if not np.isfinite(vector).all():
            raise QueryError("vector", "expected finite numbers, found NaN or infinity")
        return vector


def _tied(scores: F64) -> bool:
    """Whether two neighbours score the same."""
    return bool((scores[1:] == scores[:-1]).any())
