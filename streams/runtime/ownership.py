"""Which partitions this worker owns, and how it comes to own them.

A claim takes partitions over, whatever became of their last owner:

1. Stop the owners that were here.
2. Start the partitions' transactional producers, which fences any other owner and ends what it
   had open.
3. Read the committed positions and their metadata: nothing can follow them now.
4. Where nothing is committed, decide where to start, and commit that.
5. Make the owners under a new claim number. Each one brings its state to its position by
   itself, beside the others; batches wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from streams.datapath.progress import Progress
from streams.definitions.model import StartAt
from streams.errors import RewindowError
from streams.runtime.log import read_log
from streams.runtime.owner import PartitionOwner, fatal
from streams.runtime.producer import SPILLED, PartitionProducer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from faust.types import TP

    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.idleness import Owner
    from streams.runtime.streams import Stream
    from streams.runtime.transport import Fetched

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
ATTEMPTS_AT_ONE_POSITION = 8
FENCED_PAUSE_S = 12.0

log = logging.getLogger(__name__)


class Ownership:
    """The owners of this worker, by topic and partition."""

    def __init__(
        self,
        context: Context,
        streams: Sequence[Stream],
        *,
        on_failure: Callable[[BaseException], None],
        crash: CrashPoints,
    ) -> None:
        self._context = context
        self._streams = {stream.topic: stream for stream in streams}
        self._on_failure = on_failure
        self._crash = crash
        self._owners: dict[TP, PartitionOwner] = {}
        self._tasks: dict[TP, asyncio.Task[None]] = {}
        self._failures: dict[TP, tuple[int, int]] = {}
        self._claims = 0
        self._reclaim: Callable[[set[TP]], Awaitable[None]] | None = None

    def connect(self, reclaim: Callable[[set[TP]], Awaitable[None]]) -> None:
        """`reclaim` makes the transport claim partitions again, with a seek after it."""
        self._reclaim = reclaim

    # -- what the transport asks ----------------------------------------------------------------

    def claim_of(self, tp: TP) -> int | None:
        owner = self._owners.get(tp)
        return None if owner is None else owner.claim

    def has_room(self, tp: TP) -> bool:
        owner = self._owners.get(tp)
        return owner is not None and owner.has_room

    async def claim(self, tps: set[TP]) -> Mapping[TP, int]:
        """Claim partitions; returns where each one goes on (see the module)."""
        tps = {tp for tp in tps if tp.topic in self._streams}
        await self.release(tps)  # 1
        if not tps:
            return {}
        self._claims += 1
        self._context.stats.claims += 1
        producers = {tp: self._producer(tp) for tp in tps}
        await asyncio.gather(*(producer.start() for producer in producers.values()))  # 2
        positions = await self._positions(producers)  # 3, 4
        for tp, (position, progress) in positions.items():  # 5
            self._own(tp, position, progress, producers[tp])
        return {tp: position for tp, (position, _) in positions.items()}

    async def take(self, tp: TP, fetched: Fetched) -> None:
        """Hand a batch to its owner; without one it is dropped, for the claim is over."""
        owner = self._owners.get(tp)
        if owner is not None:
            await owner.take(fetched)

    # -- claiming -------------------------------------------------------------------------------

    def _producer(self, tp: TP) -> PartitionProducer:
        names = self._context.names
        stream = self._streams[tp.topic]
        return PartitionProducer(
            self._context.kafka_config,
            names.transactional_id(stream.name, tp.partition),
            names.worker_group,
            spill_topic=names.acks_topic,
            on_sent=partial(self._crash.reach, "in_transaction"),
        )

    async def _progress(self, metadata: str) -> Progress:
        """Progress out of commit metadata, which may name a record that holds it."""
        if not metadata:  # somebody set the group's offsets by hand
            return Progress(definitions_offset=self._context.definitions_offset)
        if not metadata.startswith(SPILLED):
            return Progress.decode(metadata)
        offset = int(metadata[len(SPILLED) :])
        topic = self._context.names.acks_topic
        async for records in read_log(self._context, topic, 0, offset, offset + 1):
            return Progress.decode(records[0].value.decode())
        raise RewindowError(
            f"the commit metadata names offset {offset} of {topic}, which is gone: its "
            "retention must be unlimited. Reset the group's offsets to start over"
        )

    async def _positions(
        self, producers: Mapping[TP, PartitionProducer]
    ) -> dict[TP, tuple[int, Progress]]:
        group = self._context.names.worker_group
        at = {(tp.topic, tp.partition): tp for tp in producers}
        committed = await self._context.run(
            lambda: self._context.offsets.committed(group, list(at))
        )
        found = {
            at[key]: (one.offset, await self._progress(one.metadata))
            for key, one in committed.items()
        }
        for topic in {tp.topic for tp in producers if tp not in found}:
            new = [tp for tp in producers if tp.topic == topic and tp not in found]
            starts = await self._context.run(partial(self._starts, new))
            for tp in new:
                position = starts[tp]
                progress = Progress(
                    definitions_offset=self._context.definitions_offset, start=position
                )
                where = TopicPartition(tp.topic, tp.partition)
                await producers[tp].commit([], (where, position, progress.encode()))
                found[tp] = (position, progress)
        return found

    def _starts(self, tps: Sequence[TP]) -> dict[TP, int]:
        stream = self._streams[tps[0].topic]
        start = StartAt.EARLIEST if stream.rekeyed else stream.published.source.start
        at = [(tp.topic, tp.partition) for tp in tps]
        offsets = self._context.offsets
        match start:
            case StartAt.EARLIEST:
                found = offsets.starts(at)
            case StartAt.LATEST:
                found = offsets.ends(at)
            case timestamp_ms:
                found = offsets.at_time(at, timestamp_ms)
        return {tp: found[(tp.topic, tp.partition)] for tp in tps}

    def _own(self, tp: TP, position: int, progress: Progress, producer: PartitionProducer) -> None:
        owner = PartitionOwner(
            self._context,
            self._streams[tp.topic],
            tp.partition,
            claim=self._claims,
            position=position,
            progress=progress,
            producer=producer,
            crash=self._crash,
        )
        self._owners[tp] = owner
        self._context.stats.partitions[(owner.stream.name, tp.partition)] = owner.stats
        task = asyncio.create_task(owner.run(), name=f"owner {tp.topic}/{tp.partition}")
        self._tasks[tp] = task
        task.add_done_callback(lambda done: self._ended(tp, owner, done))

    # -- letting go -----------------------------------------------------------------------------

    async def release(self, tps: set[TP]) -> None:
        """Stop the owners of partitions: finish the step in hand, flush, close."""
        await asyncio.gather(*(self._release(tp) for tp in tps if tp in self._owners))

    async def release_all(self) -> None:
        """Stop all owners."""
        await self.release(set(self._owners))

    async def _release(self, tp: TP) -> None:
        owner, task = self._owners.pop(tp), self._tasks.pop(tp)
        self._context.stats.partitions.pop((owner.stream.name, tp.partition), None)
        if task.done():
            await owner.close()
            return
        try:
            await owner.stop()
        except Exception:
            log.warning("stopping %s/%s", tp.topic, tp.partition, exc_info=True)
            await owner.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    # -- failures -------------------------------------------------------------------------------

    def _ended(self, tp: TP, owner: PartitionOwner, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None or self._owners.get(tp) is not owner:
            return
        error = task.exception()
        assert error is not None
        self._begin_again(tp, owner, error)

    def _begin_again(self, tp: TP, owner: PartitionOwner, error: BaseException) -> None:
        """Claim again after a failure, unless an operator has to mend it first."""
        if fatal(error):
            self._on_failure(error)
            return
        position, attempts = self._failures.get(tp, (-1, 0))
        attempts = attempts + 1 if position == owner.position else 1
        self._failures[tp] = (owner.position, attempts)
        if attempts >= ATTEMPTS_AT_ONE_POSITION:
            self._on_failure(error)
            return
        log.warning("%s/%s: claiming again after %r", tp.topic, tp.partition, error)
        pause_s = min(FIRST_PAUSE_S * 2**attempts, LONGEST_PAUSE_S)
        if isinstance(error, ProducerFenced):
            # Somebody else has claimed it. If that is right, a rebalance takes it from us
            # before this pause is over; fencing back at once would only start a quarrel.
            pause_s = FENCED_PAUSE_S
        self._again = asyncio.create_task(self._claim_again(tp, owner, pause_s))

    async def _claim_again(self, tp: TP, owner: PartitionOwner, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        if self._owners.get(tp) is owner and self._reclaim is not None:
            await self._reclaim({tp})

    def failed(self, owner: Owner, error: Exception) -> None:
        """An owner could not do what it was told beside its batches: its claim is over."""
        for tp, known in self._owners.items():
            if known is owner:
                self._tasks[tp].cancel()
                self._begin_again(tp, known, error)
                return

    # -- who is here ----------------------------------------------------------------------------

    def owner(self, tp: TP) -> PartitionOwner | None:
        """The owner of a partition, if it is here."""
        return self._owners.get(tp)

    def owners(self, topic: str) -> list[PartitionOwner]:
        """Owners of a topic's partitions."""
        return [owner for tp, owner in self._owners.items() if tp.topic == topic]

    def all(self) -> list[tuple[TP, PartitionOwner]]:
        """Every owner here, with its partition."""
        return list(self._owners.items())
