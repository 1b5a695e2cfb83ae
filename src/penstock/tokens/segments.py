"""A segment of tokens: flat files of rows, in the order of their documents' hashes.

tokens.npy       (num_tokens,) uint16 or uint32: the rows' tokens, one after another
offsets.npy      (num_rows + 1,) int64: where each row begins there
hashes.npy       (4, num_rows) uint64: the hash of the document's name in two halves, ascending,
                 then that of its text
id_offsets.npy   (num_rows + 1,) int64
id_bytes.npy     (num_bytes,) uint8: the documents' names in UTF-8

Which rows are deleted is a file beside the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from penstock.arrays import load_mask, map_array
from penstock.errors import StoreError
from penstock.kernels import I64, U8
from penstock.tokens.manifest import AGAIN, SegmentManifest
from penstock.tokens.ragged import read_only

Mask = npt.NDArray[np.bool_]
U64 = npt.NDArray[np.uint64]
Tokens = npt.NDArray[Any]


@dataclass(frozen=True)
class Segment:
    """A segment; any number of threads may read it.

    Attributes:
        name: Of its folder.
        tokens: See the head of this file, as for the next four.
        offsets: Where rows begin.
        hashes: Of names and texts.
        id_offsets: Where names begin.
        id_bytes: Names.
        deleted: Which rows are gone, (num_rows,) bool, or None for none.
    """

    name: str
    tokens: Tokens
    offsets: I64
    hashes: U64
    id_offsets: I64
    id_bytes: U8
    deleted: Mask | None = None

    @classmethod
    def open(cls, folder: Path, facts: SegmentManifest, dtype: str) -> Self:
        """Map what a manifest names.

        Raises:
            StoreError: A file is missing or is not what was written; it names the file.
        """
        path = folder / facts.folder
        names = ("tokens", "offsets", "hashes", "id_offsets", "id_bytes")
        arrays = {name: load(path / f"{name}.npy") for name in names}
        ends = (arrays["offsets"], arrays["tokens"]), (arrays["id_offsets"], arrays["id_bytes"])
        sizes = {arrays["hashes"].shape[1], *(len(offsets) - 1 for offsets, _ in ends)}
        fit = all(offsets[0] == 0 and offsets[-1] == len(of) for offsets, of in ends)
        if sizes != {facts.num_rows} or not fit or arrays["tokens"].dtype != np.dtype(dtype):
            raise damaged(path, "its files do not belong together")
        deleted = None
        if facts.deleted is not None:
            try:
                deleted = load_mask(folder / facts.deleted, facts.num_rows)
            except (OSError, ValueError) as err:
                raise damaged(folder / facts.deleted, str(err)) from err
        return cls(facts.folder, **arrays, deleted=deleted)

    @property
    def num_rows(self) -> int:
        """Rows in the files."""
        return len(self.offsets) - 1

    @cached_property
    def live(self) -> Mask:
        """Which rows are not deleted, (num_rows,) bool."""
        return np.ones(self.num_rows, np.bool_) if self.deleted is None else ~self.deleted

    @cached_property
    def num_live(self) -> int:
        """Number of rows that are not deleted."""
        return self.num_rows - (0 if self.deleted is None else int(self.deleted.sum()))

    def with_live(self, live: Mask) -> Segment:
        """The segment with only these rows not deleted."""
        arrays = (self.tokens, self.offsets, self.hashes, self.id_offsets, self.id_bytes)
        return Segment(self.name, *arrays, deleted=None if live.all() else ~live)


def rows_among(hashes: U64, wanted: U64, found: Mask | None = None) -> Mask:
    """Which rows are wanted, (num_rows,) bool.

    Args:
        hashes: (4, num_rows), as a segment has them.
        wanted: The first two rows of hashes, or all four, of what is; ascending, each once.
        found: (num_wanted,), set where it is here. What was set before is not sought.
    """
    from penstock.kernels.samples import match_rows

    stands = np.zeros(hashes.shape[1], np.bool_)
    found = np.zeros(wanted.shape[1], np.bool_) if found is None else found
    match_rows(read_only(wanted), read_only(hashes), found, stands)
    return stands


def load(path: Path) -> npt.NDArray[Any]:
    """Map an array of the token store.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        return map_array(path)
    except (OSError, ValueError) as err:
        raise damaged(path, str(err)) from err


def damaged(path: Path, problem: str) -> StoreError:
    """The error of a file that is not as it was written."""
    return StoreError(str(path), f"the token store is damaged ({problem}); {AGAIN}")
