"""What a condition says, as a small tree: all that the text of a `where` can become."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Operator = Literal["=", "<>", "<", "<=", ">", ">="]
Value = bool | Decimal | str | datetime.date | datetime.datetime | None


@dataclass(frozen=True, slots=True)
class Constant:
    """TRUE, FALSE or, as None, unknown."""

    value: bool | None


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean column by itself."""

    column: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a column has no value."""

    column: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column beside a literal, the column on the left."""

    column: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class ColumnComparison:
    """A column beside a column."""

    left: str
    operator: Operator
    right: str


@dataclass(frozen=True, slots=True)
class Among:
    """A column's value is one of these; NULL among them makes a miss unknown."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Contains:
    """A list column holds this element."""

    column: str
    value: Value


@dataclass(frozen=True, slots=True)
class Like:
    """A text column matches a pattern of `%` and `_`; `escape` is one character or empty."""

    column: str
    pattern: str | None
    escape: str
    ignore_case: bool


@dataclass(frozen=True, slots=True)
class Not:
    """True where the part is false."""

    part: Condition


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts that must all hold (`AND`), or one of which must (`OR`)."""

    by: Literal["AND", "OR"]
    parts: tuple[Condition, ...]


Leaf = Flag | IsNull | Comparison | ColumnComparison | Among | Contains | Like
Condition = Constant | Not | Joined | Leaf


def condition_columns(condition: Condition) -> tuple[str, ...]:
    """Names of the columns used, each once, in order of first use."""
    names: dict[str, None] = {}
    pending = [condition]
    while pending:
        node = pending.pop()
        if isinstance(node, Joined):
            pending.extend(reversed(node.parts))
        elif isinstance(node, Not):
            pending.append(node.part)
        elif isinstance(node, ColumnComparison):
            names.update({node.left: None, node.right: None})
        elif not isinstance(node, Constant):
            names.setdefault(node.column)
    return tuple(names)


def shorten(text: str, limit: int = 80) -> str:
    """The text, cut where it would drown the message around it."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
