"""Reads a range of a partition, apart from the group: for replays."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from aiokafka import TopicPartition

from streams.runtime.consumer import ColumnConsumer, stop_consumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streams.datapath.records import Records
    from streams.runtime.context import Context

FETCH_BYTES = 4 * 1024 * 1024


async def read_log(
    context: Context, topic: str, partition: int, start: int, end: int
) -> AsyncIterator[Records]:
    """Committed records with offsets in `[start, end)`, in order, as many at a time as live.

    Ends at `end` even where the last offsets hold transaction markers instead of records.
    Raises aiokafka's errors: `OffsetOutOfRangeError` where the log no longer holds `start`.
    """
    if start >= end:
        return
    tp = TopicPartition(topic, partition)
    consumer = ColumnConsumer(
        **context.kafka_config,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES,
        max_poll_records=context.limits.records_per_fetch,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        consumer.assign([tp])
        consumer.seek(tp, start)
        while await consumer.position(tp) < end:
            found = await consumer.getmany(tp, timeout_ms=200)
            records: Records | None = found.get(tp)
            if records and records.offsets[-1] >= end:
                records = records[: bisect_left(records.offsets, end)]
            if records:
                yield records
    finally:
        await stop_consumer(consumer)
