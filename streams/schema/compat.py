"""Whether a new schema may follow older ones, and in words why not.

The registry decides; it names no reasons. These are for the person who reads the refusal.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEVELS = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)


def incompatibilities(
    new: Mapping[str, Any], old: Sequence[Mapping[str, Any]], level: str
) -> list[str]:
    """Reasons why `new` may not follow `old` (oldest first) under `level`; empty if it may.

    Stricter than a registry in one point: a field may not change from one logical type to
    another, since that reads the same bytes as other values. Raises InvalidInputError for an
    unknown level or a schema that is not valid Avro.
    """
    if level not in LEVELS:
        raise InvalidInputError(
            f"unknown compatibility level {level!r}: one of {', '.join(LEVELS)}"
        )
    if level == "NONE":
        return []
    compared = list(old) if level.endswith("_TRANSITIVE") else list(old[-1:])
    newest = _parse(new)
    reasons: dict[str, None] = {}
    for schema in compared:
        older = _parse(schema)
        if level.startswith(("BACKWARD", "FULL")):
            reasons |= dict.fromkeys(_unreadable(newest, older, reader_is_new=True))
        if level.startswith(("FORWARD", "FULL")):
            reasons |= dict.fromkeys(_unreadable(older, newest, reader_is_new=False))
    return list(reasons)


def _parse(schema: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        # A logical type that the library does not know is kept as its plain type.
        warnings.simplefilter("ignore")
        try:
            return avro.schema.parse(json.dumps(schema))
        except (avro.errors.AvroException, TypeError, ValueError) as error:
            raise InvalidInputError(f"the schema is not valid Avro: {error}") from error


def _unreadable(reader: Any, writer: Any, *, reader_is_new: bool) -> list[str]:
    """What the reader's schema can't read of data written with the writer's."""
    if reader.type != "record" or writer.type != "record":
        return [] if _readable(reader, writer) else [_changed("the schema", reader, writer)]
    reasons = []
    if reader.name != writer.name and writer.fullname not in reader.props.get("aliases", ()):
        new, old = (reader, writer) if reader_is_new else (writer, reader)
        reasons.append(f"the record is renamed from {old.name!r} to {new.name!r}: keep its name")
    for field in reader.fields:
        names = (field.name, *(field.props.get("aliases") or ()))
        written = next((writer.fields_dict[n] for n in names if n in writer.fields_dict), None)
        if written is None:
            if not field.has_default:
                reasons.append(_absent(field.name, reader_is_new=reader_is_new))
            continue
        new, old = (field.type, written.type) if reader_is_new else (written.type, field.type)
        other_meaning = _logical(new) and _logical(old) and _logical(new) != _logical(old)
        if other_meaning or not _readable(field.type, written.type):
            reasons.append(_changed(f"field {field.name!r}", new, old))
    return reasons


def _readable(reader: Any, writer: Any) -> bool:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # the library leaves it untyped
    verdict = checker.get_compatibility(reader, writer)
    return verdict.compatibility is SchemaCompatibilityType.compatible


def _absent(name: str, *, reader_is_new: bool) -> str:
    if reader_is_new:
        return f"field {name!r} is new and has no default: give it one, so old data can be read"
    return f"field {name!r} is gone and had no default: readers of the old schema need it"


def _changed(what: str, new: Any, old: Any) -> str:
    return (
        f"{what} changes from {_describe(old)} to {_describe(new)}: another type needs another name"
    )


def _logical(schema: Any) -> str:
    """Logical type of a schema, or of the only such member of a union; else empty."""
    members = schema.schemas if schema.type == "union" else [schema]
    found = {member.props.get("logicalType") for member in members} - {None}
    return str(found.pop()) if len(found) == 1 else ""


def _describe(schema: Any) -> str:
    if schema.type == "union":
        return f"[{', '.join(_describe(member) for member in schema.schemas)}]"
    if schema.props.get("logicalType"):
        return str(schema.props["logicalType"])
    if schema.type in ("enum", "fixed", "record"):
        detail = f" of {', '.join(schema.symbols)}" if schema.type == "enum" else ""
        return f"{schema.type} {schema.name}{detail}"
    if schema.type == "array":
        return f"array of {_describe(schema.items)}"
    if schema.type == "map":
        return f"map of {_describe(schema.values)}"
    return str(schema.type)
