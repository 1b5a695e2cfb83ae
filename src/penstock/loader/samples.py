"""What the loader reads: token sequences by position, wherever they are kept.

A published run's tokens, a folder of exported shards and an array in memory all
look like this. A position is a sample's place in the storage order, 0 to
`num_samples` - 1; neighbours in position lie near each other on the disk.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Tokens = npt.NDArray[Any]


@runtime_checkable
class Samples(Protocol):
    """Token sequences, at random access. Safe to use from many threads; picklable.

    Guarantees asked of every kind: nothing of it changes while it exists, and the same
    `fingerprint` always means the same tokens at the same positions.
    """

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the tokens and their storage order."""
        ...

    @property
    def num_samples(self) -> int:
        """How many there are."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 where every token fits, else uint32."""
        ...

    def lengths(self, first: int, last: int) -> I32:
        """Tokens of each sample at the positions `first` to `last`, without the latter; (n,)."""
        ...

    def gather(
        self, positions: I64, starts: I64 | None = None, lengths: I32 | None = None
    ) -> tuple[Tokens, I64]:
        """The samples at these positions, in the order asked; or a piece of each.

        Args:
            positions: (n,); the same one may come several times.
            starts: (n,), the first token of each piece, counted in its sample. Given
                together with `lengths`; a loader always gives both, so that a long
                sample that is cut into many rows is not read whole for each.
            lengths: (n,), the tokens of each piece. It lies within its sample.

        Returns:
            All tokens one after another, of `dtype`, and where each begins, (n + 1,) int64.
        """
        ...

    def doc_ids(self, positions: I64) -> pa.Array:
        """Names of the documents of these samples, (n,) string."""
        ...
