"""What is published, as the coordinator needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.control.facts import Catalog, PublishedSet, PublishedVersion
from streams.definitions.plan import needs_rekeying
from streams.definitions.store import Definitions, read_definitions
from streams.definitions.validate import output_dtypes
from streams.kafka import Admin
from streams.names import stream_name
from streams.runtime.topics import prepare_topics
from streams.schema.types import field_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from streams.definitions.model import FeatureSet
    from streams.names import Names
    from streams.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The definitions, and the catalog that they make with the topics that there are."""

    definitions: Definitions
    catalog: Catalog

    @property
    def complete(self) -> bool:
        """Whether every set's stream has its topic."""
        return all(one.partitions for one in self.catalog.sets.values())


def read_published(settings: Settings) -> Published:
    """Read the definitions topic to its end, and look at the topics; blocking.

    Raises as `read_definitions` does.
    """
    definitions = read_definitions(settings)
    topics = Admin(settings).partitions() if definitions.sets else {}
    catalog = catalog_of(settings.names, definitions, topics)
    return Published(definitions=definitions, catalog=catalog)


def with_topics(settings: Settings, published: Published) -> Published:
    """The same once the streams that can have a topic have one; blocking. Raises RewindowError."""
    prepare_topics(settings, published.definitions)
    topics = Admin(settings).partitions()
    catalog = catalog_of(settings.names, published.definitions, topics)
    return Published(definitions=published.definitions, catalog=catalog)


def catalog_of(names: Names, definitions: Definitions, topics: Mapping[str, int]) -> Catalog:
    """The catalog; `topics` are the topics that exist, with their numbers of partitions."""
    sets = {}
    for name, versions in definitions.sets.items():
        first = versions[0].feature_set
        published = definitions.sources[first.source]
        source, fields = published.source, field_types(published.schema)
        rekeyed = needs_rekeying(source, first.entity)
        topic = names.stream_topic(source.name, first.entity) if rekeyed else source.topic
        sets[name] = PublishedSet(
            stream=stream_name(source.name, first.entity) if rekeyed else source.name,
            topic=topic,
            partitions=topics.get(topic, 0),
            source_partitions=topics.get(source.topic, 0),
            versions=tuple(
                PublishedVersion(
                    version=one.feature_set.version,
                    features=_types(one.feature_set, fields),
                    every_ms=one.feature_set.every_ms,
                )
                for one in versions
            ),
        )
    return Catalog(sets=sets, definitions_offset=definitions.next_offset)


def _types(one: FeatureSet, fields: Mapping[str, pl.DataType]) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in output_dtypes(one, fields).items()}
