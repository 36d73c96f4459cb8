"""Which partitions this worker owns, and how it comes to own them.

A claim takes partitions over, whatever became of their last owner:

1. Stop the owners that were here.
2. Start the partitions' transactional producers, which fences any other owner and ends what it
   had open.
3. Read the committed positions and their metadata: nothing can follow them now.
4. Where nothing is committed, decide where to start. It is committed once it is sure that
   there is no state which knows better.
5. Make the owners under a new claim number. Each one brings its state to its position by
   itself, beside the others; batches wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError, ProducerFenced

from streams.datapath.progress import Progress
from streams.definitions.model import StartAt
from streams.errors import RewindowError, UnreachableError
from streams.runtime.committed import read_progress
from streams.runtime.owner import PartitionOwner, fatal
from streams.runtime.producer import PartitionProducer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from faust.types import TP

    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.idleness import Owner
    from streams.runtime.orders import Obedient, Orders
    from streams.runtime.streams import Stream
    from streams.runtime.transport import Fetched

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
ATTEMPTS_AT_ONE_POSITION = 8
FENCED_PAUSE_S = 12.0
CLAIM_ATTEMPTS = 12
START_S = 30.0
RELEASE_S = 20.0
"""How long a step in hand may take to be finished when a partition has to be let go."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Where a claim begins; `fresh` if nothing was committed."""

    position: int
    progress: Progress
    fresh: bool


class Ownership:
    """The owners of this worker, by topic and partition."""

    def __init__(
        self,
        context: Context,
        orders: Orders,
        *,
        on_failure: Callable[[BaseException], None],
        crash: CrashPoints,
    ) -> None:
        self._context = context
        self._orders = orders
        self._streams: dict[str, Stream] = {}
        self._on_failure = on_failure
        self._crash = crash
        self._owners: dict[TP, PartitionOwner] = {}
        self._tasks: dict[TP, asyncio.Task[None]] = {}
        self._failures: dict[TP, tuple[int, int]] = {}
        self._again: set[asyncio.Task[None]] = set()
        self._pending: set[PartitionOwner] = set()
        """Owners whose claim is over and will be followed by a new one."""
        self._claims = 0
        self._reclaim: Callable[[set[TP]], Awaitable[None]] | None = None

    def connect(self, reclaim: Callable[[set[TP]], Awaitable[None]]) -> None:
        """`reclaim` makes the transport claim partitions again, with a seek after it."""
        self._reclaim = reclaim

    def add(self, stream: Stream) -> None:
        """From now on its partitions are claimed, too."""
        self._streams[stream.topic] = stream

    @property
    def topics(self) -> Collection[str]:
        """Those of the streams here."""
        return self._streams.keys()

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
        pause_s = FIRST_PAUSE_S
        for _ in range(CLAIM_ATTEMPTS - 1):
            try:
                return await self._claim(tps)
            except (KafkaError, UnreachableError, TimeoutError) as error:
                log.warning("claiming %s partitions again after %r", len(tps), error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return await self._claim(tps)

    async def _claim(self, tps: set[TP]) -> Mapping[TP, int]:
        producers = {tp: self._producer(tp) for tp in tps}
        try:
            starting = asyncio.gather(*(producer.start() for producer in producers.values()))
            await asyncio.wait_for(starting, START_S)  # 2
            starts = await self._positions(list(tps))  # 3, 4
        except BaseException:
            await asyncio.gather(*(one.stop() for one in producers.values()))
            raise
        self._claims += 1
        self._context.stats.claims += 1
        for tp, start in starts.items():  # 5
            self._own(tp, start, producers[tp])
        return {tp: start.position for tp, start in starts.items()}

    async def take(self, tp: TP, fetched: Fetched) -> None:
        """Hand a batch to its owner; without one it is dropped, for the claim is over."""
        owner = self._owners.get(tp)
        if owner is not None:
            await owner.take(fetched)

    def remind(self) -> None:
        """Let owners to whom nothing comes take the checkpoints that are due."""
        for owner in self._owners.values():
            if owner.checkpoint_due:
                self._orders.tell(owner)

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

    async def _positions(self, tps: Sequence[TP]) -> dict[TP, _Start]:
        group = self._context.names.worker_group
        committed = await self._context.run(
            lambda: self._context.offsets.committed(group, [(tp.topic, tp.partition) for tp in tps])
        )
        found: dict[TP, _Start] = {}
        for tp in tps:
            one = committed.get((tp.topic, tp.partition))
            if one is not None:
                progress = await read_progress(self._context, one.metadata)
                found[tp] = _Start(position=one.offset, progress=progress, fresh=False)
        for topic in {tp.topic for tp in tps if tp not in found}:
            new = [tp for tp in tps if tp.topic == topic and tp not in found]
            positions = await self._context.run(partial(self._starts, new))
            for tp in new:
                progress = Progress(
                    definitions_offset=self._orders.definitions_offset, start=positions[tp]
                )
                found[tp] = _Start(position=positions[tp], progress=progress, fresh=True)
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

    def _own(self, tp: TP, start: _Start, producer: PartitionProducer) -> None:
        owner = PartitionOwner(
            self._context,
            self._orders,
            tp.topic,
            tp.partition,
            claim=self._claims,
            position=start.position,
            progress=start.progress,
            fresh=start.fresh,
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
        """Stop all owners, for the worker stops: their checkpoints are set aside, too."""
        await asyncio.gather(*(self._release(tp, for_good=True) for tp in list(self._owners)))

    async def _release(self, tp: TP, *, for_good: bool = False) -> None:
        owner, task = self._owners.pop(tp), self._tasks.pop(tp)
        self._context.stats.partitions.pop((owner.stream.name, tp.partition), None)
        if task.done():
            await owner.close()
            return
        try:
            await asyncio.wait_for(owner.stop(for_good=for_good), RELEASE_S)
        except Exception as error:
            # Kafka knows what was done; the next owner goes on from there.
            log.warning("%s/%s was let go in the middle: %r", tp.topic, tp.partition, error)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await owner.close()

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
        if owner in self._pending:
            return
        position, attempts = self._failures.get(tp, (-1, 0))
        attempts = attempts + 1 if position == owner.position else 1
        self._failures[tp] = (owner.position, attempts)
        if attempts >= ATTEMPTS_AT_ONE_POSITION:
            self._give_up(tp, owner, error)
            return
        log.warning("%s/%s: claiming again after %r", tp.topic, tp.partition, error)
        pause_s = min(FIRST_PAUSE_S * 2**attempts, LONGEST_PAUSE_S)
        if isinstance(error, ProducerFenced):
            # Somebody else has claimed it. If that is right, a rebalance takes it from us
            # before this pause is over; fencing back at once would only start a quarrel.
            pause_s = FENCED_PAUSE_S
        self._pending.add(owner)
        again = asyncio.create_task(self._claim_again(tp, owner, pause_s))
        self._again.add(again)
        again.add_done_callback(self._again.discard)

    def _give_up(self, tp: TP, owner: PartitionOwner, error: BaseException) -> None:
        if not fatal(error):
            error = RewindowError(
                f"{tp.topic}/{tp.partition} fails again and again at offset {owner.position}: "
                f"{error!r}. Nothing is lost: start the worker again when the reason is mended"
            )
        self._on_failure(error)

    async def _claim_again(self, tp: TP, owner: PartitionOwner, pause_s: float) -> None:
        try:
            await asyncio.sleep(pause_s)
            if self._owners.get(tp) is owner and self._reclaim is not None:
                await self._reclaim({tp})
        except Exception as error:
            self._give_up(tp, owner, error)
        finally:
            self._pending.discard(owner)

    def failed(self, owner: Owner | Obedient, error: Exception) -> None:
        """An owner could not do what it was told beside its batches: its claim is over."""
        for tp, known in self._owners.items():
            if known is owner:
                self._tasks[tp].cancel()
                self._begin_again(tp, known, error)
                return

    def fetch_failed(self, tps: set[TP], error: Exception) -> None:
        """Partitions can't be read where they stand; a claim finds out whether they can be."""
        for tp in tps:
            owner = self._owners.get(tp)
            # While it recovers it looks at the log itself, and can say more.
            if owner is not None and owner.recovered:
                self.failed(owner, error)

    # -- who is here ----------------------------------------------------------------------------

    def owner(self, tp: TP) -> PartitionOwner | None:
        """The owner of a partition, if it is here."""
        return self._owners.get(tp)

    def owners(self, topic: str) -> list[PartitionOwner]:
        """Owners of a topic's partitions."""
        return [owner for tp, owner in self._owners.items() if tp.topic == topic]

    def held(self) -> set[TP]:
        """Partitions that have an owner here."""
        return set(self._owners)

    def all(self) -> list[tuple[TP, PartitionOwner]]:
        """Every owner here, with its partition."""
        return list(self._owners.items())
