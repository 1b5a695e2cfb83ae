from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.kernels import blocks

# Long runs, near and far repetitions, and what does not compress.
PIECES = st.binary(max_size=40) | st.builds(
    lambda b, n: b * n, st.binary(max_size=20), st.integers(0, 60)
)
TEXT = st.lists(PIECES | st.just(b"a piece that comes again"), max_size=12).map(b"".join)


def packed(data: bytes) -> npt.NDArray[Any]:
    return np.frombuffer(pa.Codec("lz4_raw").compress(data, asbytes=True), np.uint8)


def unpacked(block: npt.NDArray[Any], size: int, wanted: int) -> bytes | None:
    out, state = np.zeros(size + 3, np.uint8), np.zeros(2, np.int64)
    if not blocks.unpack(block, len(block), out, size, wanted, state):
        return None
    return out[: state[1]].tobytes()


@settings(deadline=None)
@given(data=TEXT.filter(len), share=st.floats(0, 1))
def test_a_block_is_unpacked_as_far_as_is_wanted(data: bytes, share: float) -> None:
    wanted = round(share * len(data))

    found = unpacked(packed(data), len(data), wanted)

    assert found is not None
    assert found[:wanted] == data[:wanted]
    assert data.startswith(found)


def test_a_block_is_unpacked_in_two_parts() -> None:
    data = b"a line that comes back\n" * 40 + bytes(range(256))
    block, out, state = packed(data), np.zeros(len(data), np.uint8), np.zeros(2, np.int64)

    parts = [blocks.unpack(block, len(block), out, len(data), n, state) for n in (30, len(data))]

    assert parts == [True, True]
    assert out.tobytes() == data


@settings(deadline=None)
@given(data=TEXT.filter(len), place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_block_writes_nowhere_else(data: bytes, place: int, value: int) -> None:
    block = packed(data).copy()
    block[place % len(block)] = value
    guard = np.full(len(data) + 64, 7, np.uint8)
    state = np.zeros(2, np.int64)

    blocks.unpack(block, len(block), guard[: len(data)], len(data), len(data), state)

    assert (guard[len(data) :] == 7).all()
    assert 0 <= state[1] <= len(data)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_block_that_ends_too_soon_is_refused(size: int) -> None:
    data = b"some text that is long enough to be cut " * 3

    assert unpacked(packed(data)[:size], len(data), len(data)) is None
