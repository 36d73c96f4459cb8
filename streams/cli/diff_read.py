"""The vectors of two versions of a set, from the topics that hold them, in bounded memory.

The topics are read twice. First the vectors of both versions are counted by partition and as-of
time; where both have some, those of the newest as-of times are chosen, as many as are allowed.
Then only these are taken in. So memory grows with that limit, and with the number of as-of times
that the topics hold, not with the number of vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.cli.agreement import Counted, Vectors
from streams.errors import RewindowError
from streams.kafka import confluent_config, explain, unreachable
from streams.names import AS_OF, HEADER_PREFIX, KIND_FIELD, VERSION_FIELD
from streams.schema.values import ValueReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from streams.schema.registry import Registry
    from streams.settings import Settings

POLL_S = 0.1
"""A call takes that long unless it fills a batch."""

PATIENCE_POLLS = 150
BATCH = 2_000
VERSION_HEADER = f"{HEADER_PREFIX}version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose vectors: two versions, their entity's fields, the features that both have.

    Those as of a time before `since_ms` are left out; at most `limit` are compared.
    """

    a: str
    b: str
    entity: Sequence[str]
    features: Sequence[str]
    limit: int
    since_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The vectors that were taken in.

    `seen` are how many vectors each version has at all, `cells` in how many (partition, as-of
    time) both have some, and `cells_taken` how many of these were taken in.
    """

    vectors: pl.DataFrame
    seen: tuple[int, int]
    cells: int
    cells_taken: int


def read_both(
    settings: Settings, registry: Registry, topics: Mapping[str, int], wanted: Wanted
) -> Found:
    """Read the vectors from `topics`, which are by number of partitions, the first one first.

    Raises UnreachableError, and `RewindowError` for a topic that holds something else.
    """
    reader = _Reader(settings, registry, topics, wanted)
    counted = Counted()

    def count(one: _Vector) -> None:
        counted.add((one.partition, one.as_of_ms), is_b=one.version == wanted.b)

    reader.each(count)
    chosen = counted.chosen(wanted.limit)
    vectors = Vectors(wanted.features)

    def take(one: _Vector) -> None:
        if (one.partition, one.as_of_ms) in chosen:
            vectors.add(
                entity=_text(one.values, wanted.entity),
                as_of_ms=one.as_of_ms,
                version=one.version,
                kind=str(one.values.get(KIND_FIELD)),
                values=one.values,
            )

    if chosen:
        reader.each(take)
    return Found(
        vectors=vectors.frame(),
        seen=(
            sum(a for a, _ in counted.cells.values()),
            sum(b for _, b in counted.cells.values()),
        ),
        cells=len(counted.common()),
        cells_taken=len(chosen),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vector:
    partition: int
    as_of_ms: int
    version: str
    values: Mapping[str, Any]


class _Reader:
    """Committed vectors of both versions, up to the ends of when it was made."""

    def __init__(
        self, settings: Settings, registry: Registry, topics: Mapping[str, int], wanted: Wanted
    ) -> None:
        self._settings = settings
        self._values = ValueReader(registry)
        self._topics = topics
        self._wanted = wanted
        self._ends = self._now()

    def each(self, take: Callable[[_Vector], None]) -> None:
        """Give every vector to `take`: of a topic after the other, of a partition in order."""
        for topic in self._topics:
            for message in self._messages(topic):
                one = self._vector(message)
                if one is not None:
                    take(one)

    def _vector(self, message: Message) -> _Vector | None:
        """The vector in a record; None for one that is not asked for."""
        wanted = self._wanted
        if self._version_in_headers(message) not in (None, wanted.a, wanted.b):
            return None
        value = message.value()
        if value is None:
            return None
        values = self._values.read(value)
        as_of, version = values.get(AS_OF), values.get(VERSION_FIELD)
        if not isinstance(as_of, datetime) or not isinstance(version, str):
            where = f"{message.topic()}/{message.partition()} offset {message.offset()}"
            raise RewindowError(f"{where} is no vector of rewindow")
        as_of_ms = round(as_of.timestamp() * 1000)
        if version not in (wanted.a, wanted.b):
            return None
        if wanted.since_ms is not None and as_of_ms < wanted.since_ms:
            return None
        return _Vector(
            partition=message.partition() or 0, as_of_ms=as_of_ms, version=version, values=values
        )

    @staticmethod
    def _version_in_headers(message: Message) -> str | None:
        headers = message.headers()
        for name, value in headers if isinstance(headers, list) else ():
            if name == VERSION_HEADER and isinstance(value, bytes):
                return value.decode(errors="replace")
        return None

    def _now(self) -> dict[tuple[str, int], int]:
        consumer = self._consumer()
        try:
            return {
                (topic, number): consumer.get_watermark_offsets(
                    TopicPartition(topic, number), timeout=10
                )[1]
                for topic, partitions in self._topics.items()
                for number in range(partitions)
            }
        except KafkaException as error:
            raise explain(self._settings, error, "reading vectors") from None
        finally:
            consumer.close()

    def _messages(self, topic: str) -> Iterator[Message]:
        unread = {one for one, end in self._ends.items() if one[0] == topic and end > 0}
        if not unread:
            return
        consumer = self._consumer()
        patience = PATIENCE_POLLS
        try:
            consumer.assign([TopicPartition(*one, 0) for one in sorted(unread)])
            while unread:
                messages = consumer.consume(BATCH, POLL_S)
                patience = PATIENCE_POLLS if messages else patience - 1
                if not patience:
                    raise unreachable(self._settings, f"topic {topic} can't be read to its end")
                for message in messages:
                    at = (topic, message.partition() or 0)
                    if (error := message.error()) is None:
                        if (message.offset() or 0) < self._ends[at]:
                            yield message
                        else:
                            unread.discard(at)
                            consumer.pause([TopicPartition(*at)])
                    elif error.code() == KafkaError._PARTITION_EOF:
                        unread.discard(at)
                    elif error.fatal() or (not error.retriable() and error.code() > 0):
                        raise KafkaException(error)
        except KafkaException as error:
            raise explain(self._settings, error, f"reading {topic}") from None
        finally:
            consumer.close()

    def _consumer(self) -> Consumer:
        return Consumer(
            confluent_config(
                self._settings,
                **{
                    # Asked for by the client, never joined: partitions are assigned by hand.
                    "group.id": f"{self._settings.app}.diff",
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "fetch.wait.max.ms": 50,
                    "auto.offset.reset": "earliest",
                    "queued.max.messages.kbytes": 16_384,
                },
            )
        )


def _text(values: Mapping[str, Any], entity: Sequence[str]) -> str:
    """An entity as text; of several fields as a JSON list."""
    if len(entity) == 1:
        return str(values.get(entity[0]))
    return json.dumps([values.get(name) for name in entity], default=str, ensure_ascii=False)
