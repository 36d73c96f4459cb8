"""The rekeying stage: a source's events, written again by entity, with watermark markers.

One stage for each rekeyed stream, in every worker. Together they are a consumer group of its
own, so that a stream can start in history while others are live. Whoever has a source
partition writes its events, see rekey_cursor.py; nothing is kept but the committed metadata.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import IllegalStateError
from mode import Service

from streams.datapath.rekey_progress import RekeyProgress
from streams.runtime.consumer import ColumnConsumer
from streams.runtime.context import Context
from streams.runtime.idleness import IdleWatcher, Owner
from streams.runtime.membership import CHECK_S, leave_group, member_config, membership_error
from streams.runtime.rekey_cursor import RekeyCursor
from streams.runtime.streams import Stream

FETCH_BYTES = 4 * 1024 * 1024


class RekeyStage(Service):
    """Writes `stream`, which must be a rekeyed one, for the source partitions assigned here.

    `on_failure` is told, once, of what an operator has to mend; the partition then stands
    still. Starting raises aiokafka's errors if Kafka can't be reached.
    """

    abstract = False

    def __init__(
        self,
        context: Context,
        stream: Stream,
        *,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        super().__init__()
        self.stream = stream
        self._context = context
        self._on_failure = on_failure
        self._cursors: dict[TopicPartition, RekeyCursor] = {}
        self._consumer: ColumnConsumer | None = None
        self._group = context.names.rekey_group(stream.name)
        self._watcher = IdleWatcher(
            context,
            stream.published.source,
            partitions=stream.source_partitions,
            group=self._group,
            owners=self._owners,
            fetch_position=self._fetch_position,
            watermark_of=lambda metadata: RekeyProgress.decode(metadata).watermark_ms,
        )

    @property
    def cursors(self) -> Sequence[RekeyCursor]:
        """The source partitions that are here now."""
        return tuple(self._cursors.values())

    def _owners(self) -> Sequence[Owner]:
        return self.cursors

    # -- life ---------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Join the group."""
        consumer = ColumnConsumer(
            **member_config(self._context, self._group, "rekey"),
            max_poll_records=self._context.limits.records_per_fetch,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        self._consumer = consumer
        consumer.subscribe([self.stream.published.source.topic], listener=_Listener(self))
        await consumer.start()
        await self.add_runtime_dependency(self._watcher)

    async def on_stop(self) -> None:
        """Finish the transactions in hand, and leave the group at once."""
        await self._watcher.stop()
        await self.release(set(self._cursors))
        if self._consumer is not None:
            await leave_group(self._consumer)

    @Service.task
    async def _check(self) -> None:
        """Look after the group membership, for cursors only do so where there are any."""
        while not self.should_stop:
            await self.sleep(CHECK_S)
            if self._consumer is None or self.should_stop:
                continue
            error = membership_error(self._consumer, self._group)
            if error is not None:
                self._on_failure(error)
                return

    # -- assignment -----------------------------------------------------------------------------

    async def release(self, tps: set[TopicPartition]) -> None:
        """Stop the cursors of these partitions."""
        gone = [self._cursors.pop(tp) for tp in tps if tp in self._cursors]
        await asyncio.gather(*(cursor.stop() for cursor in gone))

    def take(self, tps: set[TopicPartition]) -> None:
        """Start a cursor for each of these partitions; each one claims by itself."""
        if self._consumer is None or self.should_stop:
            return
        for tp in sorted(tps):
            cursor = RekeyCursor(
                self._context, self.stream, self._consumer, tp, on_failure=self._on_failure
            )
            self._cursors[tp] = cursor
            cursor.start()

    async def _fetch_position(self, partition: int) -> int | None:
        tp = TopicPartition(self.stream.published.source.topic, partition)
        cursor = self._cursors.get(tp)
        if self._consumer is None or cursor is None or not cursor.caught_up:
            return None
        claim = cursor.claims
        try:
            # It is known since the cursor's seek, unless the partition is going away.
            position = await asyncio.wait_for(self._consumer.position(tp), CHECK_S)
        except (IllegalStateError, TimeoutError):
            return None
        return int(position) if cursor.claims == claim else None


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no type hints
    """Hands rebalances to the stage."""

    def __init__(self, stage: RekeyStage) -> None:
        self._stage = stage

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._stage.release(set(revoked))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._stage.release(set(assigned))
        self._stage.take(set(assigned))
