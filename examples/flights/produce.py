"""Produce the flights to Kafka, as any application with a Confluent serializer would.

    python -m examples.flights.produce --bootstrap-servers 127.0.0.1:9092 \
        --registry-url http://127.0.0.1:8081/apis/ccompat/v7

The key is the origin in UTF-8, the value Avro in the Confluent wire format (a zero byte,
the schema id in four bytes, the body), the record's timestamp the scheduled departure.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import fastavro
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from examples.flights.bad_records import BadRecord, planted_bad
from examples.flights.data import PARTITIONS, Flight, flights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SCHEMAS = Path(__file__).parents[2] / "schemas"
MAGIC_BYTE = 0
REPORT_EVERY = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """What went to the topic: whole flights, and bad records between them."""

    flights: Sequence[Flight]
    bad: Sequence[BadRecord]

    @property
    def records(self) -> int:
        return len(self.flights) + len(self.bad)


class Encoder:
    """Events of one schema to bytes."""

    def __init__(self, schema_json: str, schema_id: int) -> None:
        self._schema = fastavro.parse_schema(json.loads(schema_json))
        self._header = struct.pack(">bI", MAGIC_BYTE, schema_id)

    def __call__(self, event: Mapping[str, object]) -> bytes:
        body = io.BytesIO()
        body.write(self._header)
        fastavro.schemaless_writer(body, self._schema, event)
        return body.getvalue()


def ensure_topic(
    bootstrap_servers: str,
    topic: str,
    partitions: int,
    *,
    client: Mapping[str, str] | None = None,
) -> None:
    """Create the topic if it isn't there, without a limit on retention.

    The records carry timestamps of 2013: under Kafka's default of seven days they would be
    deleted within minutes.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, **(client or {})})
    new = NewTopic(topic, num_partitions=partitions, config={"retention.ms": "-1"})
    try:
        admin.create_topics([new])[topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def register_schema(registry_url: str, topic: str, version: str = "v0001") -> tuple[str, int]:
    """Register the flights' schema as that of the topic's values; the schema and its id."""
    path = SCHEMAS / "flights-value" / f"{version}.avsc"
    schema_json = path.read_text(encoding="utf-8")
    registry = SchemaRegistryClient({"url": registry_url, "timeout": 10})
    schema_id = registry.register_schema(
        f"{topic}-value", Schema(schema_json, "AVRO"), normalize_schemas=True
    )
    return schema_json, schema_id


def produce_flights(
    bootstrap_servers: str,
    registry_url: str,
    topic: str = "flights",
    *,
    partitions: int = PARTITIONS,
    limit: int | None = None,
    bad_copies: int = 0,
    schema_version: str = "v0001",
    client: Mapping[str, str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Produced:
    """Create the topic, produce all flights (or the first `limit`), wait until all are in.

    `bad_copies` of each kind of bad record are planted among them. Partitions are chosen
    here, so the offset of a record is its place among those of its partition. `client`
    holds further librdkafka settings. `progress` is called with the number of records
    sent so far. Raises `KafkaException` if a record isn't taken.
    """
    ensure_topic(bootstrap_servers, topic, partitions, client=client)
    encode = Encoder(*register_schema(registry_url, topic, schema_version))
    events = flights(partitions=partitions, limit=limit)
    bad = planted_bad(events, encode, partitions=partitions, copies=bad_copies)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 500_000,
            **(client or {}),
        }
    )
    produced = Produced(flights=events, bad=bad)
    _send(producer, topic, produced, encode, progress or (lambda _: None))
    return produced


def _send(
    producer: Producer,
    topic: str,
    produced: Produced,
    encode: Encoder,
    progress: Callable[[int], object],
) -> None:
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    def send(partition: int, timestamp_ms: int, key: bytes | None, value: bytes | None) -> None:
        while True:
            try:
                producer.produce(
                    topic, value, key, partition, timestamp=timestamp_ms, on_delivery=delivered
                )
            except BufferError:
                producer.poll(1)
            else:
                return

    planted: dict[int, list[BadRecord]] = defaultdict(list)
    for record in produced.bad:
        planted[record.before].append(record)
    for i, flight in enumerate(produced.flights):
        for record in planted.get(i, ()):
            send(record.partition, record.timestamp_ms, record.key, record.value)
        key = str(flight.event["origin"]).encode()
        send(flight.partition, flight.timestamp_ms, key, encode(flight.event))
        if i % REPORT_EVERY == 0:
            producer.poll(0)
            progress(i)
    producer.flush()
    if failures:
        raise KafkaException(failures[0])
    progress(produced.records)


def main() -> None:
    """Command line of the producer."""
    parser = argparse.ArgumentParser(description="Produce the flights of 2013 to Kafka.")
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--registry-url", required=True)
    parser.add_argument("--topic", default="flights")
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--limit", type=int, help="only the first so many flights")
    parser.add_argument("--schema-version", default="v0001")
    arguments = parser.parse_args()
    produced = produce_flights(
        arguments.bootstrap_servers,
        arguments.registry_url,
        arguments.topic,
        partitions=arguments.partitions,
        limit=arguments.limit,
        schema_version=arguments.schema_version,
        progress=lambda sent: print(f"{sent:,} flights sent", end="\r", flush=True),
    )
    print(f"{produced.records:,} flights sent to {arguments.topic}")


if __name__ == "__main__":
    main()
