"""The topic of a pinned version: its schemas in the registry, and the topic itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.definitions.topics import pinned_topic
from streams.definitions.validate import output_dtypes
from streams.errors import RefusedError
from streams.kafka import ensure_topics
from streams.names import subjects
from streams.schema.output import output_schemas, owner
from streams.schema.types import field_types

if TYPE_CHECKING:
    from streams.definitions.store import PublishedSet, PublishedSource
    from streams.schema.registry import Registry
    from streams.settings import Settings

LEVEL = "FULL_TRANSITIVE"
"""What the schemas of vectors have to be to each other, whatever else their registry asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaIds:
    """How the vectors of a topic are written."""

    key: int
    value: int


def not_ours(settings: Settings, registry: Registry, topic: str) -> str | None:
    """Why a topic of vectors is not this app's to write; None if it may be.

    Raises as the registry does.
    """
    value_subject = subjects(topic)[1]
    held = registry.schema(value_subject, "latest")
    owned_by = settings.app if held is None else owner(held.schema)
    if owned_by == settings.app:
        return None
    whose = f"belongs to app {owned_by!r}" if owned_by else "was not made by rewindow"
    return f"topic {topic} {whose} (subject {value_subject!r})"


def make_pinned_topic(
    settings: Settings,
    registry: Registry,
    source: PublishedSource,
    one: PublishedSet,
    partitions: int,
) -> SchemaIds:
    """Have the topic of a pinned version, with the schemas registered; can be done again.

    `partitions` is the number of the set's stream. Raises RefusedError with all reasons why it
    must not be written, UnreachableError.
    """
    name, version = one.feature_set.name, one.feature_set.version
    fields = field_types(source.schema)
    topic = settings.names.pinned_topic(name, version)
    made = output_schemas(
        feature_set=name,
        topic=topic,
        entity={field: fields[field] for field in one.feature_set.entity},
        features=output_dtypes(one.feature_set, fields),
        app=settings.app,
    )
    whose = not_ours(settings, registry, topic)
    if whose is not None:
        raise RefusedError(f"{whose}: set another `topics.prefix`, or pin it in that app")
    both = tuple(zip(subjects(topic), (made.key, made.value), strict=True))
    reasons = [
        f"subject {subject!r} ({LEVEL}): {reason}"
        for subject, schema in both
        for reason in registry.check(subject, schema, LEVEL)
    ]
    if reasons:
        raise RefusedError("\n".join(reasons))
    ids = []
    for subject, schema in both:
        ids.append(registry.register(subject, schema))
        # After the first schema: a registry may refuse a level for a subject without any.
        if registry.compatibility(subject) != LEVEL:
            registry.set_compatibility(subject, LEVEL)
    ensure_topics(settings, [pinned_topic(settings, name, version, partitions)])
    return SchemaIds(key=ids[0], value=ids[1])
