"""SQL expressions: what they mean, what is refused, and that no data makes them fail."""

from __future__ import annotations

import math
from datetime import date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.definitions.expressions import check_expression, check_filter
from streams.errors import InvalidInputError

FIELDS = {
    "n": pl.Int64(),
    "i": pl.Int32(),
    "x": pl.Float64(),
    "f": pl.Float32(),
    "s": pl.String(),
    "t": pl.Boolean(),
    "d": pl.Datetime("ms"),
    "u": pl.Datetime("us"),
    "day": pl.Date(),
}

LEAST, MOST = -(2**63), 2**63 - 1


def frame(**columns: list[Any]) -> pl.DataFrame:
    """A frame with all fields; those not given are null throughout."""
    height = max((len(values) for values in columns.values()), default=1)
    physical = {"d": pl.Int64(), "u": pl.Int64(), "day": pl.Int32()}
    made = [
        pl.Series(name, columns.get(name, [None] * height), dtype=physical.get(name, dtype))
        for name, dtype in FIELDS.items()
    ]
    return pl.DataFrame(made).cast({name: FIELDS[name] for name in physical})


def values(sql: str, **columns: list[Any]) -> list[Any]:
    checked = check_expression(sql, FIELDS)
    series = frame(**columns).select(value=checked.expr)["value"]
    assert series.dtype == checked.dtype
    return series.to_list()


@pytest.mark.parametrize(
    ("sql", "columns", "expected"),
    [
        ("n", {"n": [1, None]}, [1, None]),
        ("CASE WHEN x > 15 THEN 1.0 ELSE 0.0 END", {"x": [16, 15, None]}, [1.0, 0.0, 0.0]),
        ("CASE WHEN t THEN n END", {"t": [True, False], "n": [1, 2]}, [1, None]),
        ("CASE n WHEN 1 THEN 'a' WHEN 2 THEN 'b' END", {"n": [1, 2, 3]}, ["a", "b", None]),
        ("n + 1", {"n": [1, MOST]}, [2, None]),
        ("n * n", {"n": [3, LEAST]}, [9, None]),
        ("-n", {"n": [3, LEAST]}, [-3, None]),
        ("i * 1000000", {"i": [2**31 - 1]}, [(2**31 - 1) * 1_000_000]),
        ("n / 2", {"n": [1, 4]}, [0.5, 2.0]),
        ("n / 0", {"n": [1, 0]}, [None, None]),
        ("x / 0", {"x": [1.0, 0.0]}, [None, None]),
        ("n // 2", {"n": [-7, 7, None]}, [-3, 3, None]),
        ("n % 2", {"n": [-7, 7, None]}, [-1, 1, None]),
        ("n % 0", {"n": [1]}, [None]),
        ("n // -1", {"n": [LEAST]}, [None]),
        ("x", {"x": [math.nan, 1.0]}, [None, 1.0]),
        ("x > 1", {"x": [math.nan, 2.0]}, [None, True]),
        ("x - x", {"x": [math.inf]}, [None]),
        ("f + 1.5", {"f": [1.0]}, [2.5]),
        ("n BETWEEN 1 AND 2", {"n": [0, 1, 2, 3]}, [False, True, True, False]),
        ("n IN (1, 2)", {"n": [1, 3, None]}, [True, False, None]),
        ("n IN (1, NULL)", {"n": [1, 3]}, [True, None]),
        ("n NOT IN (1, 2)", {"n": [1, 3, None]}, [False, True, None]),
        ("s IN ('a', 'b')", {"s": ["a", "c"]}, [True, False]),
        ("n IN (1.5, 2)", {"n": [1, 2]}, [False, True]),
        ("n IS NULL", {"n": [1, None]}, [False, True]),
        ("n IS NOT NULL AND t", {"n": [1, None], "t": [True, True]}, [True, False]),
        ("NOT t", {"t": [True, False, None]}, [False, True, None]),
        ("n IS DISTINCT FROM 1", {"n": [1, None]}, [False, True]),
        ("COALESCE(n, 0)", {"n": [1, None]}, [1, 0]),
        ("COALESCE(n, x, 0)", {"n": [None], "x": [1.5]}, [1.5]),
        ("NULLIF(n, 0)", {"n": [1, 0]}, [1, None]),
        ("GREATEST(n, 2)", {"n": [1, 3]}, [2, 3]),
        ("LEAST(n, x)", {"n": [1], "x": [0.5]}, [0.5]),
        ("ABS(n)", {"n": [-2, LEAST]}, [2, None]),
        ("ROUND(x, 1)", {"x": [1.25, -1.25]}, [1.3, -1.3]),
        ("SQRT(x)", {"x": [4.0, -1.0]}, [2.0, None]),
        ("LN(x)", {"x": [1.0, 0.0, -1.0]}, [0.0, None, None]),
        ("LOG10(n)", {"n": [100]}, [2.0]),
        ("POW(n, 2)", {"n": [3]}, [9.0]),
        ("UPPER(s)", {"s": ["ab", None]}, ["AB", None]),
        ("LENGTH(s)", {"s": ["é", ""]}, [1, 0]),
        ("SUBSTR(s, 2, 2)", {"s": ["abcd", ""]}, ["bc", ""]),
        ("LEFT(s, 2)", {"s": ["abcd", None]}, ["ab", None]),
        ("LEFT(s, -1)", {"s": ["abcd"]}, ["abc"]),
        ("RIGHT(s, 2)", {"s": ["abcd"]}, ["cd"]),
        ("STRPOS(s, '.')", {"s": ["a.b", "ab", None]}, [2, 0, None]),
        ("REPLACE(s, '.', '-')", {"s": ["a.b"]}, ["a-b"]),
        ("TRIM(s)", {"s": [" a "]}, ["a"]),
        ("s || '-' || n", {"s": ["a", None], "n": [1, 2]}, ["a-1", None]),
        ("s LIKE 'a%'", {"s": ["ab", "b"]}, [True, False]),
        ("s ILIKE 'A_'", {"s": ["ab", "b"]}, [True, False]),
        ("s ~ '^a+$'", {"s": ["aa", "b"]}, [True, False]),
        ("CAST(s AS BIGINT)", {"s": ["7", "x", None]}, [7, None, None]),
        ("CAST(s AS DOUBLE)", {"s": ["7.5", "x", "nan"]}, [7.5, None, None]),
        ("TRY_CAST(s AS INT)", {"s": ["7", "9999999999"]}, [7, None]),
        ("CAST(x AS BIGINT)", {"x": [-7.9, 1e300, math.inf]}, [-7, None, None]),
        ("CAST(n AS SMALLINT)", {"n": [7, 70_000]}, [7, None]),
        ("CAST(t AS INT)", {"t": [True, False]}, [1, 0]),
        ("CAST(n AS BOOLEAN)", {"n": [0, 2]}, [False, True]),
        ("CAST(n AS VARCHAR)", {"n": [7]}, ["7"]),
        ("CAST(s AS DATE)", {"s": ["2020-01-02", "x"]}, [date(2020, 1, 2), None]),
        ("d > '2020-01-01'", {"d": [1_577_836_800_001, 0]}, [True, False]),
        ("d = u", {"d": [1], "u": [1_000]}, [True]),
        ("day >= DATE '1970-01-02'", {"day": [0, 1]}, [False, True]),
        ("EXTRACT(HOUR FROM d)", {"d": [3_600_000, LEAST, MOST]}, [1, None, None]),
        ("EXTRACT(DOW FROM day)", {"day": [3, -(2**31)]}, [0, None]),
        ("EXTRACT(EPOCH FROM d)", {"d": [1_500]}, [1.5]),
        ("EXTRACT(YEAR FROM u)", {"u": [0, MOST]}, [1970, None]),
        ("CAST(d AS DATE)", {"d": [0]}, [date(1970, 1, 1)]),
        ("CAST(day AS TIMESTAMP)", {"day": [1]}, [datetime(1970, 1, 2)]),  # noqa: DTZ001  # UTC by our rule
        ("9223372036854775807", {"n": [1]}, [MOST]),
        ("s = 'now()'", {"s": ["now()"]}, [True]),
        ("x >= 1 /* current_date */ -- now()", {"x": [1.0]}, [True]),
    ],
)
def test_the_meaning_of(sql: str, columns: dict[str, list[Any]], expected: list[Any]) -> None:
    assert (
        values(sql, **columns) == pytest.approx(expected)
        if _numbers(expected)
        else (values(sql, **columns) == expected)
    )


def _numbers(found: list[Any]) -> bool:
    return all(isinstance(value, float) for value in found)


@pytest.mark.parametrize("sql", ["1", "1.0", "'a'", "TRUE", "1 + 1"])
def test_a_constant_alone_has_one_value_for_each_row(sql: str) -> None:
    checked = check_expression(sql, FIELDS)
    for rows in (0, 1, 3):
        part = frame(n=[1, 2, 3]).head(rows)
        assert part.select(value=checked.expr).height == rows
        assert part.with_columns(value=checked.expr)["value"].null_count() == 0


@pytest.mark.parametrize(
    ("sql", "dtype"),
    [
        ("i", pl.Int32()),
        ("f", pl.Float32()),
        ("i + 1", pl.Int64()),
        ("1.0", pl.Float64()),
        ("n * 1.5", pl.Float64()),
        ("s", pl.String()),
        ("n > 1", pl.Boolean()),
        ("d", pl.Datetime("ms")),
    ],
)
def test_the_type_of(sql: str, dtype: pl.DataType) -> None:
    assert check_expression(sql, FIELDS).dtype == dtype


def test_the_fields_that_are_read() -> None:
    assert check_expression("CASE WHEN t THEN n ELSE x END", FIELDS).fields == {"t", "n", "x"}
    assert check_expression('"n"', FIELDS).fields == {"n"}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("nn", "unknown field 'nn': did you mean 'n'?"),
        ("N", "unknown field 'N': did you mean 'n'?"),
        ("price", "can't use field 'price': decimal is not supported"),
        ("SUM(n)", "can't aggregate"),
        ("COUNT(*)", "can't aggregate"),
        ("n > MAX(n)", "can't aggregate"),
        ("SUM(n) OVER (PARTITION BY s)", "can't use window functions"),
        ("ROW_NUMBER() OVER (ORDER BY n)", "can't"),
        ("LAG(n) OVER (ORDER BY n)", "can't use"),
        ("n IN (SELECT 1)", "can't"),
        ("EXISTS (SELECT 1)", "can't contain a subquery"),
        ("n IN (SELECT n FROM other)", "can't contain a subquery"),
        ("now()", "can't use now"),
        ("d > CURRENT_TIMESTAMP", "can't use CURRENT_TIMESTAMP"),
        ("CURRENT_DATE", "can't use CURRENT_DATE"),
        ("RANDOM()", "unsupported function 'random'"),
        ("n, x", "not understood as SQL"),
        ("n; x", "not understood as SQL"),
        ("*", "not understood as SQL"),
        ("n AS m", "can't have a name"),
        ("COLUMNS('n')", "names several columns"),
        ('"^n.*$"', "names several columns"),
        ("UNNEST(n)", "can't"),
        ("NULL", "is always null"),
        ("SELECT 1", "not understood as SQL"),
        ("n + s", "+ needs a number, not text: write CAST(… AS DOUBLE)"),
        ("n + t", "+ needs a number, not true or false: write CASE WHEN"),
        ("n AND t", "AND needs true or false, not a whole number"),
        ("s > 1", "> can't mix a whole number and text"),
        ("CASE WHEN t THEN 1 ELSE 'a' END", "CASE can't mix"),
        ("CASE WHEN n THEN 1 END", "WHEN needs true or false"),
        ("UPPER(n)", "UPPER needs text, not a whole number"),
        ("d - u", "- of two times: subtract EXTRACT(EPOCH FROM"),
        ("d > 'soon'", "'soon' is no time"),
        ("s > d", "can't mix text and a time"),
        ("TIMESTAMP '2020-01-01 00:00:00+02:00'", "can't have an offset"),
        ("CAST(n AS DECIMAL(10, 2))", "can't CAST to decimal"),
        ("CAST(s AS TIMESTAMP)", "CAST to a timestamp needs"),
        ("s ~ '('", "'(' is no regular expression"),
        ("n.field", "can't look into records"),
        ("(" * 300 + "n" + ")" * 300, "is SQL that can't be used here"),
        ("+".join(["n"] * 400), "nested"),
        ("+".join(["n"] * 1_500), "nested"),
    ],
)
def test_what_is_refused_with_one_line(sql: str, expected: str) -> None:
    unsupported = {"price": "decimal is not supported"}
    with pytest.raises(InvalidInputError) as caught:
        check_expression(sql, FIELDS, unsupported)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_filter_needs_to_be_true_or_false() -> None:
    assert check_filter("NOT t AND n > 1", FIELDS).dtype == pl.Boolean()
    with pytest.raises(InvalidInputError, match="a filter needs to be true or false, this is text"):
        check_filter("s", FIELDS)


def test_nesting_up_to_the_limit_can_be_evaluated() -> None:
    sql = "+".join(["n"] * 140)
    assert values(sql, n=[1]) == [140]


ANYTHING = {
    "n": st.none() | st.integers(LEAST, MOST),
    "i": st.none() | st.integers(-(2**31), 2**31 - 1),
    "x": st.none() | st.floats(),
    "f": st.none() | st.floats(width=32),
    "s": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "t": st.none() | st.booleans(),
    "d": st.none() | st.integers(LEAST, MOST),
    "u": st.none() | st.integers(LEAST, MOST),
    "day": st.none() | st.integers(-(2**31), 2**31 - 1),
}
TOTAL = [
    "n + i * n - i // n % n", "x * f / n", "n / x", "x // f", "x % f", "-n", "ABS(i)", "SIGN(x)",
    "CEIL(x)", "FLOOR(n)", "ROUND(x, 2)", "SQRT(n)", "CBRT(x)", "EXP(x)", "LN(n)", "LOG2(x)",
    "POW(x, n)", "GREATEST(n, x)", "LEAST(d, u, day)", "COALESCE(d, day)", "NULLIF(s, 'a')",
    "SUBSTR(s, n, i)", "SUBSTR(s, i)", "LEFT(s, n)", "RIGHT(s, i)", "STRPOS(s, s)", "s || n || x",
    "CONCAT(s, s)", "REVERSE(s)", "UPPER(s)", "TRIM(s)", "s LIKE '%a_'", "STARTS_WITH(s, s)",
    "CAST(s AS BIGINT)", "CAST(s AS DOUBLE)", "CAST(x AS INT)", "CAST(f AS BIGINT)",
    "CAST(n AS TINYINT)", "CAST(s AS DATE)", "CAST(d AS DATE)", "CAST(day AS TIMESTAMP)",
    "CAST(day AS VARCHAR)", "CAST(x AS VARCHAR)", "d > u", "day < d", "d = '2020-01-01'",
    "EXTRACT(YEAR FROM d)", "EXTRACT(WEEK FROM day)", "EXTRACT(SECOND FROM u)",
    "EXTRACT(DOW FROM u)", "EXTRACT(EPOCH FROM d)", "EXTRACT(DOY FROM day)", "n IN (1, NULL)",
    "x IN (1, 2.5)", "CASE WHEN x > n THEN n WHEN t THEN x END", "n IS DISTINCT FROM x", "d", "day",
]  # fmt: skip


@pytest.mark.parametrize(
    "sql",
    [
        "x / 3",
        "n / 7.0",
        "x / (1000 * 1000)",
        "x / CASE WHEN 1 > 0 THEN 3.0 ELSE 7.0 END",
        "EXTRACT(EPOCH FROM d)",
        "3 / x",
        "x * 0.1",
        "x % 0.3",
        "POW(x, 3)",
        "LOG(x, 3)",
        "EXP(x / 1000000)",
        "ROUND(x, 2)",
    ],
)
def test_a_value_does_not_depend_on_how_many_are_computed_with_it(sql: str) -> None:
    rows = range(1, 120)
    whole = frame(
        x=[row * 1234.567891 for row in rows], n=[*rows], d=[row * 86_399 for row in rows]
    )
    checked = check_expression(sql, FIELDS)
    alone = [whole.slice(row, 1).select(value=checked.expr).item() for row in range(len(rows))]
    assert whole.select(value=checked.expr)["value"].to_list() == alone


@given(st.data(), st.sampled_from(TOTAL), st.integers(0, 4))
def test_no_data_makes_an_expression_fail(data: st.DataObject, sql: str, rows: int) -> None:
    columns = {
        name: data.draw(st.lists(drawn, min_size=rows, max_size=rows), label=name)
        for name, drawn in ANYTHING.items()
    }
    checked = check_expression(sql, FIELDS)
    whole = frame(**columns)
    series = whole.select(value=checked.expr)["value"]
    assert series.dtype == checked.dtype
    assert len(series) == rows
    if series.dtype.is_float():
        assert not series.is_nan().any()
    one_by_one = [
        whole.slice(row, 1).select(value=checked.expr.to_physical())["value"] for row in range(rows)
    ]
    assert [one[0] for one in one_by_one] == series.to_physical().to_list()
