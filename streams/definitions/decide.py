"""Whether definitions may be published: facts in, a decision out, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from streams.definitions.differ import differences
from streams.definitions.digest import digest, fixed_part
from streams.definitions.expressions import check_expression, check_filter
from streams.definitions.load import Loaded, record_key
from streams.definitions.problems import Origin, Problem
from streams.definitions.store import Definitions, PublishedSet, PublishedSource
from streams.definitions.validate import check_feature_set, check_source_fields, output_dtypes
from streams.errors import InvalidInputError
from streams.schema.types import field_types, unsupported_fields
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl

    from streams.definitions.model import FeatureSet, Source


class Change(StrEnum):
    """What publishing does to one definition."""

    PUBLISHED = "published"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestSchema:
    """The newest schema of a source's subject."""

    schema: Mapping[str, Any]
    schema_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChange:
    """A source to write, or not. Only `change` says whether."""

    change: Change
    published: PublishedSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SetChange:
    """A version to write, or not, with the types of its entity and of what it puts out.

    `before` is the same version as it is published, None if it is new.
    """

    change: Change
    feature_set: FeatureSet
    source: Source
    digest: str
    order: int
    serves: bool
    entity: Mapping[str, pl.DataType]
    outputs: Mapping[str, pl.DataType]
    before: PublishedSet | None = None


@dataclass(slots=True, kw_only=True)
class Decision:
    """`invalid` and `refused` are messages; nothing may be written unless both are empty.

    `refusals` are the refused ones by record key: `source/NAME`, `set/NAME@VERSION`.
    """

    sources: list[SourceChange] = field(default_factory=list)
    sets: list[SetChange] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    refusals: dict[str, list[str]] = field(default_factory=dict)

    @property
    def refused(self) -> list[str]:
        return [message for messages in self.refusals.values() for message in messages]

    def refuse(self, key: str, *messages: str) -> None:
        """Note why the definition with that record key may not be published."""
        if messages:
            self.refusals.setdefault(key, []).extend(messages)


def decide(
    loaded: Loaded,
    published: Definitions,
    latest: Mapping[str, LatestSchema],
    left_out: Mapping[str, Sequence[str]],
) -> Decision:
    """What becomes of `loaded` after `published`. `latest` is by subject.

    It has every subject of a source in `loaded` or read by a set in `loaded`. `left_out` are SQL
    conditions of events that published sets leave out, by set: they go on holding.
    """
    return _Decider(loaded, published, latest, left_out).decide()


class _Decider:
    def __init__(
        self,
        loaded: Loaded,
        published: Definitions,
        latest: Mapping[str, LatestSchema],
        left_out: Mapping[str, Sequence[str]],
    ) -> None:
        self._loaded = loaded
        self._published = published
        self._latest = latest
        self._left_out = left_out
        self._next_order = published.next_order
        self._sources: dict[str, SourceChange] = {}
        self._decision = Decision()

    def decide(self) -> Decision:
        for source in self._loaded.sources:
            self._source(source)
        serving = set(self._published.sets)
        for feature_set in self._loaded.feature_sets:
            self._set(feature_set, serving)
        self._decision.sources = list(self._sources.values())
        return self._decision

    def _origin(self, definition: Source | FeatureSet) -> Origin:
        return self._loaded.origins[record_key(definition)]

    def _invalid(self, definition: Source | FeatureSet, *problems: Problem) -> None:
        origin = self._origin(definition)
        self._decision.invalid.extend(origin.describe(problem) for problem in problems)

    def _refuse(self, definition: Source | FeatureSet, key: str, message: str) -> None:
        problem = Problem(path=(key,), message=message)
        described = self._origin(definition).describe(problem)
        self._decision.refuse(record_key(definition), described)

    def _take_order(self) -> int:
        self._next_order += 1
        return self._next_order - 1

    def _source(self, source: Source) -> None:
        before = self._published.sources.get(source.name)
        if before is None:
            latest = self._latest[source.schema]
            fields, unsupported = _fields(latest.schema)
            self._invalid(source, *check_source_fields(source, fields, unsupported))
            self._check_topic(source)
            self._sources[source.name] = SourceChange(
                change=Change.PUBLISHED,
                published=PublishedSource(
                    source=source,
                    schema=latest.schema,
                    schema_id=latest.schema_id,
                    order=self._take_order(),
                ),
            )
            return
        was, now = fixed_part(before.source), fixed_part(source)
        for key in sorted(was):
            if was[key] != now[key]:
                self._refuse(
                    source,
                    key.removesuffix("_ms"),
                    f"can't change under the name {source.name!r} (published: {was[key]}): "
                    "give the source another name",
                )
        change = Change.UNCHANGED if before.source == source else Change.UPDATED
        self._sources[source.name] = SourceChange(
            change=change, published=replace(before, source=source)
        )

    def _check_topic(self, source: Source) -> None:
        """A topic is one stream, with one event time and one position in each partition."""
        known = {name: one.source for name, one in self._published.sources.items()}
        known |= {name: one.published.source for name, one in self._sources.items()}
        for other in known.values():
            if other.topic == source.topic:
                self._refuse(
                    source,
                    "topic",
                    f"{source.topic!r} is what source {other.name!r} reads: use that one, or "
                    "publish this as another app",
                )

    def _set(self, feature_set: FeatureSet, serving: set[str]) -> None:
        source = self._source_of(feature_set)
        if source is None:
            return
        before = self._published.version(feature_set.name, feature_set.version)
        if before is None:
            self._follow_schema(feature_set)
            source = self._sources[feature_set.source].published
        fields, unsupported = _fields(source.schema)
        problems = check_feature_set(feature_set, source.source, fields, unsupported)
        if problems:
            self._invalid(feature_set, *problems)
            return
        value = digest(feature_set, source.source)
        change = Change.PUBLISHED
        if before is not None:
            change = Change.UNCHANGED if before.feature_set == feature_set else Change.UPDATED
            if before.digest != value:
                parts = differences(before.feature_set, feature_set).parts
                self._refuse(
                    feature_set,
                    "version",
                    f"{feature_set.version} of {feature_set.name} is published with other content "
                    f"({', '.join(parts) or 'its source'}): give this a new version",
                )
        self._check_same_base(feature_set)
        first = self._published.first(feature_set.name)
        serves = (
            first.feature_set.version == feature_set.version
            if first is not None
            else feature_set.name not in serving
        )
        serving.add(feature_set.name)
        self._decision.sets.append(
            SetChange(
                change=change,
                feature_set=feature_set,
                source=source.source,
                digest=value,
                order=self._take_order() if before is None else before.order,
                serves=serves,
                entity={name: fields[name] for name in feature_set.entity},
                outputs=output_dtypes(feature_set, fields),
                before=before,
            )
        )

    def _source_of(self, feature_set: FeatureSet) -> PublishedSource | None:
        name = feature_set.source
        if name in self._sources:
            return self._sources[name].published
        if name in self._published.sources:
            published = self._published.sources[name]
            self._sources[name] = SourceChange(change=Change.UNCHANGED, published=published)
            return published
        sets = {one.name for one in self._loaded.feature_sets} | set(self._published.sets)
        if name in sets:
            message = f"{name!r} is a feature set: one can't be another's source yet"
        else:
            hint = did_you_mean(name, {*self._sources, *self._published.sources})
            message = f"unknown source {name!r}: {hint}; publish its file together with this one"
        self._invalid(feature_set, Problem(path=("source",), message=message))
        return None

    def _check_same_base(self, feature_set: FeatureSet) -> None:
        """Source and entity stay the same over a set's versions, those of this run included."""
        others = [one.feature_set for one in self._published.sets.get(feature_set.name, ())]
        others += [
            one.feature_set
            for one in self._decision.sets
            if one.feature_set.name == feature_set.name
        ]
        for other in others[:1]:
            for key in ("source", "entity"):
                was, now = getattr(other, key), getattr(feature_set, key)
                if was != now:
                    shown = was if isinstance(was, str) else f"[{', '.join(was)}]"
                    self._refuse(
                        feature_set,
                        key,
                        f"stays the same over a set's versions, and {other.version} has {shown}: "
                        "give the set another name",
                    )

    def _follow_schema(self, feature_set: FeatureSet) -> None:
        """Let the source take its subject's newest schema, which a new version may need."""
        current = self._sources[feature_set.source]
        latest = self._latest[current.published.source.schema]
        if latest.schema_id == current.published.schema_id:
            return
        broken = list(self._broken_by(latest, current.published))
        if broken:
            self._decision.refuse(record_key(feature_set), *broken)
            return
        change = Change.UPDATED if current.change is Change.UNCHANGED else current.change
        self._sources[feature_set.source] = SourceChange(
            change=change,
            published=replace(current.published, schema=latest.schema, schema_id=latest.schema_id),
        )

    def _broken_by(self, latest: LatestSchema, source: PublishedSource) -> Iterator[str]:
        """What the newest schema would change for versions that are published."""
        was, _ = _fields(source.schema)
        now, unsupported = _fields(latest.schema)
        title = f"the newest schema of {source.source.schema!r}"
        for problem in check_source_fields(source.source, now, unsupported):
            yield f"{title} does not fit source {source.source.name!r}: {problem}"
        for versions in self._published.sets.values():
            for one in versions:
                feature_set = one.feature_set
                if feature_set.source != source.source.name:
                    continue
                name = f"{feature_set.name}@{feature_set.version}"
                problems = check_feature_set(feature_set, source.source, now, unsupported)
                if problems:
                    yield f"{title} does not fit {name}: {problems[0]}"
                elif _types(feature_set, was) != _types(feature_set, now):
                    yield f"{title} changes types that {name} reads: bring the types back"
        for name, conditions in self._left_out.items():
            first = self._published.first(name)
            if first is None or first.feature_set.source != source.source.name:
                continue
            for sql in conditions:
                try:
                    check_filter(sql, now, unsupported)
                except InvalidInputError as error:
                    yield f"{title} does not fit what {name} leaves out ({sql}): {error}"


def _types(feature_set: FeatureSet, fields: Mapping[str, pl.DataType]) -> list[pl.DataType]:
    """Types of the entity and of every expression of a set."""
    sql = [one.expression for one in feature_set.features if one.expression is not None]
    return [
        *(fields[name] for name in feature_set.entity),
        *(check_expression(expression, fields).dtype for expression in sql),
    ]


def _fields(schema: Mapping[str, Any]) -> tuple[dict[str, pl.DataType], dict[str, str]]:
    return field_types(schema), unsupported_fields(schema)
