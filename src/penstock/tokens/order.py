"""Where the sample at a position is: one byte a sample that names its segment, and sums per block.

Positions run over the live rows of all segments by the hashes of their
documents' names. A segment's rows lie in that order too, so the place of a
sample is that of its segment's next live row after those of the positions
before it; every 256 positions the place reached in each segment is noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from penstock.kernels import I64, U8
from penstock.tokens.ragged import read_only
from penstock.tokens.segments import Segment, damaged, load
from penstock.tokens.write import row_order

_NONE = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class Order:
    """The map from positions to segments and places there.

    Attributes:
        num_samples: Positions.
        owners: Segment of each position's sample; empty where there is one segment.
        starts: What `penstock.kernels.samples.block_starts` gave; None where a
            position is a place: one segment, all rows live.
        bits: Bitmaps of the live rows, one after another.
        bit_starts: Byte where each segment's begins; -1 where all rows are live.
    """

    num_samples: int
    owners: U8
    starts: I64 | None
    bits: U8
    bit_starts: I64

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Self:
        """Work the order out.

        Cost: some 25 bytes a sample while it does.
        """
        owners = _NONE
        if len(segments) > 1:
            hashes = np.concatenate([each.hashes[:2, each.live] for each in segments], axis=1)
            counts = [each.num_live for each in segments]
            owners = np.repeat(np.arange(len(segments), dtype=np.uint8), counts)
            owners = owners[row_order(hashes)]
        return cls._with_owners(segments, owners)

    @classmethod
    def open(cls, folder: Path, segments: Sequence[Segment]) -> Self:
        """Map what `save` wrote.

        Raises:
            StoreError: A file is missing, or does not fit the segments.
        """
        num_samples = sum(each.num_live for each in segments)
        owners = load(folder / "owners.npy")
        starts = load(folder / "starts.npy")
        blocks = (num_samples + 255) // 256
        fits = len(owners) == (num_samples if len(segments) > 1 else 0)
        if not fits or starts.shape != (blocks, len(segments)):
            raise damaged(folder, "it does not fit the segments")
        return cls(num_samples, owners, starts, *_bitmaps(segments))

    def save(self, folder: Path) -> None:
        """Write all of it that the segments do not tell."""
        folder.mkdir(parents=True)
        assert self.starts is not None
        np.save(folder / "owners.npy", self.owners)
        np.save(folder / "starts.npy", self.starts)

    def locate(self, positions: I64) -> tuple[U8, I64]:
        """The segment of each sample, and its place there."""
        owner = np.zeros(len(positions), np.uint8)
        if self.starts is None:
            return owner, positions
        from penstock.kernels.samples import locate

        place = np.empty(len(positions), np.int64)
        owners, starts = read_only(self.owners), read_only(self.starts)
        bitmaps = (read_only(self.bits), read_only(self.bit_starts))
        locate(read_only(positions), owners, starts, *bitmaps, owner, place)
        return owner, place

    def restricted(self, before: Sequence[Segment], segments: Sequence[Segment]) -> Order:
        """The order of some of the samples: of the rows that are live in `segments` still."""
        if not len(self.owners):
            return self._with_owners(segments, self.owners)
        keep = np.empty(self.num_samples, np.bool_)
        for number, (was, now) in enumerate(zip(before, segments, strict=True)):
            keep[self.owners == number] = now.live[was.live]
        return self._with_owners(segments, self.owners[keep])

    @classmethod
    def _with_owners(cls, segments: Sequence[Segment], owners: U8) -> Self:
        from penstock.kernels.samples import block_starts

        num_samples = sum(each.num_live for each in segments)
        bits, bit_starts = _bitmaps(segments)
        starts = None
        if len(segments) > 1 or (bit_starts >= 0).any():
            arrays = (read_only(bits), read_only(bit_starts))
            starts = block_starts(read_only(owners), num_samples, *arrays)
        return cls(num_samples, owners, starts, bits, bit_starts)


def _bitmaps(segments: Sequence[Segment]) -> tuple[U8, I64]:
    parts, starts, size = [_NONE], [], 0
    for segment in segments:
        if segment.deleted is None:
            starts.append(-1)
            continue
        parts.append(np.packbits(segment.live, bitorder="little"))
        starts.append(size)
        size += len(parts[-1])
    return np.concatenate(parts), np.array(starts, np.int64)
