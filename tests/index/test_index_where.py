"""A `where` means what SQLite says it means, and refuses everything else."""

import contextlib
import datetime
import inspect
import json
import re
import sqlite3
import sys
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.errors import QueryError
from penstock.index.grammar import MAX_CHARS, MAX_DEPTH
from penstock.index.where import Column, Where, unknown_column

_BERLIN = pa.timestamp("ns", "Europe/Berlin")
_DAYS = [datetime.date(2024, 1, 1), datetime.date(2023, 1, 1), None, datetime.date(2025, 1, 1)]
_TIMES = [None if day is None else datetime.datetime(day.year, 1, 1, 3) for day in _DAYS]
_TABLE = pa.table(
    {
        "id": pa.array([0, 1, 2, 3]),
        "year": pa.array([1, 2, None, 5]),
        "small": pa.array([0, 1, None, 255], pa.uint8()),
        "share": pa.array([0.5, 1.5, None, 2.0]),
        "bytes": pa.array([b"x", b"", None, b"y"]),
        "name": pa.array(["x%", "Ab\nc", None, "é_"]),
        "kind": pa.array(["u", "v", None, "u"]),
        "flag": pa.array([True, False, None, True]),
        "day": pa.array(_DAYS),
        "at": pa.array(_TIMES, pa.timestamp("us")),
        "second": pa.array([1, 2, None, 5], pa.timestamp("s")),
        "berlin": pa.array(_TIMES, _BERLIN),
        "tags": pa.array([["a", None], [], None, ["b", "b", "c"]]),
        "published": pa.array(["2024-01-31T23:30:00-05:00", "2024-01-31", None, "soon"]),
        "author.full name": pa.array(["q", "r", None, "s"], pa.large_string()),
        "a.b.c.d.e": pa.array([1, 2, None, 4]),
        "empty": pa.nulls(4),
        "end": pa.array([1, 2, None, 4]),
    }
)


def _column(name: str) -> Column:
    if name not in _TABLE.column_names:
        raise unknown_column(name, _TABLE.column_names)
    return Column.of(_TABLE.column(name).combine_chunks())


def _found(where: str) -> list[int]:
    return [int(row) for row in np.flatnonzero(Where.parse(where).mask(4, _column))]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        pytest.param("year = 1", [0], id="equal"),
        pytest.param("year == 1", [0], id="double-equal"),
        pytest.param("year <> 1", [1, 3], id="different-leaves-null-out"),
        pytest.param("1 < year", [1, 3], id="literal-first"),
        pytest.param("year > 1.5", [1, 3], id="integer-above-a-fraction"),
        pytest.param("year = 1.5 OR year <> 1.5", [0, 1, 3], id="integer-never-a-fraction"),
        pytest.param("year = 1e0", [0], id="whole-number-with-exponent"),
        pytest.param("year < 99999999999999999999", [0, 1, 3], id="beyond-int64"),
        pytest.param("year > -1e400", [0, 1, 3], id="beyond-float64"),
        pytest.param("small > 254.5", [3], id="at-the-end-of-uint8"),
        pytest.param("small >= -0.5", [0, 1, 3], id="just-below-uint8"),
        pytest.param("small < 255.5", [0, 1, 3], id="just-above-uint8"),
        pytest.param("share = -0.5 OR share >= 1.5", [1, 3], id="float"),
        pytest.param("year IN (1, 2.5, NULL)", [0], id="in-with-null"),
        pytest.param("year IN (1, 1e400, -1e400, 5.0)", [0, 3], id="in-beyond-int64"),
        pytest.param("share IN (1.5, -0.0, 1e400)", [1], id="in-floats"),
        pytest.param("flag IN (TRUE, NULL)", [0, 3], id="in-booleans"),
        pytest.param("day IN ('2024-01-01', DATE '2025-01-01')", [0, 3], id="in-dates"),
        pytest.param("year IN (NULL)", [], id="in-nothing-but-null"),
        pytest.param("year NOT IN (1, NULL)", [], id="not-in-with-null-is-unknown"),
        pytest.param("year NOT IN (1)", [1, 3], id="not-in"),
        pytest.param("name IN ('1','2','3','4','5','6','7','8','x%')", [0], id="long-in"),
        pytest.param(
            "NOT name IN ('1','2','3','4','5','6','7','8','x%')", [1, 3], id="long-not-in"
        ),
        pytest.param("year BETWEEN 1 AND 2 OR year IS NULL", [0, 1, 2], id="between-or-null"),
        pytest.param("year NOT BETWEEN 1 AND 2", [3], id="not-between"),
        pytest.param("name LIKE 'Ab_c'", [1], id="underscore-is-any-character"),
        pytest.param("name LIKE '%\n%'", [1], id="percent-passes-line-ends"),
        pytest.param("name LIKE 'b%'", [], id="like-matches-the-whole"),
        pytest.param("name LIKE 'x!%' ESCAPE '!'", [0], id="escape"),
        pytest.param(r"name LIKE '\%'", [], id="no-escape-unless-named"),
        pytest.param("name LIKE '.*'", [], id="like-is-no-regex"),
        pytest.param("name LIKE 'a%'", [], id="like-minds-case"),
        pytest.param("name ILIKE 'a%'", [1], id="ilike-does-not"),
        pytest.param("name LIKE 'Ab%'", [1], id="prefix"),
        pytest.param("name LIKE '%c'", [1], id="suffix"),
        pytest.param("name LIKE '%b%'", [1], id="inside"),
        pytest.param("name LIKE '%%'", [0, 1, 3], id="anything-but-null"),
        pytest.param("name LIKE ''", [], id="empty-pattern"),
        pytest.param("name LIKE 'x!%%' ESCAPE '!'", [0], id="prefix-with-escape"),
        pytest.param("name LIKE 'é!_' ESCAPE '!'", [3], id="whole-with-escape"),
        pytest.param("name LIKE NULL", [], id="like-null"),
        pytest.param("name NOT LIKE 'x%'", [1, 3], id="not-like"),
        pytest.param("name NOT ILIKE 'X%'", [1, 3], id="not-ilike"),
        pytest.param("kind = 'u'", [0, 3], id="dictionary"),
        pytest.param("kind LIKE 'v'", [1], id="dictionary-like"),
        pytest.param("flag", [0, 3], id="bare-boolean"),
        pytest.param("NOT flag", [1], id="not-bare-boolean"),
        pytest.param("flag = FALSE", [1], id="boolean-compared"),
        pytest.param("day >= '2024-01-01'", [0, 3], id="text-as-date"),
        pytest.param("DATE '2024-01-01' = day", [0], id="date-literal"),
        pytest.param("day < TIMESTAMP '2024-01-01 10:00:00'", [0, 1], id="date-before-a-time"),
        pytest.param("at > '2024-01-01'", [0, 3], id="text-as-time"),
        pytest.param("at > '2024-01-01T05:00:00+02:00'", [3], id="zone-brought-to-utc"),
        pytest.param("berlin >= '2024-01-01 03:00:00'", [0, 3], id="no-zone-is-utc"),
        pytest.param("second > '1970-01-01 00:00:01.5'", [1, 3], id="finer-than-the-column"),
        pytest.param("tags IS NOT NULL", [0, 1, 3], id="list-not-null"),
        pytest.param("list_contains(tags, 'b')", [3], id="list-contains"),
        pytest.param("Array_Contains(tags, 'a')", [0], id="array-contains"),
        pytest.param("'c' = ANY(tags)", [3], id="any"),
        pytest.param("NOT 'c' = any (tags)", [0, 1], id="not-any-leaves-null-out"),
        pytest.param("list_contains(tags, NULL)", [], id="contains-null-is-unknown"),
        pytest.param("list_contains(empty, 'a')", [], id="contains-in-a-column-of-nulls"),
        pytest.param("bytes IS NULL", [2], id="binary-null"),
        pytest.param('year = "a.b.c.d.e"', [0, 1], id="two-columns"),
        pytest.param("small > year OR share < year", [0, 1, 3], id="columns-of-two-types"),
        pytest.param('name < kind OR kind < "author.full name"', [1], id="columns-of-text"),
        pytest.param("year <> empty", [], id="column-beside-nulls"),
        pytest.param("published >= DATE '2024-02-01'", [0], id="text-as-a-day-in-utc"),
        pytest.param("published = DATE '2024-01-31'", [1], id="text-on-a-day"),
        pytest.param("NOT published = DATE '2024-01-31'", [0], id="no-date-is-unknown"),
        pytest.param("published IN (DATE '2024-01-31', 'soon')", [1, 3], id="text-date-or-text"),
        pytest.param("published >= '2024-02-01'", [3], id="text-with-text-goes-by-letters"),
        pytest.param("author.\"full name\" IN ('q', 'r')", [0, 1], id="dots-and-quotes"),
        pytest.param("\"author.full name\" = 's'", [3], id="dots-inside-quotes"),
        pytest.param("a.b.c.d.e >= 2", [1, 3], id="many-dots"),
        pytest.param("end > 1", [1, 3], id="keyword-as-a-name"),
        pytest.param("empty = 1 OR empty LIKE 'x' OR empty", [], id="column-of-nulls-is-unknown"),
        pytest.param("empty IS NULL", [0, 1, 2, 3], id="column-of-nulls-is-null"),
        pytest.param("year = NULL", [], id="equal-null-is-unknown"),
        pytest.param("TRUE", [0, 1, 2, 3], id="true"),
        pytest.param("NULL", [], id="null"),
        pytest.param("((year)) = (1) -- as said", [0], id="parentheses-and-a-comment"),
        pytest.param("NOT " * 5001 + "flag", [1], id="many-nots"),
        pytest.param("(" * 50 + "flag" + ")" * 50, [0, 3], id="deep-as-allowed"),
        pytest.param("(flag) OR " * 60 + "flag", [0, 3], id="many-parentheses-side-by-side"),
        pytest.param("year IN (1 /* one */, 2) OR/**/flag", [0, 1, 3], id="comments"),
        pytest.param("year is null or false", [2], id="small-letters"),
        pytest.param("TRUE AND NULL OR year = 1", [0], id="constants-and-a-column"),
        pytest.param(" OR ".join(f"year = {i}" for i in range(1500)), [0, 1, 3], id="long-chain"),
    ],
)
def test_finds_what_sql_would(where: str, ids: list[int]) -> None:
    assert _found(where) == ids


@pytest.mark.parametrize(
    ("where", "named"),
    [
        pytest.param("", "found nothing", id="empty"),
        pytest.param("-- nothing", "found nothing", id="comment-only"),
        pytest.param("year = 1; DROP TABLE x", "", id="two-statements"),
        pytest.param("SELECT 1", "no SQL condition", id="statement"),
        pytest.param("year = = 1", "no SQL condition", id="no-sql"),
        pytest.param("year = 'a", "no SQL condition", id="open-quote"),
        pytest.param("year = 1 AND", "no SQL condition", id="cut-off"),
        pytest.param("lower(name) = 'x'", "lower()", id="function"),
        pytest.param("name = lower('X')", "lower()", id="function-for-a-literal"),
        pytest.param("anything(year)", "anything()", id="unknown-function"),
        pytest.param("year IN (SELECT 1)", "expected a literal", id="subquery"),
        pytest.param("EXISTS(SELECT 1)", "EXISTS", id="exists"),
        pytest.param("year + 1 = 2", "year + 1", id="arithmetic"),
        pytest.param("CAST(name AS INT) = 1", "CAST()", id="cast"),
        pytest.param("CAST('1' AS INT) = year", "CAST()", id="cast-of-a-literal"),
        pytest.param("year = ?", "?", id="placeholder"),
        pytest.param("CASE WHEN flag THEN flag END", "CASE", id="case"),
        pytest.param("flag IS TRUE", "expected NULL after `flag IS`", id="is-true"),
        pytest.param("*", "*", id="star"),
        pytest.param("x.*", "x.*", id="star-of-a-table"),
        pytest.param("year = name", "int64 and string", id="two-columns-of-two-kinds"),
        pytest.param("tags = tags", "list", id="two-lists"),
        pytest.param("1 = 1", "1 = 1", id="two-literals"),
        pytest.param("tags[0] = 'a'", "tags[0]", id="subscript"),
        pytest.param("month = 1", "a.b.c.d.e, at, author.full name", id="unknown-column"),
        pytest.param("shares = 1", "there are share, a.b.c.d.e", id="nearest-column-first"),
        pytest.param("Year = 1", "there are year, ", id="case-of-a-column"),
        pytest.param("year", "int64", id="bare-number"),
        pytest.param("year = 'x'", "int64", id="number-with-text"),
        pytest.param("year IN (1, 'x')", "int64", id="number-in-text"),
        pytest.param("year BETWEEN 1 AND 'x'", "int64", id="number-between-text"),
        pytest.param("name = 1", "quotes", id="text-with-number"),
        pytest.param("name IN ('1','2','3','4','5','6','7','8',9)", "quotes", id="long-in-mixed"),
        pytest.param("year LIKE '1%'", "LIKE needs a column of text", id="like-on-a-number"),
        pytest.param("name LIKE 1", "LIKE needs a pattern in quotes", id="like-a-number"),
        pytest.param("name LIKE 'x!' ESCAPE '!'", "escape", id="dangling-escape"),
        pytest.param("name LIKE 'x' ESCAPE '!!'", "one character", id="long-escape"),
        pytest.param("flag = 1", "bool", id="boolean-with-number"),
        pytest.param("day = 'soon'", "'2024-01-31'", id="no-date"),
        pytest.param("day = DATE 'soon'", "'2024-01-31'", id="no-date-literal"),
        pytest.param("at > 'soon'", "TIMESTAMP '2024-01-31 12:00:00'", id="no-time"),
        pytest.param("at > 2024", "timestamp", id="time-with-number"),
        pytest.param("tags = 'a'", "IS NULL", id="list-with-text"),
        pytest.param("(" * 5000 + "flag" + ")" * 5000, "nested too deeply", id="deep-parentheses"),
        pytest.param("(" * 51 + "flag" + ")" * 51, "nested too deeply", id="just-too-deep"),
        pytest.param("flag OR " * 200_000, "at most 1000000", id="too-long"),
        pytest.param("year = 'a" + "''a" * 100_000, "never closed", id="long-open-quote"),
        pytest.param("year = " + "1" * 100_000 + "x", "expected a column or", id="long-no-number"),
        pytest.param("year = 1e99999999999999999999", "large a number", id="exponent"),
        pytest.param("name = '\ud800'", "surrogate", id="half-a-character"),
        pytest.param("year = 1 /* cut off", "found `/* cut off`", id="open-comment"),
        pytest.param("1 < year < 5", "found `< 5`", id="chained"),
        pytest.param("year NOT 5", "BETWEEN after NOT", id="not-what"),
        pytest.param("year IN ()", "found `)`", id="in-nothing"),
        pytest.param("5", "no condition", id="value-alone"),
        pytest.param("flag AND 'x'", "'x': is a value", id="text-for-a-condition"),
        pytest.param("ANY(tags)", "right of =", id="any-alone"),
        pytest.param("'a' < ANY(tags)", "a comparison needs", id="any-below"),
        pytest.param("list_contains('a', tags)", "expected a column", id="contains-mirrored"),
        pytest.param("list_contains(name, 'a')", "only a list of text", id="contains-of-text"),
        pytest.param("list_contains(tags, 1)", "list_contains(column", id="contains-a-number"),
        pytest.param("bytes = 'x'", "only be tested with IS NULL", id="binary"),
        pytest.param("name > DATE '2024-01-31'", "none of the column's values", id="no-dates"),
        pytest.param("year > DATE '2024-01-31'", "int64", id="number-with-date"),
        pytest.param("name ILIKE '" + "_a" * 100_000 + "'", "too large", id="huge-pattern"),
    ],
)
def test_refuses_and_names_the_piece(where: str, named: str) -> None:
    with pytest.raises(QueryError) as caught:
        _found(where)

    assert named in str(caught.value)


def test_a_refusal_lists_what_is_allowed() -> None:
    with pytest.raises(QueryError, match="BETWEEN, IN, LIKE"):
        Where.parse("lower(name) = 'x'")


@pytest.mark.parametrize(
    ("where", "names"),
    [
        pytest.param("b = 1 AND (a.c > 2 OR b IS NULL)", ("b", "a.c"), id="first-use-first"),
        pytest.param('"odd name" LIKE \'a\' AND x."y z"', ("odd name", "x.y z"), id="quoted"),
        pytest.param("a.b.c.d.e.f IN (1)", ("a.b.c.d.e.f",), id="deep"),
        pytest.param("TRUE", (), id="none"),
    ],
)
def test_knows_the_columns_it_uses(where: str, names: tuple[str, ...]) -> None:
    assert Where.parse(where).columns == names


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        pytest.param("2024", "2024-01-01", id="year"),
        pytest.param("2024-02", "2024-02-01", id="month"),
        pytest.param("2024-02-29", "2024-02-29", id="day"),
        pytest.param("20240229", "2024-02-29", id="day-without-hyphens"),
        pytest.param("2024-01-31T12", "2024-01-31 12:00", id="hour"),
        pytest.param("2024-01-31 12:30", "2024-01-31 12:30", id="minute"),
        pytest.param("2024-01-31T12:00:00,5", "2024-01-31 12:00:00.5", id="comma"),
        pytest.param("2024-01-31T12:00:00.1234567Z", "2024-01-31 12:00:00.123456", id="cut"),
        pytest.param("2024-01-31T12:00:00Z", "2024-01-31 12:00", id="utc"),
        pytest.param("2024-01-31T23:30:00-0500", "2024-02-01 04:30", id="zone"),
        pytest.param("1960-01-01T00:00+01:00", "1959-12-31 23:00", id="before-the-epoch"),
    ],
)
def test_reads_every_form_of_a_date(text: str, instant: str) -> None:
    column = Column.of(pa.array([text, "soon", None]))
    moment = f"published = TIMESTAMP '{instant}'"
    day = f"published = DATE '{instant[:10]}'"

    assert Where.parse(moment).mask(3, lambda _: column).tolist() == [True, False, False]
    assert Where.parse(day).mask(3, lambda _: column).tolist() == [True, False, False]


@pytest.mark.parametrize("text", ["", "soon", "2023-02-29", "2024-13-01", "31.01.2024", "24"])
def test_text_that_is_no_date_is_unknown(text: str) -> None:
    column = Column.of(pa.array([text, "2024-01-31"]))

    for where in ("x <= DATE '2024-01-31'", "NOT x > DATE '2024-01-31'"):
        assert Where.parse(where).mask(2, lambda _: column).tolist() == [False, True]


def test_deep_calls_around_it_are_no_crash() -> None:
    def nested(levels: int) -> None:
        if levels:
            nested(levels - 1)
        else:
            Where.parse("(" * MAX_DEPTH + "flag" + ")" * MAX_DEPTH)

    with pytest.raises(QueryError, match="nested too deeply"):
        nested(sys.getrecursionlimit() - len(inspect.stack()) - 100)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("y IN (" + "1," * 100_000 + "1)", id="many-numbers"),
        pytest.param("y = 1 OR " * 10_000 + "y = 2", id="many-parts"),
        pytest.param("t LIKE '" + "%a" * 50_000 + "'", id="many-wildcards"),
        pytest.param("t = '" + "x" * (MAX_CHARS - 6) + "'", id="long-text"),
    ],
)
def test_huge_conditions_end(where: str) -> None:
    columns = {"y": Column.of(pa.array([1, 2, 3])), "t": Column.of(pa.array(["a", "b", None]))}

    with contextlib.suppress(QueryError):
        Where.parse(where).mask(3, columns.__getitem__)


# Random conditions over random tables: ours and SQLite's answers

_TEXTS = st.text("aB%_é\n", max_size=3)
_INTEGERS = st.integers(-3, 3)
_FLOATS = st.sampled_from([-1.5, -0.5, 0.0, 0.5, 1.0, 2.5])
_LISTS = st.lists(st.none() | st.sampled_from(["a", "B", ""]), max_size=3)
_DATES = st.sampled_from(
    ["2024-01-30", "2024-01-31", "2024-01-31 12:00", "2024-01-31T12:00:30.5", "soon", ""]
)
_ZONED = st.builds(
    "{}{}".format,
    st.sampled_from(["2024-01-31T12:00", "2024-01-31 23:30:00", "2024-02-01T00:30:00.250"]),
    st.sampled_from(["", "Z", "+00:00", "-05:00", "+01:30"]),
)
_KINDS = {
    "i": pa.int64(),
    "f": pa.float64(),
    "s": pa.string(),
    "t": pa.string(),
    "b": pa.bool_(),
    "l": pa.list_(pa.string()),
    "d": pa.string(),
}
_DATED = (None, None, None, None, None, None, "2024-01-01")  # else comparing dates is an error
_ROWS = st.lists(
    st.tuples(
        *(
            st.none() | values
            for values in (
                _INTEGERS,
                _FLOATS,
                _TEXTS,
                _TEXTS,
                st.booleans(),
                _LISTS,
                _DATES | _ZONED,
            )
        )
    ),
    max_size=8,
).map(lambda rows: [*rows, _DATED])
_OPERATORS = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_NUMBERS = st.one_of(_INTEGERS, _FLOATS).map(str) | st.just("NULL")
_WORDS = _TEXTS.map(_quoted) | st.just("NULL")


def _predicates(column: str, literals: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    negation = st.sampled_from(["", "NOT "])
    return st.one_of(
        st.builds(lambda op, x: f"{column} {op} {x}", _OPERATORS, literals),
        st.builds(lambda op, x: f"{x} {op} {column}", _OPERATORS, literals),
        st.builds(lambda n, x, y: f"{column} {n}BETWEEN {x} AND {y}", negation, literals, literals),
        st.builds(
            lambda n, items: f"{column} {n}IN ({', '.join(items)})",
            negation,
            st.lists(literals, min_size=1, max_size=10),
        ),
        st.builds(lambda n: f"{column} IS {n}NULL", negation),
    )


_LIKES = st.builds(lambda n, x: f"s {n}LIKE {_quoted(x)}", st.sampled_from(["", "NOT "]), _TEXTS)
_CONDITIONS = st.recursive(
    st.one_of(
        _predicates("i", _NUMBERS),
        _predicates("f", _NUMBERS),
        _predicates("s", _WORDS),
        _predicates("t", _WORDS),
        _LIKES,
        st.builds("list_contains(l, {})".format, _WORDS),
        st.builds("{} {} {}".format, st.sampled_from("if"), _OPERATORS, st.sampled_from("if")),
        st.builds("{} {} {}".format, st.sampled_from("st"), _OPERATORS, st.sampled_from("st")),
        st.builds("d {} DATE '2024-0{}'".format, _OPERATORS, st.sampled_from(["1-31", "2-01"])),
        st.builds(
            "d {} TIMESTAMP '2024-01-31 {}:00'".format,
            _OPERATORS,
            st.sampled_from(["12:00", "22:00", "23:30"]),
        ),
        st.sampled_from(["b", "b = TRUE", "b <> FALSE", "b IS NULL", "TRUE", "FALSE", "NULL"]),
    ),
    lambda inner: st.one_of(
        st.builds("NOT ({})".format, inner),
        st.builds("({}) AND ({})".format, inner, inner),
        st.builds("({}) OR ({})".format, inner, inner),
        st.builds("{} AND {} OR {}".format, inner, inner, inner),
    ),
    max_leaves=6,
)


def _plain(rows: list[tuple[Any, ...]]) -> dict[str, pa.Array]:
    return {
        name: pa.array([row[at] for row in rows], kind)
        for at, (name, kind) in enumerate(_KINDS.items())
    }


def _in_sqlite(where: str) -> str:
    """The same condition in SQLite's words: it has no dates, and functions for them instead."""
    where = re.sub(r"\bd (\S+) DATE ('[^']+')", r"date(d) \1 \2", where)
    moment = r"strftime('%Y-%m-%d %H:%M:%f', d) \1 '\2.000'"
    return re.sub(r"\bd (\S+) TIMESTAMP '([^']+)'", moment, where)


def _list_contains(text: str | None, element: str | None) -> bool | None:
    return None if text is None or element is None else element in json.loads(text)


@settings(max_examples=300, deadline=None)
@given(rows=_ROWS, where=_CONDITIONS)
def test_agrees_with_sqlite(rows: list[tuple[Any, ...]], where: str) -> None:
    database = sqlite3.connect(":memory:")
    try:
        database.execute("PRAGMA case_sensitive_like = ON")
        database.create_function("list_contains", 2, _list_contains)
        database.execute(
            "CREATE TABLE t (id INTEGER, i INTEGER, f REAL, s TEXT, t TEXT, b INTEGER, l, d TEXT)"
        )
        for at, (*values, tags, day) in enumerate(rows):
            listed = None if tags is None else json.dumps(tags)
            database.execute(
                "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (at, *values, listed, day)
            )
        query = f"SELECT id FROM t WHERE {_in_sqlite(where)} ORDER BY id"
        expected = [row[0] for row in database.execute(query)]
    finally:
        database.close()

    columns = {name: Column.of(values) for name, values in _plain(rows).items()}
    mask = Where.parse(where).mask(len(rows), columns.__getitem__)
    assert np.flatnonzero(mask).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(rows=_ROWS, where=_CONDITIONS, data=st.data())
def test_the_way_a_column_is_kept_does_not_matter(
    rows: list[tuple[Any, ...]], where: str, data: st.DataObject
) -> None:
    num_rows = data.draw(st.integers(0, 12))
    shared = np.array(
        data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=num_rows, max_size=num_rows)),
        np.int32,
    )
    kept, by_row = {}, {}
    for name, values in _plain(rows).items():
        way = data.draw(st.sampled_from(["shared", "own", "coded", "streamed"]))
        if way == "coded" and not pa.types.is_list(values.type):
            codes = values.dictionary_encode()
            numbers = codes.indices.fill_null(-1).to_numpy()
            kept[name] = Column.of(codes.dictionary, codes=numbers, owners=shared)
        elif way == "streamed":
            cut = data.draw(st.integers(0, len(values)))
            parts = [values[:cut], values[cut:]]
            kept[name] = Column(values.type, partial(tuple, parts), owners=shared)
        else:
            kept[name] = Column.of(values, owners=shared if way == "shared" else shared.copy())
        by_row[name] = Column.of(values.take(pa.array(shared)))

    condition = Where.parse(where)
    try:
        expected = condition.mask(num_rows, by_row.__getitem__)
    except QueryError:  # no date among the rows that are left
        assume(False)
    assert condition.mask(num_rows, kept.__getitem__).tolist() == expected.tolist()
