"""Reads a range of a partition, apart from the group: for replays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from streams.runtime.context import Context

FETCH_BYTES = 4 * 1024 * 1024
RECORDS_AT_ONCE = 20_000


async def read_log(
    context: Context, topic: str, partition: int, start: int, end: int
) -> AsyncIterator[Sequence[ConsumerRecord]]:
    """Committed records with offsets in `[start, end)`, in order, in batches.

    Ends at `end` even where the last offsets hold transaction markers instead of records.
    """
    if start >= end:
        return
    tp = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(
        **context.kafka_config,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES,
        max_poll_records=RECORDS_AT_ONCE,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        consumer.assign([tp])
        consumer.seek(tp, start)
        while await consumer.position(tp) < end:
            found = await consumer.getmany(tp, timeout_ms=200)
            records = [record for record in found.get(tp, ()) if record.offset < end]
            if records:
                yield records
    finally:
        await consumer.stop()
