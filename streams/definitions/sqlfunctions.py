"""SQL functions that expressions may use, by the names that the parsed tree gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import polars as pl

from streams.definitions.sqltypes import (
    NUMBERS,
    Kind,
    Node,
    as_float,
    as_timestamp,
    built,
    convert,
    literal,
    narrow_integer,
    need,
    refuse,
    unify,
    wide_integer,
)

Builder = Callable[[list[Node], Any], Node]


def _on_text(what: str, build: Callable[..., pl.Expr], kind: Kind = Kind.TEXT) -> Builder:
    """A function of texts only."""

    def builder(inputs: list[Node], _: Any) -> Node:
        texts = [convert(need(node, what, Kind.TEXT), Kind.TEXT) for node in inputs]
        return built(build(*(node.expr for node in texts)), kind, *inputs)

    return builder


def _on_number(what: str, build: Callable[[pl.Expr], pl.Expr]) -> Builder:
    """A function of one number whose result is a floating number."""

    def builder(inputs: list[Node], _: Any) -> Node:
        number = convert(need(inputs[0], what, *NUMBERS), Kind.FLOAT)
        return built(build(number.expr), Kind.FLOAT, *inputs)

    return builder


def _same_number(what: str, on_int: Callable[[pl.Expr], pl.Expr], on_float: Any) -> Builder:
    """A function of one number whose result has the same type."""

    def builder(inputs: list[Node], _: Any) -> Node:
        node = need(inputs[0], what, *NUMBERS)
        if node.kind is Kind.FLOAT:
            return built(on_float(as_float(node)), Kind.FLOAT, node)
        return built(narrow_integer(on_int(wide_integer(convert(node, Kind.INT)))), Kind.INT, node)

    return builder


def _of_calendar(build: Callable[[pl.Expr], pl.Expr], *, clock: bool = False) -> Builder:
    """A part of a date or timestamp, as a whole number."""

    def builder(inputs: list[Node], _: Any) -> Node:
        kinds = (Kind.TIMESTAMP,) if clock else (Kind.TIMESTAMP, Kind.DATE)
        node = need(inputs[0], "EXTRACT", *kinds)
        return built(
            build(as_timestamp(convert(node, Kind.TIMESTAMP))).cast(pl.Int64), Kind.INT, node
        )

    return builder


def _choose(what: str, build: Callable[..., pl.Expr]) -> Builder:
    """A function that picks one of its inputs."""

    def builder(inputs: list[Node], _: Any) -> Node:
        nodes, kind = unify(inputs, what)
        if kind is Kind.NULL:
            return literal(None, Kind.NULL)
        if what != "COALESCE" and kind is Kind.BOOL:
            raise refuse(f"{what} can't order true and false")
        return built(build(*(node.expr for node in nodes)), kind, *nodes)

    return builder


def _is(inputs: list[Node], build: Callable[[pl.Expr], pl.Expr]) -> Node:
    return built(build(inputs[0].expr), Kind.BOOL, *inputs)


def _not(inputs: list[Node], _: Any) -> Node:
    return built(~convert(need(inputs[0], "NOT", Kind.BOOL), Kind.BOOL).expr, Kind.BOOL, *inputs)


def _pattern(inputs: list[Node], options: Any) -> Node:
    text = convert(need(inputs[0], "LIKE", Kind.TEXT), Kind.TEXT)
    pattern = inputs[1].value
    if not isinstance(pattern, str):
        raise refuse("a pattern needs to be a constant text")
    if options.get("literal"):
        return built(text.expr.str.contains(pattern, literal=True), Kind.BOOL, text)
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.PolarsError:
        raise refuse(f"{pattern!r} is no regular expression that can be used") from None
    return built(text.expr.str.contains(pattern), Kind.BOOL, text)


def _slice(inputs: list[Node], _: Any) -> Node:
    text = convert(need(inputs[0], "SUBSTR", Kind.TEXT), Kind.TEXT)
    start = convert(need(inputs[1], "SUBSTR", Kind.INT), Kind.INT)
    if len(inputs) == 2:
        sliced = text.expr.str.slice(start.expr)
        return built(pl.when(start.expr.is_not_null()).then(sliced), Kind.TEXT, *inputs)
    length = convert(need(inputs[2], "SUBSTR", Kind.INT), Kind.INT)
    size = pl.max_horizontal(length.expr, pl.lit(0, dtype=pl.Int64))
    known = start.expr.is_not_null() & length.expr.is_not_null()
    return built(pl.when(known).then(text.expr.str.slice(start.expr, size)), Kind.TEXT, *inputs)


def _clip(inputs: list[Node], options: Any) -> Node:
    if options != {"has_min": True, "has_max": False}:
        raise refuse("can't use the function behind 'Clip'")
    number, least = (convert(need(node, "LEFT", Kind.INT), Kind.INT) for node in inputs)
    expr = pl.when(number.expr < least.expr).then(least.expr).otherwise(number.expr)
    return built(expr, Kind.INT, *inputs)


def _strip(build: Callable[[pl.Expr, str | None], pl.Expr]) -> Builder:
    def builder(inputs: list[Node], _: Any) -> Node:
        text = convert(need(inputs[0], "TRIM", Kind.TEXT), Kind.TEXT)
        characters = inputs[1].value
        if characters is not None and not isinstance(characters, str):
            raise refuse("TRIM needs the characters as a constant text")
        return built(build(text.expr, characters), Kind.TEXT, *inputs)

    return builder


def _find(inputs: list[Node], _: Any) -> Node:
    text, wanted = (convert(need(node, "POSITION", Kind.TEXT), Kind.TEXT) for node in inputs)
    at = text.expr.str.find(wanted.expr, literal=True).cast(pl.Int64).fill_null(-1)
    known = text.expr.is_not_null() & wanted.expr.is_not_null()
    return built(pl.when(known).then(at), Kind.INT, text, wanted)


def _found(inputs: list[Node], _: Any) -> Node:
    """What the parser puts around POSITION: `_find` has its 0 already, and keeps null apart."""
    if inputs[1].value != 0 or inputs[0].kind is not Kind.INT:
        raise refuse("can't use the function behind 'FillNull'")
    return inputs[0]


def _replace(inputs: list[Node], options: Any) -> Node:
    text = convert(need(inputs[0], "REPLACE", Kind.TEXT), Kind.TEXT)
    old, new = inputs[1].value, inputs[2].value
    if not options.get("literal") or not isinstance(old, str) or not isinstance(new, str):
        raise refuse("REPLACE needs constant texts")
    return built(text.expr.str.replace_all(old, new, literal=True), Kind.TEXT, text)


def _concat(inputs: list[Node], options: Any) -> Node:
    texts = [convert(need(node, "CONCAT", Kind.TEXT), Kind.TEXT).expr for node in inputs]
    delimiter = options.get("delimiter", "")
    joined = pl.concat_str(texts, separator=delimiter, ignore_nulls=True)
    return built(joined, Kind.TEXT, *inputs)


def _round(inputs: list[Node], options: Any) -> Node:
    decimals = int(options.get("decimals", 0))
    node = need(inputs[0], "ROUND", *NUMBERS)
    if node.kind is not Kind.FLOAT:
        return convert(node, Kind.INT)
    return built(as_float(node).round(decimals, mode="half_away_from_zero"), Kind.FLOAT, node)


def _log(inputs: list[Node], _: Any) -> Node:
    number = convert(need(inputs[0], "LOG", *NUMBERS), Kind.FLOAT)
    base = inputs[1].value
    if not isinstance(base, int | float) or base <= 0 or base == 1:
        raise refuse("LOG needs a constant base above 0 other than 1")
    positive = pl.when(number.expr > 0).then(number.expr)
    return built(positive.log(float(base)), Kind.FLOAT, number)


def _power(inputs: list[Node], _: Any) -> Node:
    base, exponent = (convert(need(node, "POW", *NUMBERS), Kind.FLOAT) for node in inputs)
    return built(base.expr.pow(exponent.expr), Kind.FLOAT, *inputs)


def _to_float(inputs: list[Node], _: Any) -> Node:
    return convert(need(inputs[0], "this function", *NUMBERS), Kind.FLOAT)


FUNCTIONS: Final[Mapping[tuple[str, str], Builder]] = {
    ("Boolean", "Not"): _not,
    ("Boolean", "IsNull"): lambda inputs, _: _is(inputs, pl.Expr.is_null),
    ("Boolean", "IsNotNull"): lambda inputs, _: _is(inputs, pl.Expr.is_not_null),
    ("", "Coalesce"): _choose("COALESCE", pl.coalesce),
    ("", "FillNull"): _found,
    ("", "MaxHorizontal"): _choose("GREATEST", pl.max_horizontal),
    ("", "MinHorizontal"): _choose("LEAST", pl.min_horizontal),
    ("", "Abs"): _same_number("ABS", pl.Expr.abs, pl.Expr.abs),
    ("", "Sign"): _same_number("SIGN", pl.Expr.sign, pl.Expr.sign),
    ("", "Ceil"): _same_number("CEIL", lambda e: e, pl.Expr.ceil),
    ("", "Floor"): _same_number("FLOOR", lambda e: e, pl.Expr.floor),
    ("", "Exp"): _on_number("EXP", pl.Expr.exp),
    ("", "Log"): _log,
    ("", "Clip"): _clip,
    ("Pow", "Sqrt"): _on_number("SQRT", pl.Expr.sqrt),
    ("Pow", "Cbrt"): _on_number("CBRT", pl.Expr.cbrt),
    ("Pow", "Generic"): _power,
    ("Sql", "ToFloat"): _to_float,
    ("Sql", "Round"): _round,
    ("StringExpr", "Uppercase"): _on_text("UPPER", lambda e: e.str.to_uppercase()),
    ("StringExpr", "Lowercase"): _on_text("LOWER", lambda e: e.str.to_lowercase()),
    ("StringExpr", "Reverse"): _on_text("REVERSE", lambda e: e.str.reverse()),
    ("StringExpr", "LenChars"): _on_text(
        "LENGTH", lambda e: e.str.len_chars().cast(pl.Int64), Kind.INT
    ),
    ("StringExpr", "LenBytes"): _on_text(
        "OCTET_LENGTH", lambda e: e.str.len_bytes().cast(pl.Int64), Kind.INT
    ),
    ("StringExpr", "StartsWith"): _on_text(
        "STARTS_WITH", lambda e, other: e.str.starts_with(other), Kind.BOOL
    ),
    ("StringExpr", "EndsWith"): _on_text(
        "ENDS_WITH", lambda e, other: e.str.ends_with(other), Kind.BOOL
    ),
    ("StringExpr", "StripChars"): _strip(lambda e, c: e.str.strip_chars(c)),
    ("StringExpr", "StripCharsStart"): _strip(lambda e, c: e.str.strip_chars_start(c)),
    ("StringExpr", "StripCharsEnd"): _strip(lambda e, c: e.str.strip_chars_end(c)),
    ("StringExpr", "Contains"): _pattern,
    ("StringExpr", "Slice"): _slice,
    ("StringExpr", "Find"): _find,
    ("StringExpr", "Replace"): _replace,
    ("StringExpr", "ConcatHorizontal"): _concat,
    ("TemporalExpr", "Year"): _of_calendar(lambda e: e.dt.year()),
    ("TemporalExpr", "Quarter"): _of_calendar(lambda e: e.dt.quarter()),
    ("TemporalExpr", "Month"): _of_calendar(lambda e: e.dt.month()),
    ("TemporalExpr", "Week"): _of_calendar(lambda e: e.dt.week()),
    ("TemporalExpr", "Day"): _of_calendar(lambda e: e.dt.day()),
    ("TemporalExpr", "OrdinalDay"): _of_calendar(lambda e: e.dt.ordinal_day()),
    ("TemporalExpr", "WeekDay"): _of_calendar(lambda e: e.dt.weekday()),
    ("TemporalExpr", "Hour"): _of_calendar(lambda e: e.dt.hour(), clock=True),
    ("TemporalExpr", "Minute"): _of_calendar(lambda e: e.dt.minute(), clock=True),
    ("TemporalExpr", "Second"): _of_calendar(lambda e: e.dt.second(), clock=True),
}
