"""From what is on disk to the committed position: the state half of a claim.

1. Open every bundle that the partition's versions need. What has nothing, too little, or can't be
   replayed from where it is, comes from its newest whole checkpoint: see restoring.py. What
   then still can't be replayed has nothing.
2. Refuse if one is beyond what is committed: offsets were deleted or set back.
3. Replay the stream from the lowest position of the bundles to the committed one, without
   output, with a flush at the fence where corrections are pending, which are made of that. A
   bundle that has nothing starts at the beginning of the log, or where the app began with it, and
   has a floor: see floors.py.
4. Refuse if the log no longer holds what an open window needs.
5. Give each set its C: what is committed, else what the watermark closes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from streams.datapath.feature_set import SetPath
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline
from streams.errors import RefusedError
from streams.runtime.replay import Read, Replay, Run
from streams.runtime.restoring import restore_lacking
from streams.runtime.reviving import Need, Start

if TYPE_CHECKING:
    from streams.datapath.bundle_state import BundleState
    from streams.datapath.progress import Progress
    from streams.definitions.plan import Plan, View
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.roster import Roster
    from streams.runtime.streams import Stream

log = logging.getLogger(__name__)


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
        states, fields = self.replay.states, self._stream.fields
        needs = self._needs([*serving, *following])
        restored = await restore_lacking(
            self._context.snapshots,
            self.replay,
            (self._stream.name, self._partition),
            self._context.resources,
            start=Start(offset=begin, gap=log_start > self._progress.start),
            needs=needs,
            log_start=log_start,
            position=self._position,
            fresh=self._fresh,
        )
        self._context.stats.restored += restored
        self._refuse_beyond(states)
        self._refuse_trimmed(log_start)
        # What is stale can't be replayed; what is short is better off with a log that has it all.
        useless = [
            state
            for digest, state in states.items()
            if state.next_offset < log_start
            or (begin == 0 and digest in needs and needs[digest].lacks(state.floor_ms))
        ]
        await self._run(lambda: self.replay.drop(useless))
        await self._run(lambda: self.replay.open(bundles, begin))
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
        pipeline.expect([self._plan(*name) for name in self._roster.expected])
        if self._progress.correcting is not None:
            await self._bring_to_fence(pipeline, self._progress.correcting.offset)
        await self.replay.bring(pipeline, self._position)
        self.replay.arrived()
        pipeline.begin(self._context.definitions_offset)
        self._refuse_half_built(pipeline, closed, log_start)
        return pipeline

    # -- steps --------------------------------------------------------------------------------

    async def _bring_to_fence(self, pipeline: Pipeline, offset: int) -> None:
        """Have on disk what corrections are made of: what it was at `offset`, if it can be had."""
        if pipeline.position <= offset:
            await self.replay.bring(pipeline, offset)
            if not pipeline.corrections_ready:
                await self._run(pipeline.flush)
        if not pipeline.corrections_ready:
            log.warning(
                "%s/%d: what was said before offset %d is not corrected further: neither the disk "
                "nor a checkpoint nor the topic has what it was made of",
                self._stream.topic,
                self._partition,
                offset,
            )

    def _plan(self, feature_set: str, version: str) -> Plan:
        return self._stream.version(feature_set, version).plan

    def _needs(self, plans: Sequence[Plan]) -> dict[str, Need]:
        """What each bundle has to hold for all of them; none where that is not known.

        A version may have become ready elsewhere that needs more of a bundle than has been kept
        here.
        """
        users: dict[str, list[View]] = {}
        for plan in plans:
            for bundle in plan.bundles:
                users.setdefault(bundle.digest, []).append(plan.view)
        needs = {
            digest: need
            for digest, views in users.items()
            if (need := Need.of_views(views, self._progress)) is not None
        }
        for digest, oldest_ms in self._corrected(plans):
            if digest in needs:
                needs[digest] = needs[digest].back_to(oldest_ms)
        return needs

    def _corrected(self, plans: Sequence[Plan]) -> Iterator[tuple[str, int]]:
        """The bundles that corrections are pending of, and where their oldest window begins."""
        pending = self._progress.correcting
        if pending is None:
            return
        name = pending.feature_set
        versions = {(name, pending.version), (name, self._roster.serving[name])}
        for view, bundles in ((plan.view, plan.bundles) for plan in plans):
            if (view.feature_set, view.name) in versions:
                for bundle in bundles:
                    yield bundle.digest, pending.as_of_ms - view.longest_window_ms

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

    def _refuse_trimmed(self, log_start: int) -> None:
        if self._position < log_start:
            raise RefusedError(
                f"{self._stream.topic}/{self._partition}: the topic now begins at offset "
                f"{log_start}, but offset {self._position} is needed next: records were deleted "
                "before they were read. Give the topic a longer retention; to go on without them, "
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
