"""The topics that an app owns, as they have to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.definitions.plan import needs_rekeying
from streams.definitions.store import Definitions, definitions_topic
from streams.durations import DAY_MS
from streams.kafka import TopicSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.definitions.model import FeatureSet, Source
    from streams.settings import Settings

FOREVER = "-1"

CONVERSATION_MS = 30 * DAY_MS
"""How long requests and replies are kept: what was decided is on the audit topic."""

LARGEST_RECORD_BYTES = 24 * 1024 * 1024
"""What our topics take: a copy of a record is larger than the record, and a vector may hold
several values as large as a record."""

_SETTINGS: Mapping[str, str] = {
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str(LARGEST_RECORD_BYTES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTopic:
    """What matters of a source's topic: partitions, and its `retention.ms` as Kafka says it."""

    partitions: int
    retention_ms: str = FOREVER


def stream_partitions(settings: Settings, source: Source, entity: tuple[str, ...], of: int) -> int:
    """Number of partitions of a set's stream, where its source's topic has `of`."""
    if needs_rekeying(source, entity) and settings.topics.partitions is not None:
        return settings.topics.partitions
    return of


def features_topic(settings: Settings, name: str, partitions: int) -> TopicSpec:
    """The topic of a set's vectors, with as many partitions as its stream."""
    return _vectors_topic(settings, settings.names.features_topic(name), partitions)


def pinned_topic(settings: Settings, name: str, version: str, partitions: int) -> TopicSpec:
    """The topic of a pinned version's vectors, with as many partitions as the set's stream."""
    return _vectors_topic(settings, settings.names.pinned_topic(name, version), partitions)


def _vectors_topic(settings: Settings, topic: str, partitions: int) -> TopicSpec:
    return TopicSpec(
        name=topic,
        partitions=partitions,
        config={
            "cleanup.policy": "delete",
            "retention.ms": str(settings.topics.retention_ms),
            **_SETTINGS,
        },
    )


def stream_topic(
    settings: Settings, source: Source, entity: tuple[str, ...], topic: SourceTopic
) -> TopicSpec:
    """The topic of a source rekeyed by an entity; kept as long as the source."""
    return TopicSpec(
        name=settings.names.stream_topic(source.name, entity),
        partitions=stream_partitions(settings, source, entity, topic.partitions),
        config={"cleanup.policy": "delete", "retention.ms": topic.retention_ms, **_SETTINGS},
    )


def control_topics(settings: Settings) -> list[TopicSpec]:
    """The topics of the control path: requests, replies, decisions, acks and audit trail."""
    names = settings.names
    talk, kept = _kept(str(CONVERSATION_MS)), _kept(FOREVER)
    return [
        TopicSpec(name=names.rollback_topic, partitions=1, config=talk),
        TopicSpec(name=names.replies_topic, partitions=1, config=talk),
        TopicSpec(name=names.control_topic, partitions=1, config=kept),
        TopicSpec(name=names.acks_topic, partitions=1, config=kept),
        TopicSpec(name=names.audit_topic, partitions=1, config=kept),
    ]


def index_topic(settings: Settings) -> TopicSpec:
    """The topic of what is known of streams: read whole, so what was overwritten goes soon."""
    config = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.bytes": str(8 * 1024 * 1024),
        "message.timestamp.type": "LogAppendTime",
    }
    return TopicSpec(name=settings.names.index_topic, partitions=1, config=config)


def app_topics(
    settings: Settings, definitions: Definitions, source_topics: Mapping[str, SourceTopic]
) -> list[TopicSpec]:
    """Every topic that workers of the app need, sources aside.

    `source_topics` is by topic name; sets whose source's topic is not in it are left out.
    """
    names = settings.names
    specs = [
        definitions_topic(settings),
        *control_topics(settings),
        index_topic(settings),
        # Kept as long as any source may be replayed: what was set aside stays set aside.
        TopicSpec(name=names.dlq_topic, partitions=1, config=_kept(FOREVER)),
        TopicSpec(
            name=names.late_topic, partitions=1, config=_kept(str(settings.topics.retention_ms))
        ),
    ]
    serving = [definitions.first(name) for name in sorted(definitions.sets)]
    for source, feature_set in _with_sources(
        definitions, (one.feature_set for one in serving if one is not None)
    ):
        topic = source_topics.get(source.topic)
        if topic is None:
            continue
        entity = feature_set.entity
        partitions = stream_partitions(settings, source, entity, topic.partitions)
        specs.append(features_topic(settings, feature_set.name, partitions))
        if needs_rekeying(source, entity):
            specs.append(stream_topic(settings, source, entity, topic))
    return list({spec.name: spec for spec in specs}.values())


def _kept(retention_ms: str) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": retention_ms, **_SETTINGS}


def _with_sources(
    definitions: Definitions, feature_sets: Iterable[FeatureSet]
) -> Iterable[tuple[Source, FeatureSet]]:
    for feature_set in feature_sets:
        yield definitions.sources[feature_set.source].source, feature_set
