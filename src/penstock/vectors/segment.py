"""An open segment of vectors: the planner, and the searches it chooses between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from penstock.cores import num_cores
from penstock.vectors.calibrate import Curves, measure_lists
from penstock.vectors.files import VECTORS, Facts, map_array, read_facts, write_facts
from penstock.vectors.graph import Graph, build_graph
from penstock.vectors.lists import Lists, build_lists, num_lists
from penstock.vectors.plan import F16, F32, I64, Found, Mask, SegmentPlan
from penstock.vectors.settings import VectorSettings
from penstock.vectors.threads import in_threads

FLAT_ROWS = 4096
"""With fewer vectors `auto` is flat."""

_BITS_FROM = 128  # dimensions: see `VectorSettings.codes`

# What the planner weighs, in ns at 384 dimensions on one core; only the ratios matter.
_GATHER_NS = 27.0  # a row scored from float16 where it lies
_AGAIN_NS = 200.0  # the same for a candidate, whose row is in no cache
_LIST_NS = 8.0  # a list put in order
_CODE_NS = {"sq8": 40.0, "rabitq": 5.5}  # a row scored by its code
_LOOK_NS = 5.0  # a row asked whether it is allowed, and then:
_SOME_NS = {"sq8": 40.0, "rabitq": 24.0}  # scored, if it is
_FEW = 0.1  # share of rows that may be left out of what was found, rather than asked of each
_ROWS_A_STEP = 20  # rows that a graph's walk scores for each of its ef

# Rows scored again from float16: so many, and so many for each one wanted.
_DEPTH = {"sq8": (60, 4), "rabitq": (80, 5)}

_EVERY = np.empty(0, np.uint8)
_EVERY.flags.writeable = False


def build_search(folder: Path, settings: VectorSettings | None = None, *, seed: int = 0) -> None:
    """Make what the settings ask for beside the vectors of a closed `VectorWriter`.

    Call it once, after the writer's `with` and before `Vectors.open`. Left out,
    the segment is searched flat.

    Guarantees: the same vectors, settings and seed give the same files, but for HNSW.
    """
    settings = settings or VectorSettings()
    facts = read_facts(folder)
    kind = settings.kind
    if kind == "auto":
        kind = "flat" if facts.num_vectors < FLAT_ROWS else "ivf"
    total = num_lists(facts.num_vectors)
    if kind == "flat" or total < 2:
        return
    halves = _open_halves(folder, facts)
    if kind == "hnsw":
        write_facts(folder, build_graph(folder, halves, facts, seed))
        return
    codes = settings.codes
    if codes == "auto":
        codes = "rabitq" if facts.dim >= _BITS_FROM else "sq8"
    lists_of = build_lists(folder, halves, codes, seed, total)
    centres = map_array(folder / "centres.npy", np.uint16, (total + 1, facts.dim))
    efforts, recall = measure_lists(halves, centres, lists_of, seed)
    blocks = int(np.load(folder / "firsts.npy")[-1])
    facts = replace(facts, kind="ivf", codes=codes, lists=total, blocks=blocks)
    write_facts(folder, replace(facts, efforts=efforts, recall=recall))


def _open_halves(folder: Path, facts: Facts) -> Any:
    halves = map_array(folder / VECTORS, np.float16, (facts.num_rows, facts.dim))
    return halves.view(np.uint16)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What all queries of one call share: the plan.

    Attributes:
        kind: `flat`, `gather`, `ivf` or `hnsw`.
        count: Rows allowed.
        k: How many rows to find.
        allowed: (num_rows,) uint8, or empty for every row.
        places: The allowed rows (int32), where they are gathered.
        probes: Lists to read at least, or HNSW's ef.
        mask: What `allowed` is made from.
        least_allowed: Codes to score at least.
        most_allowed: Codes to score at most; gathering the allowed rows is cheaper than more.
        depth: Candidates to score again.
    """

    kind: str
    count: int
    k: int
    allowed: Any = None
    places: Any = None
    mask: Mask | None = None
    probes: int = 0
    least_allowed: int = 0
    most_allowed: int = 0
    depth: int = 0


@dataclass(frozen=True)
class Vectors:
    """The vectors of one segment, open for reading; any number of threads may search at once.

    Attributes:
        folder: Where the files lie.
        facts: What is known of the segment.
        halves: (num_rows, dim) uint16, the bits of float16, mapped.
        lists: Its lists, where it has any.
        graph: Its HNSW graph, where it has one.
        curves: Its calibration, where it has lists or a graph.
        plans: How to search all rows, by k, aim and effort, as they were asked for.
    """

    folder: Path
    facts: Facts
    halves: Any
    lists: Lists | None = None
    graph: Graph | None = None
    curves: Curves | None = None
    plans: dict[tuple[int, int, float], _Asked] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a segment's files without reading them.

        Raises:
            StoreError: A file is missing, short or damaged; the error names it.
        """
        facts = read_facts(folder)
        halves = _open_halves(folder, facts)
        if facts.kind == "ivf":
            return cls(
                folder, facts, halves, lists=Lists.open(folder, facts), curves=Curves.of(facts)
            )
        if facts.kind == "hnsw":
            graph = Graph.open(folder, facts)
            return cls(folder, facts, halves, graph=graph, curves=Curves.of(facts))
        return cls(folder, facts, halves)

    @property
    def num_rows(self) -> int:
        """Rows in the segment, with and without a vector."""
        return self.facts.num_rows

    @property
    def num_vectors(self) -> int:
        """Rows that have a vector."""
        return self.facts.num_vectors

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.facts.dim

    @property
    def kind(self) -> str:
        """How the segment is searched: `flat`, `ivf` or `hnsw`."""
        return self.facts.kind

    def search(
        self,
        query: F32,
        k: int,
        allowed: Mask | None = None,
        *,
        num_allowed: int | None = None,
        aim: int | None = None,
        effort: float = 1.0,
        exact: bool = False,
    ) -> Found:
        """The k rows of highest inner product with the query, among the allowed ones.

        Args:
            query: (dim,) float32, finite.
            k: How many; fewer come back only where fewer are allowed.
            allowed: (num_rows,) bool, or None for every row.
            num_allowed: How many are True, if the caller knows.
            aim: How many of the best are to be found reliably; k by default. The others are
                the best of what is met on the way.
            effort: Multiplies how much of the lists is read: above 1 for more recall.
            exact: Score every allowed row.

        Guarantees: a score depends on the query and the row's float16 vector
            alone; equal vectors tie, bit for bit, and the lower place comes first.
        """
        assert query.shape == (self.dim,), (query.shape, self.dim)
        aim = k if aim is None else min(aim, k)
        if allowed is not None and self.graph is None and not exact:
            if num_allowed is None:
                num_allowed = int(np.count_nonzero(allowed))
            found = self._search_nearly_all(query, k, allowed, num_allowed, effort, aim)
            if found is not None:
                return found
        if allowed is None and not exact:  # a plan is a twentieth of the time
            asked = self.plans.get((k, aim, effort)) or self.plans.setdefault(
                (k, aim, effort), self._ask(k, None, None, effort, False, aim)
            )
        else:
            asked = self._ask(k, allowed, num_allowed, effort, exact, aim)
        query = np.array(query, np.float32)
        if asked.kind == "flat":
            return self._find(query[None], asked)[0]
        return self._find_one(query, asked)

    def _search_nearly_all(
        self, query: F32, k: int, allowed: Mask, num_allowed: int, effort: float, aim: int
    ) -> Found | None:
        """Leave out of the best of all rows those few that are not allowed; None if that fails.

        So it is after some rows were deleted. To ask of each row whether it is allowed would
        take twice the time.
        """
        gone = self.num_rows - num_allowed
        if not 0 < gone <= _FEW * self.num_rows or k >= num_allowed:
            return None
        # A multiple of 8, so that a few deletions more are the same plan.
        more = -(-(k + k * gone // num_allowed * 2 + 4) // 8) * 8
        found = self.search(query, min(more, self.num_rows), aim=aim, effort=effort)
        kept = np.flatnonzero(allowed[found.places])[:k]
        if len(kept) < k:
            return None
        done = found.plan
        plan = SegmentPlan(  # `replace` takes seven times as long
            kind=done.kind,
            rows=done.rows,
            allowed=num_allowed,
            selectivity=num_allowed / self.num_rows,
            lists=done.lists,
            probes=done.probes,
            codes_scanned=done.codes_scanned,
            rescored=done.rescored,
            estimated_recall=done.estimated_recall,
        )
        return Found(found.scores[kept], found.places[kept], plan)

    def search_many(
        self,
        queries: F32,
        k: int,
        allowed: Mask | None = None,
        *,
        num_allowed: int | None = None,
        effort: float = 1.0,
        exact: bool = False,
    ) -> list[Found]:
        """What `search` finds for each of `queries`, (num_queries, dim), on all cores."""
        asked = self._ask(k, allowed, num_allowed, effort, exact, k)
        queries = _checked(queries, self.dim)
        size = min(32, -(-len(queries) // num_cores())) or 1
        starts = range(0, len(queries), size)
        parts = in_threads(lambda start: self._find(queries[start : start + size], asked), starts)
        return [found for part in parts for found in part]

    def scores(self, query: F32, places: I64) -> F32:
        """Inner product of the query (dim,) with each row at `places`; NaN without a vector."""
        from penstock.kernels import vectors as kernels

        assert query.shape == (self.dim,), (query.shape, self.dim)
        assert len(places) == 0 or (places.min() >= 0 and places.max() < self.num_rows)
        scores = np.empty(len(places), np.float32)
        query = np.array(query, np.float32)
        kernels.scores_of(query, self.halves, np.array(places, np.int64), scores)
        return scores

    def read(self, places: I64) -> F16:
        """The vectors at `places` as stored, (num_places, dim) float16; NaN without a vector."""
        rows: F16 = self.halves.view(np.float16)[places]
        return rows

    def blocks(
        self, keep: Mask | None = None, order: I64 | None = None, block_rows: int = 16_384
    ) -> Iterator[F16]:
        """The rows as they are stored, a block at a time, to be written into another segment.

        Args:
            keep: (num_rows,) bool: which rows; None for all.
            order: Places in the order wanted (then `keep` looks at them too); None for ascending.
            block_rows: Rows looked at for a block.
        """
        stored: F16 = self.halves.view(np.float16)
        for start in range(0, self.num_rows if order is None else len(order), block_rows):
            part = slice(start, start + block_rows)
            if order is not None:
                places = order[part]
                rows = stored[places if keep is None else places[keep[places]]]
            else:
                rows = stored[part] if keep is None else stored[part][keep[part]]
            if len(rows):
                yield rows

    def _ask(
        self,
        k: int,
        allowed: Mask | None,
        num_allowed: int | None,
        effort: float,
        exact: bool,
        aim: int,
    ) -> _Asked:
        """Plan a search: count the allowed rows, weigh what each way would cost."""
        rows = self.num_rows
        if allowed is not None:
            assert allowed.shape == (rows,), (allowed.shape, rows)
            if num_allowed is None:
                num_allowed = int(np.count_nonzero(allowed))
            if num_allowed == rows:
                allowed = None
        count = rows if allowed is None or num_allowed is None else num_allowed
        k = min(k, count)
        if k <= 0 or self.num_vectors == 0:
            return _Asked("flat", count, 0)
        exactly = _Asked("flat", count, k)
        if allowed is not None:
            exactly = _Asked("gather", count, k, places=None)
        if self.curves is None or exact:
            return _gather(exactly, allowed)
        share = count / rows
        probes = self.curves.probes(min(k, aim) / share, share, effort)
        if self.graph is not None:
            return self._ask_graph(exactly, allowed, probes)
        lists, wide = self.facts.lists, (self.dim + 64) / 448
        probes = min(probes, lists)
        depth = min(2 * count, max(2 * k, self._depth(min(k, aim), effort)))
        scanned = 2 * self.num_vectors * probes / lists  # a row lies in two of them
        code = _CODE_NS[self.facts.codes]
        if allowed is not None:
            code = _LOOK_NS + min(share * _SOME_NS[self.facts.codes], code)
        cost = (lists * _LIST_NS + scanned * code) * wide + depth * _AGAIN_NS
        gather = count * _GATHER_NS * wide
        if gather <= cost:
            return _gather(exactly, allowed)
        return _Asked(
            "ivf",
            count,
            k,
            mask=allowed,
            allowed=_EVERY if allowed is None else _bytes(allowed),
            probes=probes,
            least_allowed=0 if allowed is None else int(scanned * share),
            most_allowed=0 if allowed is None else int(gather / (code * wide) * share),
            depth=depth,
        )

    def _depth(self, k: int, effort: float) -> int:
        """How many candidates to score again: a bit's error shrinks with the root of the width."""
        base, each = _DEPTH[self.facts.codes]
        wider = max(1.0, effort)
        if self.facts.codes == "rabitq":
            wider *= max(1.0, (384 / self.dim) ** 0.5)
        return max(2 * k, round((base + each * k) * min(wider, self.num_rows)))

    def _ask_graph(self, exactly: _Asked, allowed: Mask | None, ef: int) -> _Asked:
        """Weigh the walk, which asks some 20 rows for each of its ef, against scoring them all."""
        base, each = _DEPTH["sq8"]
        depth = min(exactly.count, max(exactly.k, base + each * exactly.k))
        ef = max(ef, depth)
        if exactly.count <= ef * _ROWS_A_STEP:
            return _gather(exactly, allowed)
        seen = _EVERY if allowed is None else _bytes(allowed)
        return replace(exactly, kind="hnsw", allowed=seen, probes=ef, depth=depth)

    def _find(self, queries: F32, asked: _Asked) -> list[Found]:
        if asked.kind != "flat":
            return [self._find_one(query, asked) for query in queries]
        from penstock.kernels import vectors as kernels

        scores = np.empty((len(queries), asked.k), np.float32)
        places = np.empty((len(queries), asked.k), np.int64)
        sizes = np.zeros(len(queries), np.int64)
        if asked.k > 0:
            kernels.best_of_all(queries, self.halves, scores, places, sizes)
        plan = self._plan(asked, 0, 0, 0)
        return [Found(scores[i, :n], places[i, :n], plan) for i, n in enumerate(sizes.tolist())]

    def _find_one(self, query: F32, asked: _Asked) -> Found:
        from penstock.kernels import vectors as kernels

        scores, places = np.empty(asked.k, np.float32), np.empty(asked.k, np.int64)
        probes, scanned, rescored = 0, 0, 0
        if asked.kind == "gather":
            size = kernels.best_of(query, self.halves, asked.places, scores, places)
        elif asked.kind == "ivf":
            lists, seen = self.lists, np.empty(3, np.int64)
            assert lists is not None
            size = kernels.search_lists(
                query,
                self.halves,
                lists.centres,
                lists.centre_blocks,
                lists.signs,
                lists.spread,
                lists.firsts,
                lists.blocks,
                asked.allowed,
                asked.probes,
                asked.least_allowed,
                asked.most_allowed,
                asked.depth,
                scores,
                places,
                seen,
            )
            if size < 0:  # the allowed rows lie too far from the query for lists to help
                return self._find_one(query, _gather(replace(asked, kind="gather"), asked.mask))
            probes, scanned, rescored = seen.tolist()
        else:
            near = self._walk(query, asked)
            size = kernels.best_of(query, self.halves, near, scores, places)
            probes, rescored = asked.probes, len(near)
        plan = self._plan(asked, probes, scanned, rescored)
        return Found(scores[:size], places[:size], plan)

    def _walk(self, query: F32, asked: _Asked) -> Any:
        """Candidates from the graph, or every allowed row where it finds too few."""
        assert self.graph is not None
        near = self.graph.candidates(query, asked.depth, asked.probes, asked.allowed)
        if len(near) < asked.k:  # the walk ended among rows that are not allowed
            near = np.arange(self.num_rows, dtype=np.int32)
            if len(asked.allowed):
                near = near[asked.allowed.view(np.bool_)]
        return near

    def _plan(self, asked: _Asked, probes: int, scanned: int, rescored: int) -> SegmentPlan:
        rows = self.num_rows
        share = asked.count / rows if rows else 0.0
        recall = 1.0
        if self.curves is not None and probes:
            recall = self.curves.expected(asked.k / share, share, probes)
        return SegmentPlan(
            kind=asked.kind,
            rows=rows,
            allowed=asked.count,
            selectivity=share,
            lists=self.facts.lists,
            probes=probes,
            codes_scanned=scanned,
            rescored=rescored,
            estimated_recall=recall,
        )


def _gather(asked: _Asked, allowed: Mask | None) -> _Asked:
    """The same with the places of the allowed rows, where not every row is."""
    from penstock.kernels import vectors as kernels

    if allowed is None:
        return asked
    mask = _bytes(allowed)
    places = np.empty(asked.count, np.int32)
    found = kernels.places_of(mask[: len(mask) // 8 * 8].view(np.uint64), mask, places)
    assert found == asked.count, "num_allowed is the number of rows allowed"
    return replace(asked, places=places)


def _bytes(mask: Mask) -> Any:
    """The mask as read-only uint8: one type for the kernel, which is compiled for each."""
    seen = np.ascontiguousarray(mask).view(np.uint8)
    seen.flags.writeable = False
    return seen


def _checked(queries: F32, dim: int) -> F32:
    assert queries.shape == (len(queries), dim), (queries.shape, dim)
    return np.array(queries, np.float32, order="C")


def measure_recall(
    vectors: Vectors,
    queries: F32,
    allowed: Mask | None = None,
    k: int = 10,
    *,
    effort: float = 1.0,
) -> float:
    """Share of the true k best rows that `search` finds, mean over the queries, in [0, 1].

    A found row counts if it scores at least what the true k-th does, so ties are no miss.

    Args:
        vectors: The segment.
        queries: (num_queries, dim) float32.
        allowed: (num_rows,) bool, or None for every row.
        k: How many rows of each query.
        effort: As `Vectors.search` takes it.
    """
    found = vectors.search_many(queries, k, allowed, effort=effort)
    true = vectors.search_many(queries, k, allowed, exact=True)
    shares = [
        float((some.scores >= best.scores[-1]).sum()) / len(best.scores)
        for some, best in zip(found, true, strict=True)
        if len(best.scores)
    ]
    return sum(shares) / len(shares) if shares else 1.0
