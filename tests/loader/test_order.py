"""How well an epoch is shuffled, how full its rows are, and what it costs to start."""

from __future__ import annotations

import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.loader import Loader, Samples
from penstock.loader.order import Order, order_key
from penstock.loader.samples import I32, I64, Tokens


class Synthetic:
    """Samples whose lengths are computed when asked, of any number; the tokens are their places."""

    def __init__(self, num_samples: int, lengths: npt.NDArray[Any]) -> None:
        self.num_samples, self._lengths = num_samples, lengths.astype(np.int32)
        self.fingerprint = f"{num_samples:032x}"
        self.dtype = np.dtype(np.uint32)

    def lengths(self, first: int, last: int) -> I32:
        return self._lengths[np.arange(first, last) % len(self._lengths)]

    def gather(
        self, positions: I64, starts: I64 | None = None, lengths: I32 | None = None
    ) -> tuple[Tokens, I64]:
        assert starts is not None
        assert lengths is not None
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return np.zeros(offsets[-1], np.uint32), offsets

    def doc_ids(self, positions: I64) -> pa.Array:
        return pa.array(positions).cast(pa.string())


def order_of(num: int, **options: int) -> tuple[Order, Samples]:
    settings_ = {"block_size": 16, "blocks_per_window": 64, "key": order_key("a"), **options}
    return Order(num_samples=num, **settings_), Synthetic(num, np.ones(1))


def served(num: int, **options: int) -> I64:
    order, samples = order_of(num, **options)
    return np.concatenate([order.window(w, samples)[0] for w in range(order.num_windows)])


def rank_correlation(places: I64) -> float:
    return float(np.corrcoef(np.arange(len(places)), places)[0, 1])


@settings(deadline=None, max_examples=100)
@given(
    num=st.integers(1, 300),
    block_size=st.integers(1, 20),
    blocks_per_window=st.integers(1, 20),
    key=st.integers(0, 2**64 - 1),
)
def test_every_position_comes_once_with_its_length(
    num: int, block_size: int, blocks_per_window: int, key: int
) -> None:
    order, _ = order_of(num, block_size=block_size, blocks_per_window=blocks_per_window, key=key)
    samples = Synthetic(num, np.arange(num))
    windows = [order.window(w, samples) for w in range(order.num_windows)]

    positions = np.concatenate([window[0] for window in windows])
    assert sorted(positions.tolist()) == list(range(num))
    assert positions.tolist() == np.concatenate([window[1] for window in windows]).tolist()
    for places, _ in windows:
        assert len(set((places // block_size).tolist())) <= blocks_per_window


@pytest.mark.parametrize("blocks_per_window", [1, 8, 64])
def test_served_order_is_as_unlike_the_source_as_a_full_shuffle_is(blocks_per_window: int) -> None:
    num, rng = 20_000, np.random.default_rng(0)
    full = np.std([rank_correlation(rng.permutation(num)) for _ in range(60)])
    found = [
        rank_correlation(served(num, blocks_per_window=blocks_per_window, key=order_key(k)))
        for k in range(30)
    ]

    # Blocks of 16 move as wholes, so it varies as that of so many fewer things does.
    assert np.std(found) < 1.5 * full * np.sqrt(16)
    assert abs(np.mean(found)) < 3 * full * np.sqrt(16 / 30)


def test_neighbours_of_the_source_are_far_apart_in_a_window() -> None:
    near = served(20_000, blocks_per_window=64)
    full = np.random.default_rng(0).permutation(20_000)

    def share(places: I64) -> float:
        """Of samples and the one after, how many are of one block."""
        return float((places[1:] // 16 == places[:-1] // 16).mean())

    assert share(near) == pytest.approx(1 / 64, rel=0.25)
    assert share(full) < share(near) < share(served(20_000, blocks_per_window=2))


def test_seeds_and_epochs_choose_orders_that_have_nothing_in_common() -> None:
    orders = [
        served(5000, key=order_key("data", seed, epoch)) for seed in (0, 1) for epoch in (0, 1)
    ]

    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).mean() < 0.01
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.06


def _log_normal() -> npt.NDArray[Any]:
    """Like web pages: half below 400 tokens, one of 200 above 8,000."""
    return np.clip(np.random.default_rng(0).lognormal(6.0, 1.15, 40_000), 1, 100_000)


def _source_files() -> npt.NDArray[Any]:
    """Python's own library, a token for each four bytes."""
    files = Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")
    return np.array([max(1, file.stat().st_size // 4) for file in files])


@pytest.mark.parametrize("seq_len", [2048, 8192])
@pytest.mark.parametrize("lengths", [_log_normal(), _source_files()], ids=["pages", "code"])
def test_packed_rows_are_full(lengths: npt.NDArray[Any], seq_len: int) -> None:
    samples = Synthetic(len(lengths), lengths)
    loader = Loader(samples, seq_len=seq_len, global_batch_size=1)

    assert lengths.astype(np.int64).sum() / (len(loader) * seq_len) >= 0.99


def test_an_epoch_of_a_billion_samples_starts_and_resumes_at_once() -> None:
    options: dict[str, Any] = {"seq_len": 2048, "global_batch_size": 64}
    next(iter(Loader(Synthetic(10**6, _log_normal()), **options)))  # compiles
    samples = Synthetic(10**9, _log_normal())
    began = time.perf_counter()
    loader = Loader(samples, **options)
    first = next(iter(loader))
    state = loader.state_dict()
    other = Loader(samples, **options)
    state["position"]["window"] = [0, 7000]
    other.load_state_dict(state)
    second = next(iter(other))

    assert time.perf_counter() - began < 1
    assert first["tokens"].shape == second["tokens"].shape == (64, 2048)
