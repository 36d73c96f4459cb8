"""What an Avro record schema says, in the terms that expressions and decoding need.

A schema is first *inlined*: references to named types are replaced by what they name, and
named types get fresh names, since only the shape lies on the wire. Then its top-level fields
are described by `Field` and mapped to polars types.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NODES = 10_000
MAX_DEPTH = 64

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NAMED = frozenset({"record", "error", "enum", "fixed"})

RAW_TYPES: Mapping[str, pl.DataType] = {
    "boolean": pl.Boolean(),
    "int": pl.Int32(),
    "long": pl.Int64(),
    "float": pl.Float32(),
    "double": pl.Float64(),
    "string": pl.String(),
    "enum": pl.String(),
}
"""polars type of each Avro kind that expressions can use, logical types aside."""

_LOGICAL_TYPES: Mapping[tuple[str, str], pl.DataType] = {
    ("int", "date"): pl.Date(),
    ("long", "timestamp-millis"): pl.Datetime("ms"),
    ("long", "timestamp-micros"): pl.Datetime("us"),
    ("string", "uuid"): pl.String(),
}

_REFUSED_LOGICAL: Mapping[tuple[str, str], str] = {
    ("bytes", "decimal"): "decimal is not supported: publish it as double or as long minor units",
    ("int", "time-millis"): "a time of day is not supported: use int or a timestamp",
    ("long", "time-micros"): "a time of day is not supported: use long or a timestamp",
    ("long", "timestamp-nanos"): "nanoseconds are not supported: use timestamp-micros",
    ("long", "local-timestamp-millis"): "local timestamps name no instant: use timestamp-millis",
    ("long", "local-timestamp-micros"): "local timestamps name no instant: use timestamp-micros",
    ("long", "local-timestamp-nanos"): "local timestamps name no instant: use timestamp-micros",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One non-null type that a field may hold. `symbols` and `default` are an enum's."""

    kind: str
    logical: str | None = None
    symbols: tuple[str, ...] = ()
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A top-level field of a record. `default` is raw JSON, valid if `has_default`."""

    name: str
    aliases: tuple[str, ...]
    branches: tuple[Branch, ...]
    nullable: bool
    has_default: bool
    default: Any = None


def field_types(avro_schema: Mapping[str, Any]) -> dict[str, pl.DataType]:
    """polars type of each top-level field that expressions can use, in schema order.

    Fields left out are named by `unsupported_fields`. Raises InvalidInputError if the schema is
    no record, is recursive, or names a type that it does not define.
    """
    described = ((f.name, polars_type(f)) for f in fields(inline(avro_schema)))
    return {name: dtype for name, dtype in described if isinstance(dtype, pl.DataType)}


def unsupported_fields(avro_schema: Mapping[str, Any]) -> dict[str, str]:
    """Why each remaining top-level field can't be used in expressions; raises as `field_types`."""
    described = ((f.name, polars_type(f)) for f in fields(inline(avro_schema)))
    return {name: reason for name, reason in described if isinstance(reason, str)}


def polars_type(field_: Field) -> pl.DataType | str:
    """polars type of a field, or the reason why it has none."""
    if not field_.branches:
        return "it is always null"
    if len(field_.branches) > 1:
        return "a union of several types is not supported: only one type, or it and null"
    branch = field_.branches[0]
    if branch.logical is not None:
        known = _LOGICAL_TYPES.get((branch.kind, branch.logical))
        if known is not None:
            return known
        kind = "bytes" if branch.kind == "fixed" else branch.kind
        refused = _REFUSED_LOGICAL.get((kind, branch.logical))
        if refused is not None:
            return refused
    if branch.kind in RAW_TYPES:
        return RAW_TYPES[branch.kind]
    return f"{branch.kind} is not supported in expressions"


def fields(inlined: Mapping[str, Any]) -> tuple[Field, ...]:
    """Describe the top-level fields of a schema that `inline` returned."""
    return tuple(_field(spec) for spec in inlined["fields"])


def _field(spec: Mapping[str, Any]) -> Field:
    declared = spec["type"]
    members = declared if isinstance(declared, list) else [declared]
    branches = tuple(_branch(member) for member in members if member != "null")
    return Field(
        name=spec["name"],
        aliases=tuple(spec.get("aliases", ())),
        branches=branches,
        nullable="null" in members,
        has_default="default" in spec,
        default=spec.get("default"),
    )


def _branch(member: str | Mapping[str, Any]) -> Branch:
    if isinstance(member, str):
        return Branch(kind=member)
    return Branch(
        kind=member["type"],
        logical=member.get("logicalType"),
        symbols=tuple(member.get("symbols", ())),
        default=member.get("default") if member["type"] == "enum" else None,
    )


def inline(avro_schema: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite a record schema so that it refers to no named type.

    The result keeps names, aliases and defaults of fields, logical types (where the type is
    not null), symbols and sizes; named types are called `T0`, `T1` … . Raises
    InvalidInputError for anything but a record, a recursive type, an unknown name, or a schema
    that unfolds beyond `MAX_NODES` types or `MAX_DEPTH` levels.
    """
    if not isinstance(avro_schema, dict) or avro_schema.get("type") not in ("record", "error"):
        raise InvalidInputError(
            "the schema is not an Avro record: "
            f"{json.dumps(avro_schema, default=str)[:80]}; events must be records with fields"
        )
    inlined = _Inliner().walk(avro_schema, namespace="", depth=0)
    assert isinstance(inlined, dict)
    return inlined


@dataclass(slots=True)
class _Inliner:
    """One walk over one schema: the names seen so far, and how much has been unfolded."""

    named: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    open_names: set[str] = field(default_factory=set)
    nodes: int = 0

    def walk(self, schema: Any, *, namespace: str, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise InvalidInputError("the schema is too large or too deeply nested")
        if isinstance(schema, str):
            return self._reference(schema, namespace, depth)
        if isinstance(schema, list):
            members = [self.walk(m, namespace=namespace, depth=depth + 1) for m in schema]
            if any(isinstance(member, list) for member in members):
                raise InvalidInputError("a union lies directly in a union: Avro forbids that")
            return members
        if not isinstance(schema, dict) or "type" not in schema:
            raise InvalidInputError(f"no Avro type: {json.dumps(schema, default=str)[:80]}")
        kind = schema["type"]
        if isinstance(kind, str) and kind in _NAMED:
            return self._define(schema, namespace, depth)
        if kind == "array":
            items = self.walk(_part(schema, "items"), namespace=namespace, depth=depth + 1)
            return {"type": "array", "items": items}
        if kind == "map":
            values = self.walk(_part(schema, "values"), namespace=namespace, depth=depth + 1)
            return {"type": "map", "values": values}
        if isinstance(kind, str) and kind in PRIMITIVES:
            logical = schema.get("logicalType")
            return {"type": kind, "logicalType": logical} if isinstance(logical, str) else kind
        return self.walk(kind, namespace=namespace, depth=depth + 1)

    def _reference(self, name: str, namespace: str, depth: int) -> Any:
        if name in PRIMITIVES:
            return name
        full_name = name if "." in name or not namespace else f"{namespace}.{name}"
        if full_name not in self.named:
            full_name = name
        if full_name not in self.named:
            raise InvalidInputError(
                f"the schema names type {name!r} without defining it: "
                "schema references are not supported, put the definition into the schema"
            )
        if full_name in self.open_names:
            raise InvalidInputError(f"type {name!r} contains itself: recursive types can't be read")
        definition, scope = self.named[full_name]
        return self._expand(definition, full_name, scope, depth)

    def _define(self, schema: dict[str, Any], namespace: str, depth: int) -> dict[str, Any]:
        name = _part(schema, "name")
        if "." in name:
            full_name = name
        else:
            scope = schema.get("namespace", namespace)
            full_name = f"{scope}.{name}" if scope else name
        scope = full_name.rpartition(".")[0]
        self.named[full_name] = (schema, scope)
        return self._expand(schema, full_name, scope, depth)

    def _expand(
        self, schema: dict[str, Any], full_name: str, namespace: str, depth: int
    ) -> dict[str, Any]:
        fresh_name = f"T{self.nodes}"
        if schema["type"] == "enum":
            enum = {"type": "enum", "name": fresh_name, "symbols": list(_part(schema, "symbols"))}
            return enum | ({"default": schema["default"]} if "default" in schema else {})
        if schema["type"] == "fixed":
            fixed = {"type": "fixed", "name": fresh_name, "size": _part(schema, "size")}
            logical = schema.get("logicalType")
            return fixed | ({"logicalType": logical} if isinstance(logical, str) else {})
        self.open_names.add(full_name)
        members = []
        for spec in _part(schema, "fields"):
            kept = {key: spec[key] for key in ("default", "aliases") if key in spec}
            declared = self.walk(_part(spec, "type"), namespace=namespace, depth=depth + 1)
            members.append({"name": _part(spec, "name"), "type": declared, **kept})
        self.open_names.discard(full_name)
        return {"type": "record", "name": fresh_name, "fields": members}


def _part(schema: Mapping[str, Any], key: str) -> Any:
    """A part that Avro requires; its absence is the schema's fault."""
    if not isinstance(schema, dict) or key not in schema:
        raise InvalidInputError(
            f"{key!r} is missing in the schema: {json.dumps(schema, default=str)[:80]}"
        )
    return schema[key]
