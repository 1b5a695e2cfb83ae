"""Which documents are near-duplicates by their signatures: candidates by bands, then clusters.

Two documents are *linked* if they have a band in common and, where a threshold
is set, their signatures agree in enough bytes. Clusters are the connected
components of that graph, so they depend on the set of documents alone, and not
on the order in which they came. Documents of the same signature are linked.

One exception keeps a huge band from costing a quadratic number of comparisons:
where more than `WINDOW` distinct signatures have a band in common, each is
compared with the `WINDOW` that follow it in the order of the next band's bytes
and of the documents' identifiers. This too depends on the set of documents alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.kernels import I64, U8

U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

COUNT_BYTES = 4
"""Bytes at the front of a signature, which tell the number of units of the text."""

WINDOW = 1024
"""Following documents that each is compared with in a band: 11 us per document and band."""

_AT_ONCE = 1 << 14
_ROWS_AT_ONCE = 1 << 18
_NO_LIMIT = 1 << 62

_CHANCE = 1 / 256
"""Probability that two bytes agree although the minima differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The documents that have a band in common with another.

    Attributes:
        rows: (num,) int64, their places in the corpus, ascending.
        units: (num,) uint32, words or characters of each.
        minima: (num, num_words) uint64: the signature's bytes, and zeros at the end.
        num_hashes: Bytes of a signature.
        roots: (num,) int64, the first candidate of each one's cluster if any band links.
    """

    rows: I64
    units: npt.NDArray[np.uint32]
    minima: U64
    num_hashes: int
    roots: I64


def find_candidates(
    signature: pa.ChunkedArray, num_hashes: int, bands: int, rows: int
) -> Candidates:
    """The documents that share a band with another.

    Args:
        signature: Fixed-size binary of `COUNT_BYTES` + `num_hashes`; null has no band.
        num_hashes: See `signature`.
        bands: Bands looked at.
        rows: Bytes in each.

    Cost: 33 bytes a document beside the column itself, which is not copied, and
        `num_hashes` + 20 for each candidate; one sort of 8-byte keys per band.
    """
    from penstock.kernels import components

    pieces = list(_pieces(signature))
    size = sum(len(matrix) for matrix, _ in pieces)
    has_units = np.concatenate([np.zeros(0, np.bool_), *(valid for _, valid in pieces)])
    all_have = bool(has_units.all())
    parents, keys = np.arange(size, dtype=np.int64), np.empty(size, np.uint64)
    for band in range(bands):
        _band(pieces, band, rows, keys)
        order = np.argsort(keys)
        if not all_have:
            order = order[has_units[order]]
        components.join_runs(keys, order, parents)
        del order
    del keys
    components.roots(parents)
    is_linked = np.zeros(size, np.bool_)
    others = np.flatnonzero(parents != np.arange(size))
    is_linked[others] = True
    is_linked[parents[others]] = True
    chosen = np.flatnonzero(is_linked)
    units, minima = _gather(pieces, chosen, num_hashes)
    return Candidates(
        rows=chosen,
        units=units,
        minima=minima,
        num_hashes=num_hashes,
        roots=np.searchsorted(chosen, parents[chosen]),
    )


def similar_clusters(
    candidates: Candidates, bands: int, rows: int, most: int, start: I64 | None = None
) -> I64:
    """Clusters of the candidates that share a band and differ in at most `most` bytes.

    Args:
        candidates: From `find_candidates`, with the same `bands` and `rows`.
        bands: Bands looked at.
        rows: Bytes in each.
        most: Bytes in which linked documents may differ.
        start: Clusters of a smaller `most`, which saves comparing those again.

    Returns:
        (num,) int64, the first candidate of each one's cluster.
    """
    from penstock.kernels import components

    same, distinct = _same(candidates)
    parents = same if start is None else start.copy()
    for keys, order in _distinct_bands(candidates, distinct, bands, rows):
        components.join_similar(keys, order, candidates.minima, most, WINDOW, parents)
    components.roots(parents)
    return parents


def similar_pairs(
    candidates: Candidates, bands: int, rows: int, least: int, most: int, limit: int
) -> tuple[I64, I64]:
    """Pairs of candidates of distinct signatures that share a band and differ in so many bytes.

    A pair that shares several bands comes once. Each band gives `limit` pairs at most.

    Returns:
        The smaller and the larger candidate of each pair, sorted.
    """
    from penstock.kernels import components

    _, distinct = _same(candidates)
    found = [np.zeros((2, 0), np.int64)]
    for keys, order in _distinct_bands(candidates, distinct, bands, rows):
        room = min(limit, 1 << 16)
        while True:
            pairs = np.empty((2, room), np.int64)
            n = components.similar_pairs(
                keys, order, candidates.minima, least, most, WINDOW, pairs[0], pairs[1]
            )
            if n <= room or room == limit:
                break
            room = min(limit, n)
        found.append(pairs[:, : min(n, room)])
    left, right = np.concatenate(found, axis=1)
    num = max(1, len(candidates.rows))
    pairs = np.unique(left * num + right)
    return pairs // num, pairs % num


def num_different(candidates: Candidates, left: I64, right: I64) -> npt.NDArray[np.int32]:
    """In how many bytes the signatures of each pair of candidates differ."""
    from penstock.kernels import components

    return components.num_different(candidates.minima, left, right)


def estimate(num_different: npt.ArrayLike, num_hashes: int) -> F64:
    """Jaccard similarity from the number of bytes that differ, in [0, 1].

    Unbiased but for the cut at 0; of ``num_hashes = 112`` its standard deviation is 0.04 at 0.8.

    Source: Li and König, b-Bit Minwise Hashing, 2010, where terms in the share of
        the hashed space that a text fills are kept; with 32 bits they vanish.
    """
    agree = 1.0 - np.asarray(num_different, np.float64) / num_hashes
    return np.maximum((agree - _CHANCE) / (1.0 - _CHANCE), 0.0)


def most_different(similarity: float, num_hashes: int) -> int:
    """Bytes that may differ if the estimate is to be at least `similarity`."""
    return int(num_hashes * (1.0 - similarity) * (1.0 - _CHANCE) + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class TruePairs:
    """Pairs of candidates and the similarity of their texts.

    Attributes:
        left: The smaller candidate of each pair; the first of its signature.
        right: The larger. Pairs are sorted.
        jaccard: The similarity.
        first: The first candidate that has the same signature as each.
    """

    left: I64
    right: I64
    jaccard: F64
    first: I64

    def scores(self, left: I64, right: I64, otherwise: F64) -> F64:
        """The similarity of these pairs, or `otherwise` where it was not computed."""
        if not len(self.left):
            return otherwise
        a, b = self.first[left], self.first[right]
        num = len(self.first)
        known = self.left * num + self.right
        wanted = np.minimum(a, b) * num + np.maximum(a, b)
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[at] == wanted, self.jaccard[at], otherwise)


def true_pairs(
    candidates: Candidates,
    bands: int,
    rows: int,
    most: int,
    shingles: Callable[[I64], tuple[I64, U64]],
) -> TruePairs:
    """Compare the texts of candidates that share a band and differ in at most `most` bytes.

    Args:
        candidates: From `find_candidates`, with the same `bands` and `rows`.
        bands: Bands looked at.
        rows: Bytes in each.
        most: Bytes in which signatures may differ.
        shingles: Gives offsets and shingles of candidates, each text's distinct and ascending.

    Cost: reads each candidate's text once; holds the texts of `_AT_ONCE` pairs, or of one
        cluster if that has more.
    """
    from penstock.kernels import components, minhash

    first, _ = _same(candidates)
    left, right = similar_pairs(candidates, bands, rows, 0, most, _NO_LIMIT)
    similarity = np.zeros(len(left), np.float64)
    parents = np.arange(len(first), dtype=np.int64)
    components.join(parents, left, right)
    components.roots(parents)
    # Whole clusters are compared at a time, so that a text is read once.
    order = np.argsort(parents[left], kind="stable")
    start = 0
    while start < len(order):
        end = min(start + _AT_ONCE, len(order))
        while end < len(order) and parents[left[order[end]]] == parents[left[order[end - 1]]]:
            end += 1
        pairs = order[start:end]
        members, places = np.unique(np.stack([left[pairs], right[pairs]]), return_inverse=True)
        places = places.reshape(2, -1)
        similarity[pairs] = minhash.jaccard(*shingles(members), places[0], places[1])
        start = end
    return TruePairs(left=left, right=right, jaccard=similarity, first=first)


def join_pairs(candidates: Candidates, left: I64, right: I64, chosen: npt.NDArray[np.bool_]) -> I64:
    """The root of each candidate's cluster if these pairs, and equal signatures, are linked."""
    from penstock.kernels import components

    parents, _ = _same(candidates)
    components.join(parents, left[chosen], right[chosen])
    components.roots(parents)
    return parents


def take_ids(doc_id: pa.ChunkedArray, rows: I64) -> pa.Array:
    """The identifiers of these rows, in one piece."""
    taken = doc_id.take(pa.array(rows))
    whole = taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken
    return whole.cast(pa.string())


def _pieces(signature: pa.ChunkedArray) -> Iterator[tuple[U8, npt.NDArray[np.bool_]]]:
    """Each chunk's bytes, (num_rows, width), without a copy; and which rows are not null."""
    chunks = signature.chunks if isinstance(signature, pa.ChunkedArray) else [signature]
    for chunk in chunks:
        width, first, size = chunk.type.byte_width, chunk.offset, len(chunk)
        if size:
            flat = np.frombuffer(chunk.buffers()[1], np.uint8)
            matrix = flat[first * width : (first + size) * width].reshape(size, width)
            yield matrix, chunk.is_valid().to_numpy(zero_copy_only=False)


def _band(pieces: list[tuple[U8, npt.NDArray[np.bool_]]], band: int, rows: int, out: U64) -> None:
    from penstock.kernels import components

    everyone = np.arange(_ROWS_AT_ONCE, dtype=np.int64)
    first = 0
    for matrix, _ in pieces:
        for at in range(0, len(matrix), _ROWS_AT_ONCE):
            block = matrix[at : at + _ROWS_AT_ONCE]
            end = first + len(block)
            places = everyone[: len(block)]
            components.band_keys(block, places, COUNT_BYTES + band * rows, rows, out[first:end])
            first = end


def _gather(
    pieces: list[tuple[U8, npt.NDArray[np.bool_]]], chosen: I64, num_hashes: int
) -> tuple[npt.NDArray[np.uint32], U64]:
    """Units and minima of these rows; a row of minima is filled with zeros to 8 bytes."""
    units = np.empty((len(chosen), COUNT_BYTES), np.uint8)
    minima = np.zeros((len(chosen), -(-num_hashes // 8) * 8), np.uint8)
    first = 0
    for matrix, _ in pieces:
        begin, end = np.searchsorted(chosen, [first, first + len(matrix)])
        for at in range(begin, end, _ROWS_AT_ONCE):
            here = slice(at, min(at + _ROWS_AT_ONCE, end))
            rows = matrix[chosen[here] - first]
            units[here] = rows[:, :COUNT_BYTES]
            minima[here, :num_hashes] = rows[:, COUNT_BYTES:]
        first += len(matrix)
    return units.view("<u4").reshape(-1), minima.view(np.uint64)


def _same(candidates: Candidates) -> tuple[I64, I64]:
    """The first candidate that has each one's signature, and those that are first."""
    from penstock.kernels import components

    num, num_words = candidates.minima.shape
    everyone, hashes = np.arange(num, dtype=np.int64), np.empty(num, np.uint64)
    components.band_keys(candidates.minima.view(np.uint8), everyone, 0, 8 * num_words, hashes)
    order = np.argsort(hashes)
    before, after = order[:-1], order[1:]
    equal = (hashes[before] == hashes[after]) & (num_different(candidates, before, after) == 0)
    parents = everyone.copy()
    components.join(parents, before[equal], after[equal])
    components.roots(parents)
    return parents, np.flatnonzero(parents == everyone)


def _distinct_bands(
    candidates: Candidates, distinct: I64, bands: int, rows: int
) -> Iterator[tuple[U64, I64]]:
    """Each band's keys by candidate, and those of distinct signatures in the order to compare."""
    from penstock.kernels import components

    minima = candidates.minima.view(np.uint8)
    keys = np.empty(len(minima), np.uint64)
    everyone = np.arange(len(minima), dtype=np.int64)
    for band in range(bands):
        components.band_keys(minima, everyone, band * rows, rows, keys)
        order = distinct[np.argsort(keys[distinct])]
        ordered = keys[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]) != 0)
        sizes = np.diff(starts, append=len(order))
        for i in np.flatnonzero(sizes > WINDOW + 1):
            run = order[starts[i] : starts[i] + sizes[i]]
            # Neighbours share the first of the following bytes, as most similar rows do.
            following = np.empty(len(run), np.uint64)
            components.band_keys(minima, run, (band + 1) % bands * rows, min(rows, 8), following)
            order[starts[i] : starts[i] + sizes[i]] = run[np.lexsort((run, following))]
        yield keys, order
