"""The owner of one stream partition: batch, transaction, flush; and the way back after a crash.

An owner lives as long as one claim. It takes batches in order, makes the pipeline's steps of
them, and commits each step in a Kafka transaction; steps that say nothing are committed with the
next one that does, or soon. It never mends itself: whatever goes wrong ends the claim, and the next
one starts from what Kafka has committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from streams.datapath.log_index import LogIndex
from streams.errors import RefusedError, RewindowError, UnreachableError
from streams.runtime.asked import Asked
from streams.runtime.batch_reader import BatchReader
from streams.runtime.blocking import Blocking
from streams.runtime.committing import BrokenClaimError, Committing
from streams.runtime.correcting import Corrector
from streams.runtime.flushing import Flushing
from streams.runtime.log_index import IndexKeeper, read_indexes
from streams.runtime.obedience import Obedience
from streams.runtime.output import ByOffset
from streams.runtime.recovery import Recovery
from streams.runtime.roster import roster
from streams.runtime.stats import PartitionStats
from streams.runtime.taking import Taking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from streams.datapath.batch import Batch
    from streams.datapath.pipeline import Pipeline, Step
    from streams.datapath.progress import Progress
    from streams.datapath.records import Record
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.orders import Orders
    from streams.runtime.producer import PartitionProducer
    from streams.runtime.replay import Replay
    from streams.runtime.transport import Fetched

T = TypeVar("T")

WAITING_BATCHES = 2
SETTLE_S = 5.0
"""How long a stop waits for what is to be committed yet."""

log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The owner has to stop and is in the middle of something that it may drop."""


class PartitionOwner:
    """Owns a `partition` of the stream in `topic` under claim number `claim`, from `position` on.

    `orders` says what is published, what is decided, and how that is acknowledged.
    """

    def __init__(
        self,
        context: Context,
        orders: Orders,
        topic: str,
        partition: int,
        *,
        claim: int,
        position: int,
        progress: Progress,
        fresh: bool,
        producer: PartitionProducer,
        crash: CrashPoints,
    ) -> None:
        """`fresh` says that nothing is committed yet, and `position` is where to start."""
        self.stream = stream = orders.stream(topic)
        self.partition = partition
        self.claim = claim
        self.producer = producer
        self.stats = PartitionStats(stream=stream.name, partition=partition, position=position)
        self._context = context
        self._orders = orders
        self._crash = crash
        self._tp = TopicPartition(topic, partition)
        self._run = Blocking(context)
        self._reader = self._new_reader()
        self._began_at = position
        self._began_with = progress
        self._due = position
        """Offset up to which batches have come; the position may be beyond, see
        `commit_position`."""
        self._fresh = fresh
        self._waiting: asyncio.Queue[Fetched] = asyncio.Queue()
        self._in_hand = False
        self._turn = asyncio.Lock()
        self._pipeline: Pipeline | None = None
        self._recovery: Recovery | None = None
        self._obedience: Obedience | None = None
        self._flushing: Flushing | None = None
        self._corrector: Corrector | None = None
        self._taking: Taking | None = None
        self._committing: Committing | None = None
        self._asked: Asked | None = None
        self._stop_wanted = asyncio.Event()
        self._told: set[asyncio.Task[Any]] = set()
        """Tasks that obey beside the batches."""
        self._over = False
        """Nothing more is done under this claim."""

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Recover, then work on batches until stopped; raises whatever goes wrong."""
        try:
            async with self._turn:
                await self._recover()
            while not self._stopping:
                fetched = await self._next_batch()
                self._in_hand = fetched is not None
                async with self._turn:
                    if not self._stopping:
                        await (self._look() if fetched is None else self._work(fetched))
                self._in_hand = False
        except _StoppedError:
            return
        finally:
            self._over = True

    async def _recover(self) -> None:
        """Bring the bundles to the committed position and finish what a crash left pending."""
        await self._unless_stopped(self._orders.reach(self.progress))
        self._see_stream()
        recovery = self._recovery = Recovery(
            self._context,
            self.stream,
            self.partition,
            roster=roster(self.stream, self.progress, self._orders),
            position=self.position,
            progress=self.progress,
            fresh=self._fresh,
            read=self._read,
            run=self._run,
            crash=self._crash,
        )
        try:
            pipeline = self._pipeline = await recovery.pipeline()
        except RefusedError:
            await self._leave_to_others()
            raise
        committing = self._committing = Committing(
            self._context,
            self._orders,
            self.producer,
            pipeline,
            stream=lambda: self.stream,
            stats=self.stats,
            index=IndexKeeper(
                self._context,
                self.stream.name,
                self.partition,
                anew=self.progress.watermark_ms is None,
            ),
            floors=recovery.replay.floors,
            position=self.position,
            progress=self.progress,
            run=self._run,
            crash=self._crash,
        )
        if self._fresh:
            await committing.here()
        await committing.apart(pipeline.resume())
        self._flushing = flushing = Flushing(
            self._context,
            pipeline,
            begun=self._began_at,
            run=self._run,
            on_written=lambda: self._orders.tell(self),
        )
        self._taking = self._checkpoints(pipeline, recovery.replay, flushing)
        self._asked = Asked(
            self._orders,
            self._taking,
            pipeline,
            stream=self.stream.name,
            partition=self.partition,
            commit_acks=committing.acks,
            tell=lambda: self._orders.tell(self),
        )
        self._obedience = Obedience(
            self._context,
            self.partition,
            stream=lambda: self.stream,
            decided=self._orders,
            pipeline=pipeline,
            replay=recovery.replay,
            index=self._read_index,
            position=lambda: self.position,
            busy=lambda: flushing.busy,
            still=flushing.finish,
            run=self._run,
            commit_steps=committing.apart,
            commit_acks=committing.acks,
            on_warm=lambda: self._orders.tell(self),
            crash=self._crash,
        )
        self._corrector = Corrector(
            pipeline,
            flushing,
            self._turn,
            commit_steps=committing.apart,
            may_go_on=lambda: not self._gone and not committing.failed,
            on_ready=lambda: self._orders.tell(self),
            on_done=self._obey,
        )
        await self._obey()
        committing.show()
        self.stats.state = "running"

    async def _leave_to_others(self) -> None:
        """Raise `ProducerFenced` if somebody else has claimed this partition and gone on.

        Who wakes up in a claim that is long over sees state and checkpoints ahead of what it
        takes for committed, or a log that was trimmed since: nothing that has to be mended.
        """
        at, group = (self._tp.topic, self.partition), self._context.names.worker_group
        offsets = self._context.offsets
        found = (await self._run(lambda: offsets.committed(group, [at], stable=False))).get(at)
        if found is not None and (self._fresh or found.offset != self.position):
            raise ProducerFenced

    async def stop(self, *, for_good: bool = False) -> None:
        """Finish the step in hand, flush, close. Waiting batches are left to the next claim.

        With `for_good` a checkpoint is set aside, too: the worker stops.
        """
        self._stop_wanted.set()
        async with self._turn:
            # What failed to be committed must not reach the disk either.
            if self._flushing is not None and self._may_build:
                if await self._settled_in_time() and self._may_flush:
                    taking = self._taking if for_good else None
                    await (self._flushing.begin() if taking is None else taking.parting())
                await self._flushing.finish()
            await self.close()

    async def close(self) -> None:
        """Let go of state and producer, whatever state they are in."""
        self._stop_wanted.set()
        told = self._told - {asyncio.current_task()}
        for task in told:
            task.cancel()
        if told:
            await asyncio.wait(told)
        await self._run.ended()
        if self._flushing is not None:
            await self._flushing.close()
            self._flushing = None
        if self._obedience is not None:
            await self._obedience.close()
            self._obedience = None
        if self._recovery is not None:
            await self._context.run(self._recovery.replay.close)
            self._recovery = None
        self._pipeline = self._taking = self._asked = self._corrector = None
        await self.producer.stop()

    @property
    def position(self) -> int:
        """What is committed: the first offset that is not applied for good."""
        return self._began_at if self._committing is None else self._committing.position

    @property
    def progress(self) -> Progress:
        """What is committed with the position."""
        return self._began_with if self._committing is None else self._committing.progress

    @property
    def has_room(self) -> bool:
        return not self._gone and self._waiting.qsize() < WAITING_BATCHES

    @property
    def _stopping(self) -> bool:
        return self._stop_wanted.is_set()

    @property
    def _gone(self) -> bool:
        return self._stopping or self._over

    @property
    def recovered(self) -> bool:
        """Whether its state is at its position."""
        return self._pipeline is not None

    @property
    def caught_up(self) -> bool:
        """Whether nothing is in hand or waiting, and all is committed."""
        if self._committing is None or self._in_hand or not self._waiting.empty():
            return False
        if self._pipeline is None or not self._committing.settled:
            return False
        corrects = self._corrector is not None and self._corrector.in_turn
        return corrects or not self._turn.locked()

    @property
    def watermark_ms(self) -> int | None:
        """The watermark applied so far, idleness included."""
        return None if self._pipeline is None else self._pipeline.progress.watermark_ms

    # -- the data path ------------------------------------------------------------------------

    async def take(self, fetched: Fetched) -> None:
        """Queue a batch. What belongs to an earlier claim is dropped."""
        if fetched.claim == self.claim and not self._gone:
            self._waiting.put_nowait(fetched)

    async def _next_batch(self) -> Fetched | None:
        """The next batch, or None where what waits is to be committed before one comes."""
        committing = self._committing
        assert committing is not None
        if committing.settled:
            return await self._waiting.get()
        # Not `wait_for`, which in Python 3.11 takes a batch in another task, and loses a
        # cancellation that comes with it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(committing.may_wait_s):
                return await self._waiting.get()
        return None

    async def _work(self, fetched: Fetched) -> None:
        assert self._pipeline is not None
        if fetched.position != self._due:
            raise BrokenClaimError(
                f"{self.stream.name}/{self.partition}: a batch at {fetched.position} came where "
                f"{self._due} was due"
            )
        assert self._recovery is not None
        assert self._flushing is not None
        assert self._corrector is not None
        assert self._committing is not None
        # Before the batch is read: what is obeyed then may change how it is read.
        if not await self._corrector.make_room(f"{self.stream.name}/{self.partition}"):
            raise _StoppedError
        batch = await self._read(fetched.records, self._pipeline.position)
        self._due = batch.next_offset
        self._crash.reach("in_batch")
        records = ByOffset(fetched.records)
        committed = False
        for part in self._recovery.replay.floors.parts(fetched.records, batch, self._pipeline):
            committed |= await self._committing.steps(self._pipeline.steps(part), records)
        if committed or self._committing.may_wait_s <= 0 or self._flushing.due:
            await self._look()

    async def _look(self) -> None:
        """Commit what is not, then do what has been decided, and flush when it is time."""
        await self._settle()
        await self._obey()
        assert self._flushing is not None
        assert self._obedience is not None
        waits = self._obedience.waits_for_disk
        if waits and self._flushing.full:
            await self._flushing.finish()
            await self._obey()
        elif not waits and self._flushing.due:
            self._crash.reach("before_flush")
            await (self._flushing.begin() if self._taking is None else self._taking.flush())

    async def _settle(self) -> None:
        """Before anything but a batch: it is to build upon what Kafka has."""
        assert self._committing is not None
        await self._committing.settle()

    async def _settled_in_time(self) -> bool:
        """Whether all is committed. A broker that does not answer must not hold up a stop: what is
        not committed then is done again by the next claim."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._settle()
        return self._may_build

    @property
    def _may_build(self) -> bool:
        """Whether no commit has failed."""
        return self._committing is not None and not self._committing.failed

    async def _read_index(self) -> LogIndex:
        """What is known of the stream's log."""
        indexes = await read_indexes(self._context)
        return indexes.get((self.stream.name, self.partition), LogIndex())

    def _new_reader(self) -> BatchReader:
        return BatchReader(self.stream, self.partition, look_up=self._look_up, run=self._run)

    async def _look_up(self, unknown: Collection[int]) -> Mapping[int, Mapping[str, Any] | None]:
        """Schemas by id; waits for the registry, and for no longer than this owner lives."""
        known = await self._unless_stopped(self._context.schemas.get(unknown))
        if self._stopping:
            raise _StoppedError
        return known

    async def _read(self, records: Sequence[Record], first_offset: int) -> Batch:
        if self._stopping:
            raise _StoppedError
        return await self._reader.read(records, first_offset)

    def _see_stream(self) -> None:
        """Decode as what is published by now wants it."""
        before, self.stream = self.stream, self._orders.stream(self.stream.topic)
        if self.stream.published != before.published or self.stream.fields != before.fields:
            self._reader = self._new_reader()

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """Wait for `work`, and for no longer than this owner lives."""
        working = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop_wanted.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise _StoppedError
            return working.result()
        finally:
            working.cancel()
            stopped.cancel()

    # -- checkpoints -------------------------------------------------------------------------

    def _checkpoints(self, pipeline: Pipeline, replay: Replay, flushing: Flushing) -> Taking | None:
        if self._context.snapshots is None:
            return None
        return Taking(
            self._context.snapshots,
            (self.stream.name, self.partition),
            flush=flushing.begin,
            pipeline=pipeline,
            stores=replay.stores,
            schema_ids=lambda: self._reader.schema_ids,
            instance=self._context.instance,
        )

    @property
    def checkpoint_due(self) -> bool:
        """Whether a checkpoint is to be taken, and nothing comes that would lead to it."""
        return self._may_look and self.caught_up

    @property
    def _may_look(self) -> bool:
        still = self._flushing is not None and not self._flushing.busy and self._may_flush
        return still and self._taking is not None and self._taking.due

    @property
    def _may_flush(self) -> bool:
        return self._pipeline is not None and self._pipeline.may_flush

    # -- without records ----------------------------------------------------------------------

    async def obey(self) -> None:
        """Do what has been decided, or has become possible, since the last batch."""
        task = asyncio.current_task()
        assert task is not None
        self._told.add(task)
        try:
            async with self._turn:
                # What failed to be committed is not to be built upon.
                if self._pipeline is not None and not self._gone and self._may_build:
                    await self._settle()
                    await self._obey()
                    if self._may_look and self._waiting.empty():
                        assert self._taking is not None
                        await self._taking.look()
            if self._corrector is not None:
                await self._corrector.make()
        finally:
            self._told.discard(task)

    async def _obey(self) -> None:
        if self._flushing is not None:
            await self._flushing.settle()
        if self._obedience is not None:
            self._see_stream()
            await self._obedience.obey()
        if self._corrector is not None:
            await self._corrector.prepare()
        if self._asked is not None:
            await self._asked.obey()

    async def idle(self, watermark_ms: int) -> None:
        """Follow a watermark that idleness gives."""
        await self._without_records(lambda pipeline: pipeline.idle(watermark_ms))

    async def silence(self, highest_ms: int) -> None:
        """Close what is open: the whole source is silent."""
        await self._without_records(lambda pipeline: pipeline.silence(highest_ms))

    async def _without_records(self, make: Callable[[Pipeline], Iterator[Step]]) -> None:
        async with self._turn:
            if self._pipeline is not None and not self._gone and self._waiting.empty():
                assert self._committing is not None
                await self._committing.apart(make(self._pipeline))
                await self._settle()
                await self._obey()

    async def commit_position(self, offset: int) -> None:
        """Commit a position beyond trailing transaction markers, as others look at it."""
        async with self._turn:
            pipeline = self._pipeline
            if pipeline is None or self._gone or not self._waiting.empty():
                return
            if offset > pipeline.position:
                pipeline.skip_to(offset)
                assert self._committing is not None
                await self._committing.here()


def fatal(error: BaseException) -> bool:
    """Whether a new claim would meet the same error: what the operator has to mend."""
    return isinstance(error, RewindowError) and not isinstance(error, UnreachableError)
