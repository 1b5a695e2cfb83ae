"""A `where`: one SQL condition over named, typed columns, answered for every row.

`grammar` reads the text, `predicates` answers for one column; here the
answers are joined. A column need not be stored by row: what belongs to a
document, such as its metadata, is asked once per distinct value, joined with
its like per document, and only then spread to the rows. So a condition costs
what the distinct values cost, and one gather.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import QueryError
from penstock.index.conditions import (
    ColumnComparison,
    Condition,
    Constant,
    Joined,
    Not,
    condition_columns,
    shorten,
)
from penstock.index.grammar import parse_condition
from penstock.index.instants import read_instants
from penstock.index.predicates import (
    FALSE,
    TRUE,
    UNKNOWN,
    Instants,
    Predicate,
    Truth,
    truth_of,
    truth_of_columns,
)

BOOL = npt.NDArray[np.bool_]
Places: TypeAlias = npt.NDArray[np.integer[Any]]

_LISTED = 40  # names that a message shows: metadata may have thousands


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column's values, and which row has which.

    Row `r` belongs to owner `owners[r]`, whose value is number `codes[owner]`;
    where one of the two is None, it maps every number to itself.

    Attributes:
        type: Type of the values, not dictionary-encoded.
        parts: Gives the values in pieces, anew at each call, so that what is large is streamed.
        codes: (num_owners,) numbers of values, -1 for null.
        owners: (num_rows,) numbers of owners. The answers of columns that
            share this very array are joined before they are spread to the rows.
        instants: `read_instants`, or what remembers its result for these values.
    """

    type: pa.DataType
    parts: Callable[[], Iterable[pa.Array]]
    codes: Places | None = None
    owners: Places | None = None
    instants: Callable[[pa.Array], Instants] = read_instants

    @classmethod
    def of(
        cls, values: pa.Array, *, codes: Places | None = None, owners: Places | None = None
    ) -> Column:
        """A column in memory; what a comparison with dates makes of its text is kept."""
        instants = functools.cache(lambda: read_instants(values))
        return cls(values.type, lambda: (values,), codes, owners, lambda _: instants())

    def truth(self, predicate: Predicate) -> Truth:
        """(num_owners,) whether each owner satisfies a predicate; the caller may write to it.

        Raises:
            QueryError: The column's type does not go with it, or dates are
                compared with text of which none is a date.
        """
        dates: list[bool] = []

        def read(part: pa.Array) -> Instants:
            micros, known = self.instants(part)
            if part.null_count < len(part):
                dates.append(bool(known.any()))
            return micros, known

        found = [truth_of(predicate, p, functools.partial(read, p)) for p in self.parts()]
        if dates and not any(dates):
            raise QueryError(
                predicate.column,
                "none of the column's values is a date such as 2024-01-31 or "
                "2024-01-31T12:00:00Z, so it cannot be compared with one; compare it with text",
            )
        truth = found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.uint8), *found])
        if self.codes is None:
            return truth
        null = truth_of(predicate, pa.nulls(1, self.type), lambda: read_instants(pa.nulls(1)))
        return np.append(truth, null).take(self.codes)  # code -1 takes the last

    def array(self) -> pa.Array:
        """(num_owners,) the values in memory."""
        parts = list(self.parts())
        values = pa.concat_arrays(parts) if parts else pa.array([], self.type)
        if self.codes is None:
            return values
        return values.take(pa.array(self.codes, mask=self.codes < 0))

    def take(self, rows: Places) -> Column:
        """The column of these rows alone, without owners."""
        at = rows if self.owners is None else self.owners[rows]
        if self.codes is not None:
            return replace(self, codes=self.codes[at], owners=None)
        return Column.of(self.array().take(pa.array(at)))


@dataclass(frozen=True, slots=True)
class Where:
    """A condition that has been read and understood but for its columns.

    Attributes:
        sql: As the user wrote it.
        columns: Names of the columns used, each once, in order of first use.
    """

    sql: str
    columns: tuple[str, ...]
    _condition: Condition

    @classmethod
    def parse(cls, sql: str) -> Where:
        """Read a SQL condition, without the word WHERE.

        Logic is SQL's with three values: a comparison with NULL is unknown.
        Column names match exactly; `a.b` names the column "a.b". LIKE knows
        `%` and `_`, no escape character unless `ESCAPE` names it.

        Raises:
            QueryError: It is no condition, or uses what is not allowed; the message lists what is.
        """
        try:
            condition = parse_condition(sql)
            return cls(sql, condition_columns(condition), condition)
        except RecursionError:  # the caller's own calls are nested deeply, too
            raise QueryError(shorten(sql), "is nested too deeply; write it flatter") from None

    def mask(self, num_rows: int, column: Callable[[str], Column]) -> BOOL:
        """Which rows satisfy the condition; those for which it is unknown do not.

        Args:
            num_rows: Length of the columns.
            column: Gives a column by its name, or raises `unknown_column`.

        Returns:
            (num_rows,) bool.

        Raises:
            QueryError: A column is unknown, or of a type that does not go with
                what it is compared with.
        """
        truth, owners = _answer(self._condition, column)
        if isinstance(truth, int):
            return np.full(num_rows, truth == TRUE)
        return _spread(truth == TRUE, owners)


def unknown_column(name: str, known: Iterable[str]) -> QueryError:
    """The error for a column that does not exist; it lists those that do, the nearest first."""
    names = {other.casefold(): other for other in sorted(known)}
    near = difflib.get_close_matches(name.casefold(), names, n=3)
    order = [names[key] for key in dict.fromkeys([*near, *names])]
    more = f" and {len(order) - _LISTED} more" if len(order) > _LISTED else ""
    return QueryError(
        shorten(name), f"there is no such column; there are {', '.join(order[:_LISTED])}{more}"
    )


_Answer: TypeAlias = tuple[Truth | int, Places | None]


def _answer(node: Condition, column: Callable[[str], Column]) -> _Answer:
    """Truth by owner, and the owners; for a constant one number."""
    match node:
        case Constant():
            return UNKNOWN if node.value is None else TRUE if node.value else FALSE, None
        case Not():
            truth, owners = _answer(node.part, column)
            return TRUE - truth, owners
        case Joined():
            return _joined(node, column)
        case ColumnComparison():
            left, right = column(node.left), column(node.right)
            owners = left.owners
            if owners is not right.owners:
                left, right, owners = _by_row(left), _by_row(right), None
            return truth_of_columns(node, left.array(), right.array()), owners
        case _:
            asked = column(node.column)
            return asked.truth(node), asked.owners


def _joined(node: Joined, column: Callable[[str], Column]) -> _Answer:
    join = np.minimum if node.by == "AND" else np.maximum
    constant = TRUE if node.by == "AND" else FALSE
    found: dict[int, tuple[Truth, Places | None]] = {}
    for part in node.parts:
        truth, owners = _answer(part, column)
        if isinstance(truth, int):
            constant = int(join(constant, truth))
        elif id(owners) in found:
            same = found[id(owners)][0]
            join(same, truth, out=same)
        else:
            found[id(owners)] = truth, owners
    if not found:
        return constant, None
    if len(found) == 1:
        truth, owners = next(iter(found.values()))
    else:
        truth = functools.reduce(join, [_spread(*answer) for answer in found.values()])
        owners = None
    return join(truth, constant), owners


def _spread(by_owner: npt.NDArray[Any], owners: Places | None) -> npt.NDArray[Any]:
    return by_owner if owners is None else by_owner.take(owners)


def _by_row(column: Column) -> Column:
    return column if column.owners is None else column.take(np.arange(len(column.owners)))
