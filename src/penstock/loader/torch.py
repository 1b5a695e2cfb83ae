"""Batches as PyTorch tensors: a data set for `DataLoader`, and batches on their way to a device.

All that decides what is in a batch is in `Loader`; workers only share the reading of it. So
neither their number nor how they are started changes a batch or the order.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from penstock.errors import MissingExtra
from penstock.loader.loader import Loader, State

try:
    import torch
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info
except ImportError as err:
    raise MissingExtra("torch", "penstock.loader.torch") from err

__all__ = ["DeviceBatches", "TokenDataset", "rank_and_world_size"]

Batch = dict[str, Any]


def rank_and_world_size() -> tuple[int, int]:
    """Those of the process group, else of `torchrun`'s environment, else 0 and 1."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class TokenDataset(IterableDataset):  # type: ignore[misc]  # torch may not be installed
    """The rest of a loader's epoch, for `DataLoader(dataset, batch_size=None, num_workers=...)`.

    Iterating again serves the next epoch. But a `DataLoader` that starts new workers
    for each epoch gives them this object as it is here: call `set_epoch` before each then.

    It has a state of its own, so that `torchdata.StatefulDataLoader` resumes it exactly, on
    as many workers as before. `DeviceBatches` resumes on any number.

    Args:
        loader: Of any rank. One of a world of 1 becomes this process's, see
            `rank_and_world_size`.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = _for_this_rank(loader)
        self._in_turn = False

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._loader.begin(epoch)
        self._in_turn = False

    def __iter__(self) -> Iterator[Batch]:
        for batch, _ in self.with_states():
            yield batch

    def with_states(self) -> Iterator[tuple[Batch, State]]:
        """This worker's batches, each with the loader's state after it."""
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        # After a batch of its own, a worker's next is the one after all others' next.
        turn = num_workers - 1 if self._in_turn else worker
        epoch = self._loader.epoch
        for batch, state in self._loader.stream(worker=turn, num_workers=num_workers):
            self._state, self._in_turn = state, True
            yield _tensors(batch), state
        self.set_epoch(epoch + 1)
        self._state = None

    _state: State | None = None

    def __len__(self) -> int:
        """Steps of the epoch; what `DataLoader` takes for its length."""
        return len(self._loader)

    def state_dict(self) -> State:
        """The place after the last batch that this object gave."""
        state = self._loader.state_dict() if self._state is None else self._state
        return {"loader": state, "in_turn": self._in_turn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after that batch, in the worker that gave it.

        Raises:
            ConfigError: The state is of other samples or settings.
        """
        self._loader.load_state_dict(state["loader"], before=self._loader.before)
        self._in_turn, self._state = bool(state["in_turn"]), None


class DeviceBatches:
    """A loader's batches, read by workers and copied to a device ahead of their use.

    Iterating serves the rest of the epoch; iterating again the next one.
    `state_dict` is of the last batch that was handed out, not of what workers have read
    ahead, and is the loader's own: it holds for any number of ranks and workers.

    Args:
        loader: Of any rank. One of a world of 1 becomes this process's, see
            `rank_and_world_size`.
        device: Where tensors are to be. Copies to a GPU come from pinned memory and run
            beside the computation, one batch ahead.
        num_workers: Processes that read; 0 reads here.
        context: How they are started: ``"fork"``, ``"spawn"`` or ``"forkserver"``; None
            for what Python does.
        prefetch: Batches that each worker reads ahead.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        device: str | torch.device = "cpu",
        num_workers: int = 0,
        context: str | None = None,
        prefetch: int = 2,
    ) -> None:
        self._loader = _for_this_rank(loader)
        self._device = torch.device(device)
        self._options: dict[str, Any] = {"num_workers": num_workers}
        self._options["pin_memory"] = self._device.type == "cuda"
        if num_workers:
            self._options |= {"multiprocessing_context": context, "prefetch_factor": prefetch}

    def __iter__(self) -> Iterator[Batch]:
        self._catch_up()
        epoch = self._loader.epoch
        source = DataLoader(_WithStates(self._loader), batch_size=None, **self._options)
        for batch, state in self._ahead(iter(source)):
            self._state = state
            yield batch
        self._state = None
        self._loader.begin(epoch + 1)

    _state: State | None = None
    """After the last batch that was handed out, where the loader is not there yet."""

    def _catch_up(self) -> None:
        if self._state is not None:
            self._loader.load_state_dict(self._state, before=self._loader.before)
            self._state = None

    def _ahead(self, items: Iterator[Any]) -> Iterator[tuple[Batch, State]]:
        """Items whose batches are on the device, the next one on its way there."""
        if self._device.type != "cuda":
            for batch, state in items:
                yield _moved(batch, self._device), state
            return
        stream = torch.cuda.Stream(self._device)
        following = _started(items, stream, self._device)
        while following is not None:
            (batch, state), current = following, torch.cuda.current_stream(self._device)
            current.wait_stream(stream)
            for value in batch.values():
                if isinstance(value, torch.Tensor):
                    value.record_stream(current)
            following = _started(items, stream, self._device)
            yield batch, state

    def __len__(self) -> int:
        return len(self._loader)

    def state_dict(self) -> State:
        """The loader's, after the last batch that was handed out; less than 1 KB."""
        self._catch_up()
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where any loader of the same samples and settings was.

        Raises:
            ConfigError: The state is of other samples or settings.
        """
        self._loader.load_state_dict(state, before=self._loader.before)
        self._state = None


class _WithStates(IterableDataset):  # type: ignore[misc]
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[Batch, State]]:
        # A copy, as the loader here is moved by whom the batches are handed to.
        return TokenDataset(copy.copy(self._loader)).with_states()


def _for_this_rank(loader: Loader) -> Loader:
    rank, world_size = rank_and_world_size()
    return loader.for_rank(rank, world_size) if loader.world_size == 1 else loader


def _tensors(batch: Batch) -> Batch:
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in batch.items()
    }


def _moved(batch: Batch, device: torch.device) -> Batch:
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def _started(items: Iterator[Any], stream: Any, device: torch.device) -> Any:
    """The next item, its batch on its way to the device; None at the end."""
    found = next(items, None)
    if found is None:
        return None
    with torch.cuda.stream(stream):
        return _moved(found[0], device), found[1]
