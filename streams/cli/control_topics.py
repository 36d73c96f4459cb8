"""The control topics as a plain Kafka client sees them: read to their ends, and followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.control.codec import (
    decode_ack,
    decode_audit,
    decode_control,
    decode_reply,
    named_schema,
)
from streams.control.records import Ack, AuditRecord, ControlRecord, Reply
from streams.control.state import fold
from streams.errors import InvalidInputError, RewindowError
from streams.kafka import Admin, confluent_config, explain, unreachable
from streams.runtime.control.acks import is_ack

if TYPE_CHECKING:
    from streams.schema.registry import Registry
    from streams.settings import Settings

T = TypeVar("T")

POLL_S = 0.5
PATIENCE_POLLS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A committed record of a topic with one partition."""

    offset: int
    key: bytes | None = None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Values:
    """Decodes values by the schemas that they name.

    Each method raises `RewindowError` naming `topic` and the offset of what can't be read.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._writers: dict[int, Mapping[str, Any]] = {}

    def control(self, topic: str, stored: Stored) -> ControlRecord:
        return self._read(decode_control, topic, stored)

    def audit(self, topic: str, stored: Stored) -> AuditRecord:
        return self._read(decode_audit, topic, stored)

    def reply(self, topic: str, stored: Stored) -> Reply:
        return self._read(decode_reply, topic, stored)

    def ack(self, topic: str, stored: Stored) -> Ack:
        return self._read(decode_ack, topic, stored)

    def _read(
        self, decode: Callable[[bytes, Mapping[str, Any]], T], topic: str, stored: Stored
    ) -> T:
        try:
            return decode(stored.value, self._writer(named_schema(stored.value)))
        except ValueError as error:
            raise RewindowError(
                f"topic {topic} offset {stored.offset}: {error}; was it written by a newer "
                "rewindow, or by something else?"
            ) from None

    def _writer(self, schema_id: int) -> Mapping[str, Any]:
        if schema_id not in self._writers:
            found = self._registry.schema_by_id(schema_id)
            if found is None:
                raise ValueError(f"the registry knows no schema with id {schema_id}")
            self._writers[schema_id] = found
        return self._writers[schema_id]


class TopicReader:
    """Reads partition 0 of a topic, committed records only. To be closed."""

    def __init__(self, settings: Settings, topic: str, start: int | None = 0) -> None:
        """From offset `start` on; None: from the end. Raises as `explain` says."""
        self._settings = settings
        self._topic = topic
        self._consumer = Consumer(
            confluent_config(
                settings,
                **{
                    # Asked for by the client, never joined: the partition is assigned by hand.
                    "group.id": topic,
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                    "fetch.wait.max.ms": 50,
                },
            )
        )
        try:
            if start is None:
                here = TopicPartition(topic, 0)
                start = self._consumer.get_watermark_offsets(here, timeout=10)[1]
            self._consumer.assign([TopicPartition(topic, 0, start)])
        except KafkaException as error:
            self.close()
            raise explain(settings, error, f"reading {topic}") from None

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()

    def rest(self) -> Iterator[Stored]:
        """What is there, up to the end. Raises UnreachableError if that can't be reached."""
        patience = PATIENCE_POLLS
        while patience:
            found = self._poll(POLL_S)
            if found is True:
                return
            if isinstance(found, Stored):
                yield found
            patience = PATIENCE_POLLS if found else patience - 1
        raise unreachable(self._settings, f"topic {self._topic} can't be read to its end")

    def next(self, seconds: float) -> Stored | None:
        """The next record; None if none comes in time, or sooner at the end."""
        found = self._poll(seconds)
        return found if isinstance(found, Stored) else None

    def _poll(self, seconds: float) -> Stored | bool:
        """A record, or whether the end is reached."""
        message = self._consumer.poll(seconds)
        if message is None:
            return False
        if (error := message.error()) is None:
            return _stored(message)
        if error.code() == KafkaError._PARTITION_EOF:
            return True
        if error.fatal() or (not error.retriable() and error.code() > 0):
            raise explain(self._settings, KafkaException(error), f"reading {self._topic}")
        return False  # the client goes on trying by itself


@contextmanager
def reading(settings: Settings, topic: str, start: int | None = 0) -> Iterator[TopicReader]:
    """A reader that is closed at the end."""
    reader = TopicReader(settings, topic, start)
    try:
        yield reader
    finally:
        reader.close()


def need_topics(settings: Settings, *topics: str) -> None:
    """Raises InvalidInputError if one of the topics does not exist."""
    existing = Admin(settings).partitions()
    missing = [topic for topic in topics if topic not in existing]
    if missing:
        raise InvalidInputError(
            f"app {settings.app} has no topic {missing[0]}: `rewindow publish` makes it; or "
            "check --app and [topics].prefix"
        )


def read_control(settings: Settings, values: Values) -> list[tuple[int, ControlRecord]]:
    """All decisions, with their offsets."""
    topic = settings.names.control_topic
    with reading(settings, topic) as reader:
        return [(stored.offset, values.control(topic, stored)) for stored in reader.rest()]


def read_left_out(settings: Settings, registry: Registry) -> dict[str, list[str]]:
    """SQL conditions of events that sets leave out, or are to leave out, by set."""
    if settings.names.control_topic not in Admin(settings).partitions():
        return {}
    state = fold(record for _, record in read_control(settings, Values(registry)))
    return {
        name: [one.where for one in record.exclusions if one.where is not None]
        for name, record in state.sets.items()
    }


def read_audit(settings: Settings, values: Values, topic: str) -> list[AuditRecord]:
    """All audit records of a topic, in its order."""
    with reading(settings, topic) as reader:
        return [values.audit(topic, stored) for stored in reader.rest()]


def read_acks(settings: Settings, values: Values, start: int) -> list[tuple[int, Ack]]:
    """Acks from offset `start` on, with their offsets."""
    topic = settings.names.acks_topic
    with reading(settings, topic, start) as reader:
        stored = [one for one in reader.rest() if is_ack(one.headers)]
    return [(one.offset, values.ack(topic, one)) for one in stored]


def _stored(message: Message) -> Stored:
    headers = message.headers()
    pairs = headers if isinstance(headers, list) else []
    key, value = message.key(), message.value()
    return Stored(
        offset=message.offset() or 0,
        key=key if isinstance(key, bytes) else None,
        value=value if isinstance(value, bytes) else b"",
        headers=tuple((name, value) for name, value in pairs if isinstance(value, bytes)),
    )
