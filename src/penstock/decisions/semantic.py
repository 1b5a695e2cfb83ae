"""Find documents that say nearly the same, by their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.cluster import KMeans, in_threads, nearest_cells
from penstock.cores import num_cores
from penstock.errors import ConfigError
from penstock.kernels import I64
from penstock.records import VERDICTS

F32 = npt.NDArray[np.float32]

_DECIDES = {"fingerprint": False}
_SAMPLE = 64  # points a cell that train the cells
_ROUNDS = 10
_ROOM = 1 << 20  # pairs that a thread collects before they are joined
_RESERVE = 1e-6  # a cosine may be off by so much: equal vectors reach eps=0


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticDedup:
    """Keep one of the documents whose embeddings point nearly the same way.

    In a flow it stands behind `Embed`; a document's vector is the mean of its chunks'
    vectors, and one without chunks stays. Chunks of what goes leave the index, and
    are remembered: when the document kept instead goes, its twin comes back as it was.

    Two vectors are linked if their cosine is at least ``1 - eps``. They are
    compared if one lies in one of the `probes` cells of k-means that are nearest to
    the other, so that pairs across a border are found; products are exact.
    A vector is never linked if it is null, zero or not finite.

    By the rule ``representative``, documents are taken in the order of `keep`; one
    stays unless it is linked with one that stays already. So whatever goes has
    a near twin that stays, and its score, the cosine with the nearest such twin,
    is never below the threshold. By the rule ``component``, one stays of all
    that are linked, directly or through others: of a long chain, too.

    Guarantees: which documents go is a function of the set of documents and vectors
        alone, not of their order or the number of threads.
    Cost: ``n * probes / clusters`` comparisons a document; memory: two copies of the vectors
        in float32 and some 150 bytes for each linked pair; equal vectors count once.

    Source: Abbas et al. 2023 (SemDeDup). Differs: cells overlap; a chain of pairs
        does not drop what is far from all that stays.
    """

    revision: ClassVar[int] = 1

    eps: float = field(default=0.07, metadata=_DECIDES)
    """Vectors are linked from a cosine of ``1 - eps`` on; in [0, 1)."""
    clusters: int | None = field(default=None, metadata=_DECIDES)
    """Cells of k-means; None: the square root of the number of documents."""
    probes: int = field(default=4, metadata=_DECIDES)
    """Nearest cells of each vector in which it is compared."""
    keep: Literal["first", "hardest", "easiest"] = field(default="first", metadata=_DECIDES)
    """Who is taken first: the smallest `doc_id`, or the farthest from or nearest to its centre."""
    rule_of_links: Literal["representative", "component"] = field(
        default="representative", metadata=_DECIDES
    )
    """What linked documents come to; see above."""
    seed: int = field(default=0, metadata=_DECIDES)
    """Of the sample and the start of k-means."""

    def __post_init__(self) -> None:
        if isinstance(self.eps, bool) or not isinstance(self.eps, (int, float)):
            raise _wrong("eps", self.eps, "must be a number from 0 to below 1")
        if not 0.0 <= self.eps < 1.0:
            raise _wrong("eps", self.eps, "must be from 0 to below 1")
        for name in ("clusters", "probes"):
            value = getattr(self, name)
            if value is None and name == "clusters":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise _wrong(name, value, "must be a whole number of at least 1")
        for name, known in (
            ("keep", ("first", "hardest", "easiest")),
            ("rule_of_links", ("representative", "component")),
        ):
            if getattr(self, name) not in known:
                raise _wrong(name, getattr(self, name), f"must be one of {', '.join(known)}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise _wrong("seed", self.seed, "must be a whole number from 0 to 2**32 - 1")
        if not 0 <= self.seed < 1 << 32:
            raise _wrong("seed", self.seed, "must be from 0 to 2**32 - 1")

    @property
    def rule(self) -> str:
        """The rule's name in the verdicts."""
        return "semantic_duplicate"

    def decide_vectors(self, doc_id: pa.Array, vectors: Any) -> pa.Table:
        """Which documents are semantic duplicates of one that stays; see `semantic_duplicates`."""
        return semantic_duplicates(doc_id, vectors, self)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs that are linked: places of the documents, `left` before `right`, and their cosine."""

    left: I64
    right: I64
    cosine: F32


def semantic_duplicates(
    doc_id: pa.Array | pa.ChunkedArray,
    vectors: Any,
    settings: SemanticDedup | None = None,
    *,
    num_threads: int | None = None,
) -> pa.Table:
    """Which documents are semantic duplicates of one that stays; `VERDICTS`, sorted by `doc_id`.

    Args:
        doc_id: (num_documents,) identifiers, each once, in any order.
        vectors: (num_documents, dim) floats, as an array or a column of fixed-size lists,
            of any length; null or not finite where there is none.
        settings: How; None: the defaults.
        num_threads: None: one for each core.

    Raises:
        ConfigError: There are not as many vectors as identifiers.
    """
    settings = settings or SemanticDedup()
    ids = doc_id.combine_chunks() if isinstance(doc_id, pa.ChunkedArray) else doc_id
    ids = ids.cast(pa.large_string())
    rows = _rows(vectors)
    if len(rows) != len(ids):
        problem = f"expected a vector for each of {len(ids)} documents"
        raise _wrong("vectors", rows.shape, problem)
    # In the order of the identifiers, the result cannot depend on how they came.
    order = np.asarray(pc.sort_indices(ids), np.int64)
    order, units = _units(rows, order)
    # Equal vectors, as equal texts have them, count once: of n there would be n**2 / 2 pairs.
    first, group = _distinct(units)
    distinct = units if len(first) == len(units) else units[first]
    pairs, distance = linked_pairs(distinct, settings, num_threads=num_threads)
    stays, cosine = _survivors(distinct, pairs, distance, settings)
    kept = first[stays[group]]
    score = np.where(stays[group] == group, np.float32(1.0), cosine[group])
    dropped = np.flatnonzero(kept != np.arange(len(kept)))
    return pa.table(
        {
            "doc_id": ids.take(pa.array(order[dropped])).cast(pa.string()),
            "verdict": pa.repeat("dropped", len(dropped)),
            "rule": pa.repeat(settings.rule, len(dropped)),
            "score": pa.array(score[dropped], pa.float64()),
            "duplicate_of": ids.take(pa.array(order[kept[dropped]])).cast(pa.string()),
        },
        schema=VERDICTS,
    )


def linked_pairs(
    units: F32, settings: SemanticDedup, *, num_threads: int | None = None
) -> tuple[Pairs, F32]:
    """Pairs of vectors whose cosine reaches the threshold, sorted, each once.

    Args:
        units: (num_vectors, dim) float32, rows contiguous, of length 1.
        settings: How.
        num_threads: None: one for each core.

    Returns:
        The pairs, and each vector's squared distance to the centre of its cell.
    """
    threads = num_cores() if num_threads is None else num_threads
    num = len(units)
    if num < 2:
        none = np.empty(0, np.int64)
        return Pairs(none, none, np.empty(0, np.float32)), np.zeros(num, np.float32)
    near, distance = _cells(units, settings, threads)
    return _compare(units, near, settings, threads), distance


def _rows(vectors: Any) -> npt.NDArray[Any]:
    if isinstance(vectors, pa.ChunkedArray):
        vectors = vectors.combine_chunks()
    if isinstance(vectors, pa.Array):
        dim = vectors.type.list_size
        values = vectors.values.slice(vectors.offset * dim, len(vectors) * dim)
        rows = values.to_numpy(zero_copy_only=False).reshape(-1, dim)
        if vectors.null_count:
            rows = rows.copy()
            rows[np.asarray(vectors.is_null())] = np.nan
        return np.asarray(rows)
    array = np.asarray(vectors)
    if array.ndim != 2:
        raise _wrong("vectors", array.shape, "must be of shape (num_documents, dim)")
    return array


def _units(rows: npt.NDArray[Any], order: I64) -> tuple[I64, F32]:
    """Rows in this order, of length 1 in float32; those without a direction are left out."""
    lengths = np.empty(len(order), np.float64)
    for first in range(0, len(order), 1 << 14):
        part = rows[order[first : first + (1 << 14)]].astype(np.float64)
        # Not finite or overflowing: no direction.
        with np.errstate(over="ignore", invalid="ignore"):
            lengths[first : first + len(part)] = np.sqrt((part**2).sum(axis=1))
    there = np.isfinite(lengths) & (lengths > 0)
    order, lengths = order[there], lengths[there]
    units = np.empty((len(order), rows.shape[1]), np.float32)
    for first in range(0, len(order), 1 << 14):
        piece = slice(first, first + (1 << 14))
        units[piece] = rows[order[piece]] / lengths[piece, None]
    return order, units


def _distinct(units: F32) -> tuple[I64, I64]:
    """The first row of each distinct vector, and of each row which distinct vector it has."""
    if not len(units):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = pa.binary(units.shape[1] * units.itemsize)
    whole = pa.Array.from_buffers(rows, len(units), [None, pa.py_buffer(units)])
    group = whole.dictionary_encode().indices.to_numpy().astype(np.int64)
    highest = np.maximum.accumulate(np.concatenate(([-1], group[:-1])))
    return np.flatnonzero(group > highest), group


def _cells(units: F32, settings: SemanticDedup, threads: int) -> tuple[npt.NDArray[np.int32], F32]:
    """The nearest cells of each vector, (num, probes), nearest first; the distance to the first."""
    num = len(units)
    total = settings.clusters or max(1, round(num**0.5))
    total = min(total, num)
    random = np.random.RandomState(settings.seed)
    sample = np.sort(random.permutation(num)[: total * _SAMPLE])
    drawn = units if len(sample) == num else units[sample]
    means = KMeans(
        total,
        init="random",
        n_init=1,
        max_iter=_ROUNDS,
        random_state=settings.seed,
        n_jobs=threads,
    ).fit(drawn)
    centres = means.cluster_centers_.astype(np.float64)
    return nearest_cells(units, centres, min(settings.probes, total), threads)


def _compare(
    units: F32, near: npt.NDArray[np.int32], settings: SemanticDedup, threads: int
) -> Pairs:
    """Compare, for each cell, who is at home there with who has it among the nearest."""
    num, probes = near.shape
    total = int(near.max()) + 1
    homes = _members(near[:, 0], total)
    guests = _members(near.reshape(-1), total)
    threshold = np.float32(1.0 - settings.eps - _RESERVE)

    def one(cell: int) -> Pairs:
        home = homes(cell)
        visitors = guests(cell) // probes
        return _pairs_of(units, home, visitors, threshold)

    found = in_threads(threads, one, range(total))
    left = np.concatenate([p.left for p in found])
    right = np.concatenate([p.right for p in found])
    cosine = np.concatenate([p.cosine for p in found])
    _, first = np.unique(left * num + right, return_index=True)
    return Pairs(left[first], right[first], np.minimum(cosine[first], np.float32(1.0)))


def _members(cells: npt.NDArray[np.int32], total: int) -> Callable[[int], I64]:
    order = np.argsort(cells, kind="stable")
    ends = np.concatenate(([0], np.cumsum(np.bincount(cells, minlength=total))))
    return lambda cell: order[ends[cell] : ends[cell + 1]]


def _pairs_of(units: F32, home: I64, visitors: I64, threshold: np.float32) -> Pairs:
    from penstock.kernels import kmeans

    dim = units.shape[1]
    room, mean = kmeans.tiles(dim, np.float32), np.zeros(dim, np.float32)
    parts = []
    for columns in _slices(home, 1024):  # panels that stay in the second cache
        panels = kmeans.panels_of(units[columns])
        start = 0
        while start < len(visitors):
            left, right = np.empty(_ROOM, np.int64), np.empty(_ROOM, np.int64)
            cosine = np.empty(_ROOM, np.float32)
            found, start = kmeans.pairs_reaching(
                units,
                visitors,
                mean,
                panels,
                columns,
                threshold,
                room,
                left,
                right,
                cosine,
                0,
                start,
            )
            parts.append((left[:found].copy(), right[:found].copy(), cosine[:found].copy()))
    if not parts:
        none = np.empty(0, np.int64)
        return Pairs(none, none, np.empty(0, np.float32))
    return Pairs(*(np.concatenate([part[i] for part in parts]) for i in range(3)))


def _slices(array: I64, size: int) -> Iterator[I64]:
    for first in range(0, len(array), size):
        yield array[first : first + size]


def _survivors(units: F32, pairs: Pairs, distance: F32, settings: SemanticDedup) -> tuple[I64, F32]:
    """Who stays for each document, itself or another; and the cosine of the two."""
    num = len(units)
    places = np.arange(num)
    order = places
    if settings.keep != "first":
        first = distance if settings.keep == "easiest" else -distance
        order = np.lexsort((places, first))
    rank = np.empty(num, np.int64)
    rank[order] = places
    if settings.rule_of_links == "component":
        return _by_component(units, pairs, order, rank)
    from penstock.kernels import kmeans

    ends = np.concatenate((pairs.left, pairs.right))
    by_row = np.argsort(ends, kind="stable")
    firsts = np.concatenate(([0], np.cumsum(np.bincount(ends, minlength=num))))
    others = np.concatenate((pairs.right, pairs.left))[by_row]
    scores = np.concatenate((pairs.cosine, pairs.cosine))[by_row]
    kept, best = places.copy(), np.full(num, -np.inf, np.float32)
    kmeans.represent(firsts, others, scores, order, rank, kept, best)
    return kept, best


def _by_component(units: F32, pairs: Pairs, order: I64, rank: I64) -> tuple[I64, F32]:
    """The first of each component stays; the cosine with it is computed, linked or not."""
    from penstock.kernels import components

    roots = np.arange(len(units))
    components.join(roots, rank[pairs.left], rank[pairs.right])
    components.roots(roots)  # of ranks: the root is the first of its component
    kept = np.empty(len(units), np.int64)
    kept[order] = order[roots]
    moved = np.flatnonzero(kept != np.arange(len(units)))
    best = np.full(len(units), -np.inf, np.float32)
    for first in range(0, len(moved), 1 << 14):
        rows = moved[first : first + (1 << 14)]
        best[rows] = np.minimum(np.einsum("ij,ij->i", units[rows], units[kept[rows]]), 1.0)
    return kept, best


def _wrong(name: str, value: object, problem: str) -> ConfigError:
    return ConfigError(f"SemanticDedup.{name}", value, problem)
