"""A version's bundles on their way to the stream, beside the batches of the partition's owner."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.datapath.live_view import LiveView
from streams.datapath.log_index import LogIndex
from streams.datapath.pipeline import Pipeline
from streams.datapath.progress import Progress
from streams.errors import RefusedError, UnreachableError
from streams.runtime.batch_reader import BatchReader
from streams.runtime.blocking import Blocking
from streams.runtime.replay import Replay
from streams.runtime.restoring import restore_lacking, restore_named
from streams.runtime.reviving import Need, Start, find_start

if TYPE_CHECKING:
    from streams.datapath.bundle_state import BundleState
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.roster import Name
    from streams.runtime.streams import Stream

AWAY = (KafkaError, UnreachableError, TimeoutError)
"""What was away is tried again; anything else ends the warming."""

PAUSE_S = 1.0

ReadIndex = Callable[[], Awaitable["LogIndex"]]


class Warming:
    """Brings the bundles that a version lacks to the stream, in a task of its own."""

    def __init__(
        self,
        context: Context,
        stream: Stream,
        partition: int,
        name: Name,
        *,
        checkpoint: str | None,
        known: Collection[str],
        need: Need | None,
        app_start: int,
        index: ReadIndex,
        position: Callable[[], int],
        on_done: Callable[[], None],
        crash: CrashPoints,
    ) -> None:
        self._run = Blocking(context)
        reader = BatchReader(stream, partition, look_up=context.schemas.get, run=self._run)
        self.replay = Replay(
            context, stream, partition, read=reader.read, run=self._run, crash=crash
        )
        self.done = False
        self._plan = stream.version(*name).plan
        self._stream = stream
        self._missing = [one for one in self._plan.bundles if one.digest not in known]
        self._checkpoint = checkpoint
        self._need = need
        self._app_start = app_start
        self._index = index
        self._position = position
        self._on_done = on_done
        self._pipeline: Pipeline | None = None
        self._error: BaseException | None = None
        self._context = context
        self._at = (stream.topic, partition)
        self._name = name
        self.go_on()

    def go_on(self) -> None:
        """Begin, or begin again where something was away."""
        self.done, self._error = False, None
        self._task = asyncio.create_task(self._warm(), name=f"warm {self._name}")

    async def _warm(self) -> None:
        try:
            if self._missing:
                while not await self._near():
                    await asyncio.sleep(PAUSE_S)
        except Exception as error:
            self._error = error
        finally:
            self.done = True
        self._on_done()

    async def _near(self) -> bool:
        """Bring the bundles near the stream; False if something was away."""
        try:
            if self._pipeline is None:
                await self._open()
                self._pipeline = self._feeding()
            # What comes in while the first part is read is less, and is read again.
            for _ in range(2):
                await self.replay.bring(self._pipeline, self._position())
        except OffsetOutOfRangeError as error:
            raise RefusedError(f"{self._at[0]}/{self._at[1]} was trimmed meanwhile") from error
        except AWAY:
            return False
        return True

    async def _open(self) -> None:
        log_start = (await self._run(lambda: self._context.offsets.starts([self._at])))[self._at]
        position = self._position()
        index = LogIndex() if self._need is None else await self._index()
        start = find_start(
            index,
            self._need,
            app_start=self._app_start,
            log_start=log_start,
            position=position,
        )

        def open_all() -> None:
            self.replay.open(self._missing, start.offset, floor_ms=start.floor_ms)

        await self._run(open_all)
        if self._checkpoint is not None:
            restored = await restore_named(
                self._context.snapshots,
                self.replay,
                (self._stream.name, self._at[1]),
                self._context.resources,
                self._checkpoint,
                start=start,
                position=position,
            )
            self._context.stats.restored += restored
            return
        states = self.replay.states.values()
        lost = [
            one
            for one in states
            if not log_start <= one.next_offset <= position or self._can_do_better(one, start)
        ]
        if lost:
            await self._run(lambda: self.replay.drop(lost))
            await self._run(open_all)
        restored = await restore_lacking(
            self._context.snapshots,
            self.replay,
            (self._stream.name, self._at[1]),
            self._context.resources,
            start=start,
            needs={} if self._need is None else dict.fromkeys(self.replay.states, self._need),
            # What lies before a replay's start takes longer, and is needed only if that lacks some.
            log_start=start.offset if self._has_all(start) else log_start,
            position=position,
        )
        self._context.stats.restored += restored
        if restored and (late := [one for one in states if self._can_do_better(one, start)]):
            await self._run(lambda: self.replay.drop(late))
            await self._run(open_all)

    def _has_all(self, start: Start) -> bool:
        """Whether a replay from there gives all panes that are wanted."""
        if self._need is None or start.floor_ms is None:
            return False
        return start.floor_ms <= self._need.wanted_ms

    def _can_do_better(self, state: BundleState, start: Start) -> bool:
        """Whether a bundle was left half-built that is not whole where it could be."""
        if self._need is None or start.floor_ms is None or state.floor_ms is None:
            return False
        return self._need.lacks(state.floor_ms) and not self._need.lacks(start.floor_ms)

    def _feeding(self) -> Pipeline:
        states = list(self.replay.states.values())
        return Pipeline(
            [],
            followers=[LiveView(self._plan.view, states, self._stream.fields)],
            watermark=self.replay.watermark(),
            position=min(state.next_offset for state in states),
            progress=Progress(),
        )

    async def finish(self, position: int) -> None:
        """The rest of the way, while the owner stands still at `position`.

        Raises what went wrong on the way.
        """
        if self._error is not None:
            raise self._error
        if self._pipeline is not None:
            await self.replay.bring(self._pipeline, position)
            self.replay.arrived()

    async def stop(self) -> None:
        """Give up, and close what is open."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._run.ended()
        await self._run(self.replay.close)
