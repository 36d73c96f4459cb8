"""Bundles of one stream partition, and the way that brings them to an offset of the stream.

One mechanism for all who need it: a claim, and a version that becomes live. Bundles are opened
and fed with the stream from where they are, without output.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Protocol, TypeVar

from streams.datapath.batch import OFFSET, Batch
from streams.datapath.bundle_state import BundleState, watermark_of
from streams.datapath.partials import left_out
from streams.datapath.records import Record
from streams.names import bundle_dir
from streams.runtime.floors import Floors
from streams.runtime.log import read_log
from streams.runtime.verdicts import DeadLettersSince, unknown_back_then
from streams.state.bundle import Bundle
from streams.state.rows import RowLayout
from streams.windowing.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from streams.datapath.pipeline import Pipeline
    from streams.definitions.exclusions import Exclude
    from streams.definitions.plan import Bundle as BundlePlan
    from streams.runtime.context import Context
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.streams import Stream

T = TypeVar("T")

Read = Callable[[Sequence[Record], int], Awaitable[Batch]]


class Run(Protocol):
    """Runs blocking work in a thread."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


class Replay:
    """Opens bundles and feeds them; `read` decodes records, `run` runs blocking work."""

    def __init__(
        self,
        context: Context,
        stream: Stream,
        partition: int,
        *,
        read: Read,
        run: Run,
        crash: CrashPoints,
    ) -> None:
        self.states: dict[str, BundleState] = {}
        self.floors = Floors(
            source_partitions=stream.source_partitions,
            max_ahead_ms=stream.published.source.max_ahead_ms,
        )
        self._context = context
        self._stream = stream
        self._partition = partition
        self._read = read
        self._run = run
        self._crash = crash
        self._stores: dict[str, Bundle] = {}
        self._dead_letters = DeadLettersSince(context, 0)

    def open(
        self, bundles: Iterable[BundlePlan], begin: int, *, floor_ms: int | None = None
    ) -> None:
        """Open bundles that are not open; what has nothing yet begins at offset `begin`, with
        that floor if it is known. Blocking. Raises as `Bundle.open`.
        """
        for bundle in bundles:
            if bundle.digest in self.states:
                continue
            store = self._open_store(bundle)
            self.floors.open(bundle.digest, store.meta, begin, known=floor_ms is not None)
            self.states[bundle.digest] = BundleState(
                bundle,
                self._stream.fields,
                store,
                next_offset=begin,
                floor_ms=floor_ms,
                notes=partial(self._notes, bundle.digest),
            )

    @property
    def stores(self) -> Mapping[str, Bundle]:
        """The open bundles by digest."""
        return self._stores

    async def exchange(self, bundle: BundlePlan, found: Path, begin: int) -> None:
        """Put files of a bundle, which are on the same disk, in the place of what is open.

        A crash on the way leaves a bundle that has nothing.
        """

        def work() -> None:
            self.drop([self.states[bundle.digest]])
            found.rename(self.path(bundle.digest))
            self.open([bundle], begin)

        await self._run(work)

    def _notes(self, bundle: str) -> Mapping[str, str]:
        return {**self.floors.notes(bundle), **self._dead_letters.notes()}

    def _open_store(self, bundle: BundlePlan) -> Bundle:
        store = Bundle.open(
            self.path(bundle.digest),
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
        self._stores[bundle.digest] = store
        return store

    def path(self, digest: str) -> Path:
        """Where a bundle is kept."""
        return bundle_dir(self._context.state_dir, self._stream.name, self._partition, digest)

    def watermark(self) -> Watermark:
        """What all bundles know together: a new one may have to begin after the highest event.

        Nothing closes before the replay has come to where the last of them is.
        """
        sources = self._stream.source_partitions
        oldest_first = sorted(self.states.values(), key=lambda state: state.next_offset)
        known = [watermark_of(state.store.meta, sources) for state in oldest_first]
        return reduce(Watermark.joined, known)

    async def bring(self, pipeline: Pipeline, position: int) -> None:
        """Feed what `pipeline` holds with the stream up to and without `position`."""
        oldest = min(pipeline.bundles, key=lambda state: state.next_offset)
        self._dead_letters.since = DeadLettersSince.noted(oldest.store.meta)
        unknown = await unknown_back_then(
            self._context,
            self._stream,
            self._partition,
            pipeline.position,
            position,
            since=self._dead_letters.since,
        )
        async for records in read_log(
            self._context, self._stream.topic, self._partition, pipeline.position, position
        ):
            self._crash.reach("in_recovery")
            kept = records
            if unknown and not unknown.isdisjoint(records.offsets):
                kept = records.where([offset not in unknown for offset in records.offsets])
            batch = await self._read(kept, pipeline.position)
            for part in self.floors.parts(records, batch, pipeline):
                await self._run(partial(pipeline.replay, part))
            self._context.stats.replayed += len(records)
            full = pipeline.unflushed_rows >= self._context.limits.flush_rows
            if full and pipeline.may_flush:
                await self._run(pipeline.flush)
        pipeline.skip_to(position)
        self.floors.settle(pipeline)

    async def clean_below(self, exclusions: Sequence[Exclude], start: int, end: int) -> list[int]:
        """Of each exclusion an offset below which it leaves out no event from `start` on: that of
        the first one, or `end`.

        Reads no further than to the first event that the last exclusion leaves out.
        """
        firsts = [end] * len(exclusions)
        found = [left_out(one, self._stream.fields) for one in exclusions]
        async for records in read_log(
            self._context, self._stream.topic, self._partition, start, end
        ):
            self._crash.reach("in_recovery")
            events = (await self._read(records, records.offsets[0])).events
            for at, expression in enumerate(found):
                some = await self._run(partial(events.filter, expression))
                if not some.is_empty():
                    firsts[at] = min(firsts[at], some[OFFSET].item(0))
            if firsts[-1] < end:
                break
        return firsts

    @property
    def rekeyed(self) -> bool:
        """Whether events have other partitions and offsets here than in their source."""
        return self._stream.rekeyed

    def arrived(self) -> None:
        """The bundles are where the stream's owner is, and go on with it."""
        self._dead_letters.replayed()

    def take_over(self, other: Replay) -> None:
        """The bundles of another one, which has brought them to where those here are."""
        self.floors.take_over(other.floors)
        for digest, state in other.states.items():
            state.noted_by(partial(self._notes, digest))
            self.states[digest] = state
        self._stores.update(other._stores)
        other.states, other._stores = {}, {}

    def drop(self, states: Iterable[BundleState]) -> None:
        """Close bundles that nobody needs any more, and delete them. Blocking."""
        for state in states:
            digest = state.bundle.digest
            del self.states[digest]
            self._stores.pop(digest).close()
            path = self.path(digest)
            # Half of a bundle must not be taken for one.
            gone = path.with_name(path.name + ".gone")
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
            shutil.rmtree(gone)

    def sweep(self, needed: Collection[str]) -> None:
        """Delete bundles that were left behind and that no live version needs. Blocking."""
        home = self.path("x").parent
        if home.is_dir():
            for found in home.iterdir():
                if found.name not in needed and found.name not in self.states:
                    shutil.rmtree(found)

    def close(self) -> None:
        """Close all bundles. Blocking."""
        self.states = {}
        while self._stores:
            self._stores.popitem()[1].close()
