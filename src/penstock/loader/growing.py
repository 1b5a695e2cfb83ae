"""Go on with newer data in the middle of an epoch, and serve nothing of it twice.

What an epoch has served until a step is known from its order: all windows before the
one that the step is in, and of this the rows before. Documents of these are taken out
of the newer samples, by name; the rest of the epoch is what remains, in an order of its
own. A document that was forgotten is not among the newer samples and so is not served,
from that step on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.loader.order import Order, lengths_at
from penstock.loader.plan import Cursor, Planner
from penstock.loader.samples import I32, I64, Samples, Tokens

_NAMES_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Samples that an epoch had before, and how much of them it served."""

    base: Samples
    """As they were given."""
    samples: Samples
    """What of them remained when the epoch came to them."""
    order: Order
    planner: Planner
    cursor: Cursor

    def _served(self) -> npt.NDArray[np.bool_]:
        """Which positions were served, whole or in part; (num_samples,)."""
        out = np.zeros(self.order.num_samples, np.bool_)
        _, index = self.cursor.mark
        for window in range(index):
            out[self.order.positions(window)] = True
        plan = self.planner.plan(self.cursor.mark) if self.cursor.row else None
        if plan is not None:
            out[plan.positions[: plan.rows[self.cursor.row]]] = True
        return out

    def served_names(self) -> pa.Array:
        """Names of the documents that were served, whole or in part."""
        served = self._served()
        chunks = [
            self.samples.doc_ids(np.flatnonzero(served[first:last]) + first)
            for first, last in _chunks(len(served))
        ]
        return pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in chunks])


class Remaining:
    """Of some samples those whose documents were not served before; itself `Samples`.

    Cost: 8 bytes a sample, and while it is made the names of all documents that were served.
    """

    def __init__(self, samples: Samples, before: list[Moved]) -> None:
        self._samples = samples
        names = pa.concat_arrays([moved.served_names() for moved in before])
        places = []
        for first, last in _chunks(samples.num_samples):
            ids = samples.doc_ids(np.arange(first, last)).cast(pa.large_string())
            new = pc.invert(pc.is_in(ids, value_set=names)).to_numpy(zero_copy_only=False)
            places.append(np.flatnonzero(new) + first)
        self._places: I64 = np.concatenate(places)

    @cached_property
    def fingerprint(self) -> str:
        """Of the samples and of which of them remain."""
        digest = hashlib.sha256(self._samples.fingerprint.encode())
        digest.update(self._places.data)
        return digest.hexdigest()[:32]

    @property
    def num_samples(self) -> int:
        """How many remain."""
        return len(self._places)

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Samples`."""
        return self._samples.dtype

    def lengths(self, first: int, last: int) -> I32:
        """See `Samples`."""
        return lengths_at(self._samples, self._places[first:last])

    def gather(
        self, positions: I64, starts: I64 | None = None, lengths: I32 | None = None
    ) -> tuple[Tokens, I64]:
        """See `Samples`."""
        return self._samples.gather(self._places[positions], starts, lengths)

    def doc_ids(self, positions: I64) -> pa.Array:
        """See `Samples`."""
        return self._samples.doc_ids(self._places[positions])


def _chunks(num: int) -> Iterator[tuple[int, int]]:
    return (
        (first, min(first + _NAMES_AT_ONCE, num)) for first in range(0, max(num, 1), _NAMES_AT_ONCE)
    )
