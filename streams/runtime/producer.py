"""Kafka transactions of one partition: what goes out, and the offset that it came from.

One producer per partition, because aiokafka has no group metadata in transactions (KIP-447):
the transactional id names the partition, and starting a producer fences its last owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from streams.definitions.topics import LARGEST_RECORD_BYTES

BATCH_BYTES = 512 * 1024
"""Size of a record batch on the wire; below the broker's limit of 1 MiB, records apart."""

TRANSACTION_TIMEOUT_MS = 60_000

RETRY_BACKOFF_MS = 20
"""A broker refuses records while it ends the transaction before, which takes milliseconds."""

METADATA_BYTES = 2048
"""Longer metadata goes into a record: above 4,096 bytes a broker refuses the commit."""

END_OF_METADATA = "\0"
"""Ends metadata: confluent-kafka reads it as a C string that nobody else ends."""

STOP_S = 5.0

SPILLED = "@"
"""Begins metadata that names a record with the metadata: its offset, a space, a short form."""

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """Records for one partition. `headers` is one list for all, or one for each."""

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Headers | None = None
    each_headers: Sequence[Headers] | None = None


class PartitionProducer:
    """The transactional producer of one partition."""

    def __init__(
        self,
        kafka_config: Mapping[str, Any],
        transactional_id: str,
        group: str,
        *,
        spill_topic: str | None = None,
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        """`spill_topic` takes metadata that is too long to be committed with an offset.

        `on_sent` is called in each transaction when only its commit is left.
        """
        self._group = group
        self._spill_topic = spill_topic
        self._on_sent = on_sent
        self._producer = AIOKafkaProducer(
            **kafka_config,
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=LARGEST_RECORD_BYTES,
            linger_ms=0,
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )

    async def start(self) -> None:
        """Fence whoever had this id and end what it had open."""
        await self._producer.start()

    async def stop(self) -> None:
        """Let go of the connection; an open transaction is left for the next owner to abort.

        What a broker that does not answer has not taken is dropped after a while.
        """
        try:
            await asyncio.wait_for(self._producer.stop(), STOP_S)
        except TimeoutError:
            await self._producer._sender.close()
            await self._producer.client.close()

    async def commit(
        self,
        outgoing: Iterable[Outgoing],
        offset: tuple[TopicPartition, int, str] | None,
        *,
        short: str = "",
    ) -> None:
        """One transaction: all of `outgoing`, and (partition, offset, metadata) of the group.

        Of metadata that is too long, `short` stays with the offset, for those who look at it
        from afar. Raises aiokafka's errors; after any of them the producer is of no use any more.
        """
        producer = self._producer
        await producer.begin_transaction()
        sent: list[Awaitable[object]] = []
        for records in outgoing:
            await self._send(records, sent)
        if offset is not None:
            tp, position, metadata = offset
            if len(metadata.encode()) > METADATA_BYTES and self._spill_topic is not None:
                where = await self._spill(self._spill_topic, tp, metadata)
                metadata = f"{SPILLED}{where} {short}"
            await producer.send_offsets_to_transaction(
                {tp: OffsetAndMetadata(position, metadata + END_OF_METADATA)}, self._group
            )
        # aiokafka commits whatever became of the batches: a refused one shows here alone.
        await asyncio.gather(*sent)
        self._on_sent()
        await producer.commit_transaction()

    async def _spill(self, topic: str, tp: TopicPartition, metadata: str) -> int:
        """Put metadata into a record of the same transaction; returns its offset."""
        key = f"{tp.topic}/{tp.partition}".encode()
        record = await self._producer.send_and_wait(
            topic, value=metadata.encode(), key=key, partition=0
        )
        return int(record.offset)

    async def _send(self, records: Outgoing, sent: list[Awaitable[object]]) -> None:
        async def send(batch: Any) -> None:
            delivery = await producer.send_batch(batch, records.topic, partition=records.partition)
            # When another call fails first, nobody asks this one any more.
            delivery.add_done_callback(lambda one: one.cancelled() or one.exception())
            sent.append(delivery)

        producer = self._producer
        shared = list(records.headers or ())
        each = records.each_headers
        batch = producer.create_batch()
        for index, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
            headers = shared if each is None else list(each[index])
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                await send(batch)
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None, headers=headers)
        if batch.record_count():
            await send(batch)


def read_spilled(metadata: str) -> tuple[int, str] | None:
    """Offset of the record that holds metadata, and what stayed with the commit; or None."""
    if not metadata.startswith(SPILLED):
        return None
    offset, _, short = metadata[len(SPILLED) :].partition(" ")
    return int(offset), short
