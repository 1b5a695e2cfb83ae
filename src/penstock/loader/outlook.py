"""What an epoch will be, from lengths alone: steps, padding, bytes read, quality of the shuffle."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from penstock.loader.loader import Loader


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """One epoch, over all ranks.

    Attributes:
        steps: Steps.
        rows: Rows with tokens.
        samples: Samples.
        cut: Pieces more than samples: documents that are longer than a row are cut.
        tokens: Tokens, each served once.
        label_tokens: Labels that count.
        slots: Places for tokens in all batches, padding included.
        bytes_read: Bytes of tokens read.
        window_bytes: Bytes of the largest shuffle window: what a cache has to hold of data
            that is fetched, for one window; twice that to fetch the next ahead.
        rank_correlation: Between the storage order and the order served, in [-1, 1].
        full_shuffle: Within how much of 0 that of 95 of 100 full permutations is.
    """

    steps: int
    rows: int
    samples: int
    cut: int
    tokens: int
    label_tokens: int
    slots: int
    bytes_read: int
    window_bytes: int
    rank_correlation: float
    full_shuffle: float

    @property
    def padding(self) -> int:
        """Places without a token."""
        return self.slots - self.tokens

    @property
    def efficiency(self) -> float:
        """Share of places that hold a token, in [0, 1]."""
        return self.tokens / self.slots if self.slots else 0.0

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        return {**asdict(self), "padding": self.padding, "efficiency": self.efficiency}


def outlook(loader: Loader) -> Outlook:
    """Plan a loader's epoch without reading a token; its samples are of one kind.

    Cost: one pass over all lengths; memory of a window.
    """
    totals = {"rows": 0, "tokens": 0, "label_tokens": 0, "pieces": 0, "samples": 0}
    largest, squares = 0, 0.0
    item_bytes = loader.samples.dtype.itemsize
    for plan in loader.plans():
        tokens = int(plan.lengths.sum())
        totals["rows"] += plan.num_rows
        totals["tokens"] += tokens
        totals["label_tokens"] += int(plan.labels[-1])
        totals["pieces"] += len(plan.lengths)
        largest = max(largest, tokens)
        # A sample stands where its first piece is served.
        first = plan.positions[plan.starts == 0]
        places = np.arange(totals["samples"], totals["samples"] + len(first))
        squares += float(((places - first).astype(np.float64) ** 2).sum())
        totals["samples"] += len(first)
    num = totals["samples"]
    pieces = totals.pop("pieces")
    return Outlook(
        steps=len(loader),
        **totals,
        cut=pieces - num,
        slots=_slots(loader),
        bytes_read=totals["tokens"] * item_bytes,
        window_bytes=largest * item_bytes,
        rank_correlation=1 - 6 * squares / (num * (num**2 - 1)) if num > 1 else 0.0,
        full_shuffle=1.96 / math.sqrt(num - 1) if num > 1 else 0.0,
    )


def _slots(loader: Loader) -> int:
    """Places for tokens in all batches: of a step, its rows times the longest of them."""
    rules = loader.rules
    if rules.packed:
        return len(loader) * (rules.global_batch_size or 0) * (rules.seq_len or 0)
    slots = 0
    for step in loader.steps():
        longest = max(int(plan.lengths[low:high].max()) for plan, low, high in step.parts)
        slots += longest * max(step.num_rows, rules.global_batch_size or 0)
    return slots
