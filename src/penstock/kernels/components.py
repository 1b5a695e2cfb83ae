"""Clusters of rows: joined where they agree in a band of their signatures, or are much alike.

A signature is a row of bytes, compared byte by byte. Clusters are trees of
*parents*: a row's parent is a row of the same cluster that is not after it, and
the first row of a cluster is its own parent, its root. So a cluster has the
same root in whatever order it grew.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, U8, Int
from penstock.kernels.compiled import kernel

I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LOWER = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONES = np.uint64(0x0101010101010101)
_EVEN = np.uint64(0x00FF00FF00FF00FF)
_SUM = np.uint64(0x0001000100010001)
_7, _48 = np.uint64(7), np.uint64(48)
_8, _27, _30, _31 = np.uint64(8), np.uint64(27), np.uint64(30), np.uint64(31)


@kernel
def band_keys(signatures: U8, rows: I64, first: Int, size: Int, out: U64) -> None:
    """The bytes from `first` to `first + size` of these rows, as one number each.

    Up to eight bytes are the number; more are mixed into it.
    """
    for i in range(len(rows)):
        row = rows[i]
        key, part = np.uint64(0), np.uint64(0)
        for k in range(size):
            if k and k & 7 == 0:
                key = (key ^ part) * _MIX_1
                key = (key ^ (key >> _31)) * _MIX_2
                key ^= key >> _27
                part = np.uint64(0)
            part = (part << _8) | np.uint64(signatures[row, first + k])
        out[i] = key ^ part


@kernel
def root(parents: I64, row: Int) -> Int:
    """The root of a row's cluster; halves the way there for those who come after."""
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@kernel
def join(parents: I64, left: I64, right: I64) -> None:
    """Put the rows of each pair in one cluster."""
    for i in range(len(left)):
        a, b = root(parents, left[i]), root(parents, right[i])
        if a < b:
            parents[b] = a
        else:
            parents[a] = b


@kernel
def roots(parents: I64) -> None:
    """Make each row's parent its root; rows come after their parents, so one pass is enough."""
    for row in range(len(parents)):
        parents[row] = parents[parents[row]]


@kernel
def join_runs(keys: U64, order: I64, parents: I64) -> None:
    """Put rows of equal keys in one cluster.

    Args:
        keys: (num_rows,).
        order: Rows, sorted by key.
        parents: The clusters.
    """
    for i in range(1, len(order)):
        if keys[order[i]] == keys[order[i - 1]]:
            a, b = root(parents, order[i]), root(parents, order[i - 1])
            if a < b:
                parents[b] = a
            else:
                parents[a] = b


@kernel
def _num_different(signatures: U64, a: Int, b: Int) -> Int:
    """In how many bytes two rows differ."""
    size = signatures.shape[1]
    total = np.int64(0)
    for first in range(0, size, 255):  # a byte holds the sum of 255
        lanes = np.uint64(0)
        for k in range(first, min(first + 255, size)):
            bits = signatures[a, k] ^ signatures[b, k]
            # The upper bit of each byte: is any bit of it set?
            lanes += ((((bits & _LOWER) + _LOWER) | bits) >> _7) & _ONES
        lanes = (lanes & _EVEN) + ((lanes >> _8) & _EVEN)
        total += np.int64((lanes * _SUM) >> _48)
    return total


@kernel
def num_different(signatures: U64, left: I64, right: I64) -> I32:
    """In how many bytes the signatures of each pair differ; (num_pairs,)."""
    out = np.empty(len(left), np.int32)
    for i in range(len(left)):
        out[i] = _num_different(signatures, left[i], right[i])
    return out


@kernel
def join_similar(
    keys: U64,
    order: I64,
    signatures: U64,
    most: Int,
    window: Int,
    parents: I64,
) -> Int:
    """Put rows of equal keys in one cluster if at most `most` bytes differ.

    Each row is compared with the `window` that follow it among those of its
    key, save where both are in one cluster already, which changes nothing.

    Args:
        keys: (num_rows,).
        order: Rows, sorted by key.
        signatures: (num_rows, num_bytes / 8).
        most: How many may differ.
        window: How many following rows a row is compared with.
        parents: The clusters.

    Returns:
        The number of comparisons.
    """
    compared = np.int64(0)
    for i in range(len(order)):
        key = keys[order[i]]
        own = root(parents, order[i])
        for j in range(i + 1, min(i + 1 + window, len(order))):
            if keys[order[j]] != key:
                break
            other = root(parents, order[j])
            if own == other:
                continue
            compared += 1
            if _num_different(signatures, order[i], order[j]) <= most:
                if own < other:
                    parents[other] = own
                else:
                    parents[own] = other
                    own = other
    return compared


@kernel
def similar_pairs(
    keys: U64,
    order: I64,
    signatures: U64,
    least: Int,
    most: Int,
    window: Int,
    left: I64,
    right: I64,
) -> Int:
    """Write pairs of equal keys that differ in `least` to `most` bytes, as far as there is room.

    Args:
        keys: As of `join_similar`, like those that are not told here.
        order: See `keys`.
        signatures: See `keys`.
        least: Bytes that must differ at least.
        most: And at most.
        window: See `keys`.
        left: Room for the smaller row of each pair.
        right: Room for the larger.

    Returns:
        How many pairs there are, also beyond the room.
    """
    n = np.int64(0)
    for i in range(len(order)):
        key = keys[order[i]]
        for j in range(i + 1, min(i + 1 + window, len(order))):
            if keys[order[j]] != key:
                break
            if least <= _num_different(signatures, order[i], order[j]) <= most:
                if n < len(left):
                    left[n] = min(order[i], order[j])
                    right[n] = max(order[i], order[j])
                n += 1
    return n
