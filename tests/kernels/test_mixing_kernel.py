from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels.mixing import FULL, OVER, draw


def twin(
    streams: list[list[int]], weights: list[int], waited: list[bool], by_tokens: bool, most: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """Which sample of which stream is drawn, and what is owed in the end."""
    out: list[tuple[int, int]] = []
    taken, owed, weights = [0] * len(streams), [0] * len(streams), list(weights)
    while len(out) < most and any(
        wait and taken[j] < len(streams[j]) for j, wait in enumerate(waited)
    ):
        able = [j for j, weight in enumerate(weights) if weight]
        if not able:
            break
        best = max(able, key=lambda j: (owed[j], weights[j], -j))
        counts = streams[best][taken[best]] if by_tokens else 1
        owed = [owed[j] + weights[j] * counts for j in range(len(streams))]
        owed[best] -= sum(weights) * counts
        out.append((best, taken[best]))
        taken[best] += 1
        if taken[best] == len(streams[best]):
            weights[best], owed = 0, [0] * len(streams)
    return out, owed


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_drawing_is_what_its_twin_does_in_however_many_calls(data: st.DataObject) -> None:
    lengths = st.lists(st.integers(0, 9), min_size=1, max_size=8)
    streams = data.draw(st.lists(lengths, min_size=1, max_size=4))
    count = len(streams)
    own = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    waited = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    by_tokens, most = data.draw(st.booleans()), data.draw(st.integers(1, 30))
    flat = np.array([length for stream in streams for length in stream], np.int32)
    ends = np.cumsum([len(stream) for stream in streams])
    taken, left = ends - [len(stream) for stream in streams], np.diff(ends, prepend=0)
    begins, weights, owed = taken.copy(), np.array(own, np.int64), np.zeros(count, np.int64)
    drawn: list[tuple[int, int]] = []
    why = FULL
    while len(drawn) < most and why != OVER:
        room = data.draw(st.integers(1, most - len(drawn)))
        sources, places = np.empty(room, np.int32), np.empty(room, np.int64)
        n, why = draw(
            *(flat, taken, ends, left, np.array(waited), weights, owed),
            *(by_tokens, room, 2**62, sources, places),
        )
        own_places = places[:n] - begins[sources[:n]]
        drawn += list(zip(sources[:n].tolist(), own_places.tolist(), strict=True))

    assert (drawn, owed.tolist()) == twin(streams, own, waited, by_tokens, most)


def test_it_stops_for_more_samples_and_at_the_budget() -> None:
    lengths, weights = np.array([3, 4, 5, 6], np.int32), np.ones(2, np.int64)
    taken, ends, left = np.array([0, 2]), np.array([2, 4]), np.array([9, 9])
    state = (lengths, taken, ends, left, np.ones(2, np.bool_), weights, np.zeros(2, np.int64))
    room = np.empty(9, np.int32), np.empty(9, np.int64)

    assert draw(*state, False, 9, 8, *room) == (2, FULL)  # 3 and 5 tokens
    assert draw(*state, False, 9, 99, *room) == (2, 0)  # the first has no more that are known
    assert (taken.tolist(), left.tolist()) == ([2, 4], [7, 7])
