"""One source partition of the rekeying stage: claim, batch, transaction.

A cursor lives as long as the partition is assigned here. What goes wrong drops all that is in
memory and leads to a new claim, from what Kafka has committed:

1. Start the partition's transactional producer: this fences any other writer and ends what it
   had open.
2. Read the committed position and its metadata: nothing can follow them now.
3. Where nothing is committed, decide where to start, and commit that.
4. Refuse a position that the topic no longer holds, or does not hold yet.
5. Seek.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from streams.datapath.records import Records
from streams.datapath.rekey_progress import RekeyProgress, closes_something
from streams.datapath.routing import Router
from streams.errors import RewindowError, UnreachableError
from streams.runtime.consumer import ColumnConsumer
from streams.runtime.context import Context
from streams.runtime.membership import SESSION_TIMEOUT_S
from streams.runtime.producer import Outgoing, PartitionProducer
from streams.runtime.rekey_output import entity_hash, rekeyed, with_markers
from streams.runtime.rekey_start import find_start
from streams.runtime.streams import Stream

FETCH_WAIT_MS = 200
FINISH_S = 15.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
ATTEMPTS_AT_ONE_POSITION = 8

log = logging.getLogger(__name__)


class RekeyCursor:
    """Rekeys one source partition for as long as it is assigned. An `idleness.Owner`."""

    def __init__(
        self,
        context: Context,
        stream: Stream,
        consumer: ColumnConsumer,
        tp: TopicPartition,
        *,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.partition: int = tp.partition
        self.position = -1
        self.claims = 0
        self.progress = RekeyProgress()
        self._context = context
        self._stream = stream
        self._consumer = consumer
        self._tp = tp
        self._group = context.names.rekey_group(stream.name)
        self._on_failure = on_failure
        self._producer: PartitionProducer | None = None
        self._router = self._new_router()
        self._turn = asyncio.Lock()
        self._claimed = False
        """Whether the consumer fetches from what is committed; before its seek it may be beyond
        records of which the commit has failed."""
        self._in_hand = False
        self._committing = False
        self._broken: Exception | None = None
        self._untold_floor = False
        self._failures = (-1, 0)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def _new_router(self) -> Router:
        published = self._stream.published
        return Router(
            published.source,
            published.schema,
            self._stream.entity,
            partitions=self._stream.partitions,
            hash_of=entity_hash,
        )

    def _new_producer(self) -> PartitionProducer:
        return PartitionProducer(
            self._context.kafka_config,
            self._context.names.rekey_transactional_id(self._stream.name, self.partition),
            self._group,
        )

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with a claim, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name=f"rekey {self._tp}")

    async def stop(self) -> None:
        """Finish the transaction in hand, and let go."""
        self._stopping.set()
        if self._task is not None:
            if not self._committing:
                self._task.cancel()
            _, late = await asyncio.wait({self._task}, timeout=FINISH_S)
            for task in late:
                task.cancel()
                await asyncio.wait({task})
        await self._let_go()

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            started_at = self.position
            try:
                await self._claim()
                while not self._stopping.is_set():
                    await self._fetch_and_work()
            except Exception as error:
                await self._let_go()
                if self.position > started_at >= 0:
                    pause_s = FIRST_PAUSE_S
                fatal = self._fatal(error)
                if fatal is not None:
                    await self._end_transaction()
                    self._on_failure(fatal)
                    return
                if isinstance(error, ProducerFenced):
                    # Somebody else has the partition. If it is still ours after a session's
                    # time, they are gone or are a zombie.
                    await self._pause(SESSION_TIMEOUT_S)
                else:
                    log.warning("%s: claiming anew: %r", self._where, error)
                    await self._pause(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _fatal(self, error: Exception) -> BaseException | None:
        """What the operator has to mend; None if another claim may do better."""
        if isinstance(error, UnreachableError | ProducerFenced | OSError | TimeoutError):
            return None
        if isinstance(error, RewindowError):
            return error
        if isinstance(error, KafkaError) and error.retriable:
            return None
        position, times = self._failures
        self._failures = (self.position, times + 1 if position == self.position else 1)
        if self._failures[1] < ATTEMPTS_AT_ONE_POSITION:
            return None
        failure = RewindowError(
            f"{self._where}: rekeying for {self._stream.name} fails at offset {self.position} "
            f"again and again ({type(error).__name__}: {error}): check that "
            f"{self._stream.topic} takes records as large as the source's, and who may write "
            "to it"
        )
        failure.__cause__ = error
        return failure

    async def _end_transaction(self) -> None:
        """Abort what is open, as no claim of ours will: readers would wait for its end."""
        try:
            self._producer = self._new_producer()
            await self._producer.start()
        except (KafkaError, OSError) as error:
            log.debug("%s: its transaction runs out by itself: %r", self._where, error)
        await self._let_go()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _let_go(self) -> None:
        async with self._turn:
            self._claimed = self._in_hand = False
            producer, self._producer = self._producer, None
            if producer is None:
                return
            try:
                await asyncio.wait_for(producer.stop(), FINISH_S)
            except (KafkaError, OSError, TimeoutError) as error:
                log.debug("%s: producer stopped with %r", self._where, error)

    @property
    def _where(self) -> str:
        return f"{self._tp.topic}/{self._tp.partition}"

    # -- claim --------------------------------------------------------------------------------

    async def _claim(self) -> None:
        self.claims += 1
        self._broken = None
        self._router = self._new_router()
        producer = self._producer = self._new_producer()
        await producer.start()  # 1
        start = await self._context.run(
            lambda: find_start(self._context.offsets, self._stream, self._group, self.partition)
        )  # 2, 3, 4
        if not start.committed:
            await producer.commit([], (self._tp, start.position, start.progress.encode()))
        self.position, self.progress = start.position, start.progress
        self._untold_floor = start.progress.floor_ms is not None
        self._consumer.seek(self._tp, start.position)  # 5
        self._claimed = True
        log.info("%s: rekeying for %s from %d", self._where, self._stream.name, start.position)

    # -- batches ------------------------------------------------------------------------------

    async def _fetch_and_work(self) -> None:
        found = await self._consumer.getmany(self._tp, timeout_ms=FETCH_WAIT_MS)
        # Nothing may be awaited before this: the fetch position is beyond what is in hand.
        records: Records | None = found.get(self._tp)
        self._in_hand = bool(records)
        if self._broken is not None:
            raise self._broken
        if records:
            await self._look_up_schemas(records)
            async with self._turn:
                if self._broken is not None:
                    raise self._broken
                self._committing = True
                try:
                    await self._work(records)
                    self._in_hand = False  # what has failed stays there until it is let go of
                finally:
                    self._committing = False

    async def _look_up_schemas(self, records: Records) -> None:
        unknown = self._router.unknown_ids(records)
        if unknown:
            for schema_id, schema in (await self._context.schemas.get(unknown)).items():
                self._router.decoder.add(schema_id, schema)

    async def _work(self, records: Records) -> None:
        """One transaction: events, then markers if they are due, dead letters, position."""
        routed = await self._context.run(lambda: self._router.route(records, self.partition))
        before = self.progress
        progress = self._with_floor(before, records, routed.newest_ms)
        watermark_ms = before.after(routed.newest_ms)
        marker = False
        if routed.newest_ms is not None and watermark_ms is not None:
            marker = before.silent or closes_something(
                self._stream.views, before.watermark_ms, watermark_ms
            )
            progress = replace(progress, watermark_ms=watermark_ms, silent=False)
        outgoing = await self._context.run(
            lambda: rekeyed(routed, records, self._stream, self._tp, self._context.names)
        )
        await self._commit(outgoing, records.offsets[-1] + 1, progress, marker=marker)
        self._context.stats.dead += len(routed.dead)

    def _with_floor(
        self, progress: RekeyProgress, records: Records, newest_ms: int | None
    ) -> RekeyProgress:
        """Where the cursor began after offset 0, its first record tells from when on it has
        everything; where the producer sets no timestamps, the first events' highest time."""
        if not progress.floor_wanted:
            return progress
        time_ms = next((ms for ms in records.timestamps if ms >= 0), newest_ms)
        if time_ms is None:
            return progress
        self._untold_floor = True
        floor_ms = time_ms + self._stream.published.source.max_ahead_ms
        return replace(progress, floor_ms=floor_ms, floor_wanted=False)

    async def _commit(
        self,
        outgoing: list[Outgoing],
        position: int,
        progress: RekeyProgress,
        *,
        marker: bool,
    ) -> None:
        if marker:
            floor_ms = progress.floor_ms if self._untold_floor else None
            outgoing = with_markers(outgoing, self._stream, self.partition, progress, floor_ms)
        producer = self._producer
        if producer is None:
            raise ProducerFenced
        await producer.commit(outgoing, (self._tp, position, progress.encode()))
        self.position, self.progress = position, progress
        if marker:
            self._untold_floor = False

    # -- without records ----------------------------------------------------------------------

    @property
    def caught_up(self) -> bool:
        """Whether the partition is claimed and nothing is in hand."""
        return (
            self._claimed
            and not self._in_hand
            and not self._turn.locked()
            and not self._stopping.is_set()
        )

    @property
    def watermark_ms(self) -> int | None:
        """The cursor's watermark, idleness included."""
        return self.progress.watermark_ms

    async def idle(self, watermark_ms: int) -> None:
        """Tell the readers that this partition follows a watermark."""
        known = self.progress.watermark_ms
        if known is None or watermark_ms > known:
            # Where no record has come yet, the floors of those that it follows hold for it too.
            progress = replace(
                self.progress, watermark_ms=watermark_ms, floor_wanted=False, silent=False
            )
            await self._without_records(self.position, progress, marker=True)

    async def silence(self, highest_ms: int) -> None:  # noqa: ARG002  # readers work it out
        """Tell the readers that the whole source is silent."""
        if not self.progress.silent:
            progress = replace(self.progress, silent=True)
            await self._without_records(self.position, progress, marker=True)

    async def commit_position(self, offset: int) -> None:
        """Commit a position beyond trailing transaction markers."""
        if offset > self.position:
            await self._without_records(offset, self.progress, marker=False)

    async def _without_records(
        self, position: int, progress: RekeyProgress, *, marker: bool
    ) -> None:
        before = self.position
        async with self._turn:
            changed = self._in_hand or self.position != before or self._broken is not None
            if changed or not self._claimed or self._stopping.is_set():
                return
            try:
                await self._commit([], position, progress, marker=marker)
            except Exception as error:
                # The producer is of no use any more: the cursor claims anew.
                self._broken = error
                raise
