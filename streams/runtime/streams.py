"""What a worker runs, worked out from the published definitions: streams, and sets on them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streams.definitions.plan import Plan, View, plan_versions
from streams.definitions.topics import SourceTopic, stream_partitions
from streams.errors import RewindowError
from streams.schema.encode import VectorEncoder
from streams.schema.output import output_schemas
from streams.schema.types import field_types

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from streams.config import Settings
    from streams.definitions.exclusions import Exclusion
    from streams.definitions.store import Definitions, PublishedSet, PublishedSource


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOutput:
    """Where a version's vectors go, and how they are written; `entity` are its key's fields."""

    topic: str
    entity: Mapping[str, pl.DataType]
    version: str
    digest: str
    encoder: VectorEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A published version of a set on its stream."""

    plan: Plan
    output: SetOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream and the sets that read it; `source_partitions` is 0 where it is not rekeyed.

    `sets` maps a set to its versions, by name and in order of publication, and after them to
    what they are where events are left out, by `streams.names.variant`. Versions and sets are
    added to it as they are published, and as exclusions are decided, see `StreamBook`.
    """

    name: str
    topic: str
    partitions: int
    source_partitions: int
    published: PublishedSource
    fields: Mapping[str, pl.DataType]
    entity: Mapping[str, pl.DataType]
    sets: dict[str, Mapping[str, Version]]

    @property
    def rekeyed(self) -> bool:
        return self.source_partitions > 0

    @property
    def views(self) -> list[View]:
        """The views of all versions."""
        return [one.plan.view for versions in self.sets.values() for one in versions.values()]

    def version(self, feature_set: str, version: str) -> Version:
        """What goes by the name `version`.

        Raises `LookupError` for one that is not published, as far as is known here.
        """
        try:
            return self.sets[feature_set][version]
        except KeyError:
            raise LookupError(f"{feature_set}@{version} is not published") from None

    def first(self, feature_set: str) -> str:
        """The version of a set that was published first."""
        return next(iter(self.sets[feature_set]))


class StreamBook:
    """The streams of an app, as they were published when the worker started.

    New versions and new sets of these streams are added as they are published, and what they are
    where events are left out as that is decided; sets of other streams wait for a start.
    """

    def __init__(
        self, settings: Settings, definitions: Definitions, topics: Mapping[str, SourceTopic]
    ) -> None:
        """`topics` are the sources' topics by name. Raises `RewindowError` if one is missing."""
        self._settings = settings
        self._definitions = definitions
        self._exclusions: dict[tuple[str, int], tuple[Exclusion, ...]] = {}
        """By set and number of an exclusion: it, and those before it."""
        versions = _versions(settings, definitions)
        by_stream: dict[str, list[str]] = {}
        for name in versions:
            stream = next(iter(versions[name].values())).plan.stream
            by_stream.setdefault(stream, []).append(name)
        made = (
            _stream(settings, name, definitions, {one: versions[one] for one in sets}, topics)
            for name, sets in by_stream.items()
        )
        self._streams = {stream.topic: stream for stream in made}
        self._left_out: set[str] = set()

    @property
    def streams(self) -> list[Stream]:
        return list(self._streams.values())

    def stream(self, topic: str) -> Stream:
        """The stream as it is now; who keeps it sees new versions, and its fields as they were."""
        return self._streams[topic]

    @property
    def definitions_offset(self) -> int:
        """All definitions below it are in the book."""
        return self._definitions.next_offset

    def take(self, definitions: Definitions) -> None:
        """Add what has been published since; sets of other streams are left out, and told."""
        if definitions.next_offset >= self.definitions_offset:
            self._definitions = definitions
            self._renew()

    def exclude(self, exclusions: Mapping[str, Sequence[Exclusion]]) -> None:
        """Add what versions are where events are left out; `exclusions` are by set.

        What is known stays known, whatever becomes of an exclusion: its number is its own.
        """
        news = {
            (name, them[at].number): tuple(them[: at + 1])
            for name, them in exclusions.items()
            for at in range(len(them))
            if (name, them[at].number) not in self._exclusions
        }
        if news:
            self._exclusions |= news
            self._renew()

    def _renew(self) -> None:
        definitions = self._definitions
        known = _versions(self._settings, definitions)
        for (name, _), exclusions in self._exclusions.items():
            if name in known:
                cleaned = _without(definitions, name, exclusions, known[name])
                known[name] = {**known[name], **cleaned}
        streams = {name: next(iter(known[name].values())).plan.stream for name in known}
        here = {stream.name for stream in self._streams.values()}
        for name in sorted(known.keys() - self._left_out):
            if streams[name] not in here:
                self._left_out.add(name)
                log.warning(
                    "set %s reads stream %s, which no set has read when this worker started: "
                    "start the workers again to serve it",
                    name,
                    streams[name],
                )
        for topic, stream in self._streams.items():
            stream.sets.update(
                {name: one for name, one in known.items() if streams[name] == stream.name}
            )
            published = definitions.sources[stream.published.source.name]
            self._streams[topic] = replace(
                stream, published=published, fields=field_types(published.schema)
            )


def _versions(settings: Settings, definitions: Definitions) -> dict[str, Mapping[str, Version]]:
    """All published versions by set, in order of publication."""
    return {
        name: {
            one.feature_set.version: Version(plan=plan, output=_output(settings, one, plan))
            for one, plan in zip(definitions.sets[name], _plans(definitions, name, ()), strict=True)
        }
        for name in sorted(definitions.sets)
    }


def _without(
    definitions: Definitions,
    name: str,
    exclusions: Sequence[Exclusion],
    versions: Mapping[str, Version],
) -> dict[str, Version]:
    """The versions of a set without the events of `exclusions`, by what they go by then."""
    plans = _plans(definitions, name, exclusions)
    return {
        plan.view.name: Version(plan=plan, output=versions[plan.view.version].output)
        for plan in plans
    }


def _plans(
    definitions: Definitions, name: str, exclusions: Sequence[Exclusion]
) -> tuple[Plan, ...]:
    versions = definitions.sets[name]
    source = definitions.sources[versions[0].feature_set.source]
    return plan_versions(
        [one.feature_set for one in versions],
        source.source,
        field_types(source.schema),
        exclusions,
    )


def _stream(
    settings: Settings,
    name: str,
    definitions: Definitions,
    sets: dict[str, Mapping[str, Version]],
    topics: Mapping[str, SourceTopic],
) -> Stream:
    first = next(version.plan for versions in sets.values() for version in versions.values())
    published = definitions.sources[first.source.name]
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
        sets=sets,
    )


def _output(settings: Settings, serving: PublishedSet, planned: Plan) -> SetOutput:
    return vector_output(
        planned.view,
        app=settings.app,
        topic=settings.names.features_topic(planned.view.feature_set),
        digest=serving.digest,
        ids=(serving.key_schema_id, serving.value_schema_id),
    )


def vector_output(
    view: View, *, app: str, topic: str, digest: str, ids: tuple[int, int]
) -> SetOutput:
    """The vectors of a version on a topic; `ids` are those of key and value schema there."""
    schemas = output_schemas(
        feature_set=view.feature_set,
        topic=topic,
        entity=view.entity,
        features={feature.name: feature.dtype for feature in view.features},
        app=app,
    )
    return SetOutput(
        topic=topic,
        entity=view.entity,
        version=view.version,
        digest=digest,
        encoder=VectorEncoder(schemas, *ids),
    )
