"""Batches through PyTorch: the same whatever the workers, resumed to the batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from penstock.errors import ConfigError  # noqa: E402
from penstock.loader import ArraySamples, Loader  # noqa: E402
from penstock.loader import torch as loader_torch  # noqa: E402
from penstock.loader.torch import DeviceBatches, TokenDataset  # noqa: E402

# PyTorch counts this machine's cores, and warns of threads and forks of its own.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:.set_vital", "ignore::DeprecationWarning"
)

WAYS: list[dict[str, Any]] = [
    {"seq_len": 32, "global_batch_size": 4},
    {"global_batch_size": 6},
    {"max_tokens": 200},
]


def _loader(**settings: Any) -> Loader:
    rng = np.random.default_rng(1)
    arrays = [rng.integers(0, 999, size).astype(np.uint16) for size in rng.integers(1, 60, 150)]
    offsets = np.cumsum([0, *map(len, arrays)])
    samples = ArraySamples(np.concatenate(arrays), offsets)
    given = {"seq_len": 32, "global_batch_size": 4, "block_size": 8, "blocks_per_window": 3}
    if "max_tokens" in settings or "global_batch_size" in settings:
        del given["seq_len"], given["global_batch_size"]
    return Loader(samples, **{**given, **settings})


def _plain(batches: Any) -> list[dict[str, Any]]:
    return [
        {k: v.tolist() if hasattr(v, "tolist") else v for k, v in batch.items()}
        for batch in batches
    ]


def _data_loader(dataset: Any, num_workers: int, context: str | None = None, **more: Any) -> Any:
    options = {"multiprocessing_context": context} if num_workers else {}
    return torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=num_workers, **options, **more
    )


@pytest.mark.parametrize("settings", WAYS, ids=["packed", "samples", "budget"])
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_workers_change_no_batch_and_no_order(settings: dict[str, Any], num_workers: int) -> None:
    expected = _plain(_loader(**settings))

    found = _plain(_data_loader(TokenDataset(_loader(**settings)), num_workers, "fork"))

    assert found == expected
    assert len(_data_loader(TokenDataset(_loader(**settings)), num_workers)) == len(expected)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_may_be_started_in_other_ways(context: str) -> None:
    found = _plain(_data_loader(TokenDataset(_loader()), 2, context))

    assert found == _plain(_loader())


def test_tensors_are_what_a_model_takes() -> None:
    batch = next(iter(TokenDataset(_loader())))

    assert batch["labels"].dtype == torch.int64
    assert batch["cu_seqlens"].dtype == torch.int32
    assert isinstance(batch["num_label_tokens"], int)
    torch.nn.functional.cross_entropy(
        torch.zeros(batch["labels"].numel(), 1000), batch["labels"].reshape(-1)
    )


def test_the_next_iteration_is_the_next_epoch() -> None:
    loader = _loader()
    epochs = [_plain(loader) for _ in range(3)]
    here = _data_loader(TokenDataset(_loader()), 0)
    lasting = _data_loader(TokenDataset(_loader()), 2, "fork", persistent_workers=True)
    dataset = TokenDataset(_loader())

    assert [_plain(here) for _ in range(3)] == epochs
    assert [_plain(lasting) for _ in range(3)] == epochs
    for epoch in (2, 0):
        dataset.set_epoch(epoch)
        assert _plain(_data_loader(dataset, 2, "fork")) == epochs[epoch]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("served", [0, 1, 5, 8])
def test_a_stateful_data_loader_goes_on_where_it_was(num_workers: int, served: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    expected = _plain(_loader())
    first = stateful(TokenDataset(_loader()), batch_size=None, num_workers=num_workers)
    batches = iter(first)
    for _ in range(served):
        next(batches)
    state = first.state_dict()

    second = stateful(TokenDataset(_loader()), batch_size=None, num_workers=num_workers)
    second.load_state_dict(state)

    assert _plain(second) == expected[served:]


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0), (2, 3)])
@pytest.mark.parametrize("served", [0, 1, 7])
def test_batches_go_on_with_any_number_of_workers(before: int, after: int, served: int) -> None:
    expected = _plain(_loader())
    first = DeviceBatches(_loader(), num_workers=before, context="fork" if before else None)
    batches = iter(first)
    begun = _plain(next(batches) for _ in range(served))
    state = json.loads(json.dumps(first.state_dict()))

    second = DeviceBatches(_loader(), num_workers=after, context="fork" if after else None)
    second.load_state_dict(state)

    assert begun + _plain(second) == expected
    assert len(json.dumps(state)) < 1000
    loader = _loader()
    list(loader)
    assert _plain(second) == _plain(loader)  # the next epoch


def test_ranks_are_those_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert loader_torch.rank_and_world_size() == (1, 2)
    assert _plain(TokenDataset(_loader())) == _plain(_loader(rank=1, world_size=2))
    assert _plain(DeviceBatches(_loader())) == _plain(_loader(rank=1, world_size=2))
    given = _loader(rank=0, world_size=4)
    assert _plain(TokenDataset(given)) == _plain(_loader(rank=0, world_size=4))


def test_a_state_of_other_settings_is_refused() -> None:
    state = DeviceBatches(_loader()).state_dict()

    with pytest.raises(ConfigError, match="seed"):
        DeviceBatches(_loader(seed=1)).load_state_dict(state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_of_the_loader() -> None:
    found = DeviceBatches(_loader(), device="cuda", num_workers=2)

    assert _plain(found) == _plain(_loader())
    assert next(iter(found))["tokens"].device.type == "cuda"
