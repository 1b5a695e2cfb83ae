from __future__ import annotations

import pickle

import numpy as np

from penstock.loader import ArraySamples, Loader
from penstock.loader.memory import Memory


def test_memory_is_used_again_only_when_nothing_refers_to_it() -> None:
    memory = Memory()
    wanted = ((4, 8), np.int64), ((4, 8), np.int32)
    held = memory.arrays(*wanted)[1][1:]  # a part of one array holds it all
    other = memory.arrays(*wanted)
    place = other[0].ctypes.data

    assert not np.shares_memory(held, other[0])
    del other
    assert memory.arrays(*wanted)[0].ctypes.data == place


def test_memory_much_too_large_or_too_small_is_let_go() -> None:
    memory = Memory()
    for length in (100, 5000, 10):
        (array,) = memory.arrays(((length,), np.int64))

        assert array.shape == (length,)
        assert array.base is not None
        assert array.base.nbytes <= 2 * 8 * length
        del array


def test_batches_that_are_held_never_change() -> None:
    offsets = np.arange(0, 40_001, 10)
    samples = ArraySamples(np.arange(40_000, dtype=np.uint16), offsets)
    loader = pickle.loads(pickle.dumps(Loader(samples, global_batch_size=50)))
    held = [(batch["tokens"], batch["tokens"].copy()) for batch in loader]

    assert all(np.array_equal(tokens, copy) for tokens, copy in held)
    assert len(held) == 80
