"""What a version needs before it may be pinned: a topic of its own, and that one's schemas."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from streams.control.facts import Outside
from streams.control.set_record import Pin
from streams.definitions.outputs import make_pinned_topic
from streams.errors import RewindowError, UnreachableError
from streams.runtime.control.outside import FIRST_PAUSE_S, LONGEST_PAUSE_S

if TYPE_CHECKING:
    from streams.control.facts import Target
    from streams.runtime.context import Context
    from streams.runtime.control.published import Published
    from streams.schema.registry import Registry

log = logging.getLogger(__name__)


class PinTopics:
    """Makes the topics of versions that are about to be pinned."""

    def __init__(self, context: Context, registry: Registry) -> None:
        self._context = context
        self._registry = registry

    async def make(self, target: Target, published: Published, deadline_ms: int | None) -> Outside:
        """The schemas of the topic, or why it must not be written.

        Who can't be reached is waited for; neither is known once the deadline has passed.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return Outside(pin=await asyncio.to_thread(self._make, target, published))
            except (UnreachableError, TimeoutError) as error:
                log.warning("a request for %s waits: %s", target.feature_set, error)
            except RewindowError as error:
                return Outside(schema_reasons=(str(error),))
            if deadline_ms is not None and deadline_ms <= self._context.clock.now_ms():
                return Outside()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _make(self, target: Target, published: Published) -> Pin:
        definitions = published.definitions
        one = definitions.version(target.feature_set, target.version)
        assert one is not None, "the gate has found it"
        ids = make_pinned_topic(
            self._context.settings,
            self._registry,
            definitions.sources[one.feature_set.source],
            one,
            published.catalog.sets[target.feature_set].partitions,
        )
        return Pin(version=target.version, key_schema_id=ids.key, value_schema_id=ids.value)
