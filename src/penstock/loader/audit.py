"""Prove that an epoch was served: a digest per rank, and the total that they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from penstock.loader.batches import Share, share
from penstock.loader.plan import Step
from penstock.loader.samples import Samples

LENGTHS_AT_ONCE = 1 << 20
"""Of so many samples lengths are asked for at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What one loader object has served of its epoch, and what all must have served at its end.

    The digests are plain integers. Over all ranks, and over the loader objects
    before and after an interruption, `digest` adds up to `total`, less `dropped`.
    """

    epoch: int
    steps: int
    """Steps served."""
    pieces: int
    """Samples, and pieces of samples that were cut, served."""
    tokens: int
    """Tokens served, without padding."""
    digest: int
    """Sum over the tokens' places served; see `penstock.kernels.batching.digest`."""
    total: int
    """The same over the whole epoch, computed from the lengths of all samples. Parts of a
    mixture that are not waited for are in no digest."""
    dropped_tokens: int
    """Tokens of rows after the last whole step; 0 unless `last_step` is "drop"."""
    dropped: int
    """Their digest; the same on every rank."""


class Tally:
    """Counts what is served of an epoch."""

    def __init__(self, epoch: int, kinds: Sequence[Samples], times: Sequence[int | None]) -> None:
        self.epoch, self._kinds, self._times = epoch, kinds, times
        self._firsts = np.array(_firsts(kinds))
        self._counted = np.array([number is not None for number in times])
        self._steps = self._pieces = self._tokens = self._digest = 0
        self._dropped_tokens = self._dropped = 0

    def serve(self, part: Share) -> None:
        """Count a rank's share of a step."""
        tokens, digest = self._sums(part)
        self._steps += 1
        self._pieces += len(part.lengths)
        self._tokens += tokens
        self._digest += digest

    def drop(self, step: Step) -> None:
        """Count what is left of an epoch and not served to any rank."""
        self._dropped_tokens, self._dropped = self._sums(share(step, 0, 1, None))

    def audit(self) -> Audit:
        """What was counted, beside the epoch's total digest."""
        return Audit(
            epoch=self.epoch,
            steps=self._steps,
            pieces=self._pieces,
            tokens=self._tokens,
            digest=self._digest,
            total=self._total,
            dropped_tokens=self._dropped_tokens,
            dropped=self._dropped,
        )

    @cached_property
    def _total(self) -> int:
        return _digest_of_all(self._kinds, self._times)

    def _sums(self, part: Share) -> tuple[int, int]:
        """Tokens, and the digest of those that are waited for."""
        from penstock.kernels.batching import digest

        if part.sources is None:
            total, tokens = digest(part.positions, part.starts, part.lengths)
            return int(tokens), int(total)
        counted = self._counted[part.sources]
        places = (part.positions + self._firsts[part.sources])[counted]
        total, _ = digest(places, part.starts[counted], part.lengths[counted])
        return int(part.lengths.sum(dtype=np.int64)), int(total)


def _firsts(kinds: Sequence[Samples]) -> list[int]:
    """What is added to the positions of each, so that no two share one."""
    sizes = [kind.num_samples for kind in kinds]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _digest_of_all(kinds: Sequence[Samples], times: Sequence[int | None]) -> int:
    """The digest of an epoch that serves each of these so often, from lengths alone."""
    from penstock.kernels.batching import digest_whole

    total = 0
    for base, kind, number in zip(_firsts(kinds), kinds, times, strict=True):
        for first in range(0, kind.num_samples if number else 0, LENGTHS_AT_ONCE):
            last = min(first + LENGTHS_AT_ONCE, kind.num_samples)
            total += (number or 0) * int(digest_whole(base + first, kind.lengths(first, last)))
    return total
