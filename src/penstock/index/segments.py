"""A segment of the index: an immutable folder of rows, their words, vectors and passages.

rows.npy holds the row ids in ascending order; a row's place in it is its place
in every other part. keys.npy holds a hash of each row's chunk id, which puts rows
of equal score in an order that does not depend on when they came. Which rows are
deleted is a file beside the folder, so that deleting touches nothing that a reader
has open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.arrays import load_mask, map_array
from penstock.index.passages import Passages, PassagesWriter, damaged
from penstock.index.settings import IndexSettings
from penstock.records import hash_column
from penstock.vectors import Vectors, VectorWriter, build_search
from penstock.words import Words, WordsWriter, merge_words

F16 = npt.NDArray[np.float16]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_Part = TypeVar("_Part", Words, Vectors, Passages)

_PARTS = ("keys", "words", "vectors", "passages")
"""What of a segment does not depend on which rows are deleted."""

_COPY_ROWS = 16_384
_NOTHING = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Segment:
    """A segment, whose parts open when first used; any number of threads may search it.

    Attributes:
        folder: Where its files lie.
        rows: Row ids, (num_rows,) uint64, ascending.
        deleted: Which are gone, (num_rows,) bool, or None for none.
    """

    folder: Path
    rows: U64
    deleted: Mask | None = None

    @classmethod
    def open(cls, folder: Path, deleted: Path | None = None) -> Self:
        """Map the row ids.

        Raises:
            StoreError: A file is missing or is not what was written; it names the file.
        """
        rows = _load(folder / "rows.npy")
        return cls(folder, rows, None if deleted is None else _read_deleted(deleted, len(rows)))

    def with_deleted(self, deleted: Path | None) -> Segment:
        """The same segment with other rows deleted; what is open is shared.

        Raises:
            StoreError: The file is missing or is not what was written.
        """
        mask = None if deleted is None else _read_deleted(deleted, len(self.rows))
        other = Segment(self.folder, self.rows, mask)
        open_parts = {name: self.__dict__[name] for name in _PARTS if name in self.__dict__}
        other.__dict__.update(open_parts)
        return other

    @cached_property
    def keys(self) -> U64:
        """What orders rows of equal score, (num_rows,) uint64: a hash of the chunk's id."""
        keys: U64 = _load(self.folder / "keys.npy")
        if len(keys) != len(self.rows):
            raise damaged(self.folder, "its files differ in length")
        return keys

    @cached_property
    def words(self) -> Words:
        """The rows' words."""
        return self._checked(Words.open(self.folder / "words"))

    @cached_property
    def vectors(self) -> Vectors | None:
        """The rows' vectors; None in a store for words only."""
        folder = self.folder / "vectors"
        return self._checked(Vectors.open(folder)) if folder.is_dir() else None

    @cached_property
    def passages(self) -> Passages:
        """What a hit shows of the rows."""
        return self._checked(Passages.open(self.folder / "passages"))

    def _checked(self, part: _Part) -> _Part:
        if part.num_rows != len(self.rows):
            raise damaged(self.folder, "its files differ in length")
        return part

    @property
    def dim(self) -> int:
        """Width of the vectors; 0 where there are none."""
        return 0 if self.vectors is None else self.vectors.dim

    @cached_property
    def live(self) -> Mask | None:
        """Which rows are not deleted; None for all."""
        return None if self.deleted is None else ~self.deleted

    @cached_property
    def num_live(self) -> int:
        """Number of rows that are not deleted."""
        return len(self.rows) - (0 if self.deleted is None else int(self.deleted.sum()))

    @property
    def live_rows(self) -> U64:
        """Ids of the rows that are not deleted, ascending."""
        return self.rows if self.live is None else self.rows[self.live]

    def locate(self, rows: U64) -> I64:
        """Places of those of `rows`, ascending, that are here and not deleted."""
        if len(rows) == 0 or len(self.rows) == 0:
            return np.empty(0, np.int64)
        where = np.searchsorted(self.rows, rows)
        where[where == len(self.rows)] = 0
        places: I64 = where[self.rows[where] == rows]
        return places if self.deleted is None else places[~self.deleted[places]]

    def without(self, rows: U64) -> Segment:
        """The segment with these rows, ascending, deleted too; itself if none of them is here."""
        places = self.locate(rows)
        if len(places) == 0:
            return self
        deleted = np.zeros(len(self.rows), np.bool_)
        if self.deleted is not None:
            deleted |= self.deleted
        deleted[places] = True
        return Segment(self.folder, self.rows, deleted)


class SegmentWriter:
    """Write a segment as a stream of rows; `with` closes it.

    Rows that do not come in ascending order of their ids make a segment that is
    good only for merging, which puts them in order.

    Args:
        folder: New folder, made here.
        dim: Width of the vectors; 0 for words only.
        settings: How words are cut and vectors searched.

    Attributes:
        num_rows: Rows written so far.
    """

    def __init__(self, folder: Path, dim: int, settings: IndexSettings) -> None:
        folder.mkdir(parents=True)
        self.num_rows = 0
        self._folder, self._dim, self._settings = folder, dim, settings
        self._rows: list[U64] = []
        self._keys: list[U64] = []
        self._closing = contextlib.ExitStack()
        enter = self._closing.enter_context
        self._words = enter(WordsWriter(folder / "words", settings.words_settings()))
        self._passages = enter(PassagesWriter(folder / "passages"))
        self._vectors = enter(VectorWriter(folder / "vectors", dim)) if dim else None

    def add(self, batch: pa.RecordBatch, vectors: F32) -> None:
        """Append rows: a batch of `row_id` and the columns of passages, vectors (num_rows, dim)."""
        self._rows.append(row_ids(batch).copy())
        self._keys.append(_keys(batch))
        self.num_rows += batch.num_rows
        texts = (batch.column(name) for name in ("title", "heading_path", "text"))
        self._words.add(*texts)
        self._passages.add(batch)
        if self._vectors is not None:
            self._vectors.add(vectors)

    @property
    def rows(self) -> U64:
        """Ids of the rows written so far, in the order in which they came."""
        return np.concatenate([_NOTHING, *self._rows])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.__exit__(kind, error, trace)
        if error is None:
            np.save(self._folder / "rows.npy", self.rows)
            np.save(self._folder / "keys.npy", np.concatenate([_NOTHING, *self._keys]))


def finish_segment(folder: Path, settings: IndexSettings) -> None:
    """Make what searches a closed segment's vectors fast: lists or a graph where it is large."""
    if (folder / "vectors").is_dir():
        build_search(folder / "vectors", settings.vector_settings())


def merge_segments(folder: Path, parts: Sequence[Segment]) -> None:
    """Write the rows of some segments that are not deleted as one new segment, in order of ids.

    Cost: a copy, in bounded memory but for some 20 bytes a row; no text is
    analysed and no vector computed again.
    """
    folder.mkdir(parents=True)
    rows = np.concatenate([part.live_rows for part in parts])
    in_order = bool(np.all(rows[1:] > rows[:-1]))
    order = None if in_order else np.argsort(rows, kind="stable").astype(np.int64)
    np.save(folder / "rows.npy", rows if order is None else rows[order])
    keys = np.concatenate([p.keys if p.live is None else p.keys[p.live] for p in parts])
    np.save(folder / "keys.npy", keys if order is None else keys[order])
    merge_words(folder / "words", [(part.words, part.live) for part in parts], order)
    places = [_places(part) for part in parts]
    with PassagesWriter(folder / "passages") as passages:
        for i, some in _runs(places, order):
            for record in parts[i].passages.records(some.tolist()):
                passages.add_record(bytes(record))
    if parts[0].dim:
        with VectorWriter(folder / "vectors", parts[0].dim) as vectors:
            for i, some in _runs(places, order):
                vectors.add(_vectors(parts[i]).read(some))


def _places(part: Segment) -> I64:
    if part.live is None:
        return np.arange(len(part.rows), dtype=np.int64)
    return np.flatnonzero(part.live)


def _vectors(part: Segment) -> Vectors:
    assert part.vectors is not None
    return part.vectors


def _runs(places: Sequence[I64], order: I64 | None) -> list[tuple[int, I64]]:
    """The rows of the parts in their new order, as runs from one part each, of bounded length."""
    if order is None:
        owners = [(i, some) for i, some in enumerate(places)]
    else:
        part = np.repeat(np.arange(len(places)), [len(some) for some in places])[order]
        every = np.concatenate(places)[order]
        cuts = np.flatnonzero(np.diff(part)) + 1
        owners = [
            (int(part[low]), every[low:high])
            for low, high in zip([0, *cuts], [*cuts, len(every)], strict=True)
            if high > low
        ]
    return [
        (i, some[start : start + _COPY_ROWS])
        for i, some in owners
        for start in range(0, len(some), _COPY_ROWS)
    ]


def _read_deleted(path: Path, num_rows: int) -> Mask:
    try:
        return load_mask(path, num_rows)
    except (OSError, ValueError) as err:
        raise damaged(path, str(err)) from err


def row_ids(batch: pa.RecordBatch) -> U64:
    """The column `row_id`, (num_rows,) uint64."""
    rows: U64 = batch.column("row_id").cast(pa.uint64()).to_numpy(zero_copy_only=False)
    return rows


def _keys(batch: pa.RecordBatch) -> U64:
    hashes = hash_column(batch.column("chunk_id"))
    prefixes = np.frombuffer(hashes.buffers()[1] or b"", "<u8")[::2]  # 8 bytes of 16
    return prefixes.astype(np.uint64)


def _load(path: Path) -> Any:
    try:
        return map_array(path)
    except (OSError, ValueError) as err:
        raise damaged(path, str(err)) from err
