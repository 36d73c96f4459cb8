"""Typed pieces of an SQL expression, and the conversions between their types.

Every conversion is total: what has no counterpart in the other type is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import polars as pl

from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Kind(Enum):
    """Families of types that operations tell apart; the value is what users call them."""

    BOOL = "true or false"
    INT = "a whole number"
    FLOAT = "a floating number"
    TEXT = "text"
    DATE = "a date"
    TIMESTAMP = "a timestamp"
    NULL = "null"


NUMBERS: Final = (Kind.INT, Kind.FLOAT)
NOTHING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A translated piece: its expression, type, the fields it reads.

    `value` is what a literal stands for, `NOTHING` where the piece is none.
    """

    expr: pl.Expr
    kind: Kind
    dtype: pl.DataType
    fields: frozenset[str] = frozenset()
    value: object = NOTHING


DTYPES: Final[Mapping[Kind, pl.DataType]] = {
    Kind.BOOL: pl.Boolean(),
    Kind.INT: pl.Int64(),
    Kind.FLOAT: pl.Float64(),
    Kind.TEXT: pl.String(),
    Kind.DATE: pl.Date(),
    Kind.TIMESTAMP: pl.Datetime("us"),
    Kind.NULL: pl.Null(),
}

# Years 1 to 9999: beyond them calendar functions have no answer.
_FIRST_DAY: Final = -719_162
_LAST_DAY: Final = 2_932_896
_DAY_US: Final = 86_400_000_000


def kind_of(dtype: pl.DataType) -> Kind | None:
    """The family of a field's type; None for types that expressions can't use."""
    if isinstance(dtype, pl.Datetime):
        return Kind.TIMESTAMP
    if dtype.is_integer():
        return Kind.INT
    if dtype.is_float():
        return Kind.FLOAT
    return {pl.Boolean: Kind.BOOL, pl.String: Kind.TEXT, pl.Date: Kind.DATE}.get(type(dtype))


def literal(value: bool | int | float | str | None, kind: Kind) -> Node:
    """A constant of the kind's own type."""
    dtype = DTYPES[kind]
    return Node(expr=pl.lit(value, dtype=dtype), kind=kind, dtype=dtype, value=value)


def built(expr: pl.Expr, kind: Kind, *inputs: Node) -> Node:
    fields = frozenset[str]().union(*(node.fields for node in inputs))
    if kind is Kind.FLOAT:
        expr = expr.fill_nan(None)
    return Node(expr=expr, kind=kind, dtype=DTYPES[kind], fields=fields)


def wide_integer(node: Node) -> pl.Expr:
    """Wide enough that no single operation on 64-bit numbers overflows."""
    return node.expr.cast(pl.Int128)


def narrow_integer(expr: pl.Expr) -> pl.Expr:
    """Back to 64 bits; null where the number does not fit."""
    return expr.cast(pl.Int64, strict=False)


def as_float(node: Node) -> pl.Expr:
    return node.expr.cast(pl.Float64, strict=False)


def as_timestamp(node: Node) -> pl.Expr:
    """In microseconds; null outside of years 1 to 9999."""
    if node.kind is Kind.DATE:
        day = node.expr.cast(pl.Int32)
        valid = pl.when(day.is_between(_FIRST_DAY, _LAST_DAY)).then(day)
        return (valid.cast(pl.Int64) * _DAY_US).cast(pl.Datetime("us"))
    raw = node.expr.cast(pl.Int64)
    unit = node.dtype.time_unit if isinstance(node.dtype, pl.Datetime) else "us"
    per_day = _DAY_US if unit == "us" else _DAY_US // 1_000
    valid = pl.when(raw.is_between(_FIRST_DAY * per_day, (_LAST_DAY + 1) * per_day - 1)).then(raw)
    return (valid if unit == "us" else valid * 1_000).cast(pl.Datetime("us"))


def as_date(node: Node) -> pl.Expr:
    if node.kind is Kind.TIMESTAMP:
        return as_timestamp(node).cast(pl.Date)
    day = node.expr.cast(pl.Int32)
    return pl.when(day.is_between(_FIRST_DAY, _LAST_DAY)).then(day).cast(pl.Date)


def refuse(message: str) -> InvalidInputError:
    return InvalidInputError(message)


def need(node: Node, what: str, *kinds: Kind) -> Node:
    """`node` if it is one of `kinds` (or null); else an error that says what `what` needs."""
    if node.kind is Kind.NULL or node.kind in kinds:
        return node
    allowed = " or ".join("a number" if k is Kind.INT else k.value for k in kinds if k in kinds)
    allowed = allowed.replace("a number or a floating number", "a number")
    raise refuse(f"{what} needs {allowed}, not {node.kind.value}{_hint(node, kinds)}")


def _hint(node: Node, kinds: tuple[Kind, ...]) -> str:
    if node.kind is Kind.BOOL and Kind.INT in kinds:
        return ": write CASE WHEN … THEN 1 ELSE 0 END"
    if node.kind is Kind.TEXT and Kind.INT in kinds:
        return ": write CAST(… AS DOUBLE), null where the text is no number"
    return ""


def unify(nodes: list[Node], what: str) -> tuple[list[Node], Kind]:
    """The nodes in one type that holds them all; numbers widen, text literals become times."""
    kinds = {node.kind for node in nodes} - {Kind.NULL}
    times = kinds & {Kind.DATE, Kind.TIMESTAMP}
    if times and Kind.TEXT in kinds:
        nodes = [_as_time(node, what) if node.kind is Kind.TEXT else node for node in nodes]
        kinds = {node.kind for node in nodes} - {Kind.NULL}
    if not kinds:
        return nodes, Kind.NULL
    if kinds == {Kind.INT, Kind.FLOAT}:
        target = Kind.FLOAT
    elif kinds == {Kind.DATE, Kind.TIMESTAMP}:
        target = Kind.TIMESTAMP
    elif len(kinds) == 1:
        target = next(iter(kinds))
    else:
        given = " and ".join(sorted(kind.value for kind in kinds))
        raise refuse(f"{what} can't mix {given}: CAST one to the other's type")
    return [convert(node, target) for node in nodes], target


def convert(node: Node, target: Kind) -> Node:
    """`node` in the type of `target`, to which its own type widens without loss of meaning."""
    if node.kind is Kind.NULL:
        return literal(None, target)
    builders: Mapping[Kind, Callable[[Node], pl.Expr]] = {
        Kind.INT: lambda n: n.expr.cast(pl.Int64),
        Kind.FLOAT: as_float,
        Kind.DATE: as_date,
        Kind.TIMESTAMP: as_timestamp,
    }
    build = builders.get(target)
    converted = built(build(node) if build else node.expr, target, node)
    return Node(
        expr=converted.expr,
        kind=target,
        dtype=converted.dtype,
        fields=node.fields,
        value=node.value,
    )


def _as_time(node: Node, what: str) -> Node:
    if not isinstance(node.value, str):
        raise refuse(f"{what} can't mix text and a time: CAST(… AS DATE)")
    text = pl.Series([node.value])
    for kind, form in (
        (Kind.DATE, "%Y-%m-%d"),
        (Kind.TIMESTAMP, "%Y-%m-%d %H:%M:%S%.f"),
        (Kind.TIMESTAMP, "%Y-%m-%dT%H:%M:%S%.f"),
        (Kind.TIMESTAMP, "%Y-%m-%dT%H:%M:%S%.fZ"),
    ):
        dtype = pl.Date if kind is Kind.DATE else pl.Datetime("us")
        value = text.str.strptime(dtype, form, strict=False)[0]
        if value is not None:
            return Node(expr=pl.lit(value, dtype=DTYPES[kind]), kind=kind, dtype=DTYPES[kind])
    raise refuse(f"{node.value!r} is no time: write it as 2026-01-31 or 2026-01-31 12:00:00")


def towards_zero(expr: pl.Expr) -> pl.Expr:
    return pl.when(expr < 0).then(expr.ceil()).otherwise(expr.floor())
