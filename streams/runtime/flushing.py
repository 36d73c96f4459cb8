"""Flushes of one partition, beside its batches.

1. *Begin*, with the owner's turn in hand: what memory has is set aside, at a committed position.
2. *Write*, in a thread, while batches go on: they add to what is not sealed, and read both.
3. *Settle*, at the next turn: the files that were written become part of the bundles.
4. *Use*, beside batches again: what somebody wants of the bundles as they were there. The next
   flush may be written meanwhile, and is settled after that.

One is written at a time. A second one may begin meanwhile, so that a fence does not wait for the
disk: it is written when the first is settled. Whoever needs the disk to be still waits with
`finish`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.datapath.bundle_state import Flush
    from streams.datapath.pipeline import Pipeline
    from streams.runtime.context import Context
    from streams.runtime.replay import Run

Use = Coroutine[Any, Any, None]
"""Work on the bundles on disk, which nothing is added to before it has ended."""

Then = Callable[[], Use | None]
"""Called in the turn that settles a flush; says what is to be done with it, if anything."""

BEGUN_AT_MOST = 2


class Flushing:
    """Flushes what `pipeline` holds; every method needs the owner's turn, except `close`.

    The claim begins at the position `begun`. `run` runs blocking work in a thread. `on_written`
    is called when a flush may be ready to be settled, and wants `settle` to be called.
    """

    def __init__(
        self,
        context: Context,
        pipeline: Pipeline,
        *,
        begun: int,
        run: Run,
        on_written: Callable[[], None],
    ) -> None:
        self._context = context
        self._pipeline = pipeline
        self._begun = begun
        self._flushed_s = context.clock.monotonic_s()
        self._run = run
        self._on_written = on_written
        self._queue: deque[_Begun] = deque()
        """The first of them is being written."""
        self._writing: asyncio.Task[list[int]] | None = None
        self._using: asyncio.Task[None] | None = None
        """What the settled ones are used for."""
        self._awaited = False

    @property
    def busy(self) -> bool:
        """Whether a flush has begun and is not settled."""
        return bool(self._queue)

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        if not self._pipeline.may_flush:
            return False
        limits, rows = self._context.limits, self._pipeline.unflushed_rows
        if self.busy and not self.full:
            return False
        late = self._context.clock.monotonic_s() - self._flushed_s >= limits.flush_every_s
        return late or self._behind or rows >= limits.flush_rows

    @property
    def full(self) -> bool:
        """Whether memory must not hold much more."""
        return self._pipeline.unflushed_rows >= 2 * self._context.limits.flush_rows

    @property
    def _behind(self) -> bool:
        """Whether a bundle on disk is far from where this claim began.

        A worker that is killed again before its next flush would replay all that once more, as
        it would what a version was just warmed with.
        """
        metas = [state.store.meta for state in self._pipeline.bundles]
        oldest = min((0 if meta is None else meta.next_offset for meta in metas), default=0)
        return self._begun - oldest > self._context.limits.replay_again

    async def begin(self, *then: Then) -> None:
        """Begin a flush at the position, if none is that has begun there.

        Each of `then` is called when the bundles on disk are what they were at this position.
        """
        position = self._pipeline.position
        if self._queue and self._queue[-1].position == position:
            self._queue[-1].then.extend(then)
            return
        while len(self._queue) >= BEGUN_AT_MOST:
            await self._settle_first()
        flushes = await self._run(self._pipeline.begin_flush)
        self._queue.append(_Begun(position, flushes, list(then)))
        self._write_first()
        self._flushed_s = self._context.clock.monotonic_s()
        self._context.stats.flushes += 1

    async def settle(self) -> None:
        """Settle the flush if it is written and the one before is used no more.

        Raises what went wrong with either.
        """
        if self._using is not None and not self._using.done():
            return
        await self._used()
        if self._writing is not None and self._writing.done():
            await self._settle_first()

    async def finish(self) -> None:
        """Wait until nothing is written, settled or used. Raises what went wrong with it."""
        while self._queue:
            await self._settle_first()
        await self._used()

    async def close(self) -> None:
        """Wait until nothing is written or used; what was written is not settled."""
        await self._wait_for(self._writing)
        await self._wait_for(self._using)
        self._writing = self._using = None
        self._queue.clear()

    def _write_first(self) -> None:
        if self._queue and self._writing is None:
            flushes = self._queue[0].flushes
            # A thread of its own: those of the data path go on.
            writing = asyncio.to_thread(lambda: [one.write() for one in flushes])
            self._writing = asyncio.create_task(writing, name="flush")
            self._writing.add_done_callback(self._went_on)

    def _went_on(self, _: object) -> None:
        if not self._awaited:
            self._on_written()

    async def _settle_first(self) -> None:
        self._write_first()  # nobody has, where the one before has failed
        await self._wait_for(self._writing)
        await self._used()
        assert self._writing is not None
        writing, self._writing = self._writing, None
        begun = self._queue.popleft()
        writing.result()

        def ingest() -> None:
            for one in begun.flushes:
                one.ingest()

        await self._run(ingest)
        self._use([use for then in begun.then if (use := then()) is not None])
        self._write_first()

    def _use(self, uses: Sequence[Use]) -> None:
        async def one_by_one() -> None:
            for use in uses:
                await use

        if uses:
            self._using = asyncio.create_task(one_by_one(), name="use of a flush")
            self._using.add_done_callback(self._went_on)

    async def _used(self) -> None:
        """Wait until the settled ones are used no more. Raises what went wrong with that."""
        await self._wait_for(self._using)
        using, self._using = self._using, None
        if using is not None:
            using.result()

    async def _wait_for(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and not task.done():
            self._awaited = True
            await asyncio.wait([task])
            self._awaited = False


@dataclass(slots=True)
class _Begun:
    """A flush of all bundles at a position, and what is to be called when it is on disk."""

    position: int
    flushes: list[Flush]
    then: list[Then]
