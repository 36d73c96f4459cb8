"""Runs the coordinator: in every worker, at work in the one that has the rollback topic.

Workers are a consumer group of its own over the rollback topic's only partition, so that one
of them coordinates, and another one takes over when it goes away; see coordination.py.
"""

from __future__ import annotations

from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from mode import Service

from streams.runtime.control.coordination import Coordination, Parts
from streams.runtime.membership import CHECK_S, leave_group, member_config, membership_error


class CoordinatorService(Service):
    """A member of the coordinators' group.

    Needs the topics of `control_topics`. `on_failure` is told, once, of what an operator has to
    mend. Starting raises aiokafka's errors if Kafka can't be reached.
    """

    abstract = False

    def __init__(self, parts: Parts, *, on_failure: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._parts = parts
        self._on_failure = on_failure
        self._group = parts.context.names.coordinator_group
        self._consumer: AIOKafkaConsumer | None = None
        self._coordination: Coordination | None = None

    @property
    def coordinates(self) -> bool:
        """Whether the rollback topic's partition is assigned here."""
        return self._coordination is not None

    async def on_start(self) -> None:
        """Join the group."""
        context = self._parts.context
        consumer = self._consumer = AIOKafkaConsumer(
            **member_config(context, self._group, "coordinator")
        )
        consumer.subscribe([context.names.rollback_topic], listener=_Listener(self))
        await consumer.start()

    async def on_stop(self) -> None:
        """Finish the decision in hand, and leave the group at once."""
        await self.release()
        if self._consumer is not None:
            await leave_group(self._consumer)

    async def release(self) -> None:
        """Stop coordinating."""
        coordination, self._coordination = self._coordination, None
        if coordination is not None:
            await coordination.stop()

    async def take(self) -> None:
        """Coordinate from now on, with a claim of one's own."""
        await self.release()
        if self._consumer is None or self.should_stop:
            return
        self._coordination = Coordination(self._parts, self._consumer, on_failure=self._on_failure)
        self._coordination.start()

    @Service.task
    async def _check(self) -> None:
        """Look after the group membership, as long as there is one."""
        while not self.should_stop:
            await self.sleep(CHECK_S)
            if self._consumer is None or self.should_stop:
                continue
            error = membership_error(self._consumer, self._group)
            if error is not None:
                self._on_failure(error)
                return


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no type hints
    """Hands rebalances to the service."""

    def __init__(self, service: CoordinatorService) -> None:
        self._service = service

    async def on_partitions_revoked(self, _: set[TopicPartition]) -> None:
        await self._service.release()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        if assigned:
            await self._service.take()
        else:
            await self._service.release()
