"""Flushes of one partition, beside its batches.

1. *Begin*, with the owner's turn in hand: what memory has is sealed, at a committed position.
2. *Write*, in a thread, while batches go on: they add to what is not sealed, and read both.
3. *Settle*, at the next turn: the files that were written become part of the bundles.

There is one at a time. Whoever needs the disk to be still waits for it with `finish`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.datapath.bundle_state import Flush
    from streams.datapath.pipeline import Pipeline
    from streams.runtime.context import Context
    from streams.runtime.replay import Run

Then = Callable[[], Awaitable[None]]


class Flushing:
    """Flushes what `pipeline` holds; every method needs the owner's turn, except `close`.

    The claim begins at the position `begun`. `run` runs blocking work in a thread. `on_written`
    is called when a flush can be settled, and wants `settle` to be called.
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
        self._flushes: list[Flush] = []
        self._writing: asyncio.Task[None] | None = None
        self._awaited = False
        self._of_position = -1
        self._then: list[Then] = []

    @property
    def busy(self) -> bool:
        """Whether a flush has begun and is not settled."""
        return self._writing is not None

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
        """Begin a flush at the position, after the one that is being made, if that is not of this
        position itself.

        Each of `then` is called when the bundles on disk are what they were at this position, in
        the turn that settles it.
        """
        if self.busy and self._of_position == self._pipeline.position:
            self._then += then
            return
        await self.finish()
        self._of_position = self._pipeline.position
        self._flushes = await self._run(self._pipeline.begin_flush)
        self._then = list(then)
        # A thread of its own: those of the data path go on.
        self._writing = asyncio.create_task(asyncio.to_thread(self._write), name="flush")
        self._writing.add_done_callback(self._written)
        self._flushed_s = self._context.clock.monotonic_s()
        self._context.stats.flushes += 1

    def _written(self, _: object) -> None:
        if not self._awaited:
            self._on_written()

    def _write(self) -> None:
        for one in self._flushes:
            one.write()

    async def settle(self) -> None:
        """Settle the flush if it is written. Raises what went wrong with it."""
        if self._writing is not None and self._writing.done():
            await self.finish()

    async def finish(self) -> None:
        """Wait until nothing is being written, and settle that. Raises what went wrong with it."""
        await self._wait()
        writing, self._writing = self._writing, None
        if writing is None:
            return
        flushes, self._flushes = self._flushes, []
        then, self._then = self._then, []
        writing.result()

        def ingest() -> None:
            for one in flushes:
                one.ingest()

        await self._run(ingest)
        for call in then:
            await call()

    async def close(self) -> None:
        """Wait until nothing is being written; it is not settled."""
        await self._wait()
        self._writing = None

    async def _wait(self) -> None:
        if self._writing is not None:
            self._awaited = True
            await asyncio.wait([self._writing])
            self._awaited = False
