"""What one partition's owner commits: each a Kafka transaction, with the position it came from.

1. *A step that says something*: its vectors, copies and acknowledgements go out with its position.
2. *A step that says nothing* may wait: its position goes with the next commit. Nobody but the
   pipeline knows of it until then, so whoever builds upon it, on disk or elsewhere, settles first.
3. *A position by itself*, with acknowledgements or nothing.

Once a commit has failed nothing more is committed under this claim.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aiokafka import TopicPartition

from streams.runtime.obedience import acknowledged
from streams.runtime.outlets import Outlets
from streams.runtime.output import ByOffset, outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streams.control.records import Ack
    from streams.datapath.pipeline import Pipeline, Step
    from streams.datapath.progress import Progress
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.floors import Floors
    from streams.runtime.log_index import IndexKeeper
    from streams.runtime.orders import Orders
    from streams.runtime.producer import Outgoing, PartitionProducer
    from streams.runtime.replay import Run
    from streams.runtime.stats import PartitionStats
    from streams.runtime.streams import Stream


class BrokenClaimError(Exception):
    """Something failed before, and what comes now was to follow it: the claim starts anew."""


class Committing:
    """Commits what `pipeline` makes, for as long as one claim; needs the owner's turn.

    `position` and `progress` are what is committed. `index` and `floors` are those of the stream
    partition, `stats` shows it.
    """

    def __init__(
        self,
        context: Context,
        orders: Orders,
        producer: PartitionProducer,
        pipeline: Pipeline,
        *,
        stream: Callable[[], Stream],
        stats: PartitionStats,
        index: IndexKeeper,
        floors: Floors,
        position: int,
        progress: Progress,
        run: Run,
        crash: CrashPoints,
    ) -> None:
        """`stream` gives the stream with what is published by now; `run` runs blocking work."""
        self.position = position
        self.progress = progress
        self._context = context
        self._orders = orders
        self._producer = producer
        self._pipeline = pipeline
        self._stream = stream
        self._stats = stats
        self._index = index
        self._floors = floors
        self._run = run
        self._crash = crash
        self._outlets = Outlets(context.names, stream, orders)
        self._tp = TopicPartition(stream().topic, stats.partition)
        self._uncommitted: list[Step] = []
        """Steps that the pipeline has made, and that wait since they say nothing."""
        self._committed_s = -math.inf
        self._under_way = False

    @property
    def failed(self) -> bool:
        """Whether a commit has failed or, without the turn, may be under way: the pipeline may
        be ahead of what Kafka has."""
        return self._under_way

    @property
    def settled(self) -> bool:
        """Whether everything that the pipeline has made is committed."""
        return not self._uncommitted

    @property
    def may_wait_s(self) -> float:
        """How much longer what says nothing may wait for what says something."""
        since_s = self._context.clock.monotonic_s() - self._committed_s
        return self._context.limits.commit_every_s - since_s

    async def steps(self, steps: Iterator[Step], records: ByOffset) -> bool:
        """Commit the steps of a batch with these records, apart from those that may wait.

        Returns whether any was committed. Raises BrokenClaimError if a commit has failed before.
        """
        return await self._commit_each(steps, records, may_wait=True)

    async def apart(self, steps: Iterator[Step]) -> None:
        """Commit steps that no record is behind. Raises as `steps` does."""
        await self._commit_each(steps, ByOffset(()), may_wait=False)

    async def acks(self, acks: Sequence[Ack]) -> None:
        """Commit the position as it is, with acks. Raises as `steps` does."""
        await self.here(self._orders.acks(acks))

    async def here(self, said: Sequence[Outgoing] = ()) -> None:
        """Commit what the pipeline has come to, with no step. Raises as `steps` does."""
        self._begin()
        await self._commit(said, self._pipeline.position, self._pipeline.progress)
        self._under_way = False
        self.show()

    async def settle(self) -> None:
        """Commit what has waited, if anything has. Raises as `steps` does."""
        if self._uncommitted:
            await self.here()
            self._crash.reach("after_commit")

    def show(self) -> None:
        """Bring what is committed into the stats."""
        self._stats.show(self.position, self.progress, self._pipeline)

    async def _commit_each(
        self, steps: Iterator[Step], records: ByOffset, *, may_wait: bool
    ) -> bool:
        self._begin()
        committed = False
        while (made := await self._run(lambda: self._next(steps, records))) is not None:
            step, said = made
            acks = acknowledged(step.acks, self._stream(), self._stats.partition)
            said += [*self._orders.acks(acks), *self._index.news(self._pipeline, self._floors)]
            if may_wait and not said and step.progress.at_rest:
                self._uncommitted.append(step)
            else:
                await self._commit(said, step.position, step.progress)
                self._crash.reach("after_commit")
                self._context.stats.count(step)
                committed = True
            self.show()
            if step.progress.cursor is not None:
                self._crash.reach("in_closing")
            elif step.progress.correcting is not None:
                self._crash.reach("in_correcting")
            if step.last:
                break
        self._under_way = False
        return committed

    def _next(self, steps: Iterator[Step], records: ByOffset) -> tuple[Step, list[Outgoing]] | None:
        """The next step, and its vectors and copies."""
        step = next(steps, None)
        if step is None:
            return None
        return step, outgoing(
            step,
            self._stream(),
            self._stats.partition,
            self._context.names,
            records.find(step),
            self._outlets.of(step, self._pipeline.paths),
        )

    def _begin(self) -> None:
        """From here on the pipeline may be ahead of what is committed."""
        if self._under_way:
            raise BrokenClaimError(f"{self._tp.topic}/{self._tp.partition}: a commit failed before")
        self._under_way = True

    async def _commit(self, said: Sequence[Outgoing], position: int, progress: Progress) -> None:
        watermark_ms = progress.watermark_ms
        await self._producer.commit(
            said,
            (self._tp, position, progress.encode()),
            short="" if watermark_ms is None else str(watermark_ms),
        )
        self.position, self.progress = position, progress
        self._committed_s = self._context.clock.monotonic_s()
        self._context.stats.transactions += 1
        for step in self._uncommitted:
            self._context.stats.count(step)
        self._uncommitted.clear()
