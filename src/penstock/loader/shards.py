"""The samples of a folder of shards, local or remote, ours or another library's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import ConfigError, ShardError
from penstock.kernels.ranges import copy_ranges
from penstock.loader.formats.manifest import Manifest, Shard, read_file, rows_of
from penstock.loader.formats.units import Opened, Reader, Unit
from penstock.loader.formats.values import I64, Values, offsets_of
from penstock.loader.loader import Loader
from penstock.loader.places import Place
from penstock.loader.samples import I32, Tokens
from penstock.loader.tokenizing import TokenizingReader

# Units kept at hand: mapped ones cost little, decoded ones what they hold.
_MAX_OPEN = 256
_MAX_MEMORY = 512 << 20


@dataclass(frozen=True, slots=True)
class _AtHand:
    """A unit that is open: its tokens, and the row of each of its samples where some are dead."""

    opened: Opened
    tokens: Values
    live: I64 | None


class Shards:
    """The samples of a folder of shards: what `open_shards` gives.

    A position is a row's place among all, shard after shard. Picklable; safe to
    use from many threads.

    Attributes:
        manifest: What `penstock export` recorded; None for shards of another library.
    """

    def __init__(
        self,
        *,
        place: Place,
        reader: Reader,
        units: tuple[Unit, ...],
        manifest: Manifest | None,
        column: str,
        kind: np.dtype[Any],
        names: str | None,
    ) -> None:
        self.manifest = manifest
        self._place, self._reader, self._units = place, reader, units
        self._column, self._kind, self._names = column, kind, names
        counts = np.array([unit.num_rows - len(unit.dead) for unit in units], np.int64)
        self._firsts = offsets_of(counts)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._at_hand: OrderedDict[int, _AtHand] = OrderedDict()
        self._lengths: dict[int, I32] = {}
        self._documents: OrderedDict[str, pa.Table] = OrderedDict()
        self._opening: dict[int, threading.Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        unsaved = {"_lock", "_at_hand", "_lengths", "_documents", "_opening", "_shards"}
        return {name: value for name, value in vars(self).items() if name not in unsaved}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def __repr__(self) -> str:
        shards = len({unit.file.name for unit in self._units})
        return f"Shards({self._place.url!r}, {self.num_samples:,} samples in {shards:,} shards)"

    @property
    def num_samples(self) -> int:
        """Rows that count."""
        return int(self._firsts[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 where the shards hold such, else uint32."""
        return self._kind if self._kind == np.uint16 else np.dtype(np.uint32)

    @cached_property
    def fingerprint(self) -> str:
        """Names the tokens: the hash of every shard, or its size where no index has hashes."""
        facts = [
            (unit.file.name, unit.file.num_bytes, sorted(unit.file.hashes.items()), unit.dead)
            for unit in self._units
        ]
        made_by = ""
        if isinstance(self._reader, TokenizingReader):
            made_by = f"{self._reader.column} by {self._reader.step.fingerprint()}"
        named = repr((self._column, made_by, facts))
        return hashlib.sha256(named.encode()).hexdigest()[:32]

    def lengths(self, first: int, last: int) -> I32:
        """Tokens of each sample at the positions `first` to `last`, without the latter."""
        pieces = [np.zeros(0, np.int32)]
        unit = int(np.searchsorted(self._firsts, first, side="right")) - 1
        while first < last:
            start, end = self._firsts[unit], self._firsts[unit + 1]
            pieces.append(self._unit_lengths(unit)[first - start : last - start])
            first = max(first, int(end))
            unit += 1
        return np.concatenate(pieces)

    def gather(
        self, positions: I64, starts: I64 | None = None, lengths: I32 | None = None
    ) -> tuple[Tokens, I64]:
        """The samples at these positions, or a piece of each, in the order asked.

        Raises:
            ShardError: A shard is damaged and cannot be fetched again.

        Cost: 0.1 us a sample that is at hand, besides copying its bytes.
        """
        at = np.searchsorted(self._firsts, positions, side="right") - 1
        rows, width = positions - self._firsts[at], self._kind.itemsize
        units, order = _grouped(at)
        sources, sizes = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        found = []
        for unit, group in zip(units.tolist(), order, strict=True):
            hand = self._open(unit)
            place = rows[group] if hand.live is None else hand.live[rows[group]]
            sources[group], sizes[group] = hand.tokens.starts[place], hand.tokens.sizes[place]
            found.append(hand.tokens.data)
        if starts is not None and lengths is not None:
            sources += starts * width
            sizes = lengths.astype(np.int64) * width
        offsets = offsets_of(sizes)
        joined = np.empty(int(offsets[-1]), np.uint8)
        for data, group in zip(found, order, strict=True):
            copy_ranges(data, sources[group], sizes[group], joined, offsets[:-1][group])
        return self._tokens(joined), offsets // width

    def doc_ids(self, positions: I64) -> pa.Array:
        """Names of the documents of these samples; the shard and row where they have none."""
        at = np.searchsorted(self._firsts, positions, side="right") - 1
        rows = positions - self._firsts[at]
        units, order = _grouped(at)
        pieces = [
            self._unit_names(unit, rows[group])
            for unit, group in zip(units.tolist(), order, strict=True)
        ]
        back = np.argsort(np.concatenate([np.zeros(0, np.int64), *order]), kind="stable")
        names = pa.chunked_array(pieces, pa.string()).combine_chunks()
        return names.take(pa.array(back))

    def loader(
        self,
        *,
        seq_len: int | None = None,
        global_batch_size: int | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        block_size: int = 256,
        blocks_per_window: int = 256,
        last_step: str = "pad",
        pad_token: int = 0,
        doc_ids: bool = False,
        tokenizer: str | os.PathLike[str] | None = None,
    ) -> Loader:
        """Batches of these samples for training, as `Store.loader` gives them; see `Loader`.

        Args:
            seq_len: Tokens of a row, which is packed; or the longest piece of a document.
            global_batch_size: Rows of a step over all ranks.
            max_tokens: In its place: tokens of a step over all ranks.
            seed: Chooses the order, with `epoch`.
            epoch: The first epoch to serve.
            rank: Which of the ranks this is.
            world_size: How many there are.
            block_size: Neighbours in storage order that stay in one shuffle window.
            blocks_per_window: Blocks that are shuffled and packed together.
            last_step: ``"pad"`` or ``"drop"`` what does not fill a whole step.
            pad_token: The token of padding.
            doc_ids: Name the documents in each batch.
            tokenizer: The tokenizer that training uses: another one than made the tokens of
                an export is an error.

        Raises:
            ConfigError: An argument is wrong, or tokens were made by another tokenizer.
        """
        if tokenizer is not None:
            self._check_tokenizer(tokenizer)
        return Loader(
            self,
            seq_len=seq_len,
            global_batch_size=global_batch_size,
            max_tokens=max_tokens,
            seed=seed,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
            block_size=block_size,
            blocks_per_window=blocks_per_window,
            last_step=last_step,
            pad_token=pad_token,
            doc_ids=doc_ids,
        )

    def tokenizer_json(self) -> bytes:
        """The tokenizer that made the tokens of an export.

        Raises:
            ConfigError: It is not known: these are shards of another library.
            ShardError: The file is missing or damaged.
        """
        if self.manifest is None or self.manifest.tokenizer is None:
            raise ConfigError(
                "tokenizer", None, f"is not known of {self._place.url}; check it yourself"
            )
        return read_file(self._place, self.manifest.tokenizer)

    def _check_tokenizer(self, tokenizer: str | os.PathLike[str]) -> None:
        from penstock.models import tokenizer_json

        if tokenizer_json(tokenizer) != self.tokenizer_json():
            problem = f"is not the one that made the tokens in {self._place.url}; use that"
            raise ConfigError("tokenizer", os.fspath(tokenizer)[:80], problem)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows that count, as Arrow tables, unit after unit; all columns by default."""
        for number, unit in enumerate(self._units):
            hand = self._open(number)
            names = list(self._reader.columns(unit)) if columns is None else list(columns)
            with as_shard_error(unit):
                table = hand.opened.table(names)
            yield table if hand.live is None else table.take(pa.array(hand.live))

    def check(self) -> None:
        """Read every shard and compare it with its hash.

        Raises:
            ShardError: One is damaged and cannot be fetched again.
        """
        for number in range(len(self._units)):
            self._open(number)

    def _open(self, number: int) -> _AtHand:
        with self._lock:
            if number in self._at_hand:
                self._at_hand.move_to_end(number)
                return self._at_hand[number]
            opening = self._opening.setdefault(number, threading.Lock())
        # Other units stay readable while this one is fetched, by any thread that needs it first.
        with opening:
            with self._lock:
                if number in self._at_hand:
                    return self._at_hand[number]
            hand = self._bring(self._units[number])
            sizes = hand.tokens.sizes if hand.live is None else hand.tokens.sizes[hand.live]
            with self._lock:
                self._at_hand[number] = hand
                self._lengths.setdefault(number, (sizes // self._kind.itemsize).astype(np.int32))
                self._opening.pop(number, None)
                self._close_oldest()
            return hand

    def _bring(self, unit: Unit) -> _AtHand:
        opened = self._reader.open(unit)
        with as_shard_error(unit):
            tokens = opened.values(self._column)
        return _AtHand(opened, self._typed(unit, tokens), _live(unit))

    def _close_oldest(self) -> None:
        memory = sum(hand.opened.memory_bytes for hand in self._at_hand.values())
        while len(self._at_hand) > 1 and (memory > _MAX_MEMORY or len(self._at_hand) > _MAX_OPEN):
            memory -= self._at_hand.popitem(last=False)[1].opened.memory_bytes

    def _typed(self, unit: Unit, tokens: Values) -> Values:
        if tokens.dtype == np.uint8 and self._kind != np.uint8:
            tokens = Values(tokens.data, tokens.starts, tokens.sizes, self._kind)
        if tokens.dtype != self._kind:
            problem = f"expected {self._kind} in column {self._column!r}, found {tokens.dtype}"
            raise ShardError(unit.file.name, 0, problem)
        if (tokens.sizes % self._kind.itemsize).any():
            problem = f"column {self._column!r} does not hold whole {self._kind}"
            raise ShardError(unit.file.name, 0, problem)
        return tokens

    def _tokens(self, joined: npt.NDArray[np.uint8]) -> Tokens:
        found = joined.view(self._kind)
        if self._kind == self.dtype:
            return found
        if len(found) and (found.min() < 0 or int(found.max()) >= 1 << 32):
            problem = f"expected token ids of 32 bits in column {self._column!r}, found others"
            raise ShardError(self._place.url, 0, problem)
        return found.astype(self.dtype)

    def _unit_lengths(self, number: int) -> I32:
        found = self._lengths.get(number)
        if found is None:
            found = self._lengths[number] = self._read_lengths(number)
        return found

    def _read_lengths(self, number: int) -> I32:
        unit = self._units[number]
        recorded = self._recorded(unit)
        if recorded is None or isinstance(self._reader, TokenizingReader):
            self._open(number)
            return self._lengths[number]
        lengths: I32 = recorded["num_tokens"].to_numpy()
        live = _live(unit)
        return lengths if live is None else lengths[live]

    def _unit_names(self, number: int, rows: I64) -> pa.Array:
        unit, live = self._units[number], _live(self._units[number])
        places = rows if live is None else live[rows]
        recorded = self._recorded(unit)
        if recorded is not None:
            return recorded["doc_id"].combine_chunks().take(pa.array(places))
        if self._names is None:
            first = unit.first_row
            return pa.array([f"{unit.file.name}:{first + row}" for row in places.tolist()])
        with as_shard_error(unit):
            names = self._open(number).opened.table([self._names])[self._names].combine_chunks()
        return names.take(pa.array(places)).cast(pa.string())

    def _recorded(self, unit: Unit) -> pa.Table | None:
        """What the manifest's own file says of a unit's rows."""
        if self.manifest is None:
            return None
        with self._lock:
            found = self._documents.get(unit.file.name)
        if found is None:
            found = rows_of(self._place, self._shards[unit.file.name])
            with self._lock:
                self._documents[unit.file.name] = found
                if len(self._documents) > _MAX_OPEN:
                    self._documents.popitem(last=False)
        return found.slice(unit.first_row, unit.num_rows)

    @cached_property
    def _shards(self) -> dict[str, Shard]:
        shards = () if self.manifest is None else self.manifest.shards
        return {shard.name: shard for shard in shards}


@contextlib.contextmanager
def as_shard_error(unit: Unit) -> Iterator[None]:
    """What a format says of a shard's bytes, with the shard's name."""
    try:
        yield
    except (ValueError, KeyError, IndexError) as err:
        raise ShardError(unit.file.name, 0, str(err)) from err


def _live(unit: Unit) -> I64 | None:
    if not unit.dead:
        return None
    return np.delete(np.arange(unit.num_rows, dtype=np.int64), unit.dead)


def _grouped(at: I64) -> tuple[I64, list[I64]]:
    """The units touched, and for each which of the positions lie in it."""
    units, counts = np.unique(at, return_counts=True)
    if len(units) < 2:
        return units, [np.arange(len(at))] * len(units)
    return units, np.split(np.argsort(at, kind="stable"), np.cumsum(counts)[:-1])
