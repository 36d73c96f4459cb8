"""Follows topics of one partition from given offsets, without a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.runtime.consumer import stop_consumer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.datapath.records import Record
    from streams.runtime.context import Context

FETCH_WAIT_MS = 100
POLL_MS = 200


class Tail:
    """Committed records of several topics, each topic to be read by one task.

    All methods raise aiokafka's errors: `OffsetOutOfRangeError` where a topic no longer holds
    the offset to go on from, or does not hold it yet.
    """

    def __init__(self, context: Context, starts: Mapping[str, int]) -> None:
        """`starts` are the first offsets to read, by topic."""
        self._starts = {TopicPartition(topic, 0): offset for topic, offset in starts.items()}
        self._consumer = AIOKafkaConsumer(
            **context.kafka_config,
            client_id=f"rewindow-{context.instance}-control",
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )

    async def start(self) -> None:
        """Connect."""
        await self._consumer.start()
        self._consumer.assign(list(self._starts))
        for tp, offset in self._starts.items():
            self._consumer.seek(tp, offset)

    async def stop(self) -> None:
        """Let go of the connections."""
        await stop_consumer(self._consumer)

    async def more(self, topic: str) -> list[Record]:
        """What has come, in order; nothing if nothing comes for a moment."""
        tp = TopicPartition(topic, 0)
        found = await self._consumer.getmany(tp, timeout_ms=POLL_MS)
        return list(found.get(tp, ()))

    async def rest(self, topic: str) -> list[Record]:
        """All up to the end, or to the first transaction that is still open."""
        tp = TopicPartition(topic, 0)
        found: list[Record] = []
        while True:
            found += await self.more(topic)
            stable = self._consumer.last_stable_offset(tp)
            if stable is not None and await self._consumer.position(tp) >= stable:
                return found
