"""The contenders of `benchmarks/loader.py`: how each is given the data, read, and resumed.

Each reads the same sequences from its own format on the local disk, shuffled, in one
process without workers; Grain, which has no format, from arrays in memory. A contender
gives an iterable for an epoch and goes on from a state; the benchmark does the rest.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

SEQ_LEN = 2048
BATCH = 256
ROWS = 64

PEERS = {
    "litdata": "litdata",
    "mosaicml": "mosaicml-streaming",
    "webdataset": "webdataset",
    "grain": "grain",
}
"""Contenders by name, and the package that each needs."""


class Data:
    """The sequences that all read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.offsets = np.load(folder / "offsets.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[npt.NDArray[np.uint16]]:
        tokens, offsets = np.asarray(self.tokens), self.offsets.tolist()
        return (tokens[a:b] for a, b in itertools.pairwise(offsets))


class Contender(Protocol):
    """One library, reading one kind of stream."""

    def build(self) -> None:
        """Write the data in its format, unless an earlier run did."""

    def open(self) -> Any:
        """Something to iterate."""

    def epoch(self, opened: Any, number: int) -> Iterable[Any]:
        """An epoch of it."""

    def tokens(self, item: Any) -> npt.NDArray[Any]:
        """The tokens of an item, to check that all were served."""

    def save(self, opened: Any, iterator: Any, num_items: int) -> Any:
        """The state after so many items; None if there is none to be had."""

    def resume(self, opened: Any, state: Any) -> Iterator[Any]:
        """Go on from there."""


class _Penstock:
    def __init__(self, data: Data, kind: str, shards: Path | None) -> None:
        self.data, self.shards = data, shards
        self.options: dict[str, Any] = {"global_batch_size": BATCH}
        if kind == "packed":
            self.options = {"global_batch_size": ROWS, "seq_len": SEQ_LEN}

    def build(self) -> None:
        if self.shards is not None and not self.shards.exists():
            raise SystemExit("penstock:mds reads what mosaicml wrote: measure it too")

    def open(self) -> Any:
        import penstock as ps

        if self.shards is not None:
            return ps.Loader(ps.open_shards(self.shards), **self.options)
        samples = ps.ArraySamples(self.data.tokens, self.data.offsets, fingerprint="0" * 32)
        return ps.Loader(samples, **self.options)

    def epoch(self, opened: Any, number: int) -> Iterable[Any]:
        return opened  # type: ignore[no-any-return]

    def tokens(self, item: Any) -> npt.NDArray[Any]:
        return item["tokens"][item["segment_ids"] > 0]  # type: ignore[no-any-return]

    def save(self, opened: Any, iterator: Any, num_items: int) -> Any:
        return opened.state_dict()

    def resume(self, opened: Any, state: Any) -> Iterator[Any]:
        opened.load_state_dict(state)
        return iter(opened)


class _LitData:
    """Arrays as they are; or one long row of tokens, read in blocks: not packed, only cut."""

    def __init__(self, data: Data, kind: str) -> None:
        self.data, self.kind = data, kind
        self.folder = data.folder / f"litdata-{kind}"

    def _item_loader(self) -> Any:
        return _load("litdata").TokensLoader(SEQ_LEN) if self.kind == "packed" else None

    def build(self) -> None:
        if (self.folder / "index.json").exists():
            return
        torch, writing = _load("torch"), _load("litdata.streaming.writer")
        size = {"chunk_bytes": "64MB"} if self.kind == "raw" else {"chunk_size": SEQ_LEN << 12}
        writer = writing.BinaryWriter(str(self.folder), item_loader=self._item_loader(), **size)
        for i, row in enumerate(self.data):
            writer.add_item(
                i, row if self.kind == "raw" else torch.from_numpy(row.astype(np.int32))
            )
        writer.done()
        writer.merge(1)

    def open(self) -> Any:
        options = {"shuffle": True, "item_loader": self._item_loader()}
        return _load("litdata").StreamingDataset(str(self.folder), **options)

    def epoch(self, opened: Any, number: int) -> Iterable[Any]:
        opened.set_epoch(number)
        return opened  # type: ignore[no-any-return]

    def tokens(self, item: Any) -> npt.NDArray[Any]:
        return np.asarray(item)

    def save(self, opened: Any, iterator: Any, num_items: int) -> Any:
        return opened.state_dict(num_items, 0, 1)

    def resume(self, opened: Any, state: Any) -> Iterator[Any]:
        opened.load_state_dict(state)
        return iter(opened)


class _Mosaic:
    def __init__(self, data: Data) -> None:
        self.data, self.folder = data, data.folder / "mds"
        without_torchvision()

    def build(self) -> None:
        if (self.folder / "index.json").exists():
            return
        options = {"columns": {"tokens": "ndarray:uint16"}, "size_limit": 1 << 26}
        with _load("streaming").MDSWriter(out=str(self.folder), **options) as writer:
            for row in self.data:
                writer.write({"tokens": row})

    def open(self) -> Any:
        _load("streaming.base.util").clean_stale_shared_memory()
        options = {"shuffle": True, "batch_size": BATCH}
        return _load("streaming").StreamingDataset(local=str(self.folder), **options)

    def epoch(self, opened: Any, number: int) -> Iterable[Any]:
        return opened  # type: ignore[no-any-return]

    def tokens(self, item: Any) -> npt.NDArray[Any]:
        return item["tokens"]  # type: ignore[no-any-return]

    def save(self, opened: Any, iterator: Any, num_items: int) -> Any:
        return opened.state_dict(num_items, True)

    def resume(self, opened: Any, state: Any) -> Iterator[Any]:
        opened.load_state_dict(state)
        return iter(opened)


def without_torchvision() -> None:
    """Stand in for torchvision, which only the library's image data sets use.

    It must fit the build of PyTorch to the letter, and there is not one for each.
    """
    for part in ("", ".datasets", ".transforms", ".transforms.functional"):
        name = f"torchvision{part}"
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = ModuleSpec(name, None)
    sys.modules["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
    sys.modules["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]


class _WebDataset:
    def __init__(self, data: Data) -> None:
        self.data, self.folder = data, data.folder / "webdataset"

    def build(self) -> None:
        if (self.folder / "done").exists():
            return
        webdataset = _load("webdataset")
        self.folder.mkdir(exist_ok=True)
        pattern = str(self.folder / "%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=10_000, mtime=0, verbose=0) as writer:
            for i, row in enumerate(self.data):
                writer.write({"__key__": f"{i:09}", "bin": row.tobytes()})
        (self.folder / "done").touch()

    def open(self) -> Any:
        webdataset = _load("webdataset")
        urls = sorted(map(str, self.folder.glob("*.tar")))
        return webdataset.WebDataset(urls, shardshuffle=100, seed=0).shuffle(1000)

    def epoch(self, opened: Any, number: int) -> Iterable[Any]:
        return (np.frombuffer(item["bin"], np.uint16) for item in opened)

    def tokens(self, item: Any) -> npt.NDArray[Any]:
        return item  # type: ignore[no-any-return]

    def save(self, opened: Any, iterator: Any, num_items: int) -> Any:
        return None

    def resume(self, opened: Any, state: Any) -> Iterator[Any]:
        raise NotImplementedError


class _Grain:
    def __init__(self, data: Data, kind: str) -> None:
        self.data, self.kind = data, kind

    def build(self) -> None:
        pass

    def open(self) -> Any:
        grain = _load("grain")
        rows = grain.MapDataset.source(list(self.data)).shuffle(seed=0)
        # Threads that fetch ahead only cost time where all is in memory.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        if self.kind == "raw":
            return rows.to_iter_dataset(options)
        named = rows.map(lambda row: {"tokens": row}).to_iter_dataset(options)
        return grain.experimental.FirstFitPackIterDataset(
            named, length_struct={"tokens": SEQ_LEN}, num_packing_bins=64
        )

    def epoch(self, opened: Any, number: int) -> Iterable[Any]:
        return opened  # type: ignore[no-any-return]

    def tokens(self, item: Any) -> npt.NDArray[Any]:
        if self.kind == "raw":
            return item  # type: ignore[no-any-return]
        return item["tokens"][item["tokens_segment_ids"] > 0]  # type: ignore[no-any-return]

    def save(self, opened: Any, iterator: Any, num_items: int) -> Any:
        return iterator.get_state()

    def resume(self, opened: Any, state: Any) -> Iterator[Any]:
        iterator = iter(opened)
        iterator.set_state(state)
        return iterator  # type: ignore[no-any-return]


def make(name: str, kind: str, data: Data) -> Contender:
    """A contender by its name, reading raw sequences or packed rows."""
    if name == "penstock":
        return _Penstock(data, kind, None)
    if name == "penstock:mds":
        return _Penstock(data, kind, data.folder / "mds")
    if name == "litdata":
        return _LitData(data, kind)
    if name == "grain":
        return _Grain(data, kind)
    return _Mosaic(data) if name == "mosaicml" else _WebDataset(data)


def _load(name: str) -> Any:
    """A peer's module, which the project itself does not have."""
    return import_module(name)
