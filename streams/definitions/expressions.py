"""SQL expressions over one event's fields, checked once and then safe on any data.

polars parses the SQL; `streams.definitions.rowwise` translates what it parsed, piece by
piece, into an expression that looks at one row at a time, has one known type, and can't fail
on data: what can't be computed is null. That covers division by zero, a CAST of text that is
no number, integer overflow, the logarithm of a negative number. NaN is null everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from streams.definitions.rowwise import Compiler
from streams.definitions.sqltypes import Kind
from streams.errors import InvalidInputError

FieldTypes = Mapping[str, pl.DataType]
"""polars type of each event field that expressions can use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An expression ready to evaluate, in `select` or `with_columns`, under any alias.

    It has one value for each row, also where it names no field. `fields` is what it reads.
    """

    expr: pl.Expr
    dtype: pl.DataType
    fields: frozenset[str]


def check_expression(
    sql: str, fields: FieldTypes, unsupported: Mapping[str, str] | None = None
) -> Checked:
    """Check `sql` against the event's fields. `unsupported` says why other fields can't be used.

    Raises InvalidInputError, one line, for anything that is not computed row by row from known
    fields with fitting types.
    """
    return _checked(sql, tuple(fields.items()), tuple((unsupported or {}).items()))


@lru_cache(maxsize=1_000)
def _checked(
    sql: str, fields: tuple[tuple[str, pl.DataType], ...], unsupported: tuple[tuple[str, str], ...]
) -> Checked:
    """Versions share expressions, and are planned anew with each one that is published."""
    node = Compiler(dict(fields), dict(unsupported)).compile(_parse(sql))
    if node.kind is Kind.NULL:
        raise InvalidInputError("is always null: name a field or a value")
    expr = node.expr
    if not node.fields:
        # A literal alone has one value however many rows there are: give it the frame's height.
        expr = pl.when(pl.int_range(pl.len()) >= 0).then(expr)
    return Checked(expr=expr, dtype=node.dtype, fields=node.fields)


def check_filter(
    sql: str, fields: FieldTypes, unsupported: Mapping[str, str] | None = None
) -> Checked:
    """Check a filter; as `check_expression`, and its type must be boolean. Null means no."""
    checked = check_expression(sql, fields, unsupported)
    if checked.dtype != pl.Boolean:
        raise InvalidInputError(
            f"a filter needs to be true or false, this is {type_name(checked.dtype)}: compare it"
        )
    return checked


def type_name(dtype: pl.DataType) -> str:
    """What users call a type."""
    if dtype.is_integer():
        return "a whole number"
    if dtype.is_float():
        return "a floating number"
    names = {pl.String: "text", pl.Boolean: "true or false", pl.Date: "a date"}
    return names.get(type(dtype), "a timestamp" if isinstance(dtype, pl.Datetime) else str(dtype))


def _parse(sql: str) -> object:
    """The tree that polars makes of `sql`."""
    _refuse_clock(sql)
    try:
        parsed = pl.sql_expr(sql)
        return json.loads(parsed.meta.serialize(format="json"))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InvalidInputError(_reason(str(error))) from None
    except RecursionError:
        raise InvalidInputError("is nested too deeply") from None


def _reason(message: str) -> str:
    """polars' own words where they are fit for people."""
    line = message.strip().splitlines()[0] if message.strip() else ""
    if "{" in line or "(Ident" in line or len(line) > 200:
        return "is SQL that can't be used here: an expression over the event's fields is needed"
    if line.startswith("relation "):
        return "can't contain a subquery: only the event's own fields can be used"
    return f"is not understood as SQL: {line}"


_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_CLOCK = re.compile(
    r"(?<![\w.])(current_date|current_time|current_timestamp|localtime|localtimestamp"
    r"|now(?=\s*\()|today(?=\s*\())(?!\w)",
    re.IGNORECASE,
)
_OFFSET = re.compile(r"\btimestamp\s*'[^']*\d\d:\d\d[^']*[+-]\d\d(:?\d\d)?\s*'", re.IGNORECASE)


def _refuse_clock(sql: str) -> None:
    """Refuse what polars turns into a literal before the tree can show where it came from."""
    found = _CLOCK.search(_QUOTED.sub(" '' ", sql))
    if found:
        raise InvalidInputError(
            f"can't use {found[1]}: results depend on the events alone, never on the time of day"
        )
    if _OFFSET.search(sql):
        raise InvalidInputError("a timestamp can't have an offset: write it in UTC")
