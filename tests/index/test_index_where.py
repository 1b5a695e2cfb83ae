"""A `where` means what SQLite says it means, and refuses everything else."""

import datetime
import sqlite3
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import QueryError
from penstock.index import parse_where, where_columns

_BERLIN = pa.timestamp("ns", "Europe/Berlin")
_DAYS = [datetime.date(2024, 1, 1), datetime.date(2023, 1, 1), None, datetime.date(2025, 1, 1)]
_TIMES = [None if day is None else datetime.datetime(day.year, 1, 1, 3) for day in _DAYS]
_TABLE = pa.table(
    {
        "id": pa.array([0, 1, 2, 3]),
        "year": pa.array([1, 2, None, 5]),
        "small": pa.array([0, 1, None, 255], pa.uint8()),
        "share": pa.array([0.5, 1.5, None, 2.0]),
        "price": pa.array([0.5, 1.5, None, 2.0]).cast(pa.decimal128(5, 2)),
        "name": pa.array(["x%", "Ab\nc", None, "é_"]),
        "kind": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "flag": pa.array([True, False, None, True]),
        "day": pa.array(_DAYS),
        "at": pa.array(_TIMES, pa.timestamp("us")),
        "second": pa.array([1, 2, None, 5], pa.timestamp("s")),
        "berlin": pa.array(_TIMES, _BERLIN),
        "tags": pa.array([["a"], [], None, ["b"]]),
        "author.full name": pa.array(["q", "r", None, "s"], pa.large_string()),
        "a.b.c.d.e": pa.array([1, 2, None, 4]),
        "empty": pa.nulls(4),
        "end": pa.array([1, 2, None, 4]),
    }
)
_COLUMNS = dict(zip(_TABLE.column_names, _TABLE.schema.types, strict=True))


def _found(where: str) -> list[int]:
    ids: list[int] = _TABLE.filter(parse_where(where, _COLUMNS)).column("id").to_pylist()
    return ids


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
        pytest.param("price <= 1.5", [0, 1], id="decimal"),
        pytest.param("year IN (1, 2.5, NULL)", [0], id="in-with-null"),
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
        pytest.param("lower(name) = 'x'", "LOWER(name)", id="function"),
        pytest.param("name = lower('X')", "LOWER('X')", id="function-for-a-literal"),
        pytest.param("anything(year)", "ANYTHING(year)", id="unknown-function"),
        pytest.param("year IN (SELECT 1)", "SELECT 1", id="subquery"),
        pytest.param("EXISTS(SELECT 1)", "EXISTS", id="exists"),
        pytest.param("year + 1 = 2", "year + 1", id="arithmetic"),
        pytest.param("CAST(name AS INT) = 1", "CAST(name AS INT)", id="cast"),
        pytest.param("CAST('1' AS INT) = year", "CAST('1' AS INT)", id="cast-of-a-literal"),
        pytest.param("year = ?", "?", id="placeholder"),
        pytest.param("CASE WHEN flag THEN flag END", "CASE", id="case"),
        pytest.param("flag IS TRUE", "flag IS TRUE", id="is-true"),
        pytest.param("*", "*", id="star"),
        pytest.param("x.*", "x.*", id="star-of-a-table"),
        pytest.param("year = small", "year = small", id="two-columns"),
        pytest.param("1 = 1", "1 = 1", id="two-literals"),
        pytest.param("tags[0] = 'a'", "tags[0]", id="subscript"),
        pytest.param("month = 1", "a.b.c.d.e, at, author.full name", id="unknown-column"),
        pytest.param("Year = 1", "Year", id="case-of-a-column"),
        pytest.param("year", "int64", id="bare-number"),
        pytest.param("year = 'x'", "int64", id="number-with-text"),
        pytest.param("year IN (1, 'x')", "int64", id="number-in-text"),
        pytest.param("year BETWEEN 1 AND 'x'", "int64", id="number-between-text"),
        pytest.param("name = 1", "quotes", id="text-with-number"),
        pytest.param("name IN ('1','2','3','4','5','6','7','8',9)", "quotes", id="long-in-mixed"),
        pytest.param("year LIKE '1%'", "LIKE needs a text column", id="like-on-a-number"),
        pytest.param("name LIKE 1", "LIKE needs a text column", id="like-a-number"),
        pytest.param("name LIKE 'x!' ESCAPE '!'", "escape", id="dangling-escape"),
        pytest.param("name LIKE 'x' ESCAPE '!!'", "one character", id="long-escape"),
        pytest.param("flag = 1", "bool", id="boolean-with-number"),
        pytest.param("day = 'soon'", "'2024-01-31'", id="no-date"),
        pytest.param("day = DATE 'soon'", "'2024-01-31'", id="no-date-literal"),
        pytest.param("at > 'soon'", "'2024-01-31 12:00:00'", id="no-time"),
        pytest.param("at > 2024", "timestamp", id="time-with-number"),
        pytest.param("tags = 'a'", "IS NULL", id="list-with-text"),
        pytest.param("(" * 5000 + "flag" + ")" * 5000, "nested too deeply", id="deep-parentheses"),
        pytest.param("NOT " * 5000 + "flag", "nested too deeply", id="deep-not"),
    ],
)
def test_refuses_and_names_the_piece(where: str, named: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_where(where, _COLUMNS)

    assert named in str(caught.value)


def test_a_refusal_lists_what_is_allowed() -> None:
    with pytest.raises(QueryError, match="BETWEEN, IN, LIKE"):
        parse_where("lower(name) = 'x'", _COLUMNS)


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
    assert where_columns(where) == names


# Random conditions over random tables: ours and SQLite's answers

_TEXTS = st.text("aB%_é\n", max_size=3)
_INTEGERS = st.integers(-3, 3)
_FLOATS = st.sampled_from([-1.5, -0.5, 0.0, 0.5, 1.0, 2.5])
_ROWS = st.lists(
    st.tuples(
        st.none() | _INTEGERS, st.none() | _FLOATS, st.none() | _TEXTS, st.none() | st.booleans()
    ),
    max_size=8,
)
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
        _LIKES,
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


@settings(max_examples=200, deadline=None)
@given(rows=_ROWS, where=_CONDITIONS)
def test_agrees_with_sqlite(rows: list[tuple[Any, ...]], where: str) -> None:
    columns = {"i": pa.int64(), "f": pa.float64(), "s": pa.string(), "b": pa.bool_()}
    table = pa.table(
        {
            "id": pa.array(range(len(rows)), pa.int64()),
            **{
                name: pa.array([row[at] for row in rows], kind)
                for at, (name, kind) in enumerate(columns.items())
            },
        }
    )
    database = sqlite3.connect(":memory:")
    try:
        database.execute("PRAGMA case_sensitive_like = ON")
        database.execute("CREATE TABLE t (id INTEGER, i INTEGER, f REAL, s TEXT, b INTEGER)")
        numbered = [(at, *row) for at, row in enumerate(rows)]
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", numbered)
        expected = [row[0] for row in database.execute(f"SELECT id FROM t WHERE {where}")]
    finally:
        database.close()

    assert table.filter(parse_where(where, columns)).column("id").to_pylist() == expected
