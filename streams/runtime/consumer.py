"""aiokafka's consumer with its records as columns.

aiokafka parses a record into an object of its own and copies that into a `ConsumerRecord`, a
frozen dataclass of eleven fields. Both are objects for the garbage collector to go through
while they wait to be worked on. Here a few records at a time are parsed, and what the
data path reads of them goes into columns at once: a fifth of the time, see `Records`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult

from streams.datapath.records import Records, columns

if TYPE_CHECKING:
    from collections.abc import Iterator

PARSED_AT_ONCE = 200
"""Fewer than make the garbage collector look for something to do."""


class ColumnConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """An `AIOKafkaConsumer` whose `getmany` gives `Records` by partition."""

    async def start(self) -> None:
        """Connect, as aiokafka's does."""
        await super().start()
        self._fetcher._records = _Fetched(self._fetcher._records)


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Let go of its connections.

    Where a broker is away aiokafka cancels a fetch that waits for it, and lets that cancellation
    through as if it were the caller's.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise


class _Fetched(OrderedDict[TopicPartition, Any]):
    """What the fetcher has fetched and nobody has asked for yet: results and errors."""

    def __setitem__(self, tp: TopicPartition, result: Any) -> None:
        if isinstance(result, FetchResult):
            result._partition_records._consumer_record = _as_it_is
            # On the instance, since the fetcher wants that very class.
            result.getall = partial(_getall, result)
        super().__setitem__(tp, result)


def _as_it_is(_: TopicPartition, record: Any) -> Any:
    return record


def _getall(result: Any, max_records: int | None = None) -> Records:
    """What `FetchResult.getall` does, as columns."""
    if not result.check_assignment(result._topic_partition) or not result.has_more():
        return columns(())
    found = columns(_runs(result._partition_records, max_records))
    result._update_position()
    if max_records is None or len(found) < max_records:
        result._partition_records = None
    return found


def _runs(parsed: Iterator[Any], max_records: int | None) -> Iterator[list[Any]]:
    left = islice(parsed, max_records)
    while run := list(islice(left, PARSED_AT_ONCE)):
        yield run
