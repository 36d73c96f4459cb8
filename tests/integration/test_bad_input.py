"""Bad input on real servers: one worker meets all of it, and goes on.

Two sets read one source: one by its key, the other rekeyed by a text that may be very long.
Every planted record has a name; it lies at the offset of its place in `planted`.
"""

from __future__ import annotations

import asyncio
import struct
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from streams.config import load_settings
from streams.definitions.publish import publish
from streams.schema.registry import Registry
from tests.integration.kafka_tools import MAGIC, TIMEOUT_S, Incoming, KafkaTools, Outgoing
from tests.integration.worker_process import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MEGABYTE = 1024 * 1024
BROKERS_LIMIT = 1_048_588
"""Kafka's own `max.message.bytes`, which the source's topic has."""

FAILED, REFUSED = 1, 3
UNKNOWN_IDS = range(1_900_000_000, 1_900_000_300)

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "remark",
    "fields": [
        {"name": "customer", "type": ["null", "string"], "default": None},
        {"name": "note", "type": ["null", "string"], "default": None},
        {
            "name": "at",
            "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
            "default": None,
        },
    ],
}
NEWER_SCHEMA = {
    **SCHEMA,
    "fields": [*SCHEMA["fields"], {"name": "mood", "type": "string", "default": "fair"}],
}

SOURCE = """\
kind: source
name: remarks
topic: {prefix}_remarks
schema: {prefix}_remarks-value
event_time: at
key: [customer]
idle_after: 2s
"""

BY_CUSTOMER = """\
kind: feature_set
name: {prefix}_by_customer
version: 1.0.0
source: remarks
entity: [customer]
every: 10s
features:
  n: {{count: "*", window: 10s}}
  newest: {{last: note, window: 10s}}
  oldest: {{first: note, window: 10s}}
  common: {{top_k: note, k: 2, window: 10s}}
"""

BY_NOTE = """\
kind: feature_set
name: {prefix}_by_note
version: 1.0.0
source: remarks
entity: [note]
every: 10s
features:
  n: {{count: "*", window: 10s}}
"""


class App:
    """An app with its source topic, definitions and workers."""

    def __init__(self, kafka: KafkaTools, directory: Path, prefix: str) -> None:
        self.kafka = kafka
        self.name = prefix
        self.topic = f"{prefix}_remarks"
        self.directory = directory
        self.schema_id = kafka.register(f"{self.topic}-value", SCHEMA)

    def publish(self, *definitions: str) -> None:
        files = []
        for number, text in enumerate(definitions):
            file = self.directory / f"definition{number}.yaml"
            file.write_text(text.format(prefix=self.name))
            files.append(file)
        settings = load_settings(
            bootstrap_servers=self.kafka.addresses.bootstrap_servers,
            registry_url=self.kafka.addresses.registry_url,
            app=self.name,
            environ={"HOME": str(self.directory)},
        )
        with Registry.from_settings(settings.registry_options()) as registry:
            publish(settings, files, registry)

    def worker(self, **environ: str) -> WorkerProcess:
        spec = WorkerSpec(
            app=self.name,
            addresses=self.kafka.addresses,
            state_dir=self.directory / "state",
        )
        return WorkerProcess(spec, self.directory / "logs", **environ)

    def event(
        self, customer: str | None, note: str | None, at_ms: int | None, **more: Any
    ) -> Outgoing:
        event = {"customer": customer, "note": note, "at": at_ms, **more}
        return self.framed(self.kafka.encode(self.schema_id, event), customer)

    def framed(self, value: bytes | None, customer: str | None = "x") -> Outgoing:
        """A record with any bytes at all."""
        return Outgoing(
            value=value, key=(customer or "").encode(), partition=0, timestamp_ms=START_MS
        )

    def reached(self, offset: int, *, group: str | None = None) -> bool:
        found = self.kafka.committed(group or self.name, self.topic)
        return found.get(0, (0, ""))[0] >= offset

    def vectors(self, feature_set: str) -> list[dict[str, Any]]:
        """All vectors of a set, in order; `as_of` in ms after the start."""
        found = []
        for record in self.kafka.consume_all(f"features.{self.name}_{feature_set}"):
            assert record.value is not None
            value: dict[str, Any] = self.kafka.decode(record.value)
            value["as_of"] = (value["as_of"] - EPOCH) // timedelta(milliseconds=1) - START_MS
            found.append(value)
        return found


@dataclass(kw_only=True)
class Outcome:
    """What was planted, and what became of it."""

    app: App
    offsets: dict[str, int] = field(default_factory=dict)
    planted: dict[str, Outgoing] = field(default_factory=dict)
    dead: Sequence[Incoming] = ()
    by_customer: Sequence[Mapping[str, Any]] = ()
    by_note: Sequence[Mapping[str, Any]] = ()

    def verdicts(self, name: str) -> set[str]:
        """What the DLQ says of a planted record; nothing if it is not there."""
        return {
            copy.headers["rewindow.error"].decode()
            for copy in self.dead
            if int(copy.headers["rewindow.offset"]) == self.offsets[name]
        }

    def copies(self, name: str) -> list[Incoming]:
        """The DLQ's copies of a planted record."""
        return [
            copy for copy in self.dead if int(copy.headers["rewindow.offset"]) == self.offsets[name]
        ]

    def vector(self, customer: str) -> Mapping[str, Any]:
        """The one final vector of a customer."""
        (found,) = [
            one
            for one in self.by_customer
            if one["customer"] == customer and one["rewindow_kind"] == "final"
        ]
        return found


@pytest.fixture(scope="module")
def outcome(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All that is bad, in one log, and a worker that read it in one go."""
    app = App(KafkaTools(stack), tmp_path_factory.mktemp("bad"), f"t{uuid.uuid4().hex[:10]}")
    app.kafka.create_topic(app.topic, message_timestamp_type="CreateTime")
    app.publish(SOURCE, BY_CUSTOMER, BY_NOTE)
    found = Outcome(app=app)
    with app.worker() as worker:
        _plant(found, _first_half(app))
        asyncio.run(_without_timestamp(app, "timeless", START_MS + 2_000))
        found.offsets["no timestamp"] = len(found.offsets)
        worker.until(lambda: app.reached(len(found.offsets)), "through the first half")
        app.schema_id = app.kafka.register(f"{app.topic}-value", NEWER_SCHEMA)
        _plant(found, _second_half(app))
        worker.until(lambda: app.reached(len(found.offsets)), "through the second half")
        ended = f"{app.name}.rekey.remarks.by.note"
        worker.until(lambda: app.reached(len(found.offsets), group=ended), "all rekeyed")
        worker.until(lambda: any(v["note"] == "closer" for v in app.vectors("by_note")), "closed")
        assert worker.stop() == 0, worker.messages
    found.dead = app.kafka.consume_all(f"{app.name}.dlq")
    found.by_customer = app.vectors("by_customer")
    found.by_note = app.vectors("by_note")
    return found


def _first_half(app: App) -> dict[str, Outgoing]:
    good = app.event("good", "fine", START_MS + 1_000)
    assert good.value is not None
    body = good.value[5:]
    late = START_MS + HOUR_MS
    unknown = {
        f"unknown id {number}": app.framed(struct.pack(">bI", MAGIC, number) + body)
        for number in UNKNOWN_IDS
    }
    return {
        "good": good,
        "wrong magic byte": app.framed(b"\x07" + good.value[1:]),
        "json": app.framed(b'{"customer": "x"}'),
        "empty value": app.framed(b""),
        "only a header": app.framed(good.value[:5]),
        "truncated body": app.framed(good.value[:-3]),
        "truncated header": app.framed(good.value[:3]),
        "tombstone": app.framed(None),
        "tombstone without a key": Outgoing(value=None, partition=0, timestamp_ms=START_MS),
        "null entity": app.event(None, "by nobody", START_MS + 1_000),
        "null note": app.event("noteless", None, START_MS + 1_000),
        "null event time": app.event("x", "never", None),
        "an hour ahead": app.event("hasty", "soon", START_MS + 9_000),
        "absurd event time": app.event("x", "future", late + 1),
        "event time of year 10000": app.event("x", "beyond", 253_402_300_800_000),
        "event time of year 0": app.event("x", "before", -62_135_596_800_001),
        "large garbage": app.framed(b"\x07" * (BROKERS_LIMIT - 200)),
        "large note": app.event("talker", "n" * (MEGABYTE - 300), START_MS + 1_000),
        "large entity": app.event("c" * 500_000, "short", START_MS + 1_000),
        **unknown,
    }


def _second_half(app: App) -> dict[str, Outgoing]:
    closing_ms = START_MS + HOUR_MS
    return {
        "newer schema": app.event("modern", "v2", START_MS + 9_500, mood="happy"),
        "closer": app.event("closer", "closer", closing_ms - 20_000, mood="fair"),
        "last": app.event("last", "last", closing_ms, mood="fair"),
    }


def _plant(found: Outcome, records: Mapping[str, Outgoing]) -> None:
    found.app.kafka.produce(found.app.topic, records.values())
    for name, record in records.items():
        found.offsets[name] = len(found.offsets)
        found.planted[name] = record


async def _without_timestamp(app: App, customer: str, at_ms: int) -> None:
    """As a producer of old would: record timestamps of -1."""
    record = app.event(customer, "timeless", at_ms)
    producer = AIOKafkaProducer(bootstrap_servers=app.kafka.addresses.bootstrap_servers)
    await producer.start()
    try:
        batch = producer.create_batch()
        batch.append(timestamp=-1, key=record.key, value=record.value)
        await (await producer.send_batch(batch, app.topic, partition=0))
    finally:
        await producer.stop()


# -- the DLQ --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("wrong magic byte", "wrong_magic_byte"),
        ("json", "wrong_magic_byte"),
        ("empty value", "truncated"),
        ("truncated header", "truncated"),
        ("only a header", "undecodable"),
        ("truncated body", "undecodable"),
        ("tombstone", "tombstone"),
        ("tombstone without a key", "tombstone"),
        ("null entity", "missing_entity"),
        ("null note", "missing_entity"),
        ("null event time", "missing_event_time"),
        ("absurd event time", "event_time_ahead"),
        ("event time of year 10000", "event_time_ahead"),
        ("event time of year 0", "event_time_out_of_range"),
        ("large garbage", "wrong_magic_byte"),
        (f"unknown id {UNKNOWN_IDS[0]}", "unknown_schema_id"),
        (f"unknown id {UNKNOWN_IDS[-1]}", "unknown_schema_id"),
    ],
)
def test_a_bad_record_is_set_aside_with_its_reason(
    outcome: Outcome, name: str, verdict: str
) -> None:
    assert outcome.verdicts(name) == {verdict}


@pytest.mark.parametrize(
    "name", ["wrong magic byte", "truncated body", "tombstone", "null event time", "large garbage"]
)
def test_what_is_set_aside_is_as_it_came(outcome: Outcome, name: str) -> None:
    original = outcome.planted[name]
    copies = outcome.copies(name)
    # Once for each stream that could not use it.
    assert sorted(copy.headers["rewindow.stream"] for copy in copies) == [
        b"remarks",
        b"remarks.by.note",
    ]
    for copy in copies:
        assert (copy.value, copy.key) == (original.value, original.key)
        assert copy.headers["rewindow.topic"] == outcome.app.topic.encode()
        assert copy.headers["rewindow.partition"] == b"0"
        assert copy.headers["rewindow.detail"]


def test_a_missing_entity_is_set_aside_by_the_set_that_misses_it_only(outcome: Outcome) -> None:
    (copy,) = outcome.copies("null entity")
    assert copy.headers["rewindow.feature_set"] == f"{outcome.app.name}_by_customer".encode()
    (copy,) = outcome.copies("null note")
    assert copy.headers["rewindow.stream"] == b"remarks.by.note"


def test_many_unknown_ids_are_set_aside_one_by_one(outcome: Outcome) -> None:
    names = [f"unknown id {number}" for number in UNKNOWN_IDS]
    assert {len(outcome.copies(name)) for name in names} == {2}


def test_nothing_good_is_set_aside(outcome: Outcome) -> None:
    good = ["good", "an hour ahead", "large note", "large entity", "no timestamp"]
    for name in [*good, "newer schema", "closer", "last"]:
        assert outcome.verdicts(name) == set(), name


# -- the vectors ----------------------------------------------------------------------------


def test_the_good_records_among_the_bad_ones_are_counted(outcome: Outcome) -> None:
    found = {one["customer"] for one in outcome.by_customer if one["rewindow_kind"] == "final"}
    assert found == {
        *("good", "noteless", "hasty", "talker", "c" * 500_000, "timeless", "modern", "closer")
    }
    assert all(outcome.vector(customer)["n"] == 1 for customer in found)


def test_a_megabyte_of_text_is_a_value_like_another(outcome: Outcome) -> None:
    note = "n" * (MEGABYTE - 300)
    vector = outcome.vector("talker")
    assert vector["newest"] == vector["oldest"] == note
    assert vector["common"] == [{"value": note, "count": 1}]


def test_a_megabyte_of_text_is_an_entity_like_another(outcome: Outcome) -> None:
    finals = [one for one in outcome.by_note if one["rewindow_kind"] == "final"]
    assert {one["note"] for one in finals} == {
        *("fine", "by nobody", "soon", "n" * (MEGABYTE - 300), "short", "timeless", "v2"),
        "closer",
    }
    assert {one["n"] for one in finals} == {1}


def test_a_record_without_a_timestamp_is_judged_by_its_event_time_alone(outcome: Outcome) -> None:
    assert outcome.vector("timeless")["as_of"] == 10_000


def test_a_newer_schema_is_read_without_a_restart(outcome: Outcome) -> None:
    assert outcome.vector("modern")["newest"] == "v2"
    assert outcome.vector("modern")["as_of"] == 10_000


def test_everybody_who_was_there_is_told_that_nobody_is_left(outcome: Outcome) -> None:
    empty = [one for one in outcome.by_customer if one["rewindow_kind"] == "empty"]
    assert {one["as_of"] for one in empty if one["customer"] == "good"} == {20_000}
    assert {one["n"] for one in empty} == {0}


def test_an_independent_client_reads_the_vectors(outcome: Outcome) -> None:
    app = outcome.app
    client = SchemaRegistryClient({"url": app.kafka.addresses.registry_url, "timeout": 10})
    topic = f"features.{app.name}_by_customer"
    values, keys = AvroDeserializer(client), AvroDeserializer(client)
    seen = {}
    for record in app.kafka.consume_all(topic):
        value = values(record.value, SerializationContext(topic, MessageField.VALUE))
        key = keys(record.key, SerializationContext(topic, MessageField.KEY))
        seen[(key, value["rewindow_kind"])] = value
    good = seen[("good", "final")]
    assert good["as_of"] == EPOCH + timedelta(milliseconds=START_MS + 10_000)
    assert (good["n"], good["newest"], good["rewindow_version"]) == (1, "fine", "1.0.0")


# -- topics ---------------------------------------------------------------------------------


@pytest.fixture
def make_app(kafka: KafkaTools, tmp_path: Path, prefix: str) -> Callable[..., App]:
    """An app of the test's own; its topic is made with the given settings."""

    def make(**topic: Any) -> App:
        app = App(kafka, tmp_path, prefix)
        if topic:
            kafka.create_topic(app.topic, **topic)
        return app

    return make


def test_an_empty_topic_is_waited_on(make_app: Callable[..., App]) -> None:
    app = make_app(partitions=1)
    app.publish(SOURCE, BY_CUSTOMER)
    with app.worker() as worker:
        worker.until(lambda: app.kafka.committed(app.name, app.topic), "at its place")
        app.kafka.produce(
            app.topic,
            [app.event("ann", "hello", START_MS), app.event("bob", "bye", START_MS + 60_000)],
        )
        worker.until(lambda: app.vectors("by_customer"), "done with what came")
        assert worker.stop() == 0, worker.messages
    assert [one["customer"] for one in app.vectors("by_customer")] == ["ann", "ann"]


def test_a_topic_that_does_not_exist_is_named(make_app: Callable[..., App]) -> None:
    app = make_app()
    app.publish(SOURCE, BY_CUSTOMER)
    with app.worker() as worker:
        assert worker.wait() == FAILED
    assert f"topic {app.topic} of source remarks does not exist" in worker.messages
    assert "Traceback" not in worker.messages


def test_another_number_of_partitions_is_refused_with_what_to_do(
    make_app: Callable[..., App],
) -> None:
    app = make_app(partitions=2)
    app.publish(SOURCE, BY_CUSTOMER, BY_NOTE)
    with app.worker() as worker:
        worker.until(lambda: app.kafka.committed(app.name, app.topic), "at work")
        assert worker.stop() == 0, worker.messages
    app.kafka.admin.create_partitions([NewPartitions(app.topic, 3)])[app.topic].result(TIMEOUT_S)
    with app.worker() as worker:
        assert worker.wait() == REFUSED
    stream = f"{app.name}.stream.remarks.by.note"
    assert f"topic {stream} has 2 partitions and needs 3" in worker.messages
    assert f"topic features.{app.name}_by_customer has 2 partitions" in worker.messages
    assert "Traceback" not in worker.messages


# -- transactions upstream ------------------------------------------------------------------


def test_aborted_events_are_not_counted_and_hold_nothing_up(make_app: Callable[..., App]) -> None:
    app = make_app(partitions=1)
    app.publish(SOURCE, BY_CUSTOMER, BY_NOTE)
    at = START_MS
    producer = Producer(
        {
            "bootstrap.servers": app.kafka.addresses.bootstrap_servers,
            "transactional.id": app.name,
        }
    )
    producer.init_transactions(TIMEOUT_S)
    _transaction(producer, app, [app.event("ann", "one", at)], commit=True)
    _transaction(producer, app, [app.event("ann", "no", at + 1)] * 3, commit=False)
    _transaction(producer, app, [app.event("ann", "two", at + 2)], commit=True)
    _transaction(producer, app, [app.event("bob", "three", at + 60_000)], commit=True)
    _transaction(producer, app, [app.event("cid", "no", at + 90_000)], commit=False)
    # Six events, five markers: the last three offsets hold nothing to read.
    end = 1 + 1 + 3 + 1 + 1 + 1 + 1 + 1 + 1 + 1
    rekeying = f"{app.name}.rekey.remarks.by.note"
    with app.worker() as worker:
        worker.until(lambda: app.reached(end), "beyond the markers at the end")
        worker.until(lambda: app.reached(end, group=rekeying), "so far in rekeying, too")
        worker.until(lambda: len(app.vectors("by_note")) >= 4, "closed")
        assert worker.stop() == 0, worker.messages
    found = [(v["customer"], v["rewindow_kind"], v["n"]) for v in app.vectors("by_customer")]
    assert found == [("ann", "final", 2), ("ann", "empty", 0)]
    finals = [v for v in app.vectors("by_note") if v["rewindow_kind"] == "final"]
    assert sorted((v["note"], v["n"]) for v in finals) == [("one", 1), ("two", 1)]


def _transaction(
    producer: Producer, app: App, records: Iterable[Outgoing], *, commit: bool
) -> None:
    producer.begin_transaction()
    for record in records:
        producer.produce(
            app.topic, key=record.key, value=record.value, partition=0, timestamp=START_MS
        )
    producer.flush(TIMEOUT_S)
    if commit:
        producer.commit_transaction(TIMEOUT_S)
    else:
        producer.abort_transaction(TIMEOUT_S)
