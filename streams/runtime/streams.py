"""What a worker runs, worked out from the published definitions: streams, and sets on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.definitions.plan import Plan, plan
from streams.definitions.topics import SourceTopic, stream_partitions
from streams.errors import RewindowError
from streams.schema.encode import VectorEncoder
from streams.schema.output import output_schemas
from streams.schema.types import field_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from streams.config import Settings
    from streams.definitions.store import Definitions, PublishedSet, PublishedSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOutput:
    """Where a set's vectors go, and how they are written."""

    topic: str
    version: str
    digest: str
    epoch: int
    encoder: VectorEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream and the sets that read it; `source_partitions` is 0 where it is not rekeyed."""

    name: str
    topic: str
    partitions: int
    source_partitions: int
    published: PublishedSource
    fields: Mapping[str, pl.DataType]
    entity: Mapping[str, pl.DataType]
    plans: tuple[Plan, ...]
    outputs: Mapping[str, SetOutput]

    @property
    def rekeyed(self) -> bool:
        return self.source_partitions > 0


def streams_of(
    settings: Settings, definitions: Definitions, topics: Mapping[str, SourceTopic]
) -> list[Stream]:
    """The streams of all serving versions; `topics` are the sources' topics by name.

    Raises `RewindowError` if a source's topic does not exist.
    """
    found: dict[str, list[tuple[PublishedSource, PublishedSet, Plan]]] = {}
    for name in sorted(definitions.sets):
        serving = definitions.serving(name)
        if serving is None:
            continue
        published = definitions.sources[serving.feature_set.source]
        fields = field_types(published.schema)
        planned = plan(serving.feature_set, published.source, fields)
        found.setdefault(planned.stream, []).append((published, serving, planned))
    return [_stream(settings, name, rows, topics) for name, rows in found.items()]


def _stream(
    settings: Settings,
    name: str,
    rows: list[tuple[PublishedSource, PublishedSet, Plan]],
    topics: Mapping[str, SourceTopic],
) -> Stream:
    published, _, first = rows[0]
    source = published.source
    topic = topics.get(source.topic)
    if topic is None:
        raise RewindowError(
            f"topic {source.topic} of source {source.name} does not exist: create it, or let "
            "its producer do so, and start the worker again"
        )
    entity = tuple(first.view.entity)
    return Stream(
        name=name,
        topic=settings.names.stream_topic(source.name, entity) if first.rekeyed else source.topic,
        partitions=stream_partitions(settings, source, entity, topic.partitions),
        source_partitions=topic.partitions if first.rekeyed else 0,
        published=published,
        fields=field_types(published.schema),
        entity=first.view.entity,
        plans=tuple(planned for _, _, planned in rows),
        outputs={
            planned.view.feature_set: _output(settings, serving, planned)
            for _, serving, planned in rows
        },
    )


def _output(settings: Settings, serving: PublishedSet, planned: Plan) -> SetOutput:
    view = planned.view
    topic = settings.names.features_topic(view.feature_set)
    schemas = output_schemas(
        feature_set=view.feature_set,
        topic=topic,
        entity=view.entity,
        features={feature.name: feature.dtype for feature in view.features},
        app=settings.app,
    )
    return SetOutput(
        topic=topic,
        version=view.version,
        digest=serving.digest,
        epoch=0,
        encoder=VectorEncoder(schemas, serving.key_schema_id, serving.value_schema_id),
    )
