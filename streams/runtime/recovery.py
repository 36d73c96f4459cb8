"""From what is on disk to the committed position: the state half of a claim.

1. Open every bundle that the partition's versions need. What has nothing, or can't be replayed
   from where it is, comes from its newest whole checkpoint: see restoring.py.
2. Refuse if one is beyond what is committed: offsets were deleted or set back.
3. Replay the stream from the lowest position of the bundles to the committed one, without
   output; a bundle that has nothing starts at the beginning of the log, or
   where the app began with it, and has a floor: see floors.py.
4. Refuse if the log no longer holds what an open window needs.
5. Give each set its C: what is committed, else what the watermark closes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from streams.datapath.bundle_state import BundleState
from streams.datapath.feature_set import SetPath
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline
from streams.errors import RefusedError
from streams.runtime.replay import Read, Replay, Run
from streams.runtime.restoring import restore_lacking
from streams.runtime.reviving import Need, Start

if TYPE_CHECKING:
    from streams.datapath.progress import Progress
    from streams.definitions.plan import Plan
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.roster import Roster
    from streams.runtime.streams import Stream


class Recovery:
    """Opens and catches up the state of one partition for one claim."""

    def __init__(
        self,
        context: Context,
        stream: Stream,
        partition: int,
        *,
        roster: Roster,
        position: int,
        progress: Progress,
        fresh: bool,
        read: Read,
        run: Run,
        crash: CrashPoints,
    ) -> None:
        """`fresh` says that nothing is committed; `read` decodes records, `run` runs blocking
        work in a thread."""
        self.replay = Replay(context, stream, partition, read=read, run=run, crash=crash)
        self._context = context
        self._stream = stream
        self._partition = partition
        self._roster = roster
        self._position = position
        self._progress = progress
        self._fresh = fresh
        self._run = run
        self._crash = crash

    async def pipeline(self) -> Pipeline:
        """The pipeline at the committed position, ready for the next batch."""
        self._crash.reach("in_claim")
        log_start, log_end = await self._run(self._log_bounds)
        self._refuse_recreated(log_end)
        # Where a bundle begins that has nothing: with the log, or where the app began with it.
        begin = min(max(log_start, self._progress.start), self._position)
        held = self._roster.held
        serving = [self._plan(name, one.speaker) for name, one in held.items()]
        following = [self._plan(name, version) for name, version in self._roster.following]
        bundles = [bundle for plan in (*serving, *following) for bundle in plan.bundles]
        await self._run(lambda: self.replay.open(bundles, begin))
        short = self._too_short([*serving, *following], log_start)
        if short:
            await self._run(lambda: self.replay.drop(short))
            await self._run(lambda: self.replay.open(bundles, begin))
        restored = await restore_lacking(
            self._context.snapshots,
            self.replay,
            (self._stream.name, self._partition),
            self._context.resources,
            start=Start(offset=begin, gap=log_start > self._progress.start),
            need=self._need([*serving, *following]),
            log_start=log_start,
            position=self._position,
            fresh=self._fresh,
        )
        self._context.stats.restored += restored
        states, fields = self.replay.states, self._stream.fields
        self._refuse_beyond(states)
        self._refuse_trimmed(states, log_start)
        oldest = min(states.values(), key=lambda state: state.next_offset)
        closed = {name: one.through_ms for name, one in self._progress.closed.items()}
        paths = [
            SetPath(LiveView.of(plan, states, fields), closed_ms=closed.get(plan.view.feature_set))
            for plan in serving
        ]
        pipeline = Pipeline(
            paths,
            followers=[LiveView.of(plan, states, fields) for plan in following],
            watermark=self.replay.watermark(),
            position=oldest.next_offset,
            progress=self._progress,
            held=held,
            pairs_per_step=self._context.limits.pairs_per_step,
        )
        await self.replay.bring(pipeline, self._position)
        self.replay.arrived()
        pipeline.begin(self._context.definitions_offset)
        self._refuse_half_built(pipeline, closed, log_start)
        return pipeline

    # -- steps --------------------------------------------------------------------------------

    def _plan(self, feature_set: str, version: str) -> Plan:
        return self._stream.version(feature_set, version).plan

    def _need(self, plans: Sequence[Plan]) -> Need | None:
        """What bundles have to hold for all of them; None where something has closed nothing."""
        closed = self._progress.closed
        views = [plan.view for plan in plans]
        if any(view.feature_set not in closed for view in views):
            return None
        return Need.of_all(Need.of(view, closed[view.feature_set].through_ms) for view in views)

    def _too_short(self, plans: Sequence[Plan], log_start: int) -> list[BundleState]:
        """Bundles that are here from when no version needed them to go back so far.

        A version that shares them has become ready elsewhere since, over panes that are dropped
        here. They are made anew, where the log or an archive may hold what they lack.
        """
        if log_start > self._progress.start and self._context.snapshots is None:
            return []
        found: dict[str, BundleState] = {}
        for plan in plans:
            closed = self._progress.closed.get(plan.view.feature_set)
            if closed is None:
                continue
            needed_ms = Need.of(plan.view, closed.through_ms).needed_ms
            for bundle in plan.bundles:
                state = self.replay.states[bundle.digest]
                if state.floor_ms is not None and needed_ms < state.floor_ms:
                    found[bundle.digest] = state
        return list(found.values())

    def _log_bounds(self) -> tuple[int, int]:
        at = (self._stream.topic, self._partition)
        return self._context.offsets.starts([at])[at], self._context.offsets.ends([at])[at]

    def _refuse_recreated(self, log_end: int) -> None:
        if self._position > log_end:
            raise RefusedError(
                f"{self._stream.topic}/{self._partition}: group "
                f"{self._context.names.worker_group} is at offset {self._position}, and the "
                f"topic ends at offset {log_end}: it was deleted and made again. To start over, "
                "delete the group's offsets and the state directory, and run again"
            )

    def _refuse_beyond(self, states: Mapping[str, BundleState]) -> None:
        for state in states.values():
            if state.store.meta is None:
                continue
            if state.next_offset > (0 if self._fresh else self._position):
                where = self.replay.path(state.bundle.digest)
                at = "has no offset" if self._fresh else f"is at {self._position}"
                raise RefusedError(
                    f"{self._stream.topic}/{self._partition}: the state in "
                    f"{where} has applied offset {state.next_offset}, but "
                    f"group {self._context.names.worker_group} {at}: its "
                    "committed offsets were deleted (maybe with the topic), have expired or "
                    "were set back. Bring them back with kafka-consumer-groups.sh --reset-offsets, "
                    "or, to start over "
                    "from where the group is, delete the state directory and run again"
                )

    def _refuse_trimmed(self, states: dict[str, BundleState], log_start: int) -> None:
        needed = min(state.next_offset for state in states.values())
        if needed < log_start:
            raise RefusedError(
                f"{self._stream.topic}/{self._partition}: the topic now begins at offset "
                f"{log_start}, but offset {needed} is needed next: records were deleted before "
                "they were read. Give the topic a longer retention; to go on without them, "
                f"delete the state in {self._context.state_dir} and reset the offsets of group "
                f"{self._context.names.worker_group}"
            )

    def _refuse_half_built(
        self, pipeline: Pipeline, closed: dict[str, int], log_start: int
    ) -> None:
        for path in pipeline.paths:
            was = closed.get(path.outlet)
            if was is not None and path.closed_ms is not None and path.closed_ms > was:
                raise RefusedError(
                    f"{self._stream.topic}/{self._partition}: the state of "
                    f"{path.view.feature_set} is lost and the topic now begins at offset "
                    f"{log_start}, after what its open windows hold: they can't be rebuilt up "
                    f"to offset {self._position}. Bring the state directory back, or reset "
                    "the group's offsets to start over with whole windows only"
                )
