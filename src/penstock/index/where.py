"""Read a `where`: one SQL condition over named, typed columns, as an Arrow expression.

sqlglot only parses. The tree is then compiled node by node from a short list
of what is allowed, so nothing that a user writes is evaluated, calls a
function or reaches outside the table that the expression is applied to.
"""

from __future__ import annotations

import datetime
import functools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import QueryError

ALLOWED = (
    "=, <>, !=, <, <=, >, >= between a column and a literal, BETWEEN, IN, LIKE, ILIKE, "
    "IS NULL, each also with NOT, joined by AND, OR, NOT and parentheses; "
    "literals are 'text', numbers, TRUE, FALSE, NULL, DATE '2024-01-31' and "
    "TIMESTAMP '2024-01-31 12:00:00'; a column name with odd characters goes in double quotes"
)
"""What a `where` may contain, as every refusal says."""

_Compare = Callable[[Any, Any], Any]
_Value = bool | Decimal | str | datetime.date | datetime.datetime | None

_COMPARE: dict[str, _Compare] = {
    "EQ": operator.eq,
    "NEQ": operator.ne,
    "LT": operator.lt,
    "LTE": operator.le,
    "GT": operator.gt,
    "GTE": operator.ge,
}
# `5 < year` is `year > 5`.
_MIRRORED = {"EQ": "EQ", "NEQ": "NEQ", "LT": "GT", "LTE": "GTE", "GT": "LT", "GTE": "LTE"}


def parse_where(sql: str, columns: Mapping[str, pa.DataType]) -> pc.Expression:
    """Compile a SQL condition to an expression that `Table.filter` takes.

    Logic is SQL's with three values: a comparison with NULL is unknown, and
    rows where the whole is unknown are left out. Text compared with a date or
    timestamp column is read as one. LIKE knows `%` and `_`, no escape
    character unless `ESCAPE` names it.

    Args:
        sql: The condition, without the word WHERE.
        columns: Type of each column that may be used. Names match exactly;
            `a.b` names the column "a.b".

    Raises:
        QueryError: It is no condition, uses what is not allowed, an unknown
            column, or compares a column with a literal of another kind.
    """
    try:
        return _condition(_parse(sql), columns)
    except RecursionError:
        raise QueryError(_short(sql), "is nested too deeply; write it flatter") from None


def where_columns(sql: str) -> tuple[str, ...]:
    """Names of the columns that a condition uses, each once, in order of first use.

    Raises:
        QueryError: It cannot be parsed, or uses what is not allowed of names.
    """
    try:
        names: dict[str, None] = {}
        _collect_names(_parse(sql), names)
        return tuple(names)
    except RecursionError:
        raise QueryError(_short(sql), "is nested too deeply; write it flatter") from None


def _parse(sql: str) -> Any:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        trees = sqlglot.Dialect.get_or_raise(None).parse_into(exp.Condition, sql)
    except SqlglotError as err:
        text = re.sub(r"\x1b\[\d*m", "", str(err)).strip()
        raise QueryError(
            _short(sql),
            f"is no SQL condition ({_short(' '.join(text.split()), 160)}); a column whose name "
            f"is a keyword goes in double quotes. Allowed: {ALLOWED}",
        ) from None
    if len(trees) != 1 or trees[0] is None:
        found = "nothing" if not any(trees) else f"{len(trees)} statements"
        raise QueryError(
            _short(sql) or "where",
            f"expected one SQL condition such as year >= 2020, found {found}",
        )
    return trees[0]


def _collect_names(tree: Any, names: dict[str, None]) -> None:
    pending = [tree]
    while pending:
        node = pending.pop()
        if _is_column(node):
            names.setdefault(_column_name(node))
        else:
            pending.extend(reversed(list(node.iter_expressions())))


def _condition(node: Any, columns: Mapping[str, pa.DataType]) -> pc.Expression:
    """Compile a node that must be true, false or unknown."""
    kind = type(node).__name__
    if kind in ("And", "Or"):
        join = operator.and_ if kind == "And" else operator.or_
        return _balanced(join, [_condition(part, columns) for part in _chain(node)])
    if kind == "Not":
        _only(node, "this")
        return ~_condition(node.this, columns)
    if kind == "Paren":
        _only(node, "this")
        return _condition(node.this, columns)
    if kind == "Boolean":
        return pc.scalar(bool(node.this))
    if kind == "Null":
        return _unknown()
    if kind in ("Column", "Dot"):
        return _bare_column(node, columns)
    if kind in _COMPARE:
        return _comparison(node, columns)
    compile_node = _PREDICATES.get(kind)
    if compile_node is None:
        raise _refused(node)
    return compile_node(node, columns)


def _chain(node: Any) -> list[Any]:
    """The parts of `a AND b AND c`, which the parser nests to the left, without recursion."""
    kind, parts = type(node), []
    while type(node) is kind:
        _only(node, "this", "expression")
        parts.append(node.expression)
        node = node.this
    return [node, *reversed(parts)]


def _balanced(join: _Compare, parts: Sequence[pc.Expression]) -> pc.Expression:
    """Join as a balanced tree: a chain of thousands would overflow Arrow's stack."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return join(_balanced(join, parts[:middle]), _balanced(join, parts[middle:]))


def _bare_column(node: Any, columns: Mapping[str, pa.DataType]) -> pc.Expression:
    name, kind = _column(node, columns)
    if pa.types.is_null(kind):
        return _unknown()
    if not pa.types.is_boolean(kind):
        raise QueryError(
            name, f"is a column of type {kind} and cannot stand alone; compare it with something"
        )
    return pc.field(name)


def _comparison(node: Any, columns: Mapping[str, pa.DataType]) -> pc.Expression:
    _only(node, "this", "expression")
    op, left, right = type(node).__name__, node.this.unnest(), node.expression.unnest()
    if not _is_column(left):
        op, left, right = _MIRRORED[op], right, left
    if not _is_column(left) or _is_column(right):
        for side in (left, right):
            if not _is_column(side):
                _literal(side)  # names the piece, if that is what is wrong
        raise QueryError(
            _short(node.sql()), f"a comparison needs a column and a literal. Allowed: {ALLOWED}"
        )
    name, kind = _column(left, columns)
    return _compare(op, name, kind, _literal(right))


def _between(node: Any, columns: Mapping[str, pa.DataType]) -> pc.Expression:
    _only(node, "this", "low", "high")
    name, kind = _column(node.this.unnest(), columns)
    low = _compare("GTE", name, kind, _literal(node.args["low"].unnest()))
    return low & _compare("LTE", name, kind, _literal(node.args["high"].unnest()))


def _in(node: Any, columns: Mapping[str, pa.DataType]) -> pc.Expression:
    _only(node, "this", "expressions")
    name, kind = _column(node.this.unnest(), columns)
    values = [_literal(item.unnest()) for item in node.expressions]
    if not values:
        raise QueryError(_short(node.sql()), "IN needs at least one literal")
    known = [value for value in values if value is not None]
    # `is_in` treats NULL as a value; SQL does not.
    if len(known) > 8 and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        texts = [_text(name, kind, value) for value in known]
        found = _null_if_null(name, pc.field(name).isin(pa.array(texts, kind)))
    elif known:
        parts = [_compare("EQ", name, kind, value) for value in known]
        found = _balanced(operator.or_, parts)
    else:
        return _unknown()
    return found | _unknown() if len(known) < len(values) else found


def _like(node: Any, columns: Mapping[str, pa.DataType], escape: str = "") -> pc.Expression:
    _only(node, "this", "expression", "negate")
    name, kind = _column(node.this.unnest(), columns)
    pattern = _literal(node.expression.unnest())
    if pattern is None or pa.types.is_null(kind):
        return _unknown()
    if not isinstance(pattern, str) or not _is_text(_value_type(kind)):
        raise QueryError(_short(node.sql()), "LIKE needs a text column and a pattern in quotes")
    matches = pc.match_substring_regex(
        _field(name, kind),
        pattern=_like_regex(pattern, escape, node),
        ignore_case=type(node).__name__ == "ILike",
    )
    return ~matches if node.args.get("negate") else matches


def _escaped_like(node: Any, columns: Mapping[str, pa.DataType]) -> pc.Expression:
    _only(node, "this", "expression")
    escape = _literal(node.expression.unnest())
    if (
        not isinstance(escape, str)
        or len(escape) != 1
        or type(node.this).__name__
        not in (
            "Like",
            "ILike",
        )
    ):
        raise QueryError(_short(node.sql()), "ESCAPE follows LIKE and takes one character")
    return _like(node.this, columns, escape)


def _like_regex(pattern: str, escape: str, node: Any) -> str:
    parts: list[str] = []
    rest = iter(pattern)
    for char in rest:
        if char == escape:
            following = next(rest, None)
            if following is None:
                raise QueryError(_short(node.sql()), "the pattern ends in its escape character")
            parts.append(_quoted(following))
        else:
            parts.append({"%": ".*", "_": "."}.get(char) or _quoted(char))
    return r"(?s)\A" + "".join(parts) + r"\z"


def _quoted(char: str) -> str:
    # Not `re.escape`: RE2 refuses an escape before some characters, and NUL as such.
    return rf"\x{{{ord(char):x}}}" if not char.isalnum() else char


def _is(node: Any, columns: Mapping[str, pa.DataType]) -> pc.Expression:
    _only(node, "this", "expression")
    if type(node.expression).__name__ != "Null":
        raise _refused(node)
    name, kind = _column(node.this.unnest(), columns)
    return pc.scalar(True) if pa.types.is_null(kind) else pc.field(name).is_null()


_PREDICATES: dict[str, Callable[[Any, Mapping[str, pa.DataType]], pc.Expression]] = {
    "Between": _between,
    "In": _in,
    "Like": _like,
    "ILike": _like,
    "Escape": _escaped_like,
    "Is": _is,
}


# Columns


def _is_column(node: Any) -> bool:
    return type(node).__name__ in ("Column", "Dot")


def _column(node: Any, columns: Mapping[str, pa.DataType]) -> tuple[str, pa.DataType]:
    if not _is_column(node):
        raise QueryError(_short(node.sql()), "expected a column name here")
    name = _column_name(node)
    if name not in columns:
        known = ", ".join(sorted(columns)) or "none"
        raise QueryError(name, f"is no column here. The columns are: {known}")
    return name, columns[name]


def _column_name(node: Any) -> str:
    """`a.b."c d"` is the column "a.b.c d"."""
    kind = type(node).__name__
    if kind == "Dot":
        _only(node, "this", "expression")
        return f"{_column_name(node.this)}.{_column_name(node.expression)}"
    if kind == "Identifier":
        return str(node.name)
    if kind != "Column" or any(type(part).__name__ != "Identifier" for part in node.parts):
        raise _refused(node)
    _only(node, "this", "table", "db", "catalog")
    return ".".join(str(part.name) for part in node.parts)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _field(name: str, kind: pa.DataType) -> pc.Expression:
    field = pc.field(name)
    return field.cast(kind.value_type) if pa.types.is_dictionary(kind) else field


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


# Literals


def _literal(node: Any) -> _Value:
    kind = type(node).__name__
    if kind == "Literal":
        return str(node.this) if node.is_string else _number(node)
    if kind == "Neg" and type(node.this).__name__ == "Literal" and not node.this.is_string:
        return -_number(node.this)
    if kind == "Boolean":
        return bool(node.this)
    if kind == "Null":
        return None
    if kind == "Cast" and type(node.this).__name__ == "Literal" and node.this.is_string:
        to = node.to.sql()
        if to == "DATE":
            return _date(str(node.this.this), node)
        if to in ("TIMESTAMP", "TIMESTAMPTZ"):
            return _datetime(str(node.this.this), node)
    raise QueryError(_short(node.sql()), f"cannot be used in a where. Allowed: {ALLOWED}")


def _number(node: Any) -> Decimal:
    try:
        return Decimal(str(node.this))
    except ArithmeticError:
        raise QueryError(_short(node.sql()), "expected a number here") from None


def _date(text: str, node: Any = None) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        place = _short(node.sql()) if node is not None else repr(text)
        raise QueryError(place, "expected a date such as '2024-01-31'") from None


def _datetime(text: str, node: Any = None) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        place = _short(node.sql()) if node is not None else repr(text)
        raise QueryError(place, "expected a time such as '2024-01-31 12:00:00'") from None


# Comparing a column with a literal


def _compare(op: str, name: str, kind: pa.DataType, value: _Value) -> pc.Expression:
    if value is None or pa.types.is_null(kind):
        return _unknown()
    kind_of_value = _value_type(kind)
    field, compare = _field(name, kind), _COMPARE[op]
    if pa.types.is_integer(kind_of_value) and isinstance(value, Decimal):
        return _compare_integer(op, name, field, kind_of_value, value)
    if pa.types.is_floating(kind_of_value) and isinstance(value, Decimal):
        return compare(field.cast(pa.float64()), pa.scalar(float(value)))
    if pa.types.is_decimal(kind_of_value) and isinstance(value, Decimal):
        return compare(field, pa.scalar(value))
    if pa.types.is_boolean(kind_of_value) and isinstance(value, bool):
        return compare(field, pa.scalar(value))
    if _is_text(kind_of_value):
        return compare(field, pa.scalar(_text(name, kind_of_value, value), kind_of_value))
    if pa.types.is_date(kind_of_value) and isinstance(value, str | datetime.date):
        return _compare_date(compare, field, value)
    if pa.types.is_timestamp(kind_of_value) and isinstance(value, str | datetime.date):
        return compare(field, _timestamp(value, kind_of_value.tz))
    raise _mismatch(name, kind, value)


def _text(name: str, kind: pa.DataType, value: _Value) -> str:
    if not isinstance(value, str):
        raise _mismatch(name, kind, value)
    return value


def _compare_integer(
    op: str, name: str, field: pc.Expression, kind: pa.DataType, value: Decimal
) -> pc.Expression:
    """Exact for every number: Arrow would round large integers to float64, or refuse."""
    unsigned = pa.types.is_unsigned_integer(kind)
    low = 0 if unsigned else -(1 << (kind.bit_width - 1))
    high = (1 << kind.bit_width) - 1 if unsigned else -low - 1
    if value < low or value > high:
        above = value > high
        truth = {"EQ": False, "NEQ": True}.get(op, above == (op in ("LT", "LTE")))
        return _null_if_null(name, pc.scalar(truth))
    whole = math.floor(value)
    if whole == value:
        return _COMPARE[op](field, pa.scalar(whole, kind))
    if op in ("EQ", "NEQ"):
        return _null_if_null(name, pc.scalar(op == "NEQ"))
    # Below 3.5 means at most 3; above 3.5 means more than 3.
    compare = operator.le if op in ("LT", "LTE") else operator.gt
    if whole < low:
        return _null_if_null(name, pc.scalar(op in ("GT", "GTE")))
    return compare(field, pa.scalar(whole, kind))


def _compare_date(
    compare: _Compare, field: pc.Expression, value: str | datetime.date
) -> pc.Expression:
    if isinstance(value, str):
        value = _date(value) if len(value) <= len("2024-01-31") else _datetime(value)
    if isinstance(value, datetime.datetime):
        return compare(field.cast(pa.timestamp("us")), _timestamp(value, None))
    return compare(field.cast(pa.date32()), pa.scalar(value, pa.date32()))


def _timestamp(value: str | datetime.date, tz: str | None) -> pa.Scalar:
    """A literal without a zone is UTC where the column has one."""
    if isinstance(value, str):
        value = _datetime(value)
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    if value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return pa.scalar(value, pa.timestamp("us")).cast(pa.timestamp("us", tz))


def _null_if_null(name: str, truth: pc.Expression) -> pc.Expression:
    return pc.if_else(pc.field(name).is_valid(), truth, _unknown())


@functools.cache
def _unknown() -> pc.Expression:
    return pc.scalar(pa.scalar(None, pa.bool_()))


# Refusals


def _only(node: Any, *names: str) -> None:
    """Refuse a node that carries more than is understood, such as a subquery in IN."""
    if any(value for name, value in node.args.items() if name not in names):
        raise _refused(node)


def _refused(node: Any) -> QueryError:
    return QueryError(_short(node.sql()), f"cannot be used in a where. Allowed: {ALLOWED}")


def _mismatch(name: str, kind: pa.DataType, value: _Value) -> QueryError:
    shown = repr(value) if isinstance(value, str) else str(value)
    advice = "put it in quotes" if _is_text(_value_type(kind)) else "use a literal of that type"
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        advice = "such a column can only be tested with IS NULL"
    return QueryError(
        f"{name} compared with {_short(shown)}", f"the column's type is {kind}; {advice}"
    )


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
