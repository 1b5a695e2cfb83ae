"""Samples from one flat array of tokens, in memory or mapped from a file."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import ConfigError
from penstock.loader.samples import I32, I64, Tokens


class ArraySamples:
    """Token sequences that lie one after another in one array.

    Args:
        tokens: All of them, uint16 or uint32; `numpy.memmap` and `numpy.load(mmap_mode="r")` do.
        offsets: Where each sequence begins, and the end: (num_samples + 1,) integers; others
            than int64 are converted, which takes memory.
        fingerprint: What names the content, if you know a name; else it is read
            whole once and hashed, when a loader is made.

    Raises:
        ConfigError: The arrays are not of these kinds or do not fit.
    """

    def __init__(
        self,
        tokens: npt.NDArray[Any],
        offsets: npt.NDArray[Any],
        *,
        fingerprint: str | None = None,
    ) -> None:
        if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32):
            found = f"{tokens.dtype} of shape {tokens.shape}"
            raise ConfigError("ArraySamples.tokens", found, "must be one row of uint16 or uint32")
        if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) == 0:
            found = f"{offsets.dtype} of shape {offsets.shape}"
            raise ConfigError("ArraySamples.offsets", found, "must be one row of integers")
        if offsets[0] < 0 or offsets[-1] > len(tokens):
            found = f"{offsets[0]} to {offsets[-1]}"
            problem = f"must go from at least 0 to at most the {len(tokens)} tokens there are"
            raise ConfigError("ArraySamples.offsets", found, problem)
        # A plain read-only array of either kind, so that each kernel has one specialisation.
        self._tokens = np.asarray(tokens).view()
        self._tokens.flags.writeable = False
        self._offsets = np.asarray(offsets, np.int64).view()
        self._offsets.flags.writeable = False
        self._given = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """What was given, or a hash of tokens and offsets."""
        if self._given is not None:
            return self._given
        digest = hashlib.sha256(str(self._tokens.dtype).encode())
        digest.update(np.ascontiguousarray(self._offsets, np.int64).data)
        digest.update(np.ascontiguousarray(self._tokens).data)
        return digest.hexdigest()[:32]

    @property
    def num_samples(self) -> int:
        """How many sequences there are."""
        return len(self._offsets) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The tokens' type."""
        return self._tokens.dtype

    def lengths(self, first: int, last: int) -> I32:
        """See `Samples`."""
        lengths = np.diff(self._offsets[first : last + 1])
        if len(lengths) and int(lengths.min()) < 0:
            place = first + int(lengths.argmin())
            found = f"falling at {place}"
            raise ConfigError("ArraySamples.offsets", found, "must never fall")
        return lengths.astype(np.int32)

    def gather(
        self, positions: I64, starts: I64 | None = None, lengths: I32 | None = None
    ) -> tuple[Tokens, I64]:
        """See `Samples`."""
        from penstock.kernels.ranges import copy_ranges

        if starts is None or lengths is None:
            starts = np.zeros(len(positions), np.int64)
            lengths = (self._offsets[positions + 1] - self._offsets[positions]).astype(np.int32)
        _, begins = self.find(positions, starts, lengths)
        offsets, width = np.zeros(len(positions) + 1, np.int64), self.dtype.itemsize
        np.cumsum(lengths, out=offsets[1:])
        out = np.empty(offsets[-1], self.dtype)
        source, target = self._tokens.view(np.uint8), out.view(np.uint8)
        sizes = lengths.astype(np.int64) * width
        copy_ranges(source, begins * width, sizes, target, offsets[:-1] * width)
        return out, offsets

    def find(self, positions: I64, starts: I64, lengths: I32) -> tuple[Tokens, I64]:
        """All tokens, and where each piece begins among them: what a loader reads without a copy.

        Args:
            positions: See `Samples.gather`, like the others.
            starts: See there.
            lengths: See there.

        Raises:
            IndexError: A piece does not lie in its sample.
        """
        from penstock.kernels.ranges import find_pieces

        begins = find_pieces(len(self._tokens), self._offsets, positions, starts, lengths)
        return self._tokens, begins

    def doc_ids(self, positions: I64) -> pa.Array:
        """The positions, written out: an array has no names."""
        return pa.array(positions).cast(pa.string())
