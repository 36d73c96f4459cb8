"""What has been published: the definitions topic, compacted, one partition.

A record's key is `source/NAME` or `set/NAME@VERSION`, its value a JSON document in UTF-8:

| field | |
|---|---|
| `format` | 1 |
| `definition` | the canonical form (`streams.definitions.digest`) |
| `order` | number of this definition in order of publication, kept when it is rewritten |
| `schema`, `schema_id` | of a source: the reader schema that its sets were checked against |
| `digest` | of a set: SHA-256 of all that changes values |
| `key_schema_id`, `value_schema_id` | of a set: how its vectors are written |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.definitions.digest import canonical_json, from_canonical
from streams.definitions.load import record_key
from streams.definitions.model import FeatureSet, Source
from streams.errors import RewindowError
from streams.kafka import TopicSpec, confluent_config, explain, topic_partitions, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.settings import Settings

FORMAT = 1
_POLL_S = 1.0
_PATIENCE_POLLS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSource:
    """A source, and the schema that its events are resolved to. `offset` is its record's."""

    source: Source
    schema: Mapping[str, Any]
    schema_id: int
    order: int
    offset: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSet:
    """One version of a set, and how its vectors are written. `offset` is its record's."""

    feature_set: FeatureSet
    digest: str
    key_schema_id: int
    value_schema_id: int
    order: int
    offset: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """All that is published. Versions of a set are in order of publication.

    `next_offset` is the first offset of the topic that is not in here.
    """

    sources: Mapping[str, PublishedSource]
    sets: Mapping[str, tuple[PublishedSet, ...]]
    next_offset: int = 0

    def first(self, name: str) -> PublishedSet | None:
        """The version that was published first, which serves until another one is activated."""
        versions = self.sets.get(name, ())
        return versions[0] if versions else None

    def version(self, name: str, version: str) -> PublishedSet | None:
        for published in self.sets.get(name, ()):
            if published.feature_set.version == version:
                return published
        return None

    @property
    def next_order(self) -> int:
        orders = [source.order for source in self.sources.values()]
        orders.extend(one.order for versions in self.sets.values() for one in versions)
        return max(orders, default=-1) + 1


def definitions_topic(settings: Settings) -> TopicSpec:
    """The topic as it has to be."""
    return TopicSpec(
        name=settings.names.definitions_topic,
        partitions=1,
        config={"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"},
    )


def pack(published: PublishedSource | PublishedSet) -> tuple[bytes, bytes]:
    """Key and value of the record that stands for `published`."""
    definition = _definition(published)
    value: dict[str, Any] = {
        "format": FORMAT,
        "definition": json.loads(canonical_json(definition)),
        "order": published.order,
    }
    if isinstance(published, PublishedSource):
        value.update(schema=published.schema, schema_id=published.schema_id)
    else:
        value.update(
            digest=published.digest,
            key_schema_id=published.key_schema_id,
            value_schema_id=published.value_schema_id,
        )
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return record_key(definition).encode(), text.encode()


def unpack(value: bytes, offset: int) -> PublishedSource | PublishedSet:
    """What a record stands for. Raises ValueError for anything that `pack` did not write."""
    fields = json.loads(value)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ValueError(f"no published definition of format {FORMAT}")
    try:
        definition = from_canonical(json.dumps(fields["definition"]).encode())
        if isinstance(definition, Source):
            return PublishedSource(
                source=definition,
                schema=fields["schema"],
                schema_id=fields["schema_id"],
                order=fields["order"],
                offset=offset,
            )
        return PublishedSet(
            feature_set=definition,
            digest=fields["digest"],
            key_schema_id=fields["key_schema_id"],
            value_schema_id=fields["value_schema_id"],
            order=fields["order"],
            offset=offset,
        )
    except KeyError as error:
        raise ValueError(f"a published definition has no {error}") from None


def collect(
    published: Iterable[PublishedSource | PublishedSet], next_offset: int = 0
) -> Definitions:
    """Definitions from records in the topic's order: of records with one key the last counts."""
    latest = {record_key(_definition(one)): one for one in published}
    sources: dict[str, PublishedSource] = {}
    sets: dict[str, list[PublishedSet]] = {}
    for one in sorted(latest.values(), key=lambda one: one.order):
        if isinstance(one, PublishedSource):
            sources[one.source.name] = one
        else:
            sets.setdefault(one.feature_set.name, []).append(one)
    return Definitions(
        sources=sources,
        sets={name: tuple(versions) for name, versions in sets.items()},
        next_offset=next_offset,
    )


def _definition(published: PublishedSource | PublishedSet) -> Source | FeatureSet:
    if isinstance(published, PublishedSource):
        return published.source
    return published.feature_set


def read_definitions(settings: Settings, *, at_least_offset: int = 0) -> Definitions:
    """All that is published, read to the topic's end, and at least to `at_least_offset`.

    Nothing if the topic does not exist yet. Raises UnreachableError if Kafka does not answer,
    RewindowError if the topic ends before `at_least_offset` or holds what can't be read.
    """
    topic = settings.names.definitions_topic
    if topic_partitions(settings, topic) is None:
        if at_least_offset:
            raise RewindowError(_cut_short(topic, 0, at_least_offset))
        return collect([])
    consumer = Consumer(
        confluent_config(
            settings,
            **{
                # Asked for by the client, never joined: partitions are assigned by hand.
                "group.id": topic,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                # The end of the topic is all that is waited for.
                "fetch.wait.max.ms": 10,
            },
        )
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return _read(settings, consumer, topic, at_least_offset)
    except KafkaException as error:
        raise explain(settings, error, f"reading topic {topic}") from None
    finally:
        consumer.close()


def _read(settings: Settings, consumer: Consumer, topic: str, at_least_offset: int) -> Definitions:
    found: list[PublishedSource | PublishedSet] = []
    end_offset: int | None = None
    patience = _PATIENCE_POLLS
    while patience:
        message = consumer.poll(_POLL_S)
        error = None if message is None else message.error()
        if message is None:
            patience -= 1
        elif error is None:
            found.append(_unpack(topic, message))
        elif error.code() == KafkaError._PARTITION_EOF:
            end_offset = message.offset() or 0
            if end_offset >= at_least_offset:
                return collect(found, end_offset)
        else:
            raise KafkaException(error)
    if end_offset is None:
        raise unreachable(settings, f"topic {topic} can't be read to its end")
    raise RewindowError(_cut_short(topic, end_offset, at_least_offset))


def _unpack(topic: str, message: Message) -> PublishedSource | PublishedSet:
    offset = message.offset() or 0
    try:
        return unpack(message.value() or b"", offset)
    except ValueError as error:
        raise RewindowError(
            f"topic {topic} offset {offset}: {error}; was it written by a newer rewindow, "
            "or by something else?"
        ) from None


def _cut_short(topic: str, end_offset: int, needed_offset: int) -> str:
    return (
        f"topic {topic} ends at offset {end_offset}, but definitions up to {needed_offset} were "
        "in use: it was deleted or made anew; bring it back, or start under another --app"
    )
