from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels.samples import BLOCK, block_starts, locate, match_rows


@settings(deadline=None, max_examples=60)  # the first example may compile
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=5),
    dead=st.lists(st.sampled_from([0.0, 0.01, 0.5, 0.97]), min_size=5, max_size=5),
)
def test_every_position_is_found_where_the_segments_have_it(
    seed: int, sizes: list[int], dead: list[float]
) -> None:
    rng = np.random.default_rng(seed)
    live = [rng.random(size) >= share for size, share in zip(sizes, dead, strict=False)]
    owners = np.repeat(np.arange(len(live), dtype=np.uint8), [mask.sum() for mask in live])
    rng.shuffle(owners)
    expected = np.empty(len(owners), np.int64)
    for number, mask in enumerate(live):
        expected[owners == number] = np.flatnonzero(mask)
    bits = [np.packbits(mask, bitorder="little") for mask in live]
    begins = np.cumsum([0, *(len(part) for part in bits)])[:-1]
    begins[[bool(mask.all()) for mask in live]] = -1
    packed = np.concatenate(bits)
    known = owners if len(live) > 1 else owners[:0]
    asked = rng.permutation(len(owners))
    owner, place = np.zeros(len(asked), np.uint8), np.empty(len(asked), np.int64)

    starts = block_starts(known, len(owners), packed, begins)
    locate(asked, known, starts, packed, begins, owner, place)

    assert starts.shape == (-(-len(owners) // BLOCK), len(live))
    assert owner.tolist() == owners[asked].tolist()
    assert place.tolist() == expected[asked].tolist()


@settings(deadline=None)
@given(
    wanted=st.sets(st.tuples(*[st.integers(0, 3)] * 2)),
    have=st.sets(st.tuples(*[st.integers(0, 3)] * 2)),
    texts=st.lists(st.integers(0, 1), min_size=16, max_size=16),
    before=st.sets(st.integers(0, 15)),
)
def test_rows_stand_that_are_wanted_with_their_text_and_not_found_before(
    wanted: set[tuple[int, int]],
    have: set[tuple[int, int]],
    texts: list[int],
    before: set[int],
) -> None:
    asked = [(*name, 0, 7) for name in sorted(wanted)]
    rows = [(*name, texts[i], 7) for i, name in enumerate(sorted(have))]
    found = np.array([i in before for i in range(len(asked))], np.bool_)
    was = found.copy()
    stands = np.zeros(len(rows), np.bool_)

    match_rows(_columns(asked), _columns(rows), found, stands)

    fresh = {row for row, known in zip(asked, was, strict=True) if not known}
    assert stands.tolist() == [row in fresh for row in rows]
    now = [known or row in rows for row, known in zip(asked, was, strict=True)]
    assert found.tolist() == now


def _columns(rows: Sequence[tuple[int, ...]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    return np.array(rows, np.uint64).reshape(len(rows), 4).T.copy()
