"""Runs the coordinator: in every worker, at work in the one that has the rollback topic.

Workers are a consumer group of its own over the rollback topic's only partition, so that one
of them coordinates, and another one takes over when it goes away; see coordination.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError
from mode import Service

from streams.errors import RewindowError
from streams.runtime.control.coordination import SESSION_TIMEOUT_S, Coordination, Parts

HEARTBEAT_S = 2.0
REBALANCE_TIMEOUT_S = 60.0
CHECK_S = 1.0

_FOREVER_MS = 2**31 - 1

log = logging.getLogger(__name__)


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
            **context.kafka_config,
            client_id=f"rewindow-{context.instance}-coordinator",
            group_id=self._group,
            group_instance_id=context.instance,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=100,
            session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
            heartbeat_interval_ms=int(HEARTBEAT_S * 1000),
            rebalance_timeout_ms=int(REBALANCE_TIMEOUT_S * 1000),
            # Without the partition, or while a request waits for the registry, nothing is polled.
            max_poll_interval_ms=_FOREVER_MS,
        )
        consumer.subscribe([context.names.rollback_topic], listener=_Listener(self))
        await consumer.start()

    async def on_stop(self) -> None:
        """Finish the decision in hand, and leave the group at once."""
        await self.release()
        if self._consumer is not None:
            # As a static member it would be waited for; a clean stop is for good.
            self._consumer._coordinator._group_instance_id = None
            await self._consumer.stop()

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
            coordinator = None if self._consumer is None else self._consumer._coordinator
            if coordinator is None or self.should_stop:
                continue
            try:
                coordinator.check_errors()
            except KafkaError as error:
                if coordinator._coordination_task.done():
                    self._on_failure(
                        RewindowError(
                            f"group {self._group} can't be taken part in any more "
                            f"({error}): start the worker again"
                        )
                    )
                    return
                log.warning("group %s: %r", self._group, error)


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
