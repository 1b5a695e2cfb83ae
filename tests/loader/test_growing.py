"""Moving to newer samples in the middle of an epoch."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.loader import ArraySamples, Batch, Loader, Mixture, Part

SMALL: dict[str, Any] = {"block_size": 2, "blocks_per_window": 5, "doc_ids": True}
MODES = [
    pytest.param({"global_batch_size": 4}, id="samples"),
    pytest.param({"global_batch_size": 2, "seq_len": 16}, id="packed"),
    pytest.param({"max_tokens": 48, "seq_len": 16}, id="budget"),
]


class Named(ArraySamples):
    """Samples that have names; a document's tokens are its number, as often as its length."""

    def __init__(self, numbers: list[int]) -> None:
        lengths = [1 + number % 23 for number in numbers]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        super().__init__(np.repeat(np.array(numbers, np.uint32), lengths), offsets)
        self._names = np.array(numbers, np.int64)

    def doc_ids(self, positions: np.ndarray[Any, Any]) -> pa.Array:
        return pa.array(self._names[positions]).cast(pa.string())


def names(batches: list[Batch]) -> Counter[int]:
    """How many tokens of each document were served."""
    return Counter(
        token for batch in batches for token in batch["tokens"][batch["segment_ids"] > 0].tolist()
    )


def whole(numbers: set[int]) -> Counter[int]:
    return Counter({number: 1 + number % 23 for number in numbers})


@pytest.mark.parametrize("mode", MODES)
def test_the_rest_of_the_epoch_is_what_is_there_and_was_not_served(mode: dict[str, Any]) -> None:
    old, new = list(range(200)), [*range(250, 199, -1), *range(30, 200)]
    loader = Loader(Named(old), **mode, **SMALL)
    head = list(itertools.islice(loader, 9))
    moved = loader.moved(Named(new))
    num_steps = len(moved)
    tail = list(moved)

    seen = set(names(head))
    assert names(tail) == whole(set(new) - seen)
    assert len(tail) == num_steps
    audit = moved.audit()
    assert audit.digest == audit.total
    assert names(list(moved)) == whole(set(new))  # the next epoch
    assert moved.epoch == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_moved_loader_is_resumed_on_other_ranks(mode: dict[str, Any]) -> None:
    runs = [Named(list(range(150))), Named(list(range(20, 180))), Named(list(range(40, 200)))]
    loader = Loader(runs[0], **mode, **SMALL)
    list(itertools.islice(loader, 4))
    loader = loader.moved(runs[1])
    list(itertools.islice(loader, 3))
    loader = loader.moved(runs[2])
    list(itertools.islice(loader, 2))
    state = json.loads(json.dumps(loader.state_dict()))
    ranks = [Loader(runs[2], **mode, **SMALL, rank=r, world_size=2) for r in range(2)]
    for other in ranks:
        other.load_state_dict(state, before=runs[:2])
    expected = list(loader)
    steps = list(zip(*map(list, ranks), strict=True))

    assert len(json.dumps(state)) < 1024
    assert [names(list(step)) for step in steps] == [names([batch]) for batch in expected]
    with pytest.raises(ConfigError, match="before"):
        Loader(runs[2], **mode, **SMALL).load_state_dict(state)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_nothing_comes_twice_and_nothing_is_lost(data: st.DataObject) -> None:
    mode: Any = data.draw(st.sampled_from([param.values[0] for param in MODES]))
    numbers = st.lists(st.integers(0, 60), min_size=1, max_size=50, unique=True)
    loader = Loader(Named(data.draw(numbers)), **mode, **SMALL)
    served: Counter[int] = Counter()
    for _ in range(data.draw(st.integers(1, 3))):
        steps = data.draw(st.integers(0, max(0, len(loader) - 1)))
        served += names(list(itertools.islice(loader, steps)))
        newest = data.draw(numbers)
        loader = loader.moved(Named(newest))
    rest = names(list(loader))

    assert set(served) | set(rest) >= set(newest)
    assert not set(served) & set(rest)
    assert rest == whole(set(newest) - set(served))


def test_between_epochs_moving_is_starting_with_the_newer_samples() -> None:
    mode: Any = {"global_batch_size": 4, **SMALL}
    loader = Loader(Named(list(range(50))), **mode)
    list(loader)
    newer = Named(list(range(10, 80)))
    fresh = Loader(newer, **mode, epoch=1)

    for mine, expected in zip(loader.moved(newer), fresh, strict=True):
        assert mine["tokens"].tolist() == expected["tokens"].tolist()


def test_mixtures_move_between_epochs_only() -> None:
    mixture = Mixture(parts={"a": Part(samples=Named([1, 2, 3]), weight=1)})

    with pytest.raises(ConfigError, match="Mixture"):
        Loader(mixture, global_batch_size=1).moved(Named([1, 2]))
