"""From what is on disk to the committed position: the state half of a claim.

1. Open every bundle of the partition.
2. Refuse if one is beyond what is committed: offsets were deleted or set back.
3. Replay the stream from the lowest position of the bundles to the committed one, without
   output; a bundle that has nothing starts at the beginning of the log, or
   where the app began with it, and has a floor: see floors.py.
4. Refuse if the log no longer holds what an open window needs.
5. Give each set its C: what is committed, else what the watermark closes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from streams.datapath.batch import Batch
from streams.datapath.bundle_state import BundleState, watermark_of
from streams.datapath.feature_set import SetPath
from streams.datapath.live_view import LiveView
from streams.datapath.pipeline import Pipeline
from streams.datapath.records import Record
from streams.errors import RefusedError
from streams.names import bundle_dir
from streams.runtime.floors import Floors
from streams.runtime.log import read_log
from streams.runtime.verdicts import DeadLettersSince, unknown_back_then
from streams.state.bundle import Bundle
from streams.state.rows import RowLayout
from streams.windowing.watermark import Watermark

if TYPE_CHECKING:
    from pathlib import Path

    from streams.datapath.progress import Progress
    from streams.definitions.plan import Bundle as BundlePlan
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.streams import Stream

log = logging.getLogger(__name__)

T = TypeVar("T")

Read = Callable[[Sequence[Record], int], Awaitable[Batch]]


class Run(Protocol):
    """Runs blocking work in a thread."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


class Recovery:
    """Opens and catches up the state of one partition for one claim."""

    def __init__(
        self,
        context: Context,
        stream: Stream,
        partition: int,
        *,
        position: int,
        progress: Progress,
        fresh: bool,
        read: Read,
        run: Run,
        crash: CrashPoints,
    ) -> None:
        """`fresh` says that nothing is committed; `read` decodes records, `run` runs blocking
        work in a thread."""
        self._context = context
        self._stream = stream
        self._partition = partition
        self._position = position
        self._progress = progress
        self._fresh = fresh
        self._read = read
        self._run = run
        self._crash = crash
        self._stores: list[Bundle] = []
        self.floors = Floors(
            source_partitions=stream.source_partitions,
            max_ahead_ms=stream.published.source.max_ahead_ms,
        )
        self._dead_letters = DeadLettersSince(context, 0)

    def close(self) -> None:
        """Close the stores that were opened."""
        while self._stores:
            self._stores.pop().close()

    async def pipeline(self) -> Pipeline:
        """The pipeline at the committed position, ready for the next batch."""
        self._crash.reach("in_claim")
        log_start, log_end = await self._run(self._log_bounds)
        self._refuse_recreated(log_end)
        begin = min(max(log_start, self._progress.start), self._position)
        states = await self._run(lambda: self._open(begin))
        self._refuse_beyond(states)
        self._refuse_trimmed(states, log_start)
        for digest, state in states.items():
            self.floors.open(digest, state.store.meta, begin)
        oldest = min(states.values(), key=lambda state: state.next_offset)
        self._dead_letters.since = DeadLettersSince.noted(oldest.store.meta)
        closed = {name: one.through_ms for name, one in self._progress.closed.items()}
        paths = [
            SetPath(
                LiveView.of(planned, states, self._stream.fields),
                closed_ms=closed.get(planned.view.feature_set),
            )
            for planned in self._stream.plans
        ]
        pipeline = Pipeline(
            paths,
            watermark=self._known_watermark(oldest, states.values()),
            position=oldest.next_offset,
            progress=self._progress,
            pairs_per_step=self._context.limits.pairs_per_step,
        )
        await self._replay(pipeline)
        pipeline.begin(self._context.definitions_offset)
        self._refuse_half_built(pipeline, closed, log_start)
        return pipeline

    # -- steps --------------------------------------------------------------------------------

    def _known_watermark(self, oldest: BundleState, states: Collection[BundleState]) -> Watermark:
        """What all bundles know together: a new one may have to begin after the highest event.

        Nothing closes before the replay has come to where the last of them is.
        """
        watermark = watermark_of(oldest.store.meta, self._stream.source_partitions)
        for state in states:
            watermark = watermark.joined(
                watermark_of(state.store.meta, self._stream.source_partitions)
            )
        return watermark

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

    def _open(self, begin: int) -> dict[str, BundleState]:
        states: dict[str, BundleState] = {}
        for bundle in (bundle for planned in self._stream.plans for bundle in planned.bundles):
            if bundle.digest not in states:
                store = self._open_store(bundle)
                states[bundle.digest] = BundleState(
                    bundle,
                    self._stream.fields,
                    store,
                    next_offset=begin,
                    notes=partial(self._notes, bundle.digest),
                )
        return states

    def _notes(self, bundle: str) -> Mapping[str, str]:
        return {**self.floors.notes(bundle), **self._dead_letters.notes()}

    def _open_store(self, bundle: BundlePlan) -> Bundle:
        store = Bundle.open(
            self._path(bundle),
            RowLayout(bundle.columns),
            identity={
                "app": self._context.settings.app,
                "stream": self._stream.name,
                "partition": str(self._partition),
                "bundle": bundle.digest,
            },
            resources=self._context.resources,
            before_ingest=partial(self._crash.reach, "in_flush"),
        )
        self._stores.append(store)
        return store

    def _path(self, bundle: BundlePlan) -> Path:
        return bundle_dir(
            self._context.state_dir, self._stream.name, self._partition, bundle.digest
        )

    def _refuse_beyond(self, states: dict[str, BundleState]) -> None:
        for state in states.values():
            if state.store.meta is None:
                continue
            if state.next_offset > (0 if self._fresh else self._position):
                at = "has no offset" if self._fresh else f"is at {self._position}"
                raise RefusedError(
                    f"{self._stream.topic}/{self._partition}: the state in "
                    f"{self._path(state.bundle)} has applied offset {state.next_offset}, but "
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

    async def _replay(self, pipeline: Pipeline) -> None:
        unknown = await unknown_back_then(
            self._context,
            self._stream,
            self._partition,
            pipeline.position,
            self._position,
            since=self._dead_letters.since,
        )
        async for records in read_log(
            self._context, self._stream.topic, self._partition, pipeline.position, self._position
        ):
            self._crash.reach("in_recovery")
            kept = records
            if unknown and not unknown.isdisjoint(records.offsets):
                kept = records.where([offset not in unknown for offset in records.offsets])
            batch = await self._read(kept, pipeline.position)
            for part in self.floors.parts(records, batch, pipeline):
                await self._run(partial(pipeline.replay, part))
            self._context.stats.replayed += len(records)
            if pipeline.unflushed_rows >= self._context.limits.flush_rows:
                await self._run(pipeline.flush)
        pipeline.skip_to(self._position)
        self.floors.settle(pipeline)
        self._dead_letters.replayed()

    def _refuse_half_built(
        self, pipeline: Pipeline, closed: dict[str, int], log_start: int
    ) -> None:
        for path in pipeline.paths:
            was = closed.get(path.view.feature_set)
            if was is not None and path.closed_ms is not None and path.closed_ms > was:
                raise RefusedError(
                    f"{self._stream.topic}/{self._partition}: the state of "
                    f"{path.view.feature_set} is lost and the topic now begins at offset "
                    f"{log_start}, after what its open windows hold: they can't be rebuilt up "
                    f"to offset {self._position}. Bring the state directory back, or reset "
                    "the group's offsets to start over with whole windows only"
                )
