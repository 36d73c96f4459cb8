"""What the gate wants to know and only Kafka and the registry can say."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streams.control.facts import Outside, Target
from streams.definitions.expressions import check_filter
from streams.errors import InvalidInputError, RewindowError, UnreachableError
from streams.names import Names, subjects
from streams.runtime.control.needs import lacking
from streams.runtime.control.schemas import LEVEL
from streams.runtime.control.starting import Found, find_named
from streams.schema.compat import incompatibilities
from streams.schema.types import field_types, unsupported_fields

if TYPE_CHECKING:
    from streams.definitions.store import Definitions, PublishedSet
    from streams.runtime.context import Context
    from streams.runtime.control.needs import Replays
    from streams.runtime.control.published import Published
    from streams.schema.registry import Registry

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

log = logging.getLogger(__name__)


class OutsideFacts:
    """Collects an `Outside`. Who can't be reached is waited for: that decides nothing."""

    def __init__(self, context: Context, registry: Registry, replays: Replays) -> None:
        self._context = context
        self._registry = registry
        self._replays = replays

    async def collect(
        self, target: Target, published: Published, deadline_ms: int | None
    ) -> Outside:
        """All there is to know of a published target; nothing once the deadline has passed."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                named = await self._named(target, published)
                replays = await self._replays(target, published)
                return Outside(
                    schema_reasons=await self._schema(target, published),
                    exclude_reasons=exclude_reasons(target, published.definitions),
                    replays=tuple(map(named.replayed, replays)),
                    checkpoint_missing=tuple(named.missing),
                    checkpoint_unusable=tuple(named.unusable),
                )
            except (UnreachableError, TimeoutError) as error:
                log.warning("a request for %s waits: %s", target.feature_set, error)
            if deadline_ms is not None and deadline_ms <= self._context.clock.now_ms():
                return Outside()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _named(self, target: Target, published: Published) -> Found:
        """What there is of the checkpoint that a request names."""
        if target.checkpoint is None:
            return Found()
        (plan, *_), bundles = await asyncio.to_thread(lacking, target, published.definitions)
        partitions = range(published.catalog.sets[target.feature_set].partitions)
        wanted = [number for number in partitions if number not in target.partitions]
        found = await find_named(
            self._context.snapshots, target.checkpoint, plan, bundles or plan.bundles, wanted
        )
        return found if bundles else replace(found, manifests={})

    async def _schema(self, target: Target, published: Published) -> tuple[str, ...]:
        found = published.definitions.version(target.feature_set, target.version)
        if found is None:
            return ()
        names = self._context.names
        return await asyncio.to_thread(schema_reasons, names, self._registry, found)


def exclude_reasons(target: Target, definitions: Definitions) -> tuple[str, ...]:
    """Why the source's events can't be told apart as an exclusion wants it; empty if they can."""
    if target.exclude is None or target.exclude.where is None:
        return ()
    versions = definitions.sets.get(target.feature_set)
    if not versions:
        return ()
    schema = definitions.sources[versions[0].feature_set.source].schema
    try:
        check_filter(target.exclude.where, field_types(schema), unsupported_fields(schema))
    except InvalidInputError as error:
        return (str(error),)
    return ()


def schema_reasons(names: Names, registry: Registry, one: PublishedSet) -> tuple[str, ...]:
    """Why the vectors of a version may not be written; empty if they may. Blocking.

    Its schemas have to follow those that their subjects held before them, at the level that
    the subject has now. Later ones don't count: a bad one must not be in the way of what was
    there before it. Raises UnreachableError if the registry can't be asked.
    """
    topic = names.features_topic(one.feature_set.name)
    reasons: list[str] = []
    for subject, schema_id in zip(
        subjects(topic), (one.key_schema_id, one.value_schema_id), strict=True
    ):
        try:
            reasons += _subject_reasons(registry, subject, schema_id)
        except UnreachableError:
            raise
        except RewindowError as error:
            reasons.append(str(error))
    return tuple(reasons)


def _subject_reasons(registry: Registry, subject: str, schema_id: int) -> list[str]:
    level = registry.compatibility(subject) or LEVEL
    earlier: list[dict[str, Any]] = []
    for number in registry.versions(subject):
        held = registry.schema(subject, number)
        if held is None:
            continue
        if held.schema_id == schema_id:
            return [
                f"subject {subject!r} ({level}): {reason}"
                for reason in incompatibilities(held.schema, earlier, level)
            ]
        earlier.append(held.schema)
    return [
        f"subject {subject!r} no longer holds schema {schema_id}: register it again, or publish "
        "the version's content as a new one"
    ]
