"""Reads single values in the Confluent wire format: for people and tools, not for volume."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import fastavro

from streams.errors import RewindowError
from streams.schema.decode import HEADER_BYTES, MAGIC

if TYPE_CHECKING:
    from streams.schema.registry import Registry


class ValueReader:
    """Decodes values by the schema that each one names."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._schemas: dict[int, Any] = {}

    def read(self, value: bytes) -> dict[str, Any]:
        """The record; raises `RewindowError` if it is none, `UnreachableError` in time."""
        if len(value) < HEADER_BYTES or value[:1] != MAGIC:
            raise RewindowError("a value is not in the Confluent wire format")
        schema = self._schema(int.from_bytes(value[1:HEADER_BYTES], "big"))
        record = fastavro.schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), schema, None)
        if not isinstance(record, dict):
            raise RewindowError("a value is no Avro record")
        return record

    def _schema(self, schema_id: int) -> Any:
        if schema_id not in self._schemas:
            found = self._registry.schema_by_id(schema_id)
            if found is None:
                raise RewindowError(f"the registry knows no schema with id {schema_id}")
            self._schemas[schema_id] = fastavro.parse_schema(found)
        return self._schemas[schema_id]
