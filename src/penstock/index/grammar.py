"""Read the text of a `where` into a small tree; nothing in it can call, open or evaluate.

A hand-written parser of the one little language that is allowed: what it does
not know cannot get in, its time is linear in the text, and a refusal names
the piece. General SQL parsers take 0.3 s to import and 20 us a literal.

    either     = both (OR both)*
    both       = negated (AND negated)*
    negated    = NOT* predicate
    predicate  = operand [operator operand | IN (...) | LIKE ... | BETWEEN ... | IS NULL]
    operand    = column | literal | list_contains(column, literal) | '(' either ')'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from penstock.errors import QueryError
from penstock.index.conditions import (
    Among,
    ColumnComparison,
    Comparison,
    Condition,
    Constant,
    Contains,
    Flag,
    IsNull,
    Joined,
    Like,
    Not,
    Operator,
    Value,
    shorten,
)
from penstock.index.instants import date_of, time_of

ALLOWED = (
    "=, <>, !=, <, <=, >, >= between a column and a literal or two columns, BETWEEN, IN, LIKE, "
    "ILIKE, IS NULL, each also with NOT, list_contains(column, 'x') or 'x' = ANY(column), joined "
    "by AND, OR, NOT and parentheses; literals are 'text', numbers, TRUE, FALSE, NULL, "
    "DATE '2024-01-31' and TIMESTAMP '2024-01-31 12:00:00'; a column name with odd characters "
    "goes in double quotes"
)
"""What a `where` may contain, as every refusal says."""

MAX_CHARS = 1_000_000
"""Longest condition taken: 30,000 ids of 30 characters, which parse in under a second."""
MAX_DEPTH = 50
"""Most parentheses open at once: each takes six of the 1,000 calls that Python nests."""


def parse_condition(sql: str) -> Condition:
    """The tree of a condition.

    Raises:
        QueryError: It is no condition, uses what is not allowed, is nested
            deeper than `MAX_DEPTH` or longer than `MAX_CHARS`.

    Cost: about 1 us a token; linear, whatever the text.
    """
    if len(sql) > MAX_CHARS:
        raise QueryError(
            shorten(sql), f"is {len(sql)} characters long; a condition has at most {MAX_CHARS}"
        )
    if not sql.isprintable() and any("\ud800" <= char <= "\udfff" for char in sql):
        raise QueryError(shorten(ascii(sql)), "holds half of a surrogate pair, which is no text")
    return _Parser(sql).whole()


# Tokens

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|--[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)++)
    | (?P<text>'[^']*+(?:''[^']*+)*+')
    | (?P<quoted>"[^"]*+(?:""[^"]*+)*+")
    | (?P<number>(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d++)?+(?!\w))
    | (?P<word>[^\W\d]\w*+)
    | (?P<sign><>|!=|<=|>=|==|.)""",
    re.VERBOSE | re.DOTALL,
)
_RESERVED = frozenset(
    {"AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "IS", "NULL", "TRUE", "FALSE", "BETWEEN", "ESCAPE"}
)
_OPERATORS: dict[str, Operator] = {
    "=": "=",
    "==": "=",
    "<>": "<>",
    "!=": "<>",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}
# `5 < year` is `year > 5`.
_MIRRORED: dict[Operator, Operator] = {
    "=": "=",
    "<>": "<>",
    "<": ">",
    "<=": ">=",
    ">": "<",
    ">=": "<=",
}
_CONTAINS = frozenset({"LIST_CONTAINS", "ARRAY_CONTAINS"})


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    word: str
    """A reserved word or sign in capitals; a name or literal as it is written."""
    start: int
    end: int


def _tokens(sql: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(sql):
        kind, word = str(match.lastgroup), match[0]
        if kind == "space":
            continue
        if kind == "word" and word.upper() in _RESERVED:
            kind, word = "sign", word.upper()
        yield _Token(kind, word, *match.span())
    yield _Token("end", "", len(sql), len(sql))


# What a predicate is made of; a Condition in its place stands alone, as `(a AND b)` does.


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Value


@dataclass(frozen=True, slots=True)
class _AnyOf:
    """`ANY(column)`."""

    column: str


_Operand = _Name | _Literal | _AnyOf


class _Parser:
    """Recursive descent; `_next` is the token looked at, `_end` where the last one ended."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._tokens = _tokens(sql)
        self._next = next(self._tokens)
        self._end = 0
        self._depth = 0

    def whole(self) -> Condition:
        if self._next.kind == "end":
            problem = "expected one SQL condition such as year >= 2020, found nothing"
            raise QueryError(shorten(self._sql.strip()) or "where", problem)
        condition = self._stand_alone(self._either(), 0)
        if self._next.kind != "end":
            raise self._refuse("a comparison, AND, OR or the end")
        return condition

    def _either(self) -> Condition | _Operand:
        return self._joined("OR", self._both)

    def _both(self) -> Condition | _Operand:
        return self._joined("AND", self._negated)

    def _joined(
        self, by: Literal["AND", "OR"], part: Callable[[], Condition | _Operand]
    ) -> Condition | _Operand:
        start = self._next.start
        first = part()
        if self._next.word != by:
            return first
        parts = [self._stand_alone(first, start)]
        while self._take(by):
            start = self._next.start
            parts.append(self._stand_alone(part(), start))
        return Joined(by, tuple(parts))

    def _negated(self) -> Condition | _Operand:
        if not self._take("NOT"):
            return self._predicate()
        odd = True
        while self._take("NOT"):
            odd = not odd
        start = self._next.start
        part = self._stand_alone(self._predicate(), start)
        return Not(part) if odd else part

    def _stand_alone(self, found: Condition | _Operand, start: int) -> Condition:
        if isinstance(found, _Name):
            return Flag(found.name)
        if isinstance(found, _AnyOf):
            raise self._fail(start, "ANY(column) goes on the right of =, after a literal")
        if isinstance(found, _Literal):
            if found.value is None or isinstance(found.value, bool):
                return Constant(found.value)
            raise self._fail(start, "is a value and no condition; compare a column with it")
        return found

    def _predicate(self) -> Condition | _Operand:
        start = self._next.start
        left = self._operand()
        operator = _OPERATORS.get(self._next.word) if self._next.kind == "sign" else None
        if operator is not None:
            self._advance()
            return self._comparison(left, operator, self._operand(), start)
        if self._take("IS"):
            negated = self._take("NOT")
            self._expect("NULL")
            return _negate(IsNull(self._column(left, start)), negated)
        negated = self._take("NOT")
        if self._take("IN"):
            return _negate(Among(self._column(left, start), self._values()), negated)
        if self._take("BETWEEN"):
            return _negate(self._between(self._column(left, start)), negated)
        if self._next.word in ("LIKE", "ILIKE") and self._next.kind == "sign":
            return _negate(self._like(self._column(left, start)), negated)
        if negated:
            raise self._refuse("IN, LIKE, ILIKE or BETWEEN after NOT")
        return left

    def _comparison(
        self,
        left: Condition | _Operand,
        operator: Operator,
        right: Condition | _Operand,
        start: int,
    ) -> Condition:
        if isinstance(left, _Literal) and isinstance(right, _AnyOf) and operator == "=":
            return Contains(right.column, left.value)
        if isinstance(left, _Name) and isinstance(right, _Name):
            return ColumnComparison(left.name, operator, right.name)
        if isinstance(left, _Literal) and isinstance(right, _Name):
            left, operator, right = right, _MIRRORED[operator], left
        if isinstance(left, _Name) and isinstance(right, _Literal):
            return Comparison(left.name, operator, right.value)
        raise self._fail(start, f"a comparison needs a column and a literal. Allowed: {ALLOWED}")

    def _values(self) -> tuple[Value, ...]:
        self._expect("(")
        values = [self._literal("a literal")]
        while self._take(","):
            values.append(self._literal("a literal"))
        self._expect(")")
        return tuple(values)

    def _between(self, column: str) -> Condition:
        low = self._literal("a literal after BETWEEN")
        self._expect("AND")
        high = self._literal("a literal after BETWEEN ... AND")
        return Joined("AND", (Comparison(column, ">=", low), Comparison(column, "<=", high)))

    def _like(self, column: str) -> Condition:
        ignore_case = self._advance().word == "ILIKE"
        pattern = self._pattern("LIKE needs a pattern in quotes")
        escape = ""
        if self._take("ESCAPE"):
            start = self._next.start
            escape = self._pattern("ESCAPE takes one character in quotes") or ""
            if len(escape) != 1:
                raise self._fail(start, "ESCAPE takes one character in quotes")
        return Like(column, pattern, escape, ignore_case)

    def _pattern(self, problem: str) -> str | None:
        start = self._next.start
        value = self._literal("a pattern in quotes")
        if value is not None and not isinstance(value, str):
            raise self._fail(start, problem)
        return value

    def _column(self, found: Condition | _Operand, start: int) -> str:
        if not isinstance(found, _Name):
            raise self._fail(start, f"expected a column's name here. Allowed: {ALLOWED}")
        return found.name

    def _literal(self, wanted: str) -> Value:
        start = self._next.start
        found = self._operand()
        if not isinstance(found, _Literal):
            raise self._fail(start, f"expected {wanted}. Allowed: {ALLOWED}")
        return found.value

    # One operand

    def _operand(self) -> Condition | _Operand:
        token = self._next
        if self._take("("):
            return self._parenthesis()
        if token.kind == "sign" and token.word in ("TRUE", "FALSE", "NULL"):
            self._advance()
            return _Literal({"TRUE": True, "FALSE": False, "NULL": None}[token.word])
        if token.kind == "text":
            return _Literal(_unquoted(self._advance().word))
        if token.kind == "number" or token.word in ("-", "+"):
            return _Literal(self._number())
        if token.kind in ("word", "quoted"):
            return self._named()
        raise self._refuse("a column or a literal")

    def _parenthesis(self) -> Condition | _Operand:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            problem = f"is nested too deeply, more than {MAX_DEPTH} levels; write it flatter"
            raise QueryError(shorten(self._sql), problem)
        found = self._either()
        self._expect(")")
        self._depth -= 1
        return found

    def _number(self) -> Decimal:
        sign = self._advance().word if self._next.kind == "sign" else ""
        if self._next.kind != "number":
            raise self._refuse("a number")
        try:
            return Decimal(sign + self._advance().word)
        except ArithmeticError:
            raise QueryError(
                shorten(self._sql[: self._end]), "ends in too large a number"
            ) from None

    def _named(self) -> Condition | _Operand:
        """What begins with a name: a column, a date or one of the few functions."""
        first = self._advance()
        known = first.word.upper() if first.kind == "word" else ""
        if self._next.kind == "text" and known == "DATE":
            return _Literal(date_of(_unquoted(self._advance().word)))
        if self._next.kind == "text" and known in ("TIMESTAMP", "TIMESTAMPTZ"):
            return _Literal(time_of(_unquoted(self._advance().word)))
        if self._next.word == "(" and first.kind == "word":
            return self._call(first, known)
        names = [_unquoted(first.word)]
        while self._take("."):
            if self._next.kind not in ("word", "quoted") and self._next.word not in _RESERVED:
                raise self._refuse("a name after the dot")
            part = self._advance()
            names.append(_unquoted(self._sql[part.start : part.end]))
        return _Name(".".join(names))

    def _call(self, function: _Token, known: str) -> Condition | _Operand:
        if known not in _CONTAINS and known != "ANY":
            raise QueryError(f"{function.word}()", f"cannot be used in a where. Allowed: {ALLOWED}")
        self._expect("(")
        start = self._next.start
        column = self._column(self._operand(), start)
        if known == "ANY":
            self._expect(")")
            return _AnyOf(column)
        self._expect(",")
        value = self._literal("a literal as what the list contains")
        self._expect(")")
        return Contains(column, value)

    # Tokens

    def _advance(self) -> _Token:
        token = self._next
        self._end = token.end
        if token.kind != "end":
            self._next = next(self._tokens)
        return token

    def _take(self, sign: str) -> bool:
        if self._next.kind != "sign" or self._next.word != sign:
            return False
        self._advance()
        return True

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._refuse(sign)

    def _refuse(self, expected: str) -> QueryError:
        """The next token cannot be there."""
        before, after = self._sql[: self._end], self._sql[self._next.start :]
        where = f" after `{'...' * (len(before) > 30)}{before[-30:]}`" if before.strip() else ""
        found = f"`{shorten(after, 30)}`" if after else "the end"
        if self._next.word in ("'", '"'):
            found = f"a quote that is never closed: {found}"
        return QueryError(
            shorten(self._sql.strip()),
            f"is no SQL condition: expected {expected}{where}, found {found}. A column whose "
            f"name is a keyword goes in double quotes. Allowed: {ALLOWED}",
        )

    def _fail(self, start: int, problem: str) -> QueryError:
        """What begins at `start` is well formed and not allowed."""
        return QueryError(shorten(self._sql[start : max(self._end, start + 1)]), problem)


def _negate(condition: Condition, negated: bool) -> Condition:
    return Not(condition) if negated else condition


def _unquoted(word: str) -> str:
    """A name or text without its quotes; doubled quotes inside stand for one."""
    quote = word[0]
    return word[1:-1].replace(quote * 2, quote) if quote in "'\"" else word
