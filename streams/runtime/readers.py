"""What reads the streams of a worker: an agent for each, and a service beside it.

A stream that is published while the worker runs is added. Its topic joins the subscription, so the
group assigns its partitions anew: all partitions are let go and claimed again, where they stand.
Workers may learn of a stream one after the other; until then it is assigned among those that
subscribe to it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from streams.errors import UnreachableError
from streams.runtime.idleness import IdleWatcher
from streams.runtime.rekey import RekeyStage
from streams.runtime.transport import Consumer

if TYPE_CHECKING:
    from mode import Service

    from streams.runtime.context import Context
    from streams.runtime.ownership import Ownership
    from streams.runtime.streams import Stream
    from streams.runtime.transport import Fetched

log = logging.getLogger(__name__)

IDENTITY = "rewindow-batch"
"""Name of the codec that leaves batches as they are."""


class App(faust.App):
    """The Faust app; the transport finds here what it needs of us."""

    claims: Ownership
    kafka_config: Mapping[str, Any]


class Readers:
    """Reads streams for `ownership`. `on_failure` is told of what ends the worker."""

    def __init__(
        self,
        app: App,
        context: Context,
        ownership: Ownership,
        *,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.services: list[Service] = []
        """A rekeying stage for each rekeyed stream, a watcher of its source for each other one."""
        self._app = app
        self._context = context
        self._ownership = ownership
        self._on_failure = on_failure
        self._running = self._stopped = False

    async def start(self) -> None:
        """Start the services; the agents start with the app."""
        self._running = True
        for service in list(self.services):
            await service.maybe_start()
        await self._start_agents()

    async def stop(self) -> None:
        """Stop the services; the agents stop with the app."""
        self._running, self._stopped = False, True
        for service in self.services:
            await service.stop()

    async def add(self, streams: Sequence[Stream]) -> None:
        """Read these streams, too, those that are not read yet.

        Raises UnreachableError if Kafka can't be reached: then the stream is not added.
        """
        for stream in streams:
            if self._stopped or stream.topic in self._ownership.topics:
                continue
            service = self._beside(stream)
            if self._running:
                await self._start_service(service)
            if self._stopped:
                await service.stop()
                continue
            self.services.append(service)
            self._ownership.add(stream)
            self._agent(stream)
            if self._running:
                log.info("reads stream %s, too", stream.name)
                await self._start_agents()

    async def _start_service(self, service: Service) -> None:
        try:
            await service.start()
        except BaseException as error:
            await service.stop()
            if isinstance(error, KafkaError):
                raise UnreachableError(
                    f"{service.label} could not be started: {error!r}"
                ) from error
            raise

    async def _start_agents(self) -> None:
        """Those that were added since the app has started theirs."""
        agents = cast("Any", self._app.agents)
        agents.update_topic_index()
        for agent in list(agents.values()):
            await agent.maybe_start()

    def remind(self) -> None:
        """Have topics subscribed to that are not: Faust drops a change while partitions move."""
        conductor = cast("Any", self._app.topics)
        known = conductor._topic_name_index
        if known and not all(topic in known for topic in self._ownership.topics):
            conductor._flag_changes()

    def _agent(self, stream: Stream) -> None:
        ownership = self._ownership
        topic = self._app.topic(
            stream.topic,
            key_serializer="raw",
            value_serializer=IDENTITY,
            acks=False,
            internal=False,
        )

        async def features(batches: faust.StreamT[Any]) -> AsyncIterator[None]:
            async for event in batches.events():
                fetched: Fetched = event.message.value
                tp = event.message.tp
                await ownership.take(TP(tp.topic, tp.partition), fetched)
                yield

        self._app.agent(topic, name=f"features.{stream.name}")(features)

    def _beside(self, stream: Stream) -> Service:
        """What has to run beside a stream's agent."""
        if stream.rekeyed:
            return RekeyStage(self._context, stream, on_failure=self._on_failure)
        topic, ownership = stream.topic, self._ownership

        async def fetch_position(partition: int) -> int | None:
            tp = TP(topic, partition)
            owner = ownership.owner(tp)
            if owner is None:
                return None
            return await cast(Consumer, self._app.consumer).fetch_position(tp, owner.position)

        return IdleWatcher(
            self._context,
            stream.published.source,
            partitions=stream.partitions,
            group=self._context.names.worker_group,
            owners=partial(ownership.owners, topic),
            fetch_position=fetch_position,
            on_error=ownership.failed,
        )
