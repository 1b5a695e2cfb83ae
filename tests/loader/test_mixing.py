"""Mixtures: exact shares, epochs and repeats, schedules, and the same rules of order and resume."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.loader import ArraySamples, Batch, Loader, Mixture, Part

SMALL: dict[str, Any] = {"block_size": 4, "blocks_per_window": 8}


def kind(number: int, num: int, longest: int = 20) -> ArraySamples:
    """Samples whose tokens are 1000 times the number and what counts their samples."""
    lengths = np.random.default_rng(number).integers(1, longest + 1, num)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.repeat(number * 100_000 + np.arange(num), lengths).astype(np.uint32)
    return ArraySamples(tokens, offsets)


def mixed(
    weights: list[float], sizes: list[int], repeats: list[int | None] | None = None, **options: Any
) -> Mixture:
    rows = zip(weights, sizes, repeats or [1] * len(weights), strict=True)
    parts = {
        f"part {i}": Part(samples=kind(i, size), weight=weight, repeat=repeat)
        for i, (weight, size, repeat) in enumerate(rows)
    }
    return Mixture(parts=parts, **options)


def drawn(batches: Iterator[Batch] | list[Batch]) -> list[int]:
    """The sample of each row, in order, of batches whose rows are samples."""
    return [
        int(row[0])
        for batch in batches
        for row, segments in zip(batch["tokens"], batch["segment_ids"], strict=True)
        if segments[0]
    ]


def shares(samples: list[int], num_parts: int) -> list[float]:
    counts = Counter(sample // 100_000 for sample in samples)
    return [counts[i] for i in range(num_parts)]


def tokens_of(batches: list[Batch]) -> Counter[int]:
    return Counter(
        token for batch in batches for token in batch["tokens"][batch["segment_ids"] > 0].tolist()
    )


@pytest.mark.parametrize("weights", [[1, 1], [0.7, 0.3], [5, 2, 1], [0.25, 0.25, 0.4, 0.1]])
def test_after_any_number_of_samples_each_part_has_its_share(weights: list[float]) -> None:
    mixture = mixed(weights, [400] * len(weights), by="samples")
    samples = drawn(list(Loader(mixture, global_batch_size=10, **SMALL)))
    total = sum(weights)
    # Until the first part is through, all take part.
    for count in range(1, int(400 * total / max(weights)) - 5):
        for share, weight in zip(shares(samples[:count], len(weights)), weights, strict=True):
            assert -1 < weight * count / total - share < len(weights)


def test_shares_of_tokens_are_exact_to_a_sample() -> None:
    parts = {
        "long": Part(samples=kind(0, 300, 60), weight=3),
        "short": Part(samples=kind(1, 3000, 6), weight=1),
    }
    loader = Loader(Mixture(parts=parts), global_batch_size=10, **SMALL)
    tokens = np.zeros(2)
    for batch in itertools.islice(loader, 40):
        for number, length in zip(batch["tokens"][:, 0] // 100_000, batch["lengths"], strict=True):
            tokens[number] += length
            assert abs(tokens[0] - 0.75 * tokens.sum()) <= 60


def test_every_sample_comes_as_often_as_its_part_is_repeated() -> None:
    mixture = mixed([2, 1, 1], [70, 50, 30], [1, 3, 2], by="samples")
    loader = Loader(mixture, global_batch_size=7, **SMALL)
    assert len(loader) == -(-(70 + 150 + 60) // 7)
    samples = Counter(drawn(list(loader)))

    expected = {0: (70, 1), 1: (50, 3), 2: (30, 2)}
    assert samples == {
        part * 100_000 + i: times for part, (n, times) in expected.items() for i in range(n)
    }


def test_a_part_without_a_number_is_repeated_as_long_as_another_lasts() -> None:
    loader = Loader(mixed([1, 1], [100, 8], [1, None], by="samples"), global_batch_size=4, **SMALL)
    num_steps = len(loader)
    batches = list(loader)
    samples = drawn(batches)

    assert len(batches) == num_steps
    assert shares(samples, 2) == pytest.approx([100, 100], abs=1)
    again = [sample for sample in samples if sample >= 100_000]
    rounds = [again[i : i + 8] for i in range(0, 96, 8)]
    assert all(sorted(turn) == sorted(rounds[0]) for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 6


def test_weights_change_at_exactly_the_step_that_the_schedule_says() -> None:
    schedule = {5: {"part 0": 1, "part 1": 3}, 12: {"part 0": 0, "part 1": 1}}
    schedule[30] = {"part 0": 1, "part 1": 1}
    mixture = mixed([1, 0], [200, 200], by="samples", schedule=schedule)
    batches = list(itertools.islice(Loader(mixture, global_batch_size=8, **SMALL), 32))

    found = [shares(drawn([batch]), 2) for batch in batches]
    assert found == [[8, 0]] * 5 + [[2, 6]] * 7 + [[0, 8]] * 18 + [[4, 4]] * 2


def test_packed_weights_change_about_where_the_schedule_says() -> None:
    schedule = {40: {"part 0": 0, "part 1": 1}}
    mixture = mixed([1, 0], [4000, 4000], by="tokens", schedule=schedule)
    loader = Loader(mixture, global_batch_size=4, seq_len=64, block_size=16, blocks_per_window=64)
    for step, batch in enumerate(itertools.islice(loader, 80)):
        numbers = batch["tokens"][batch["segment_ids"] > 0] // 100_000
        if step < 40:
            assert set(numbers.tolist()) == {0}
        if step > 41:
            assert set(numbers.tolist()) == {1}


MODES = [
    pytest.param({"global_batch_size": 6}, id="samples"),
    pytest.param({"global_batch_size": 6, "seq_len": 16}, id="packed"),
    pytest.param({"max_tokens": 160, "seq_len": 16}, id="budget"),
]


@pytest.mark.parametrize("by", ["tokens", "samples"])
@pytest.mark.parametrize("mode", MODES)
def test_mixtures_are_shared_and_resumed_like_anything_else(mode: dict[str, Any], by: str) -> None:
    schedule = {4: {"part 0": 1, "part 1": 1, "part 2": 1}}
    mixture = mixed([3, 2, 1], [130, 70, 9], [1, 2, None], by=by, schedule=schedule)
    whole = list(Loader(mixture, **mode, **SMALL))
    for at, world_size in [(1, 2), (4, 3), (5, 5), (9, 2)]:
        first = Loader(mixture, **mode, **SMALL)
        head = list(itertools.islice(first, at))
        state = json.loads(json.dumps(first.state_dict()))
        ranks = [
            Loader(mixture, **mode, **SMALL, rank=r, world_size=world_size)
            for r in range(world_size)
        ]
        for loader in ranks:
            loader.load_state_dict(state)
        steps = list(zip(*map(list, ranks), strict=True))

        assert len(steps) == len(whole) - at
        for batches, batch in zip(steps, whole[at:], strict=True):
            assert tokens_of(list(batches)) == tokens_of([batch])
        audits = [loader.audit() for loader in (first, *ranks)]
        assert sum(audit.digest for audit in audits) == audits[0].total
        assert len(head) == at


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_mixture_serves_what_it_says(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    sizes = data.draw(st.lists(st.integers(1, 60), min_size=count, max_size=count))
    weights = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    repeats = data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    by = data.draw(st.sampled_from(["tokens", "samples"]))
    change = {data.draw(st.integers(1, 5)): {f"part {i}": i + 1.5 for i in range(count)}}
    mixture = mixed(
        [float(w) for w in weights],
        sizes,
        list(repeats),
        by=by,
        schedule=data.draw(st.sampled_from([{}, change])),
    )
    mode: Any = data.draw(st.sampled_from([param.values[0] for param in MODES]))
    sizes_: dict[str, Any] = {"block_size": data.draw(st.integers(1, 5)), "blocks_per_window": 3}
    loader = Loader(mixture, **mode, **sizes_)
    num_steps = len(loader)
    batches = list(itertools.islice(loader, data.draw(st.integers(0, num_steps))))
    other = Loader(mixture, **mode, **sizes_)
    other.load_state_dict(loader.state_dict())
    batches += list(other)

    expected: Counter[int] = Counter()
    for i, (size, repeat) in enumerate(zip(sizes, repeats, strict=True)):
        lengths = kind(i, size).lengths(0, size)
        expected.update({i * 100_000 + j: int(n) * repeat for j, n in enumerate(lengths)})
    assert tokens_of(batches) == expected
    assert len(batches) == num_steps


def test_a_state_of_a_mixture_of_eight_is_less_than_a_kilobyte() -> None:
    loader = Loader(mixed([1.0] * 8, [10**4] * 8), global_batch_size=64, seq_len=2048)
    next(iter(loader))
    state = loader.state_dict()
    state["position"]["window"] = [10**9, 3, *[10**9] * 8, *[10**12] * 8]

    assert len(json.dumps(state)) < 1024


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param({"weights": [], "sizes": []}, "at least one part", id="no-parts"),
        pytest.param({"by": "bytes"}, "tokens", id="unknown-unit"),
        pytest.param({"weights": [1, -1]}, "at least 0", id="negative"),
        pytest.param({"weights": [0, 0]}, "above 0", id="no-weight"),
        pytest.param({"weights": [1, 1e-9]}, "millionth", id="too-small"),
        pytest.param({"sizes": [5, 0]}, "at least one sample", id="empty-part"),
        pytest.param({"weights": [0, 1], "repeats": [1, None]}, "end with", id="never-served"),
        pytest.param({"repeats": [None, None]}, "end with", id="all-endless"),
        pytest.param({"repeats": [1, 0]}, "at least 1", id="no-time"),
        pytest.param({"schedule": {0: {}}}, "steps", id="step-0"),
        pytest.param({"schedule": {5: {"part 0": 1}}}, "exactly", id="a-part-is-missing"),
    ],
)
def test_wrong_mixtures_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        mixed(**{"weights": [1, 1], "sizes": [5, 5], **options})


@pytest.mark.parametrize(
    ("weights", "sizes", "field"),
    [
        pytest.param([1, 2], [20, 20], "mixture", id="weights"),
        pytest.param([1, 1], [20, 21], "samples", id="samples"),
    ],
)
def test_a_state_of_another_mixture_is_refused(
    weights: list[float], sizes: list[int], field: str
) -> None:
    state = Loader(mixed([1, 1], [20, 20]), global_batch_size=4).state_dict()

    with pytest.raises(ConfigError, match=field):
        Loader(mixed(weights, sizes), global_batch_size=4).load_state_dict(state)
