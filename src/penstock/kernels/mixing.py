"""Draw from several streams so that each has its share, to the last integer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, Int
from penstock.kernels.compiled import kernel

I32 = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

FULL, OVER = -1, -2
"""Why `draw` stopped: as much was drawn as was asked for; no stream may be drawn from."""


@kernel
def draw(
    lengths: I32,
    taken: I64,
    ends: I64,
    left: I64,
    must_end: Flags,
    weights: I64,
    owed: I64,
    by_tokens: bool,
    most: Int,
    budget: Int,
    sources: I32,
    places: I64,
) -> tuple[Int, Int]:
    """Draw, each time from the stream that is owed the most.

    A draw of a sample owes every stream its weight times what the sample counts, and the
    drawn stream pays the sum of these. So all that is owed adds up to 0, and no stream
    gets ahead of its share by more than one sample. Where a stream ends, all begins at 0.

    Args:
        lengths: Tokens of the next samples of all streams, one stream after another.
        taken: Where each stream's next one is there; moved on.
        ends: Where each stream's known ones end there.
        left: How many samples each stream has until it ends; counted down.
        must_end: Streams that are waited for: when they all have ended, nothing is drawn.
        weights: Of each stream; set to 0 where one ends.
        owed: To each stream; changed.
        by_tokens: Samples count by their tokens; else each counts 1.
        most: Samples to draw.
        budget: Tokens after which to stop.
        sources: Room for the stream of each drawn sample.
        places: Room for its place in `lengths`.

    Returns:
        How many were drawn, and why no more: `FULL`, `OVER`, or the number of a stream
        of which more samples must be known first.

    Source: smooth weighted round-robin, as of nginx 1.3.1 (2012), which is error diffusion;
        Differs: what a draw counts may be any number.
    """
    n, tokens = np.int64(0), np.int64(0)
    total, waiting = weights.sum(), np.int64(0)
    for j in range(len(weights)):
        waiting += must_end[j] and left[j] > 0
    while n < most and tokens < budget:
        best = -1
        for j in range(len(weights)):
            if weights[j] > 0 and (
                best < 0
                or owed[j] > owed[best]
                or (owed[j] == owed[best] and weights[j] > weights[best])
            ):
                best = j
        if best < 0 or waiting == 0:
            return n, OVER
        if taken[best] == ends[best]:
            return n, best
        length = np.int64(lengths[taken[best]])
        counts = length if by_tokens else np.int64(1)
        for j in range(len(weights)):
            owed[j] += weights[j] * counts
        owed[best] -= total * counts
        sources[n], places[n] = best, taken[best]
        taken[best] += 1
        left[best] -= 1
        tokens += length
        n += 1
        if left[best] == 0:
            waiting -= must_end[best]
            weights[best] = 0
            owed[:] = 0
            total = weights.sum()
    return n, FULL
