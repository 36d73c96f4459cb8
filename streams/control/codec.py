"""Records of the control topics as bytes: Avro, by the schemas in `schemas/` beside this file.

They lie inside the package because a worker needs them wherever it is installed; a schema's
file name is its `Kind`. The Confluent header is added here, by whoever knows the schema's id.
"""

from __future__ import annotations

import io
import json
from enum import StrEnum
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import fastavro
from pydantic import TypeAdapter

from streams.control.records import (
    Ack,
    AuditRecord,
    Checkpointed,
    ControlRecord,
    Failed,
    Fenced,
    Ready,
    Reply,
    Request,
    RequestRecord,
    Stamp,
)
from streams.control.requests import parse_fields, request_fields
from streams.control.set_record import SetRecord
from streams.schema.decode import HEADER_BYTES, MAGIC, header

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """What a topic holds."""

    REQUEST = "request"
    REPLY = "reply"
    CONTROL = "control"
    ACK = "ack"
    AUDIT = "audit"


def _load(kind: Kind) -> dict[str, Any]:
    text = (files(__package__) / "schemas" / f"{kind}.avsc").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


SCHEMAS: Mapping[Kind, dict[str, Any]] = {kind: _load(kind) for kind in Kind}
"""The schema of each topic's values, as the registry gets it."""

_PARSED = {kind: fastavro.parse_schema(schema) for kind, schema in SCHEMAS.items()}
_STAMP = TypeAdapter(Stamp)
_SET = TypeAdapter(SetRecord)
_REQUEST = TypeAdapter(RequestRecord)
_REPLY = TypeAdapter(Reply)
_AUDIT = TypeAdapter(AuditRecord)
_ACKS: Mapping[str, tuple[TypeAdapter[Ack], tuple[str, ...]]] = {
    made.__name__.lower(): (TypeAdapter(made), tuple(made.__dataclass_fields__))
    for made in (Ready, Failed, Fenced, Checkpointed)
}
"""By kind, how an ack is read, and the names of its fields."""


def kind_of(value: Request | Reply | ControlRecord | Ack | AuditRecord) -> Kind:
    """Which topic a value is for, and so by which schema it is written."""
    match value:
        case Request():
            return Kind.REQUEST
        case Reply():
            return Kind.REPLY
        case ControlRecord():
            return Kind.CONTROL
        case AuditRecord():
            return Kind.AUDIT
        case Ready() | Failed() | Fenced() | Checkpointed():
            return Kind.ACK


def encode(value: Request | Reply | ControlRecord | Ack | AuditRecord, schema_id: int) -> bytes:
    """The value in the Confluent wire format; `schema_id` is the id of `kind_of`'s schema."""
    body = io.BytesIO()
    body.write(header(schema_id))
    fastavro.schemaless_writer(body, _PARSED[kind_of(value)], _fields(value))
    return body.getvalue()


def named_schema(value: bytes | None) -> int:
    """The id that a value names. Raises ValueError if it is not in the Confluent wire format."""
    if not value or len(value) < HEADER_BYTES or value[:1] != MAGIC:
        raise ValueError("not in the Confluent wire format")
    return int.from_bytes(value[1:HEADER_BYTES], "big")


def decode_control(value: bytes, writer: Mapping[str, Any] | None = None) -> ControlRecord:
    """What `encode` wrote. `writer` is the schema that the value names, if it is not ours.

    This and its siblings raise ValueError for anything that `encode` did not write.
    """
    fields = _read(Kind.CONTROL, value, writer)
    stamp = _STAMP.validate_python(fields["stamp"])
    if fields["set"] is not None:
        return ControlRecord(stamp=stamp, body=_SET.validate_python(fields["set"]))
    found = fields["request"]
    if found is None:
        raise ValueError("a control record is about neither a set nor a request")
    if found["request"] is not None:
        found["request"] = parse_fields(found["request"])
    return ControlRecord(stamp=stamp, body=_REQUEST.validate_python(found))


def decode_ack(value: bytes, writer: Mapping[str, Any] | None = None) -> Ack:
    """An ack; see `decode_control`."""
    fields = _read(Kind.ACK, value, writer)
    known = _ACKS.get(fields["kind"])
    if known is None:
        raise ValueError(f"there is no ack of kind {fields['kind']!r}")
    made, names = known
    return made.validate_python({name: fields[name] for name in names})


def decode_audit(value: bytes, writer: Mapping[str, Any] | None = None) -> AuditRecord:
    """An audit record; see `decode_control`."""
    return _AUDIT.validate_python(_read(Kind.AUDIT, value, writer))


def decode_reply(value: bytes, writer: Mapping[str, Any] | None = None) -> Reply:
    """A reply; see `decode_control`."""
    return _REPLY.validate_python(_read(Kind.REPLY, value, writer))


def reply_fields(reply: Reply) -> dict[str, Any]:
    """A reply as JSON takes it, for people and programs."""
    fields: dict[str, Any] = _REPLY.dump_python(reply, mode="json")
    return fields


def _fields(value: Request | Reply | ControlRecord | Ack | AuditRecord) -> dict[str, Any]:
    match value:
        case Request():
            return request_fields(value)
        case Reply():
            return reply_fields(value)
        case AuditRecord():
            fields: dict[str, Any] = _AUDIT.dump_python(value, mode="json")
            return fields
        case Ready() | Failed() | Fenced() | Checkpointed():
            kind = type(value).__name__.lower()
            made, _ = _ACKS[kind]
            return {"kind": kind, **made.dump_python(value)}
        case ControlRecord(stamp=stamp, body=SetRecord() as body):
            return {
                "stamp": _STAMP.dump_python(stamp),
                "set": _SET.dump_python(body, mode="json"),
                "request": None,
            }
        case ControlRecord(stamp=stamp, body=RequestRecord() as body):
            found = _REQUEST.dump_python(body, mode="json")
            if body.request is not None:
                found["request"] = request_fields(body.request)
            return {"stamp": _STAMP.dump_python(stamp), "set": None, "request": found}
    raise TypeError(f"{type(value).__name__} goes on no control topic")


def _read(kind: Kind, value: bytes, writer: Mapping[str, Any] | None) -> dict[str, Any]:
    named_schema(value)
    parsed = _PARSED[kind] if writer is None else fastavro.parse_schema(dict(writer))
    try:
        fields = fastavro.schemaless_reader(
            io.BytesIO(value[HEADER_BYTES:]), parsed, None if writer is None else _PARSED[kind]
        )
    except Exception as error:
        raise ValueError(f"no {kind} record ({type(error).__name__}: {error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"no {kind} record")
    return fields
