"""Dataframes of vectors to Confluent-framed Avro keys and values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyruhvro

from streams.schema.decode import header
from streams.schema.output import NAMESPACE

if TYPE_CHECKING:
    from streams.schema.output import OutputSchemas


class VectorEncoder:
    """Encodes the vectors of one output schema, registered as `key_id` and `value_id`."""

    def __init__(self, schemas: OutputSchemas, key_id: int, value_id: int) -> None:
        key = schemas.key
        if key == {"type": "string"}:
            # A record with one field has the same bytes as that field.
            entity = next(iter(schemas.value["fields"]))
            key = {"type": "record", "name": "key", "namespace": NAMESPACE, "fields": [entity]}
        self._key = _Columns(key, header(key_id))
        self._value = _Columns(schemas.value, header(value_id))

    def encode(self, frame: pl.DataFrame) -> tuple[list[bytes], list[bytes]]:
        """Keys and values of the vectors in `frame`, in its order.

        It holds the schema's fields as columns, others are ignored; `as_of` is Int64 ms since
        the epoch. Values must fit the schema's types, and entities must not be null: a
        ValueError or polars' error otherwise, both faults of the caller.
        """
        if frame.is_empty():
            return [], []
        table = self._value.table(frame)
        return self._key.encode(table), self._value.encode(table)


class _Columns:
    """One record schema, as the encoder of Arrow columns takes it."""

    def __init__(self, schema: dict[str, Any], prefix: bytes) -> None:
        self._json = json.dumps(schema)
        self._prefix = prefix
        self._arrow = pyruhvro.avro_to_arrow_schema(self._json)
        self._required = [f["name"] for f in schema["fields"] if not isinstance(f["type"], list)]

    def table(self, frame: pl.DataFrame) -> pa.Table:
        """The schema's columns of a frame, in its types."""
        absent = [name for name in self._required if frame[name].null_count()]
        if absent:
            raise ValueError(f"columns {absent} hold nulls, which their schema does not allow")
        chosen = frame[self._arrow.names].rechunk()
        return chosen.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(self._arrow)

    def encode(self, table: pa.Table) -> list[bytes]:
        """What is framed of a table that has the schema's columns in its types."""
        encoded: list[bytes] = []
        chosen = [table[name] for name in self._arrow.names]
        for batch in pa.table(chosen, schema=self._arrow).combine_chunks().to_batches():
            for bodies in pyruhvro.serialize_record_batch(batch, self._json, 1):
                # Joined here: an Arrow scalar of bytes brings pandas in, a second of start-up.
                encoded += [self._prefix + body for body in bodies.to_pylist()]
        return encoded
