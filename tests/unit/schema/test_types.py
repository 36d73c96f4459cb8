"""Which Avro types expressions can use, and what is said of the others."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from streams.errors import InvalidInputError
from streams.schema.types import field_types, inline, unsupported_fields


def record(**types: Any) -> dict[str, Any]:
    fields = [{"name": name, "type": declared} for name, declared in types.items()]
    return {"type": "record", "name": "event", "namespace": "a.b", "fields": fields}


def logical(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "logicalType": name}


@pytest.mark.parametrize(
    ("declared", "dtype"),
    [
        ("int", pl.Int32()),
        ("long", pl.Int64()),
        ("float", pl.Float32()),
        ("double", pl.Float64()),
        ("boolean", pl.Boolean()),
        ("string", pl.String()),
        ({"type": "string", "avro.java.string": "String"}, pl.String()),
        ({"type": "enum", "name": "e", "symbols": ["A"]}, pl.String()),
        (logical("int", "date"), pl.Date()),
        (logical("long", "timestamp-millis"), pl.Datetime("ms")),
        (logical("long", "timestamp-micros"), pl.Datetime("us")),
        (logical("string", "uuid"), pl.String()),
        (logical("long", "something-of-theirs"), pl.Int64()),
    ],
)
def test_a_usable_type_is_usable_with_null_as_well(declared: Any, dtype: pl.DataType) -> None:
    schema = record(x=declared)
    assert field_types(schema) == {"x": dtype}
    assert field_types(record(x=["null", declared])) == {"x": dtype}
    assert field_types(record(x=[declared, "null"])) == {"x": dtype}
    assert unsupported_fields(schema) == {}


@pytest.mark.parametrize(
    ("declared", "hint"),
    [
        (logical("bytes", "decimal"), "decimal"),
        ({"type": "fixed", "name": "f", "size": 4, "logicalType": "decimal"}, "decimal"),
        ("bytes", "bytes"),
        ({"type": "array", "items": "int"}, "array"),
        ({"type": "map", "values": "int"}, "map"),
        (["null", "int", "string"], "union"),
        ("null", "always null"),
        (logical("long", "local-timestamp-millis"), "timestamp-millis"),
        (logical("int", "time-millis"), "time of day"),
    ],
)
def test_any_other_type_is_named_with_a_reason(declared: Any, hint: str) -> None:
    schema = record(x=declared, y="int")
    assert list(field_types(schema)) == ["y"]
    assert hint in unsupported_fields(schema)["x"]


def test_references_are_followed_through_namespaces() -> None:
    status = {"type": "enum", "name": "status", "symbols": ["A", "B"]}
    assert field_types(record(x=status, y="status", z=["null", "a.b.status"])) == {
        "x": pl.String(),
        "y": pl.String(),
        "z": pl.String(),
    }


@pytest.mark.parametrize(
    ("schema", "hint"),
    [
        ({"type": "string"}, "not an Avro record"),
        (record(x=["null", "a.b.event"]), "recursive"),
        (record(x="nowhere"), "without defining it"),
        ({"type": "record", "name": "r"}, "'fields' is missing"),
        ({"type": "record", "name": "r", "fields": [{"name": "x"}]}, "'type' is missing"),
        (record(x=[["null"]]), "union"),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused(schema: dict[str, Any], hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        field_types(schema)


def test_a_schema_that_unfolds_without_end_is_refused() -> None:
    levels: dict[str, Any] = record(x="int") | {"name": "l0"}
    for level in range(1, 30):
        levels = record(x=levels, y=f"l{level - 1}") | {"name": f"l{level}"}
    with pytest.raises(InvalidInputError, match="too large"):
        inline(levels)
