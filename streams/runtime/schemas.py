"""Writers' schemas by id, looked up once for all partitions of a worker."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from streams.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.clock import Clock
    from streams.schema.registry import Registry

ASK_AGAIN_S = 30.0
"""How long the registry's word that it does not know an id holds."""

MOST_UNKNOWN = 10_000
"""So many unknown ids are kept in mind: somebody may send them at random."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

log = logging.getLogger(__name__)


class SchemaBook:
    """Schemas known so far. An unreachable registry is waited for; it decides nothing."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._known: dict[int, Mapping[str, Any]] = {}
        self._unknown: dict[int, float] = {}

    async def get(self, ids: Iterable[int]) -> dict[int, Mapping[str, Any] | None]:
        """Schemas of `ids`; None where the registry says that it does not know one."""
        return {schema_id: await self._get(schema_id) for schema_id in ids}

    async def _get(self, schema_id: int) -> Mapping[str, Any] | None:
        if schema_id in self._known:
            return self._known[schema_id]
        asked_s = self._unknown.get(schema_id)
        if asked_s is not None and self._clock.monotonic_s() - asked_s < ASK_AGAIN_S:
            return None
        found = await self._ask(schema_id)
        self._unknown.pop(schema_id, None)
        if found is None:
            self._unknown[schema_id] = self._clock.monotonic_s()
            if len(self._unknown) > MOST_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]  # the one asked for first
        else:
            self._known[schema_id] = found
        return found

    async def _ask(self, schema_id: int) -> Mapping[str, Any] | None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await asyncio.to_thread(self._registry.schema_by_id, schema_id)
            except UnreachableError as error:
                log.warning("waiting for the registry: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
