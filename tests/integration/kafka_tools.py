"""What an independent client does: create topics, produce Avro, read what was committed."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import fastavro
import httpx
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from streams.devstack import Addresses

T = TypeVar("T")
Schema = dict[str, Any]

TIMEOUT_S = 120.0
POLL_S = 0.2
MAGIC = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One record to produce. Without `partition` the key's hash decides."""

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp_ms: int | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One record as a `read_committed` consumer sees it; `timestamp_ms` is -1 without one."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Mapping[str, bytes]


class KafkaTools:
    """Everything a test needs of one Kafka and one registry."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses
        self.admin = AdminClient({"bootstrap.servers": addresses.bootstrap_servers})
        self._http = httpx.Client(base_url=addresses.registry_url, timeout=30)
        self._schemas: dict[int, Any] = {}

    def create_topic(self, name: str, *, partitions: int = 1, **config: str) -> None:
        """Create a topic that keeps its records whatever their timestamps say.

        `config` are topic settings with underscores for dots: `cleanup_policy="compact"`.
        """
        settings = {"retention.ms": "-1"}
        settings |= {name.replace("_", "."): value for name, value in config.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        self.admin.create_topics([topic])[name].result(timeout=TIMEOUT_S)

    def partitions(self, topic: str) -> list[int]:
        """Partition numbers of an existing topic."""
        found = self.admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        assert found.error is None, f"{topic}: {found.error}"
        return sorted(found.partitions)

    def register(self, subject: str, schema: Schema) -> int:
        """Register `schema` under `subject`; its id."""
        answer = self._http.post(
            f"/subjects/{subject}/versions",
            params={"normalize": "true"},
            json={"schema": json.dumps(schema)},
        )
        assert answer.is_success, answer.text
        number = answer.json()["id"]
        assert isinstance(number, int)
        return number

    def encode(self, schema_id: int, value: object) -> bytes:
        """`value` as Avro in Confluent's wire format, by a registered schema."""
        body = io.BytesIO()
        body.write(struct.pack(">bI", MAGIC, schema_id))
        fastavro.schemaless_writer(body, self._schema(schema_id), value)
        return body.getvalue()

    def decode(self, data: bytes) -> Any:
        """The Avro value of `data`, which is in Confluent's wire format."""
        magic, schema_id = struct.unpack_from(">bI", data)
        assert magic == MAGIC, f"not Confluent's wire format: {data[:5]!r}"
        return fastavro.schemaless_reader(io.BytesIO(data[5:]), self._schema(schema_id), None)

    def schema_text(self, schema_id: int) -> str:
        """A registered schema as JSON."""
        answer = self._http.get(f"/schemas/ids/{schema_id}")
        assert answer.is_success, answer.text
        return str(answer.json()["schema"])

    def _schema(self, schema_id: int) -> Any:
        if schema_id not in self._schemas:
            parsed = fastavro.parse_schema(json.loads(self.schema_text(schema_id)))
            self._schemas[schema_id] = parsed
        return self._schemas[schema_id]

    def produce(self, topic: str, records: Iterable[Outgoing]) -> None:
        """Produce `records` in order and wait until all are acknowledged."""
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        producer = Producer(
            {
                "bootstrap.servers": self.addresses.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "queue.buffering.max.messages": 2_000_000,
                "message.max.bytes": 16_000_000,
            }
        )
        for record in records:
            optional: dict[str, Any] = {}
            if record.partition is not None:
                optional["partition"] = record.partition
            if record.timestamp_ms is not None:
                optional["timestamp"] = record.timestamp_ms
            producer.produce(
                topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers.items()),
                on_delivery=delivered,
                **optional,
            )
            producer.poll(0)
        left = producer.flush(TIMEOUT_S)
        assert not failures, f"{len(failures)} records not produced, first: {failures[0]}"
        assert left == 0, f"{left} records not produced within {TIMEOUT_S} s"

    def consume(
        self,
        topic: str,
        until: Callable[[Sequence[Incoming]], bool],
        *,
        seconds: float = TIMEOUT_S,
    ) -> list[Incoming]:
        """Read `topic` from its beginning, committed records only, until `until` is true.

        Raises:
            AssertionError: It was not within `seconds`.
        """
        clock = SystemClock()
        deadline_s = clock.monotonic_s() + seconds
        found: list[Incoming] = []
        consumer = self._reader(topic)
        try:
            while not until(found):
                assert clock.monotonic_s() < deadline_s, (
                    f"not what was waited for on {topic} after {seconds} s: {len(found)} records"
                )
                found.extend(
                    _incoming(message)
                    for message in consumer.consume(10_000, timeout=POLL_S)
                    if message.error() is None
                )
        finally:
            consumer.close()
        return found

    def consume_all(self, topic: str, *, seconds: float = TIMEOUT_S) -> list[Incoming]:
        """All committed records that are on `topic` now, up to its last stable offsets.

        Raises:
            AssertionError: Its end was not reached within `seconds`.
        """
        clock = SystemClock()
        deadline_s = clock.monotonic_s() + seconds
        found: list[Incoming] = []
        open_partitions = set(self.partitions(topic))
        consumer = self._reader(topic)
        try:
            while open_partitions:
                assert clock.monotonic_s() < deadline_s, (
                    f"end of {topic} not reached after {seconds} s: {len(found)} records"
                )
                for message in consumer.consume(10_000, timeout=POLL_S):
                    error = message.error()
                    if error is None:
                        found.append(_incoming(message))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        open_partitions.discard(_known(message.partition()))
        finally:
            consumer.close()
        return found

    def committed(self, group: str, topic: str) -> dict[int, tuple[int, str]]:
        """Committed offset and metadata of `group`, of those partitions that have one."""
        consumer = Consumer(
            {"bootstrap.servers": self.addresses.bootstrap_servers, "group.id": group}
        )
        try:
            asked = [TopicPartition(topic, partition) for partition in self.partitions(topic)]
            answers = consumer.committed(asked, timeout=TIMEOUT_S)
        finally:
            consumer.close()
        return {
            answer.partition: (answer.offset, answer.metadata or "")
            for answer in answers
            if answer.offset >= 0
        }

    def _reader(self, topic: str) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self.addresses.bootstrap_servers,
                # librdkafka wants one although nothing is committed.
                "group.id": "integration-tests",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            }
        )
        consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for partition in self.partitions(topic)
            ]
        )
        return consumer


def _incoming(message: Message) -> Incoming:
    kind, timestamp_ms = message.timestamp()
    headers = message.headers()
    # A client may also be given a mapping, which is never what comes back.
    pairs = headers if isinstance(headers, list) else []
    return Incoming(
        topic=_known(message.topic()),
        partition=_known(message.partition()),
        offset=_known(message.offset()),
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        timestamp_ms=-1 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
        headers={name: _bytes(value) or b"" for name, value in pairs},
    )


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def _known(value: T | None) -> T:
    assert value is not None
    return value
