"""Corrections of one partition, beside its batches.

1. *At the fence*, with the owner's turn in hand: memory is flushed, so that what is on disk is as
   of the fence. Nothing is flushed after that before the last correction is committed.
2. *Between batches*, once that is written: one transaction of corrections in each turn.
3. Where memory holds too much of what followed the fence: all that are left, before the next
   batch.

A claim that begins amid corrections has the disk as of the fence when it is there, see recovery.py.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from streams.datapath.pipeline import Pipeline
    from streams.datapath.step import Step
    from streams.runtime.flushing import Flushing

log = logging.getLogger(__name__)


class Corrector:
    """Makes the corrections that are pending in `pipeline`, for as long as one claim.

    `commit_steps` commits them; `may_go_on` says whether the claim is good for more. `on_ready`
    is called when there are some to make, and wants `make` to be called; `on_done` in the turn
    that made the last ones: what had to wait for them can be done.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        flushing: Flushing,
        turn: asyncio.Lock,
        *,
        commit_steps: Callable[[Iterator[Step]], Awaitable[None]],
        may_go_on: Callable[[], bool],
        on_ready: Callable[[], None],
        on_done: Callable[[], Awaitable[None]],
    ) -> None:
        self._pipeline = pipeline
        self._flushing = flushing
        self._turn = turn
        self._commit_steps = commit_steps
        self._may_go_on = may_go_on
        self._on_ready = on_ready
        self._on_done = on_done
        self.in_turn = False
        """Whether it is what has the turn, between batches."""
        self._left: Iterator[Step] | None = None
        self._busy = False

    async def prepare(self) -> None:
        """Have on disk what they are made of, before anything follows a fence, or say that it is
        there. Needs the turn."""
        if self._pipeline.corrections_ready:
            if not self._busy:
                self._on_ready()
        elif self._pipeline.correcting and self._pipeline.may_flush:
            await self._flushing.begin()

    async def make(self) -> None:
        """Make them between batches. Takes the turn for each transaction; for one caller at once,
        others come back with nothing done."""
        if self._busy:
            return
        self._busy = True
        try:
            while await self._make_some():
                pass
        finally:
            self._busy = False

    async def _make_some(self) -> bool:
        """Whether there may be more to make."""
        async with self._turn:
            if not self._may_go_on() or not self._pipeline.corrections_ready:
                return False
            self.in_turn = True
            try:
                await self._make_one()
            finally:
                self.in_turn = False
            return self._pipeline.correcting

    async def make_room(self, of: str) -> bool:
        """Make all that are left if memory is full of what followed the fence. Needs the turn.

        False if the claim ended before that.
        """
        if not (self._pipeline.correcting and self._flushing.full):
            return True
        log.info("%s: batches wait for corrections", of)
        await self._flushing.finish()
        while self._pipeline.corrections_ready:
            if not self._may_go_on():
                return False
            await self._make_one()
        return True

    async def _make_one(self) -> None:
        """One transaction of them."""
        if self._left is None:
            self._left = self._pipeline.corrections()
        await self._commit_steps(islice(self._left, 1))
        if not self._pipeline.correcting:
            self._left = None
            await self._on_done()
