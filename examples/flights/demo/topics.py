"""Topics as a plain `read_committed` consumer sees them."""

from __future__ import annotations

import io
import json
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BATCH = 5_000
POLL_S = 0.5
REQUEST_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One record."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]

    def text(self, header: str) -> str:
        """A header of ours; empty if the record has none of this name."""
        return self.headers.get(f"rewindow.{header}", b"").decode()


class TopicReader:
    """Reads a topic from its beginning, up to its end as often as it is asked to."""

    def __init__(self, client: Mapping[str, str], topic: str) -> None:
        settings = {
            "group.id": f"flights-demo-{uuid.uuid4()}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
        self._consumer = Consumer({**client, **settings})
        self._topic = topic
        found = self._consumer.list_topics(topic, timeout=REQUEST_S).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        self._next = dict.fromkeys(found.partitions, OFFSET_BEGINNING)

    def to_end(self) -> Iterator[Seen]:
        """What is committed and was not read yet, a partition's records in order."""
        assigned = [TopicPartition(self._topic, p, at) for p, at in self._next.items()]
        self._consumer.assign(assigned)
        open_partitions = set(self._next)
        while open_partitions:
            for message in self._consumer.consume(BATCH, POLL_S):
                partition, offset = cast("int", message.partition()), cast("int", message.offset())
                error = message.error()
                if error is None:
                    self._next[partition] = offset + 1
                    yield _seen(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(partition)
                else:
                    raise KafkaException(error)

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def read_topic(client: Mapping[str, str], topic: str) -> list[Seen]:
    """All committed records of a topic."""
    reader = TopicReader(client, topic)
    try:
        return list(reader.to_end())
    finally:
        reader.close()


class EventReader:
    """Values in Confluent's wire format to fields, instants in ms."""

    def __init__(self, registry_url: str) -> None:
        self._registry = SchemaRegistryClient({"url": registry_url, "timeout": 10})
        self._schemas: dict[int, Any] = {}

    def __call__(self, value: bytes) -> dict[str, object]:
        magic, schema_id = struct.unpack_from(">bI", value)
        if magic != 0:
            raise ValueError(f"not in Confluent's wire format: {value[:5]!r}")
        if schema_id not in self._schemas:
            text = cast("str", self._registry.get_schema(schema_id).schema_str)
            self._schemas[schema_id] = fastavro.parse_schema(_plain(json.loads(text)))
        schema = self._schemas[schema_id]
        fields = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        return cast("dict[str, object]", fields)


def _plain(schema: Any) -> Any:
    """A schema without logical types: instants stay numbers, as the reference has them."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if isinstance(schema, dict):
        return {name: _plain(it) for name, it in schema.items() if name != "logicalType"}
    return schema


def _seen(message: Any) -> Seen:
    return Seen(
        partition=message.partition(),
        offset=message.offset(),
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=dict(message.headers() or ()),
    )
