"""What the loader promises: each sample once, one order for all ranks, resumed to the token."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.loader import ArraySamples, Batch, Loader
from penstock.loader.order import ORDER_VERSION

MODES = [
    pytest.param({"global_batch_size": 8}, id="samples"),
    pytest.param({"global_batch_size": 8, "seq_len": 32}, id="packed"),
    pytest.param({"max_tokens": 512, "seq_len": 64}, id="budget"),
]


def corpus(num: int, longest: int = 100, seed: int = 0) -> ArraySamples:
    """Samples whose tokens are all different, so that each token names its place."""
    lengths = np.random.default_rng(seed).integers(1, longest + 1, num)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return ArraySamples(np.arange(1, offsets[-1] + 1, dtype=np.uint32), offsets)


def small(samples: ArraySamples, **options: Any) -> Loader:
    """A loader with windows of 32 samples."""
    return Loader(samples, **{"block_size": 4, "blocks_per_window": 8, **options})


def rows(batch: Batch) -> list[tuple[int, ...]]:
    """Each row's tokens, without padding."""
    pairs = zip(batch["tokens"], batch["segment_ids"], strict=True)
    return [tuple(tokens[segments > 0].tolist()) for tokens, segments in pairs]


def joined(batches: list[Batch]) -> list[tuple[int, ...]]:
    """The rows of a step in their global order, from the batches of all ranks."""
    dealt = itertools.zip_longest(*map(rows, batches))
    return [row for turn in dealt for row in turn if row is not None]


def served(steps: list[list[tuple[int, ...]]]) -> list[int]:
    return sorted(token for step in steps for row in step for token in row)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_ranks_share_one_order_and_serve_every_token_once(
    mode: dict[str, Any], world_size: int
) -> None:
    samples = corpus(301)
    alone = [joined([batch]) for batch in small(samples, **mode)]
    ranks = [small(samples, **mode, rank=r, world_size=world_size) for r in range(world_size)]
    batches = [list(loader) for loader in ranks]

    together = [joined(list(step)) for step in zip(*batches, strict=True)]
    assert [len(list_) for list_ in batches] == [len(loader) for loader in ranks]
    assert [[row for row in step if row] for step in together] == [
        [row for row in step if row] for step in alone
    ]
    assert served(together) == list(range(1, int(samples.lengths(0, 301).sum()) + 1))


@pytest.mark.parametrize("mode", MODES)
def test_an_interrupted_epoch_goes_on_with_exactly_the_rest_on_other_ranks(
    mode: dict[str, Any],
) -> None:
    samples = corpus(301)
    whole = [joined([batch]) for batch in small(samples, **mode)]
    for before, after, at in [(1, 2, 1), (2, 3, 5), (3, 5, 8), (5, 8, 11), (8, 1, 14)]:
        first = [small(samples, **mode, rank=r, world_size=before) for r in range(before)]
        streams = [iter(loader) for loader in first]
        head = [joined([next(stream) for stream in streams]) for _ in range(at)]
        state = json.loads(json.dumps(first[-1].state_dict()))
        second = [small(samples, **mode, rank=r, world_size=after) for r in range(after)]
        for loader in second:
            loader.load_state_dict(state)
        tail = [joined(list(step)) for step in zip(*map(list, second), strict=True)]

        assert [[row for row in step if row] for step in head + tail] == [
            [row for row in step if row] for step in whole
        ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_workers", [1, 2, 3, 4])
def test_workers_take_turns_and_change_nothing(mode: dict[str, Any], num_workers: int) -> None:
    samples = corpus(301)
    loader = small(samples, **mode, rank=1, world_size=3)
    next(iter(loader))
    streams = [loader.stream(worker=k, num_workers=num_workers) for k in range(num_workers)]
    dealt = [
        turn for turns in itertools.zip_longest(*streams) for turn in turns if turn is not None
    ]
    expected = [(batch, loader.state_dict()) for batch in loader]

    assert [state for _, state in dealt] == [state for _, state in expected]
    assert [rows(batch) for batch, _ in dealt] == [rows(batch) for batch, _ in expected]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_ranks_and_workers_interrupted_anywhere_serve_the_epoch_once(
    data: st.DataObject,
) -> None:
    mode: Any = data.draw(st.sampled_from([param.values[0] for param in MODES]))
    samples = corpus(301)
    whole = [joined([batch]) for batch in small(samples, **mode)]
    found: list[list[tuple[int, ...]]] = []
    state = None
    while len(found) < len(whole):
        world_size = data.draw(st.sampled_from([1, 2, 3, 5, 8]))
        num_workers = data.draw(st.integers(0, 4))
        num_steps = data.draw(st.integers(1, len(whole) - len(found)))
        ranks = [small(samples, **mode, rank=r, world_size=world_size) for r in range(world_size)]
        for loader in ranks:
            if state is not None:
                loader.load_state_dict(state)
        if num_workers:
            batches = [worked(loader, num_workers, num_steps) for loader in ranks]
        else:
            batches = [
                [(batch, loader.state_dict()) for batch in itertools.islice(loader, num_steps)]
                for loader in ranks
            ]
        for step in zip(*batches, strict=True):
            found.append(joined([batch for batch, _ in step]))
            assert all(after == step[0][1] for _, after in step)
        state = batches[0][-1][1]

    assert [[row for row in step if row] for step in found] == [
        [row for row in step if row] for step in whole
    ]


def worked(loader: Loader, num_workers: int, num_steps: int) -> list[tuple[Batch, Any]]:
    """The first steps, as so many workers give them in turn."""
    streams = [loader.stream(worker=k, num_workers=num_workers) for k in range(num_workers)]
    return [next(streams[step % num_workers]) for step in range(num_steps)]


@pytest.mark.parametrize("mode", MODES)
def test_a_loader_for_another_rank_is_at_the_same_place(mode: dict[str, Any]) -> None:
    loader = small(corpus(301), **mode)
    next(iter(loader))
    ranks = [loader.for_rank(r, 3) for r in range(3)]
    expected = joined([next(iter(loader))])

    assert [rank.world_size for rank in ranks] == [3, 3, 3]
    assert joined([next(iter(rank)) for rank in ranks]) == expected
    with pytest.raises(ConfigError, match="rank"):
        loader.for_rank(3, 3)
    loader.begin(0)
    assert loader.step == 0


@pytest.mark.parametrize("mode", MODES)
def test_batches_say_where_documents_begin_and_what_to_predict(mode: dict[str, Any]) -> None:
    for batch in small(corpus(120), **mode, doc_ids=True):
        ends, flat = batch["cu_seqlens"], batch["tokens"].reshape(-1)
        pairs = list(itertools.pairwise(ends.tolist()))
        segments = batch["segment_ids"].reshape(-1)
        for begin, end in pairs:
            assert len(set(segments[begin:end].tolist())) == 1
            assert batch["position_ids"].reshape(-1)[begin:end].tolist() == list(range(end - begin))
            labels = batch["labels"].reshape(-1)[begin:end].tolist()
            if segments[begin]:
                assert labels == [*flat[begin + 1 : end].tolist(), -100]
                assert np.all(np.diff(flat[begin:end]) == 1)
            else:
                assert labels == [-100] * (end - begin)
        assert ends[-1] == flat.size
        assert ends.dtype == np.int32
        assert batch["max_seqlen"] == max(end - begin for begin, end in pairs)
        assert batch["num_label_tokens"] == int((batch["labels"] != -100).sum())
        assert len(batch["doc_ids"]) == sum(bool(segments[begin]) for begin, _ in pairs)


@pytest.mark.parametrize("mode", MODES)
def test_every_rank_knows_how_many_labels_the_step_has(mode: dict[str, Any]) -> None:
    samples = corpus(200)
    for step in zip(*(small(samples, **mode, rank=r, world_size=3) for r in range(3)), strict=True):
        labels = sum(int((batch["labels"] != -100).sum()) for batch in step)

        assert [batch["num_label_tokens"] for batch in step] == [labels] * 3


@pytest.mark.parametrize("mode", MODES)
def test_epochs_follow_one_another_in_other_orders(mode: dict[str, Any]) -> None:
    loader = small(corpus(200), **mode)
    first, second = [rows(b) for b in loader], [rows(b) for b in loader]

    assert second == [rows(b) for b in small(corpus(200), **mode, epoch=1)]
    assert first != second
    assert served(first) == served(second)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("last_step", ["pad", "drop"])
def test_digests_of_ranks_and_of_what_was_dropped_add_up(
    mode: dict[str, Any], last_step: str
) -> None:
    samples = corpus(301)
    audits, state = [], None
    for world_size, steps in [(3, 4), (2, 1000)]:
        ranks = [
            small(samples, **mode, last_step=last_step, rank=r, world_size=world_size)
            for r in range(world_size)
        ]
        for loader in ranks:
            if state is not None:
                loader.load_state_dict(state)
            for _ in zip(range(steps), loader, strict=False):
                pass
        state = ranks[0].state_dict()
        audits += [loader.audit() for loader in ranks]

    assert sum(audit.digest for audit in audits) + audits[-1].dropped == audits[0].total
    tokens = sum(audit.tokens for audit in audits) + audits[-1].dropped_tokens
    assert tokens == samples.lengths(0, 301).sum()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param({}, "neither", id="no-batch-mode"),
        pytest.param({"global_batch_size": 8, "max_tokens": 8}, "both", id="two-batch-modes"),
        pytest.param({"global_batch_size": 0}, "at least 1", id="no-rows"),
        pytest.param({"global_batch_size": 8, "seq_len": 0}, "seq_len is 0", id="no-row-length"),
        pytest.param({"global_batch_size": 2, "world_size": 3}, "each rank", id="too-few-rows"),
        pytest.param({"max_tokens": 8, "seq_len": 8, "world_size": 2}, "16", id="small-budget"),
        pytest.param({"global_batch_size": 8, "rank": 1}, "rank is 1", id="rank-outside"),
        pytest.param({"global_batch_size": 8, "rank": -1}, "rank is -1", id="negative-rank"),
        pytest.param({"global_batch_size": 8.0}, "whole number", id="a-fraction"),
        pytest.param({"global_batch_size": 8, "last_step": "x"}, "'pad'", id="unknown-policy"),
        pytest.param({"max_tokens": 8}, "seq_len", id="sample-beyond-the-budget"),
    ],
)
def test_wrong_arguments_are_refused_before_training(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Loader(corpus(20), **options)


def test_an_empty_slice_is_refused() -> None:
    empty = ArraySamples(np.zeros(0, np.uint16), np.zeros(1, np.int64))

    with pytest.raises(ConfigError, match="at least one sample"):
        Loader(empty, global_batch_size=4)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        pytest.param({"seed": 1}, "seed", id="seed"),
        pytest.param({"epoch": 1}, "epoch", id="epoch"),
        pytest.param({"seq_len": 64}, "seq_len", id="row-length"),
        pytest.param({"global_batch_size": 4}, "global_batch_size", id="batch"),
        pytest.param({"blocks_per_window": 9}, "blocks_per_window", id="window"),
        pytest.param({"last_step": "drop"}, "last_step", id="policy"),
    ],
)
def test_a_state_of_other_settings_is_refused_by_name(changed: dict[str, Any], field: str) -> None:
    same = {"seq_len": 32, "global_batch_size": 8}
    state = small(corpus(50), **same).state_dict()

    with pytest.raises(ConfigError, match=field):
        small(corpus(50), **{**same, **changed}).load_state_dict(state)


def test_a_state_of_other_samples_is_refused() -> None:
    state = small(corpus(50), global_batch_size=4).state_dict()

    with pytest.raises(ConfigError, match="samples"):
        small(corpus(51), global_batch_size=4).load_state_dict(state)


def test_a_state_that_is_none_is_refused() -> None:
    loader = small(corpus(50), global_batch_size=4)

    with pytest.raises(ConfigError, match="position"):
        loader.load_state_dict({**loader.state_dict(), "position": None})


@pytest.mark.parametrize("window", [[], [0], [0, 0, 0], ["a", 0], None])
def test_a_state_whose_place_is_damaged_is_refused(window: Any) -> None:
    loader = small(corpus(50), global_batch_size=4)
    state = loader.state_dict()
    state["position"]["window"] = window

    with pytest.raises(ConfigError, match="position"):
        loader.load_state_dict(state)


def test_numbers_of_numpy_are_as_good_and_their_state_is_json() -> None:
    loader = Loader(corpus(50), global_batch_size=np.int64(4), seed=np.int32(3))  # type: ignore[arg-type]
    plain = Loader(corpus(50), global_batch_size=4, seed=3)

    assert json.loads(json.dumps(loader.state_dict())) == plain.state_dict()


def test_a_state_is_less_than_a_kilobyte() -> None:
    loader = Loader(corpus(50), seq_len=2**20, global_batch_size=2**40, seed=2**62, epoch=10**9)

    assert len(json.dumps(loader.state_dict())) < 1024


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_sizes_and_settings_serve_each_token_once(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=60))
    size = data.draw(st.integers(1, 10))
    mode: dict[str, Any] = data.draw(
        st.sampled_from(
            [
                {"global_batch_size": size},
                {"global_batch_size": size, "seq_len": data.draw(st.integers(1, 50))},
                {"max_tokens": data.draw(st.integers(40, 90))},
                {"max_tokens": 50, "seq_len": data.draw(st.integers(1, 50))},
            ]
        )
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    samples = ArraySamples(np.arange(offsets[-1], dtype=np.uint32), offsets)
    options: dict[str, Any] = {
        "block_size": data.draw(st.integers(1, 9)),
        "blocks_per_window": data.draw(st.integers(1, 9)),
        "seed": data.draw(st.integers(0, 2**40)),
    }
    loader = Loader(samples, **mode, **options)
    num_steps = len(loader)
    head = list(itertools.islice(loader, data.draw(st.integers(0, num_steps))))
    other = Loader(samples, **mode, **options)
    other.load_state_dict(loader.state_dict())
    batches = head + list(other)

    tokens = Counter(token for batch in batches for row in rows(batch) for token in row)
    assert tokens == Counter(range(offsets[-1]))
    assert len(batches) == num_steps
    if "max_tokens" in mode:
        assert all(batch["tokens"].size <= mode["max_tokens"] for batch in batches)


@pytest.mark.parametrize(
    ("mode", "digest"),
    [
        pytest.param(MODES[0].values[0], "9b8ebeaae4dc37f8", id="samples"),
        pytest.param(MODES[1].values[0], "06d1fcf59f274cd0", id="packed"),
        pytest.param(MODES[2].values[0], "6b79c9ce85350468", id="budget"),
    ],
)
def test_the_order_is_that_of_its_version(mode: Any, digest: str) -> None:
    """When this fails, states that were saved before lead elsewhere: raise `ORDER_VERSION`."""
    offsets = np.cumsum([0, *(1 + 7 * i % 61 for i in range(300))])
    tokens = np.arange(offsets[-1], dtype=np.uint16)
    loader = small(ArraySamples(tokens, offsets, fingerprint="0" * 32), **mode, seed=5)
    order = str([rows(batch) for batch in loader])

    assert ORDER_VERSION == 1
    assert hashlib.sha256(order.encode()).hexdigest()[:16] == digest
