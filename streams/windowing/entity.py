"""One text per entity: what rows, sort orders and rekeyed records call it.

A single field is its own text. Several fields are joined by U+001F, with U+001F and the
backslash escaped inside a field, so that equal texts mean equal entities. Integers, dates and
timestamps appear as decimal numbers (days or units since the epoch), booleans as `true` and
`false`. Texts are ordered by their UTF-8 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

SEPARATOR = "\x1f"
_ESCAPES = (("\\", "\\\\"), (SEPARATOR, "\\s"))


def _field_text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype.is_temporal():
        column = column.to_physical()
    return column if dtype == pl.String else column.cast(pl.String)


def entity_text(fields: Mapping[str, pl.DataType]) -> pl.Expr:
    """Text of the entity whose fields, in order, are `fields`; null if any field is."""
    if len(fields) == 1:
        ((name, dtype),) = fields.items()
        return _field_text(name, dtype)
    texts = []
    for name, dtype in fields.items():
        text = _field_text(name, dtype)
        if dtype == pl.String:
            for plain, escaped in _ESCAPES:
                text = text.str.replace_all(plain, escaped, literal=True)
        texts.append(text)
    return pl.concat_str(texts, separator=SEPARATOR, ignore_nulls=False)


def entity_fields(text: pl.Series, fields: Mapping[str, pl.DataType]) -> list[pl.Series]:
    """The fields of the entities in `text`, one series each, named and typed as in `fields`."""
    if len(fields) == 1:
        ((name, dtype),) = fields.items()
        return [_from_text(text.alias(name), dtype)]
    parts = text.str.split(SEPARATOR)
    found = []
    for index, (name, dtype) in enumerate(fields.items()):
        part = parts.list.get(index).alias(name)
        if dtype == pl.String and part.str.contains("\\", literal=True).any():
            part = pl.Series(name, [_unescape(value) for value in part], dtype=pl.String)
        found.append(_from_text(part, dtype))
    return found


def _unescape(value: str) -> str:
    return "\\".join(piece.replace("\\s", SEPARATOR) for piece in value.split("\\\\"))


def _from_text(text: pl.Series, dtype: pl.DataType) -> pl.Series:
    if dtype == pl.String:
        return text
    if dtype == pl.Boolean:
        return text == "true"
    if dtype.is_temporal():
        physical = pl.Int32() if dtype == pl.Date else pl.Int64()
        return text.cast(physical).cast(dtype)
    return text.cast(dtype)
