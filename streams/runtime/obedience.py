"""How one partition's owner does what the control path decides.

At a batch boundary, and at once when no batch is in hand, it looks at the routes:

1. A version that serves by a newer epoch takes over at a fence: position, epoch and ack are one
   transaction.
2. A version that has become live is warmed: its bundles are brought to the stream beside the
   batches, then join them. Once its next as-of time is whole, the owner says that it is ready.
3. A version that is not live any more leaves, and what only it needed is deleted.

All of it is done with the owner's turn in hand, warming apart; only its last step needs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from streams.control import records
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline
from streams.datapath.progress import Progress
from streams.errors import RewindowError, UnreachableError
from streams.runtime.batch_reader import BatchReader
from streams.runtime.blocking import Blocking
from streams.runtime.replay import Replay, Run
from streams.runtime.roster import live
from streams.windowing.panes import floor_to
from streams.windowing.watermark import Watermark

if TYPE_CHECKING:
    from streams.control.records import Ack, LiveVersion
    from streams.datapath.step import Fenced, Step
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.roster import Decided, Name
    from streams.runtime.streams import Stream

PAUSE_S = 1.0

log = logging.getLogger(__name__)

CommitSteps = Callable[[Iterator["Step"]], Awaitable[None]]
CommitAcks = Callable[[Sequence["Ack"]], Awaitable[None]]


class Obedience:
    """What one owner has done of what is decided, for as long as its claim."""

    def __init__(
        self,
        context: Context,
        partition: int,
        *,
        stream: Callable[[], Stream],
        decided: Decided,
        pipeline: Pipeline,
        replay: Replay,
        begin: int,
        run: Run,
        commit_steps: CommitSteps,
        commit_acks: CommitAcks,
        on_warm: Callable[[], None],
        crash: CrashPoints,
    ) -> None:
        """`stream` gives the stream with what is published by now; `begin` is where bundles
        begin that have nothing; `on_warm` is called when a version's bundles are near the
        stream, and wants `obey` to be called, with the turn in hand."""
        self._context = context
        self._stream_now = stream
        self._partition = partition
        self._decided = decided
        self._pipeline = pipeline
        self._replay = replay
        self._begin = begin
        self._run = run
        self._commit_steps = commit_steps
        self._commit_acks = commit_acks
        self._on_warm = on_warm
        self._crash = crash
        self._seen = -1
        self._unready: dict[Name, LiveVersion] = {}
        self._warming: dict[tuple[Name, int], _Warming] = {}

    @property
    def _stream(self) -> Stream:
        return self._stream_now()

    @property
    def _here(self) -> dict[Name, LiveView]:
        """The versions that follow the stream here, those that serve among them."""
        pipeline = self._pipeline
        views = (*(path.live for path in pipeline.paths), *pipeline.followers)
        return {one.name: one for one in views}

    async def obey(self) -> None:
        """Do all that can be done now. Needs the turn, and a pipeline with nothing pending."""
        offset = self._decided.next_offset
        if offset != self._seen:
            await self._switch(offset)
            self._pipeline.heard(offset)
            self._seen = offset
            await self._leave()
            await self._note_unready()
        await self._join()
        if self._unready:
            await self._say_ready()

    async def close(self) -> None:
        """Stop warming."""
        for warming in self._warming.values():
            await warming.stop()
        self._warming = {}

    # -- 1 ------------------------------------------------------------------------------------

    async def _switch(self, offset: int) -> None:
        for name in self._stream.sets:
            route = self._decided.route(name)
            if route is not None and route.epoch > self._pipeline.progress.epochs.get(name, 0):
                steps = self._pipeline.switch(
                    name, route.serving, epoch=route.epoch, control_offset=offset
                )
                await self._commit_steps(steps)

    # -- 3 ------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Let go of what is not live any more; a predecessor is asked again at the next news."""
        wanted = {
            (name, one.version)
            for name in self._stream.sets
            for one in live(self._stream, self._decided, name)
        }
        kept = set(self._pipeline.predecessors.items())
        for one in self._pipeline.followers:
            name = one.view.feature_set
            if self._decided.route(name) is None or one.name in wanted | kept:
                continue
            gone = self._pipeline.leave(*one.name)
            await self._run(partial(self._replay.drop, gone))

    # -- 2 ------------------------------------------------------------------------------------

    async def _note_unready(self) -> None:
        """Which versions nobody knows to be ready, and warm those that are not here."""
        here = self._here
        self._unready = {
            (name, one.version): one
            for name in self._stream.sets
            for one in live(self._stream, self._decided, name)
            if not one.ready
        }
        wanted = {(name, one.generation) for name, one in self._unready.items()}
        for attempt in self._warming.keys() - wanted:
            await self._warming.pop(attempt).stop()
        for name, one in self._unready.items():
            attempt = (name, one.generation)
            if name not in here and attempt not in self._warming:
                self._warming[attempt] = self._warm(name)

    def _warm(self, name: Name) -> _Warming:
        return _Warming(
            self._context,
            self._stream,
            self._partition,
            name,
            known=self._replay.states,
            begin=self._begin,
            position=lambda: self._pipeline.position,
            on_done=self._on_warm,
            crash=self._crash,
        )

    async def _join(self) -> None:
        for attempt, warming in list(self._warming.items()):
            if not warming.done:
                continue
            del self._warming[attempt]
            (feature_set, version), generation = attempt
            try:
                await warming.finish(self._pipeline.position)
            except UnreachableError:
                await warming.stop()
                raise
            except RewindowError as error:
                await warming.stop()
                del self._unready[feature_set, version]
                failed = records.Failed(
                    feature_set=feature_set,
                    version=version,
                    generation=generation,
                    stream=self._stream.name,
                    partition=self._partition,
                    reason=str(error),
                )
                await self._commit_acks([failed])
                continue
            self._replay.take_over(warming.replay)
            plan = self._stream.version(feature_set, version).plan
            self._pipeline.follow(LiveView.of(plan, self._replay.states, self._stream.fields))

    async def _say_ready(self) -> None:
        here = self._here
        acks: list[Ack] = [
            records.Ready(
                feature_set=name[0],
                version=name[1],
                generation=one.generation,
                stream=self._stream.name,
                partition=self._partition,
                offset=self._pipeline.position,
                floor_ms=here[name].floor_ms,
            )
            for name, one in self._unready.items()
            if name in here and self._is_whole(here[name])
        ]
        if acks:
            await self._commit_acks(acks)
            for ack in acks:
                del self._unready[ack.feature_set, ack.version]

    def _is_whole(self, one: LiveView) -> bool:
        """Whether no as-of time would be left out if the version took over now."""
        closed = self._pipeline.progress.closed.get(one.view.feature_set)
        if closed is None or one.floor_ms is None:
            return True
        every = one.view.every_ms
        first = floor_to(closed.through_ms, every) + every
        return first - one.view.longest_window_ms >= one.floor_ms


class _Warming:
    """Brings the bundles that a version lacks to the stream, in a task of its own."""

    def __init__(
        self,
        context: Context,
        stream: Stream,
        partition: int,
        name: Name,
        *,
        known: Collection[str],
        begin: int,
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
        self._begin = begin
        self._position = position
        self._on_done = on_done
        self._pipeline: Pipeline | None = None
        self._error: BaseException | None = None
        self._task = asyncio.create_task(self._warm(), name=f"warm {name}")

    async def _warm(self) -> None:
        try:
            if self._missing:
                await self._run(lambda: self.replay.open(self._missing, self._begin))
                self._pipeline = self._feeding()
                # What comes in while the first part is read is less, and is read again.
                await self._bring(self._pipeline)
                await self._bring(self._pipeline)
        except Exception as error:
            self._error = error
        finally:
            self.done = True
        self._on_done()

    async def _bring(self, pipeline: Pipeline) -> None:
        """Feed up to where the owner is by now; Kafka is waited for."""
        while True:
            try:
                await self.replay.bring(pipeline, self._position())
            except (UnreachableError, KafkaError, TimeoutError) as error:
                log.warning("warming %s again after %r", self._task.get_name(), error)
                await asyncio.sleep(PAUSE_S)
            else:
                return

    def _feeding(self) -> Pipeline:
        states = list(self.replay.states.values())
        return Pipeline(
            [],
            followers=[LiveView(self._plan.view, states, self._stream.fields)],
            watermark=Watermark(sources=self._stream.source_partitions),
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


def acknowledged(fences: Sequence[Fenced], stream: Stream, partition: int) -> list[Ack]:
    """The fences of a step as acks of its partition."""
    return [
        records.Fenced(
            feature_set=one.feature_set,
            epoch=one.epoch,
            version=one.version,
            stream=stream.name,
            partition=partition,
            offset=one.offset,
            closed_through_ms=one.closed_through_ms,
        )
        for one in fences
    ]
