"""What a worker runs, worked out from the published definitions: streams, and sets on them."""

from __future__ import annotations

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

    from streams.definitions.exclusions import Exclusion
    from streams.definitions.model import Source
    from streams.definitions.store import Definitions, PublishedSet, PublishedSource
    from streams.settings import Settings


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
    """The streams of an app.

    Versions, sets and streams are added as they are published, and what versions are where events
    are left out as that is decided. A stream waits for its source's topic to exist.
    """

    def __init__(
        self, settings: Settings, definitions: Definitions, topics: Mapping[str, SourceTopic]
    ) -> None:
        """`topics` are the sources' topics by name. Raises `RewindowError` if all are missing."""
        self.waiting: Mapping[str, Source] = {}
        """Streams that can't be read yet, with the source whose topic each one waits for."""
        self._settings = settings
        self._definitions = definitions
        self._exclusions: dict[tuple[str, int], tuple[Exclusion, ...]] = {}
        """By set and number of an exclusion: it, and those before it."""
        self._streams: dict[str, Stream] = {}
        self._renew(topics)
        for source in () if self._streams else self.waiting.values():
            raise RewindowError(f"{missing(source)}, and start the worker again")

    @property
    def streams(self) -> list[Stream]:
        """Those that can be read by now."""
        return list(self._streams.values())

    def stream(self, topic: str) -> Stream:
        """The stream as it is now; who keeps it sees new versions, and its fields as they were."""
        return self._streams[topic]

    @property
    def definitions(self) -> Definitions:
        """All that is in the book."""
        return self._definitions

    @property
    def definitions_offset(self) -> int:
        """All definitions below it are in the book."""
        return self._definitions.next_offset

    def take(self, definitions: Definitions) -> None:
        """Add what has been published since; a new stream waits for its `found`."""
        if definitions.next_offset >= self.definitions_offset:
            self._definitions = definitions
            self._renew()

    def found(self, topics: Mapping[str, SourceTopic]) -> None:
        """These topics of sources exist by now, and what is made for them: streams that wait for
        them can be read."""
        self._renew(topics)

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

    def _renew(self, found: Mapping[str, SourceTopic] | None = None) -> None:
        definitions = self._definitions
        known = _versions(self._settings, definitions)
        for (name, _), exclusions in self._exclusions.items():
            if name in known:
                cleaned = _without(definitions, name, exclusions, known[name])
                known[name] = {**known[name], **cleaned}
        by_stream = _by_stream(known)
        here = {stream.name for stream in self._streams.values()}
        waiting: dict[str, Source] = {}
        for name in sorted(by_stream.keys() - here):
            plan = _any_plan(by_stream[name])
            there = None if found is None else found.get(plan.source.topic)
            if there is None:
                waiting[name] = plan.source
            else:
                made = self._stream(name, by_stream[name], plan, there)
                self._streams[made.topic] = made
        self.waiting = waiting
        for topic, stream in self._streams.items():
            stream.sets.update(by_stream[stream.name])
            published = definitions.sources[stream.published.source.name]
            self._streams[topic] = replace(
                stream, published=published, fields=field_types(published.schema)
            )

    def _stream(
        self, name: str, sets: dict[str, Mapping[str, Version]], plan: Plan, topic: SourceTopic
    ) -> Stream:
        settings, published = self._settings, self._definitions.sources[plan.source.name]
        source, entity = published.source, tuple(plan.view.entity)
        rekeyed = plan.rekeyed
        return Stream(
            name=name,
            topic=settings.names.stream_topic(source.name, entity) if rekeyed else source.topic,
            partitions=stream_partitions(settings, source, entity, topic.partitions),
            source_partitions=topic.partitions if rekeyed else 0,
            published=published,
            fields=field_types(published.schema),
            entity=plan.view.entity,
            sets=sets,
        )


def missing(source: Source) -> str:
    """What to do about a source's topic that is not there."""
    return (
        f"topic {source.topic} of source {source.name} does not exist: create it, or let its "
        "producer do so"
    )


def _any_plan(sets: Mapping[str, Mapping[str, Version]]) -> Plan:
    return next(version.plan for versions in sets.values() for version in versions.values())


def _versions(settings: Settings, definitions: Definitions) -> dict[str, Mapping[str, Version]]:
    """All published versions by set, in order of publication."""
    return {
        name: {
            one.feature_set.version: Version(plan=plan, output=_output(settings, one, plan))
            for one, plan in zip(definitions.sets[name], _plans(definitions, name, ()), strict=True)
        }
        for name in sorted(definitions.sets)
    }


def _by_stream(
    versions: Mapping[str, Mapping[str, Version]],
) -> dict[str, dict[str, Mapping[str, Version]]]:
    """The sets of each stream, by its name."""
    found: dict[str, dict[str, Mapping[str, Version]]] = {}
    for name, one in versions.items():
        found.setdefault(_any_plan({name: one}).stream, {})[name] = one
    return found


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
