"""From the tree of a parsed SQL expression to a polars expression that can't fail.

Each piece of the tree that is known here is translated with its type; all others are refused,
so an aggregate, a window function or a subquery never gets through. Each operation is built
to be total: what has no result is null.
"""

from __future__ import annotations

import decimal
import json
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from streams.definitions.sqlfunctions import FUNCTIONS
from streams.definitions.sqltypes import (
    DTYPES,
    NUMBERS,
    Kind,
    Node,
    as_date,
    as_float,
    as_timestamp,
    built,
    convert,
    kind_of,
    literal,
    narrow_integer,
    need,
    refuse,
    towards_zero,
    unify,
    wide_integer,
)
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_DEPTH: Final = 150
"""How deep an expression may be nested; polars evaluates it by recursion."""


class Compiler:
    """Translates one tree over the event's `fields`."""

    def __init__(self, fields: Mapping[str, pl.DataType], unsupported: Mapping[str, str]) -> None:
        self._fields = fields
        self._unsupported = unsupported
        self._depth = 0
        self._pieces: Mapping[str, Callable[[Any], Node]] = {
            "Column": self._column,
            "Literal": self._literal,
            "BinaryExpr": self._binary,
            "Ternary": self._ternary,
            "Cast": self._cast,
            "Function": self._function,
        }

    def compile(self, tree: object) -> Node:
        """Translate `tree`. Raises InvalidInputError, one line, for what can't be used."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise refuse(f"is nested more than {MAX_DEPTH} deep")
        node = self._piece(tree)
        self._depth -= 1
        return node

    def _piece(self, tree: object) -> Node:
        if tree == "Len":
            raise refuse("can't aggregate: the aggregate is the feature's own")
        if not isinstance(tree, dict) or len(tree) != 1:
            raise refuse("is SQL that can't be used here")
        name, body = next(iter(tree.items()))
        piece = self._pieces.get(name)
        if piece is None:
            raise refuse(_REFUSED.get(name, "is SQL that can't be used here"))
        return piece(body)

    def _column(self, name: str) -> Node:
        if name in self._unsupported:
            raise refuse(f"can't use field {name!r}: {self._unsupported[name]}")
        dtype = self._fields.get(name)
        if dtype is None:
            raise refuse(f"unknown field {name!r}: {did_you_mean(name, self._fields)}")
        kind = kind_of(dtype)
        if isinstance(dtype, pl.Decimal):
            raise refuse(f"can't use field {name!r}: decimal is not supported, use double or long")
        if kind is None:
            raise refuse(f"can't use field {name!r}: its type {dtype} is not supported")
        expr = pl.col(name)
        if kind is Kind.FLOAT:
            expr = expr.fill_nan(None)
        return Node(expr=expr, kind=kind, dtype=dtype, fields=frozenset({name}))

    def _literal(self, body: Any) -> Node:
        form, value = next(iter(body.items())) if isinstance(body, dict) else ("", None)
        if form in ("Dyn", "Scalar") and isinstance(value, dict):
            return _scalar(value)
        raise refuse("has a constant that can't be used here")

    def _binary(self, body: Any) -> Node:
        seconds = _epoch_of(body)
        if seconds is not None:
            moment = need(self.compile(seconds), "EXTRACT", Kind.TIMESTAMP, Kind.DATE)
            micros = as_timestamp(moment).cast(pl.Int64)
            return built(micros / _in_every_row(pl.lit(1e6)), Kind.FLOAT, moment)
        left, right = self.compile(body["left"]), self.compile(body["right"])
        return _operation(body["op"], left, right)

    def _ternary(self, body: Any) -> Node:
        test = need(self.compile(body["predicate"]), "WHEN", Kind.BOOL)
        nodes = [self.compile(body["truthy"]), self.compile(body["falsy"])]
        (then, other), kind = unify(nodes, "CASE")
        expr = pl.when(convert(test, Kind.BOOL).expr).then(then.expr).otherwise(other.expr)
        return built(expr, kind, test, then, other)

    def _cast(self, body: Any) -> Node:
        return _cast(self.compile(body["expr"]), body["dtype"].get("Literal"))

    def _function(self, body: Any) -> Node:
        function = body["function"]
        group, name = next(iter(function.items())) if isinstance(function, dict) else ("", function)
        options: Any = {}
        if group == "Clip":
            group, name, options = "", "Clip", name
        elif isinstance(name, dict):
            name, options = next(iter(name.items()))
        if (group, name) == ("StructExpr", "FieldByName"):
            raise refuse("can't look into records: put the value into a field of its own")
        if (group, name) == ("Sql", "IsIn"):
            return self._is_in(body["input"])
        if (group, name) == ("StringExpr", "Slice") and _is_null(body["input"][2]):
            body = {**body, "input": body["input"][:2]}
        inputs = [self.compile(tree) for tree in body["input"]]
        if (group, name) == ("Sql", "Binary"):
            return _operation(options, *inputs)
        builder = FUNCTIONS.get((group, name))
        if builder is None:
            raise refuse(
                f"can't use the function behind {name!r}: see the reference for those allowed"
            )
        return builder(inputs, options)

    def _is_in(self, trees: list[Any]) -> Node:
        tested = self.compile(trees[0])
        packed = trees[1].get("Literal", {}) if isinstance(trees[1], dict) else {}
        if "Series" not in packed:
            raise refuse("IN needs a list of constants")
        values = _series(packed["Series"])
        if not values or values == [None]:
            return built(pl.lit(None, dtype=pl.Boolean), Kind.BOOL, tested)
        known = [_constant(value) for value in values if value is not None]
        nodes, _ = unify([tested, *known], "IN")
        column = pl.select(pl.concat([node.expr for node in nodes[1:]])).to_series()
        found = nodes[0].expr.is_in(column.implode())
        if len(known) < len(values):
            # SQL: not to be found among values of which one is unknown is unknown.
            found = pl.when(found).then(True)
        return built(found, Kind.BOOL, tested)


_REFUSED: Final[Mapping[str, str]] = {
    "Agg": "can't aggregate: the aggregate is the feature's own",
    "Over": "can't use window functions: only the event's own fields can be used",
    "Alias": "can't have a name (AS …): the feature's name is the name",
    "SubPlan": "can't contain a subquery: only the event's own fields can be used",
    "Selector": "names several columns: name one field",
    "Explode": "can't make several rows of one",
}


def _is_null(tree: Any) -> bool:
    return bool(tree == {"Literal": {"Scalar": {"Null": "Null"}}})


def _series(packed: Any) -> list[Any]:
    """The constants of an IN list, which the tree holds as bytes of their own."""
    tree = json.dumps({"Literal": {"Series": packed}}).encode()
    column = pl.select(pl.Expr.deserialize(tree, format="json")).to_series()
    values = column.to_list()
    if len(values) == 1 and isinstance(values[0], list):
        return list(values[0])
    return values


def _constant(value: object) -> Node:
    if isinstance(value, decimal.Decimal):
        return literal(float(value), Kind.FLOAT)
    if value is None:
        return literal(None, Kind.NULL)
    kind = kind_of(pl.Series([value]).dtype)
    if kind is None:
        raise refuse("IN has a constant that can't be used here")
    dtype = DTYPES[kind]
    return Node(expr=pl.lit(value, dtype=dtype), kind=kind, dtype=dtype, value=value)


def _scalar(value: Mapping[str, Any]) -> Node:
    form, content = next(iter(value.items()))
    if form == "Null":
        return literal(None, Kind.NULL)
    if form == "Boolean":
        return literal(content, Kind.BOOL)
    if form == "String":
        return literal(content, Kind.TEXT)
    if form == "Decimal":
        # A number with a point is a floating number here, whatever the parser calls it.
        return literal(float(decimal.Decimal(content[0]).scaleb(-content[2])), Kind.FLOAT)
    if form.startswith(("Int", "UInt")):
        return literal(content, Kind.INT)
    if form.startswith("Float"):
        return literal(content, Kind.FLOAT)
    if form == "Date":
        expr = pl.lit(content, dtype=pl.Int32).cast(pl.Date)
        return Node(expr=expr, kind=Kind.DATE, dtype=pl.Date())
    if form == "Datetime" and content[1] == "Microseconds":
        expr = pl.lit(content[0], dtype=pl.Int64).cast(pl.Datetime("us"))
        return Node(expr=expr, kind=Kind.TIMESTAMP, dtype=pl.Datetime("us"))
    raise refuse("has a constant that can't be used here")


def _epoch_of(body: Any) -> Any:
    """What EXTRACT(EPOCH FROM …) was applied to, if `body` is the form that it takes."""
    try:
        whole = body["left"]["BinaryExpr"]["left"]["Function"]
        if whole["function"] == {"TemporalExpr": {"TimeStamp": "Nanoseconds"}}:
            return whole["input"][0]
    except (KeyError, TypeError):
        pass
    return None


_COMPARISONS: Final[Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    "Eq": pl.Expr.eq,
    "NotEq": pl.Expr.ne,
    "Lt": pl.Expr.lt,
    "LtEq": pl.Expr.le,
    "Gt": pl.Expr.gt,
    "GtEq": pl.Expr.ge,
    "EqValidity": pl.Expr.eq_missing,
    "NotEqValidity": pl.Expr.ne_missing,
}
_SIGNS: Final[Mapping[str, str]] = {
    "Eq": "=", "NotEq": "<>", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">=",
    "EqValidity": "IS NOT DISTINCT FROM", "NotEqValidity": "IS DISTINCT FROM",
    "Plus": "+", "Minus": "-", "Mul": "*", "Multiply": "*", "Div": "/", "TrueDivide": "/",
    "RustDivide": "/", "Rem": "%", "Modulus": "%", "IntDiv": "//", "FloorDivide": "//",
    "And": "AND", "Or": "OR", "Xor": "XOR",
}  # fmt: skip
_CANONICAL: Final[Mapping[str, str]] = {
    "Multiply": "Mul", "TrueDivide": "Div", "RustDivide": "Div", "Modulus": "Rem",
    "FloorDivide": "IntDiv", "Add": "Plus", "Sub": "Minus", "Neq": "NotEq", "Ne": "NotEq",
    "Le": "LtEq", "Ge": "GtEq",
}  # fmt: skip


def _in_every_row(constant: pl.Expr) -> pl.Expr:
    """A constant as a column of its own.

    A column is multiplied with the reciprocal of what polars knows to be one number, which is
    not always the quotient; of a single row it is divided. A row's value must not depend on
    how many are computed with it.
    """
    return constant + pl.int_range(pl.len()) * 0


def _operation(name: str, left: Node, right: Node) -> Node:
    op = _CANONICAL.get(name, name)
    sign = _SIGNS.get(op)
    if sign is None:
        raise refuse(f"can't use the operator behind {name!r}")
    if op in _COMPARISONS:
        (a, b), _ = unify([left, right], sign)
        return built(_COMPARISONS[op](a.expr, b.expr), Kind.BOOL, left, right)
    if op in ("And", "Or", "Xor"):
        a = convert(need(left, sign, Kind.BOOL), Kind.BOOL)
        b = convert(need(right, sign, Kind.BOOL), Kind.BOOL)
        expr = {"And": a.expr & b.expr, "Or": a.expr | b.expr, "Xor": a.expr ^ b.expr}[op]
        return built(expr, Kind.BOOL, left, right)
    if op == "Plus" and left.kind is Kind.TEXT and right.kind is Kind.TEXT:
        return built(left.expr + right.expr, Kind.TEXT, left, right)
    if op == "Minus" and {left.kind, right.kind} <= {Kind.DATE, Kind.TIMESTAMP}:
        raise refuse("- of two times: subtract EXTRACT(EPOCH FROM …), in seconds, instead")
    nodes = [need(left, sign, *NUMBERS), need(right, sign, *NUMBERS)]
    (a, b), kind = unify(nodes, sign)
    if kind is Kind.NULL:
        return literal(None, Kind.NULL)
    if op == "Div":
        divisor = as_float(b) if b.fields else _in_every_row(as_float(b))
        quotient = as_float(a) / pl.when(divisor != 0).then(divisor)
        return built(quotient, Kind.FLOAT, left, right)
    if kind is Kind.INT:
        return built(
            narrow_integer(_on_integers(op, wide_integer(a), wide_integer(b))),
            Kind.INT,
            left,
            right,
        )
    expr = _on_floats(op, a.expr, b.expr)
    if op == "IntDiv":
        return built(narrow_integer(expr), Kind.INT, left, right)
    return built(expr, Kind.FLOAT, left, right)


def _on_integers(op: str, a: pl.Expr, b: pl.Expr) -> pl.Expr:
    """As SQL has it: a quotient is cut towards zero, a remainder has the dividend's sign."""
    if op in ("Plus", "Minus", "Mul"):
        return {"Plus": a + b, "Minus": a - b, "Mul": a * b}[op]
    divisor = pl.when(b != 0).then(b)
    size = a.abs() // divisor.abs()
    quotient = pl.when((a < 0) ^ (b < 0)).then(0 - size).otherwise(size)
    return quotient if op == "IntDiv" else a - quotient * divisor


def _on_floats(op: str, a: pl.Expr, b: pl.Expr) -> pl.Expr:
    if op in ("Plus", "Minus", "Mul"):
        return {"Plus": a + b, "Minus": a - b, "Mul": a * b}[op]
    divisor = pl.when(b != 0).then(b)
    quotient = towards_zero(a / divisor)
    return quotient if op == "IntDiv" else a - quotient * divisor


_INTEGERS: Final[Mapping[str, pl.DataType]] = {
    "Int8": pl.Int8(), "Int16": pl.Int16(), "Int32": pl.Int32(), "Int64": pl.Int64(),
    "UInt8": pl.UInt8(), "UInt16": pl.UInt16(), "UInt32": pl.UInt32(),
}  # fmt: skip


def _cast(node: Node, target: object) -> Node:
    """CAST and TRY_CAST alike: null where the value does not fit."""
    if isinstance(target, str) and (target in _INTEGERS or target == "UInt64"):
        need(node, "CAST to a whole number", Kind.INT, Kind.FLOAT, Kind.BOOL, Kind.TEXT)
        narrow = _INTEGERS.get(target, pl.Int64())
        base = towards_zero(node.expr) if node.kind is Kind.FLOAT else node.expr
        expr = base.cast(narrow, strict=False).cast(pl.Int64)
        return built(expr, Kind.INT, node)
    if target in ("Float32", "Float64"):
        need(node, "CAST to a number", Kind.INT, Kind.FLOAT, Kind.BOOL, Kind.TEXT)
        return built(as_float(node), Kind.FLOAT, node)
    if target == "String":
        need(node, "CAST to text", Kind.INT, Kind.FLOAT, Kind.BOOL, Kind.TEXT, Kind.DATE)
        expr = as_date(node) if node.kind is Kind.DATE else node.expr
        return built(expr.cast(pl.String, strict=False), Kind.TEXT, node)
    if target == "Boolean":
        need(node, "CAST to true or false", Kind.BOOL, Kind.INT, Kind.FLOAT)
        expr = node.expr if node.kind is Kind.BOOL else node.expr != 0
        return built(expr.cast(pl.Boolean), Kind.BOOL, node)
    if target == "Date":
        need(node, "CAST to a date", Kind.DATE, Kind.TIMESTAMP, Kind.TEXT)
        if node.kind is Kind.TEXT:
            return built(node.expr.str.to_date("%Y-%m-%d", strict=False), Kind.DATE, node)
        return built(as_date(node), Kind.DATE, node)
    if isinstance(target, dict) and "Datetime" in target:
        need(node, "CAST to a timestamp", Kind.DATE, Kind.TIMESTAMP)
        return built(as_timestamp(node), Kind.TIMESTAMP, node)
    if isinstance(target, dict) and "Decimal" in target:
        raise refuse("can't CAST to decimal: use double, or long minor units")
    raise refuse("can't CAST to that type: bigint, double, varchar, boolean, date, timestamp")
