"""What each format gives the loader: units of rows that are opened together, and their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa

from penstock.loader.formats.checks import Expected
from penstock.loader.formats.values import Values

Kind = Literal["numbers", "text", "bytes", "other"]
"""What a column holds: lists of numbers; text; bytes of any kind; what has no tokens."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that are opened together: a shard, or a row group of one.

    Attributes:
        file: The shard.
        num_rows: Rows of the unit, also those that count no longer.
        first_row: The first of them, counted in the shard.
        dead: Rows that count no longer, ascending, counted in the unit.
        detail: What the reader of the format needs besides.
    """

    file: Expected
    num_rows: int
    first_row: int = 0
    dead: tuple[int, ...] = ()
    detail: Any = None


class Opened(Protocol):
    """A unit at hand: its bytes are checked, and mapped or in memory."""

    @property
    def memory_bytes(self) -> int:
        """What it takes besides what is mapped."""
        ...

    def values(self, column: str) -> Values:
        """A column's values; raises ValueError where the unit is damaged."""
        ...

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Columns as Arrow has them; raises ValueError where the unit is damaged."""
        ...


class Reader(Protocol):
    """One folder of shards of one format; picklable, safe for many threads."""

    def units(self) -> list[Unit]:
        """The units of a folder that has no manifest of ours, in the order of its own index.

        Raises:
            ShardError: The index, or a shard, is not as the format has it.
        """
        ...

    def columns(self, unit: Unit) -> dict[str, Kind]:
        """What each column of a unit holds."""
        ...

    def open(self, unit: Unit) -> Opened:
        """Bring a unit at hand.

        Raises:
            ShardError: It is missing, or its bytes are not what the index promises.
        """
        ...
