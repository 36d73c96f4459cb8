"""Reads values of the control topics, by the schema that each one names."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import fastavro

from streams.control.codec import SCHEMAS, Kind, decode_ack, decode_control, named_schema
from streams.control.records import Origin
from streams.control.requests import RawRequest, read_request
from streams.schema.decode import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.control.records import Ack, ControlRecord
    from streams.datapath.records import Record
    from streams.runtime.schemas import SchemaBook


class ControlReader:
    """`ids` are those of our own schemas, which need no look-up.

    Other schemas come from the registry, which is waited for as long as it is away.
    """

    def __init__(self, schemas: SchemaBook, ids: Mapping[Kind, int]) -> None:
        self._schemas = schemas
        self._ids = ids

    async def control(self, value: bytes | None) -> ControlRecord:
        """A decision. This and `ack` raise ValueError for what rewindow did not write."""
        return decode_control(value or b"", await self._writer(Kind.CONTROL, value))

    async def ack(self, value: bytes | None) -> Ack:
        """An ack, see `acks`."""
        return decode_ack(value or b"", await self._writer(Kind.ACK, value))

    async def request(self, topic: str, record: Record) -> RawRequest:
        """A record of the rollback topic, whatever is in it."""
        writer: Mapping[str, Any] | ValueError | None
        try:
            writer = await self._writer(Kind.REQUEST, record.value)
        except ValueError as error:  # JSON names no schema, and is not decoded
            writer = error

        def decode(value: bytes) -> Mapping[str, Any]:
            if isinstance(writer, ValueError):
                raise writer
            return _fields(value, writer or SCHEMAS[Kind.REQUEST])

        return RawRequest(
            origin=Origin(topic=topic, partition=0, offset=record.offset),
            at_ms=max(0, record.timestamp),
            content=read_request(record.value, decode),
        )

    async def _writer(self, kind: Kind, value: bytes | None) -> Mapping[str, Any] | None:
        """The schema that a value names; None if it is ours."""
        schema_id = named_schema(value)
        if schema_id == self._ids[kind]:
            return None
        found = (await self._schemas.get([schema_id]))[schema_id]
        if found is None:
            raise ValueError(f"the registry knows no schema with id {schema_id}")
        return found


def _fields(value: bytes, writer: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as its writer meant it, so that fields that we don't know show."""
    parsed = fastavro.parse_schema(dict(writer))
    body = io.BytesIO(value[HEADER_BYTES:])
    fields = fastavro.schemaless_reader(body, parsed, None)
    if not isinstance(fields, dict):
        raise ValueError("not a record")
    return fields
