"""The order of an epoch: arithmetic over positions, nothing that grows with their number.

Positions are cut into blocks of neighbours. A keyed permutation puts the blocks in
an order; so many blocks after one another are a window; inside a window all samples
are shuffled. So a reader has the blocks of one window open and not more, and any
window can be computed without those before it. With as many blocks in a window as
there are, it is a full shuffle; with blocks of one sample too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from penstock.loader.samples import I32, I64, Samples

_GAP = 64
"""Lengths that are not wanted are read over, so many of them at most."""

ORDER_VERSION = 1
"""Raised when the same settings would give another order; states name it."""


def order_key(*parts: object) -> int:
    """64 bits that these values choose: the same in every process and on every machine."""
    text = "/".join(str(part) for part in (ORDER_VERSION, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One epoch's order of the samples of one kind.

    Guarantees: every position comes exactly once. A pure function of the fields.

    Cost: a window's samples in memory and time; nothing to begin with.
    """

    num_samples: int
    block_size: int
    """Samples in a block: neighbours, which lie together on the disk."""
    blocks_per_window: int
    key: int

    @property
    def num_windows(self) -> int:
        """How many windows there are; the last is smaller, as is the one with the last block."""
        return -(-self._num_blocks // self.blocks_per_window)

    @property
    def _num_blocks(self) -> int:
        return -(-self.num_samples // self.block_size)

    def find(self, place: int) -> tuple[int, int]:
        """The window of a place in the order, and the place in the window."""
        from penstock.kernels.shuffling import place_of

        window_size = self.block_size * self.blocks_per_window
        missing = self._num_blocks * self.block_size - self.num_samples
        last = int(place_of(self._num_blocks - 1, self._num_blocks, np.uint64(self.key)))
        short = last // self.blocks_per_window
        end = (short + 1) * window_size - missing  # of the window with the last block
        if place >= end:
            place += missing
        return place // window_size, place % window_size

    def positions(self, index: int) -> I64:
        """A window's samples in storage order; (n,)."""
        from penstock.kernels.shuffling import permuted

        first = index * self.blocks_per_window
        last = min(first + self.blocks_per_window, self._num_blocks)
        blocks = np.sort(permuted(first, last, self._num_blocks, np.uint64(self.key)))
        positions = (blocks[:, None] * self.block_size + np.arange(self.block_size)).reshape(-1)
        return positions[: np.searchsorted(positions, self.num_samples)]

    def window(self, index: int, samples: Samples) -> tuple[I64, I32]:
        """Positions and lengths of a window's samples, in their order; (n,) each."""
        from penstock.kernels.shuffling import shuffled

        # In storage order, so that what lies together is asked for together: the shuffle hides it.
        positions = self.positions(index)
        lengths = lengths_at(samples, positions)
        order = shuffled(len(positions), np.uint64(order_key(self.key, "window", index)))
        return positions[order], lengths[order]


def lengths_at(samples: Samples, positions: I64) -> I32:
    """Lengths of samples in storage order, asked for in few calls; (n,)."""
    runs = np.split(positions, np.flatnonzero(np.diff(positions) > _GAP) + 1)
    lengths = [
        samples.lengths(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs if len(run)
    ]
    return np.concatenate([np.empty(0, np.int32), *lengths])
