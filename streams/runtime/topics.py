"""The topics of an app beside what Kafka has: looked at, and made where they are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.definitions.topics import SourceTopic, app_topics
from streams.kafka import Admin, ensure_topics

if TYPE_CHECKING:
    from streams.definitions.store import Definitions
    from streams.settings import Settings


def prepare_topics(settings: Settings, definitions: Definitions) -> dict[str, SourceTopic]:
    """Make the app's topics, as far as their sources' exist; these, by name. Blocking.

    Raises RewindowError for a topic that may not be made or is not as it has to be, and
    UnreachableError.
    """
    admin = Admin(settings)
    existing = admin.partitions()
    topics = {}
    for published in definitions.sources.values():
        topic = published.source.topic
        if topic in existing:
            retention_ms = admin.config(topic).get("retention.ms", "-1")
            topics[topic] = SourceTopic(partitions=existing[topic], retention_ms=retention_ms)
    ensure_topics(settings, app_topics(settings, definitions, topics))
    return topics
