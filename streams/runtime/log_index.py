"""The index of stream partitions on Kafka: written by owners, read by who has to go back.

Entries go out in the transaction that commits the position they speak of, now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.datapath.log_index import Entry, IndexWriter, LogIndex, collect
from streams.runtime.control.tail import Tail
from streams.runtime.producer import Outgoing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.datapath.log_index import Place
    from streams.datapath.pipeline import Pipeline
    from streams.runtime.context import Context
    from streams.runtime.floors import Floors

EVERY_S = 1.0
"""At most so often an entry is written. It has no part in what is computed."""


class IndexKeeper:
    """Notes how far event time has come in one partition, for as long as a claim."""

    def __init__(self, context: Context, stream: str, partition: int, *, anew: bool) -> None:
        """`anew` says that nothing was read of this log before."""
        self._context = context
        self._writer = IndexWriter(stream, partition, anew=anew)
        self._written_s: float | None = None

    def news(self, pipeline: Pipeline, floors: Floors) -> list[Outgoing]:
        """An entry at the pipeline's position, for the transaction that commits it, if it is time.

        What a bundle has not read lies below its floor, so floors count like events.
        """
        now_s = self._context.clock.monotonic_s()
        if self._written_s is not None and now_s - self._written_s < EVERY_S:
            return []
        highest_ms = pipeline.watermark.highest_ms
        if highest_ms is None or floors.pending:
            return []
        known = (one.floor_ms for one in pipeline.bundles if one.floor_ms is not None)
        highest_ms = max((highest_ms, *known))
        records = self._writer.records(Entry(offset=pipeline.position, highest_ms=highest_ms))
        if not records:
            return []
        self._written_s = now_s
        return [
            Outgoing(
                topic=self._context.names.index_topic,
                partition=0,
                keys=[key for key, _ in records],
                values=[value for _, value in records],
            )
        ]


async def read_indexes(context: Context) -> Mapping[Place, LogIndex]:
    """The index of every stream partition, as far as it is committed.

    Raises aiokafka's errors.
    """
    topic = context.names.index_topic
    tail = Tail(context, {topic: 0})
    try:
        await tail.start()
        records = await tail.rest(topic)
    finally:
        await tail.stop()
    return collect((record.key or b"", record.value or b"") for record in records)
