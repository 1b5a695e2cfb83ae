"""Join the candidates of two sides and mix their scores: short loops, for each search one of each.

They keep the GIL: letting it go and waiting for it again would take longer than they do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from penstock.kernels.compiled import short_kernel


@intrinsic
def _load(typing: Any, address: Any, index: Any) -> Any:
    """The uint64 at an address, `index` of them on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = context.get_value_type(types.uint64).as_pointer()
        base = builder.inttoptr(args[0], pointer)
        return builder.load(builder.gep(base, [args[1]]))

    return types.uint64(types.int64, types.int64), codegen


@short_kernel
def gather(addresses: Any, starts: Any, positions: Any, values: Any) -> None:
    """Values of rows that lie in several arrays as if these were one.

    Args:
        addresses: (num_arrays,) int64, where the data of each array of uint64 begins.
        starts: (num_arrays + 1,) int64, the position of each array's first value, and the end.
        positions: (n,) int64, each below the end.
        values: (n,) uint64; becomes the values at the positions.
    """
    for i in range(len(positions)):
        position, owner = positions[i], 0
        while position >= starts[owner + 1]:
            owner += 1
        values[i] = _load(addresses[owner], position - starts[owner])


@short_kernel
def join(
    by_vector: Any,
    vector_scores: Any,
    by_words: Any,
    words_scores: Any,
    positions: Any,
    vector: Any,
    words: Any,
) -> Any:
    """Merge two sides' candidates, each in any order and without repetition.

    Args:
        by_vector: (n,) int64 positions below 2**31.
        vector_scores: (n,) float64.
        by_words: (m,) int64.
        words_scores: (m,) float64.
        positions: (n + m,) int64; becomes the positions of both, ascending.
        vector: (n + m,) float64; becomes their scores, NaN where that side has none.
        words: (n + m,) float64; likewise.

    Returns:
        How many there are.
    """
    left, right = np.empty(len(by_vector), np.int64), np.empty(len(by_words), np.int64)
    for i in range(len(by_vector)):
        left[i] = by_vector[i] << 32 | i
    for i in range(len(by_words)):
        right[i] = by_words[i] << 32 | i
    left.sort()
    right.sort()
    size = i = j = 0
    while i < len(left) or j < len(right):
        here = left[i] >> 32 if i < len(left) else np.int64(0xFFFF_FFFF)
        there = right[j] >> 32 if j < len(right) else np.int64(0xFFFF_FFFF)
        positions[size] = min(here, there)
        vector[size] = words[size] = np.nan
        if here <= there:
            vector[size] = vector_scores[left[i] & 0xFFFF_FFFF]
            i += 1
        if there <= here:
            words[size] = words_scores[right[j] & 0xFFFF_FFFF]
            j += 1
        size += 1
    return size


@short_kernel
def mix(vector: Any, words: Any, alpha: Any, scores: Any) -> None:
    """Alpha times `vector` from least to greatest, plus the rest times `words` by its greatest.

    NaN counts as 0; scores (n,) float64 takes the result.
    """
    low, high, most = np.inf, -np.inf, 0.0
    for i in range(len(vector)):
        if vector[i] == vector[i]:
            low, high = min(low, vector[i]), max(high, vector[i])
        if words[i] == words[i]:
            most = max(most, words[i])
    for i in range(len(vector)):
        first = second = 0.0
        if vector[i] == vector[i]:  # all alike says nothing against any of them
            first = 1.0 if low == high else (vector[i] - low) / (high - low)
        if words[i] == words[i] and most > 0:
            second = words[i] / most
        scores[i] = alpha * first + (1 - alpha) * second
