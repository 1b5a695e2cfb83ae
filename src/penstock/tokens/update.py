"""Bring a token store up to date: segments that come, rows that go, and the manifest of both.

Nothing that an earlier manifest names is changed or deleted, and nothing is
published: until the store publishes the manifest that is returned, new files
are leftovers, which the next update of this name clears away.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.arrays import map_array, save_mask
from penstock.tiers import first_merged
from penstock.tokens.manifest import SegmentManifest, TokensManifest
from penstock.tokens.order import Order
from penstock.tokens.segments import Segment, rows_among
from penstock.tokens.stored import count_tokens, samples_fingerprint
from penstock.tokens.write import Rows, merge_segments, name_hashes, row_order, write_segment

Mask = npt.NDArray[np.bool_]


class TokensUpdate:
    """One update of a token store.

    Args:
        folder: Where its files lie.
        before: What to start from; without segments to begin afresh.
        name: What new files are named by; not used before by a published run.

    Raises:
        StoreError: A file is missing or damaged.

    Attributes:
        segments: What there is now, the oldest first.
    """

    def __init__(self, folder: Path, before: TokensManifest, name: str) -> None:
        self._folder, self._before, self._name = folder, before, name
        self.segments = [Segment.open(folder, each, before.dtype) for each in before.segments]
        self._changed = not before.fingerprint
        self.clear()

    def keep(self, number: int, live: Mask) -> int:
        """Let only these rows of a segment live; how many of those that lived do not."""
        was = self.segments[number]
        self._changed |= bool((was.live != live).any())
        self.segments[number] = was.with_live(live)
        return int((was.live & ~live).sum())

    def write(self, rows: Sequence[Rows]) -> None:
        """Add rows as a segment, with the older ones that it takes over."""
        name = self.new_name("segment")
        write_segment(self._folder / name, rows)
        self._settle(self._open(name))

    def _settle(self, new: Segment | None) -> None:
        old = self.segments
        num_new = 0 if new is None else new.num_live
        live, rows = [each.num_live for each in old], [each.num_rows for each in old]
        first = first_merged(live, rows, num_new)
        if first == len(old) and new is None:
            return
        parts = [part for part in (*old[first:], new) if part is not None and part.num_live]
        if len(parts) > 1 or (parts and parts[0] is not new):
            parts = [self._merged(parts)]
            if new is not None:
                shutil.rmtree(self._folder / new.name)
        self.segments, self._changed = [*old[:first], *parts], True

    def purge(self) -> None:
        """Write every segment that holds deleted rows anew without them."""
        for number, segment in enumerate(self.segments):
            if segment.deleted is not None:
                self.segments[number], self._changed = self._merged([segment]), True

    def _merged(self, parts: Sequence[Segment]) -> Segment:
        name = self.new_name("segment")
        merge_segments(self._folder / name, parts)
        return self._open(name)

    def _open(self, name: str) -> Segment:
        num_rows = len(map_array(self._folder / name / "offsets.npy")) - 1
        facts = SegmentManifest(folder=name, deleted=None, num_rows=num_rows, num_deleted=0)
        return Segment.open(self._folder, facts, self._before.dtype)

    def progress(self) -> TokensManifest:
        """What is written so far, for a run to go on from; it does not tell what is deleted."""
        segments = tuple(self._facts(each, None) for each in self.segments)
        return replace(self._before, segments=segments, order=None, fingerprint="")

    def finish(self) -> TokensManifest:
        """The manifest to publish; that which the update started from if nothing changed."""
        self._settle(None)
        if not self._changed:
            return self._before
        segments = tuple(self._facts(each, self._deleted_file(each)) for each in self.segments)
        order = Order.of(self.segments)
        name = None
        if order.starts is not None:
            name = self.new_name("order")
            order.save(self._folder / name)
        self._before = replace(
            self._before,
            segments=segments,
            order=name,
            num_samples=order.num_samples,
            num_tokens=count_tokens(self.segments),
            fingerprint=samples_fingerprint(self._before.made_by, self.segments),
        )
        return self._before

    def _facts(self, segment: Segment, deleted: str | None) -> SegmentManifest:
        return SegmentManifest(
            folder=segment.name,
            deleted=deleted,
            num_rows=segment.num_rows,
            num_deleted=0 if deleted is None else segment.num_rows - segment.num_live,
        )

    def _deleted_file(self, segment: Segment) -> str | None:
        """The file of a segment's deleted rows, written unless an earlier run's is the same."""
        if segment.deleted is None:
            return None
        new = self._folder / (self.new_name("deleted") + ".npy")
        save_mask(new, segment.deleted)
        for facts in self._before.segments:
            if facts.folder == segment.name and facts.deleted is not None:
                earlier = self._folder / facts.deleted
                if new.read_bytes() == earlier.read_bytes():
                    new.unlink()
                    return facts.deleted
        return new.name

    def new_name(self, kind: str) -> str:
        """A name for a new file, never used before."""
        return new_name(self._folder, kind, self._name)

    def clear(self) -> None:
        """Delete what bears this update's name, also of an earlier attempt, and nothing names."""
        kept = set(self._before.names())
        for path in _named(self._folder, self._name):
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def forget_tokens(
    folder: Path, before: TokensManifest, name: str, doc_ids: pa.Array
) -> TokensManifest:
    """The token store without these documents."""
    update = TokensUpdate(folder, before, name)
    wanted = name_hashes(doc_ids)
    wanted = np.ascontiguousarray(wanted[:, row_order(wanted)])
    for number, segment in enumerate(update.segments):
        update.keep(number, segment.live & ~rows_among(segment.hashes, wanted))
    return update.finish()


def purge_tokens(folder: Path, before: TokensManifest, name: str) -> TokensManifest:
    """The token store in files that hold nothing but its rows.

    Cost: a copy of the segments that have deleted rows, in bounded memory.
    """
    update = TokensUpdate(folder, before, name)
    update.purge()
    return update.finish()


def new_name(folder: Path, kind: str, name: str) -> str:
    """What to name a new file of an update by."""
    numbers = [int(path.stem.rpartition("-")[2]) for path in _named(folder, name)]
    return f"{kind}-{name}-{max(numbers, default=0) + 1}"


def _named(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"*-{name}-*"))
