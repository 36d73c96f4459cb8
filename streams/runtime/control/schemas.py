"""The control topics' schemas in the registry: one subject for each topic's values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.control.codec import SCHEMAS, Kind
from streams.names import subjects

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.names import Names
    from streams.schema.registry import Registry

LEVEL = "FULL_TRANSITIVE"
"""Workers of different versions read what the others wrote, and so do users' tools."""


def topic_of(names: Names, kind: Kind) -> str:
    """The topic that holds values of a kind."""
    return {
        Kind.REQUEST: names.rollback_topic,
        Kind.REPLY: names.replies_topic,
        Kind.CONTROL: names.control_topic,
        Kind.ACK: names.acks_topic,
        Kind.AUDIT: names.audit_topic,
    }[kind]


def register_schemas(
    names: Names, registry: Registry, kinds: Iterable[Kind] = tuple(Kind)
) -> Mapping[Kind, int]:
    """Ids of the schemas of these kinds, registered where they are new; blocking.

    Raises RefusedError if one may not follow those that a newer rewindow registered, and
    UnreachableError if the registry can't be asked.
    """
    ids = {}
    for kind in kinds:
        _, subject = subjects(topic_of(names, kind))
        ids[kind] = registry.register(subject, SCHEMAS[kind])
        # After the first schema: a registry may refuse a level for a subject without any.
        if registry.compatibility(subject) != LEVEL:
            registry.set_compatibility(subject, LEVEL)
    return ids
