"""How one partition's owner does what the control path decides.

At a batch boundary, and at once when no batch is in hand, it looks at the routes:

1. What holds by a newer epoch, who serves, what is pinned and switched off, holds from a fence
   on: position, epoch and ack are one transaction. The fence waits until all that begins to speak
   there is here, and until no as-of time would be left out. State that is too short for that is
   made anew by another claim; where nothing holds what it lacks, time passes.
2. A version that has become live is warmed: its bundles are brought to the stream beside the
   batches, then join them. Once its next as-of time is whole, the owner says that it is ready.
3. A version that is not live any more leaves, and what only it needed is deleted.

All of it is done with the owner's turn in hand, warming apart; only its last step needs it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from streams.control import records
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline
from streams.errors import RewindowError
from streams.runtime.replay import Replay, Run
from streams.runtime.reviving import Need
from streams.runtime.roster import live
from streams.runtime.warming import AWAY, ReadIndex, Warming

if TYPE_CHECKING:
    from streams.control.records import Ack
    from streams.control.set_record import Held, LiveVersion
    from streams.datapath.step import Fenced, Step
    from streams.definitions.plan import Bundle
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.roster import Decided, Name
    from streams.runtime.streams import Stream

CommitSteps = Callable[[Iterator["Step"]], Awaitable[None]]
CommitAcks = Callable[[Sequence["Ack"]], Awaitable[None]]

log = logging.getLogger(__name__)


class ShortStateError(Exception):
    """What is to speak was not known to when the state was opened: a new claim makes it whole."""


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
        index: ReadIndex,
        position: Callable[[], int],
        busy: Callable[[], bool],
        still: Callable[[], Awaitable[None]],
        run: Run,
        commit_steps: CommitSteps,
        commit_acks: CommitAcks,
        on_warm: Callable[[], None],
        crash: CrashPoints,
    ) -> None:
        """`stream` gives the stream with what is published by now; `index` reads what is known
        of its log; `position` gives what is committed; `busy` says whether something is being
        written to the bundles, and `still` waits until nothing is. `on_warm` is called when a
        version's bundles are near, and wants `obey` to be called, with the turn in hand."""
        self._context = context
        self._stream_now = stream
        self._partition = partition
        self._decided = decided
        self._pipeline = pipeline
        self._replay = replay
        self._index = index
        self._position = position
        self._busy = busy
        self._still = still
        self._run = run
        self._commit_steps = commit_steps
        self._commit_acks = commit_acks
        self._on_warm = on_warm
        self._crash = crash
        self._seen = -1
        self._fence_waits = False
        self.waits_for_disk = False
        """A fence waits until nothing is being written: corrections are made of what is on disk."""
        self._unready: dict[Name, LiveVersion] = {}
        self._absent: dict[Name, LiveVersion] = {}
        """Live versions that are not here, in the order in which they are warmed."""
        self._warming: tuple[Name, LiveVersion, Warming] | None = None
        self._claimed = frozenset(self._here)
        """The versions that the claim began with."""
        self._told_short: set[Name] = set()

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
        news, first = offset != self._seen, self._seen < 0
        waited, self._fence_waits = self._fence_waits, False
        self.waits_for_disk = False
        if news:
            await self._note_live()
        joined = await self._join()
        if news or joined or waited:
            self._adopt()
            await self._switch(offset)
            await self._leave()
            if first:
                await self._sweep()
            self._warm_next()
        if news:
            self._pipeline.heard(offset)
            self._seen = offset
        if self._unready:
            await self._say_ready()

    async def close(self) -> None:
        """Stop warming."""
        if self._warming is not None:
            await self._warming[2].stop()
            self._warming = None

    # -- 1 ------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Sets that were published while this claim lasts, once what they take is here."""
        for name in self._unspoken:
            route = self._decided.route(name)
            if route is None or any((name, one) in self._absent for one in route.held.needed):
                continue
            speaker = route.held.speaker
            if (name, speaker) in self._here:
                offset = route.definitions_offset
                self._pipeline.adopt(name, speaker, definitions_offset=offset)

    @property
    def _unspoken(self) -> list[str]:
        """The sets of the stream that no version serves here."""
        spoken = {path.outlet for path in self._pipeline.paths}
        return [name for name in self._stream.sets if name not in spoken]

    async def _switch(self, offset: int) -> None:
        unspoken = self._unspoken
        for name in [one for one in self._stream.sets if one not in unspoken]:
            route = self._decided.route(name)
            if route is not None and route.epoch > self._pipeline.progress.epochs.get(name, 0):
                held = route.held
                if any((name, version) in self._absent for version in held.needed):
                    continue  # the fence waits until they are warm
                waits = self._pipeline.must_wait(name, held)
                if not waits and held.corrects is not None and self._busy():
                    waits = self.waits_for_disk = True
                if waits or self._short(name, held):
                    self._fence_waits = True  # until somebody looks again
                    continue
                steps = self._pipeline.switch(name, held, epoch=route.epoch, control_offset=offset)
                await self._commit_steps(steps)

    def _short(self, name: str, held: Held) -> bool:
        """Whether something that begins to speak would leave as-of times out.

        Raises ShortStateError where the next claim may find what that lacks.
        """
        here = self._here
        speaks = {path.live.name for path in self._pipeline.paths}
        begins = [(name, it) for it in held.needed if (name, it) not in speaks]
        short = [one for one in begins if one in here and not self._is_whole(here[one])]
        for one in short:
            if one not in self._claimed:
                raise ShortStateError("{}@{} would not be whole".format(*one))
            if one not in self._told_short:
                self._told_short.add(one)
                log.warning(
                    "%s/%d: %s@%s takes over once its windows lie in what is kept of the stream",
                    self._stream.name,
                    self._partition,
                    *one,
                )
        return bool(short)

    # -- 3 ------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Let go of what is not live any more; what is still needed is asked again at the next
        news."""
        wanted = {
            (name, one.name)
            for name in self._stream.sets
            for one in live(self._stream, self._decided, name)
        }
        kept = self._pipeline.needed
        counted_on = {
            bundle.digest
            for name in self._absent
            for bundle in self._stream.version(*name).plan.bundles
        }
        for one in self._pipeline.followers:
            name = one.view.feature_set
            if self._decided.route(name) is None or one.name in wanted | kept:
                continue
            if not counted_on.isdisjoint(state.bundle.digest for state in one.bundles):
                continue
            await self._still()
            gone = self._pipeline.leave(*one.name)
            await self._run(partial(self._replay.drop, gone))

    async def _sweep(self) -> None:
        """What earlier claims left on disk."""
        names = list(self._stream.sets)
        if any(self._decided.route(name) is None for name in names):
            return
        needed = {
            bundle.digest
            for name in names
            for one in live(self._stream, self._decided, name)
            for bundle in self._stream.version(name, one.name).plan.bundles
        }
        await self._run(partial(self._replay.sweep, needed))

    # -- 2 ------------------------------------------------------------------------------------

    async def _note_live(self) -> None:
        """Which live versions are not here, and which nobody knows to be ready."""
        here = self._here
        wanted = {
            (name, one.name): one
            for name in self._stream.sets
            for one in live(self._stream, self._decided, name)
        }
        self._unready = {name: one for name, one in wanted.items() if not one.ready}
        self._absent = {name: one for name, one in wanted.items() if name not in here}
        self._expect()
        if self._warming is not None:
            name, one, warming = self._warming
            if name not in self._absent or self._absent[name].generation != one.generation:
                await warming.stop()
                self._warming = None

    def _expect(self) -> None:
        """What is here keeps the panes that those need, too, which are still to come."""
        self._pipeline.expect([self._stream.version(*name).plan for name in self._absent])

    def _warm_next(self) -> None:
        """One at a time: versions may lack the same bundle."""
        if self._warming is not None or not self._absent:
            return
        # What a checkpoint was asked for begins with it: nobody else may have brought it here.
        name, one = min(self._absent.items(), key=lambda it: it[1].checkpoint is None)
        warming = Warming(
            self._context,
            self._stream,
            self._partition,
            name,
            checkpoint=one.checkpoint,
            known=self._replay.states,
            need=self._need(name),
            app_start=self._pipeline.progress.start,
            index=self._index,
            position=self._position,
            on_done=self._on_warm,
            crash=self._crash,
        )
        self._warming = (name, one, warming)

    def _need(self, name: Name) -> Need | None:
        """What the bundles have to hold that a version lacks, for all versions that lack them.

        None where as-of times are not known to have closed: all that there is.
        """
        lacking = {one.digest for one in self._bundles(name)}
        sharing = [
            other
            for other in self._absent
            if other == name or any(one.digest in lacking for one in self._bundles(other))
        ]
        views = [self._stream.version(*other).plan.view for other in sharing]
        return Need.of_views(views, self._pipeline.progress)

    def _bundles(self, name: Name) -> list[Bundle]:
        """The bundles that a version lacks here."""
        bundles = self._stream.version(*name).plan.bundles
        return [one for one in bundles if one.digest not in self._replay.states]

    async def _join(self) -> bool:
        """Whether a version has come to its end, here or in failure."""
        if self._warming is None or not self._warming[2].done:
            return False
        name, one, warming = self._warming
        try:
            await warming.finish(self._pipeline.position)
        except AWAY:
            warming.go_on()
            return False
        except RewindowError as error:
            failed = records.Failed(
                feature_set=name[0],
                version=one.version,
                generation=one.generation,
                stream=self._stream.name,
                partition=self._partition,
                reason=str(error),
            )
            await warming.stop()
            self._warming = None
            self._absent.pop(name, None)
            self._unready.pop(name, None)
            self._expect()
            await self._commit_acks([failed])
            return True
        self._replay.take_over(warming.replay)
        self._warming = None
        self._absent.pop(name, None)
        self._expect()
        plan = self._stream.version(*name).plan
        self._pipeline.follow(LiveView.of(plan, self._replay.states, self._stream.fields))
        self._replay.floors.settle(self._pipeline)
        return True

    async def _say_ready(self) -> None:
        here = self._here
        ready = {
            name: one
            for name, one in self._unready.items()
            if name in here and self._is_whole(here[name])
        }
        acks = [
            records.Ready(
                feature_set=name[0],
                version=one.version,
                generation=one.generation,
                stream=self._stream.name,
                partition=self._partition,
                offset=self._pipeline.position,
                floor_ms=here[name].floor_ms,
            )
            for name, one in ready.items()
        ]
        if acks:
            await self._commit_acks(acks)
            for name in ready:
                del self._unready[name]

    def _is_whole(self, one: LiveView) -> bool:
        """Whether no as-of time would be left out if the version took over now."""
        view = one.view
        closed_ms = self._pipeline.progress.closed_for(view.feature_set, view.version)
        if closed_ms is None:
            return self._reaches_back(one)
        if any(self._replay.floors.waits(state.bundle.digest) for state in one.bundles):
            return False
        return not Need.of(view, closed_ms).lacks(one.floor_ms)

    def _reaches_back(self, one: LiveView) -> bool:
        """Whether its windows are whole from the as-of time on from which those of what serves
        are: for while nothing has closed."""
        paths = self._pipeline.paths
        found = (it.live for it in paths if it.outlet == one.view.feature_set)
        serving = next(found, None)
        if serving is None:
            return True
        known = [
            all(self._replay.floors.knows(state.bundle.digest) for state in view.bundles)
            for view in (one, serving)
        ]
        if known[0] != known[1]:
            return known[0]
        # What nobody has told yet will be the same for both.
        floors_ms = (one.floor_ms, serving.floor_ms) if known[0] else (0, 0)
        if floors_ms[0] is None or floors_ms[1] is None:
            return floors_ms[0] is None
        first_ms = floors_ms[0] + one.view.longest_window_ms
        return first_ms <= floors_ms[1] + serving.view.longest_window_ms


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
            corrections=one.corrections,
        )
        for one in fences
    ]
