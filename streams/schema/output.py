"""The Avro schemas of a feature topic: how entities and vectors look to consumers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from streams.errors import InvalidInputError
from streams.names import AS_OF, KIND_FIELD, VERSION_FIELD

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE = "rewindow.features"
APP_PROPERTY = "rewindow.app"
TOPIC_PROPERTY = "rewindow.topic"

_AVRO_TYPES: Mapping[pl.DataType, Any] = {
    pl.Boolean(): "boolean",
    pl.Int8(): "int",
    pl.Int16(): "int",
    pl.Int32(): "int",
    pl.UInt8(): "int",
    pl.UInt16(): "int",
    pl.UInt32(): "long",
    pl.UInt64(): "long",
    pl.Int64(): "long",
    pl.Float32(): "float",
    pl.Float64(): "double",
    pl.String(): "string",
    pl.Date(): {"type": "int", "logicalType": "date"},
    pl.Datetime("ms"): {"type": "long", "logicalType": "timestamp-millis"},
    pl.Datetime("us"): {"type": "long", "logicalType": "timestamp-micros"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSchemas:
    """Avro schemas of a feature topic's key and value."""

    key: dict[str, Any]
    value: dict[str, Any]


def output_schemas(
    *,
    feature_set: str,
    topic: str,
    entity: Mapping[str, pl.DataType],
    features: Mapping[str, pl.DataType],
    app: str,
) -> OutputSchemas:
    """Schemas of the vectors of one version.

    `entity` in the order of the set's entity; features may come in any order. Record names
    depend on the feature set alone, so versions can follow each other. The kind is a string
    and no enum: readers of older schemas can read kinds that are added later. The value's
    schema names the owning app. Raises InvalidInputError for a type that has no Avro form.
    """
    entity_fields = [{"name": n, "type": avro_type(n, dtype)} for n, dtype in entity.items()]
    only = entity_fields[0]["type"] if len(entity_fields) == 1 else None
    whole = _record(f"{feature_set}_key", entity_fields)
    key = {"type": "string"} if only == "string" else whole
    value = _record(
        f"{feature_set}_value",
        [
            *entity_fields,
            {"name": AS_OF, "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": VERSION_FIELD, "type": "string"},
            {"name": KIND_FIELD, "type": "string"},
            *(
                {"name": name, "type": ["null", avro_type(name, features[name])], "default": None}
                for name in sorted(features)
            ),
        ],
    )
    value[APP_PROPERTY] = app
    value[TOPIC_PROPERTY] = topic
    return OutputSchemas(key=key, value=value)


def avro_type(name: str, dtype: pl.DataType) -> Any:
    """Avro type of values of `dtype`; `name` is the field's. Raises InvalidInputError."""
    known = _AVRO_TYPES.get(dtype)
    if known is not None:
        return known
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
        members = [
            {"name": member.name, "type": avro_type(name, _instance(member.dtype))}
            for member in dtype.inner.fields
        ]
        return {"type": "array", "items": _record(f"{name}_item", members)}
    hint = "cast it to double" if dtype.is_decimal() else "cast it to a type that has one"
    raise InvalidInputError(f"{name!r} has type {dtype}, which has no output form: {hint}")


def owner(value_schema: Mapping[str, Any]) -> str | None:
    """The app that owns a feature topic, by its value's schema; None if it names none."""
    app = value_schema.get(APP_PROPERTY)
    return app if isinstance(app, str) else None


def _record(name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": NAMESPACE, "fields": fields}


def _instance(dtype: Any) -> pl.DataType:
    """polars lets a struct's member be declared by class or by instance."""
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance
