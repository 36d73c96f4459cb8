"""The data path of one stream partition: batches in, transactions out; pure apart from the
state port.

Each step that comes out is one Kafka transaction: its vectors, late copies and dead letters go
out with the commit of its position. Steps are made one after the other, each after the one
before is committed; whoever can't commit a step drops the pipeline and claims anew.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from streams.datapath.at_position import ClosingAtPosition
from streams.datapath.batch import Batch, DeadLetter
from streams.datapath.corrections import Corrections
from streams.datapath.feature_set import ARRIVAL, SetPath
from streams.datapath.fence import fence, in_the_way
from streams.datapath.parts import cut_at_orders, first_record
from streams.datapath.standing import Standing
from streams.datapath.step import Late as Late
from streams.datapath.step import Step as Step
from streams.datapath.versions import Versions
from streams.names import set_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import polars as pl

    from streams.control.set_record import Held
    from streams.datapath.bundle_state import BundleState, Flush
    from streams.datapath.feature_set import Prepared, Reading
    from streams.datapath.live_view import LiveView
    from streams.datapath.progress import Progress
    from streams.definitions.plan import Plan
    from streams.windowing.watermark import Watermark

PAIRS_PER_STEP = 400_000
"""How many (row, as-of time) pairs one transaction may touch, and how many rows are read at
once: bounds its length and memory."""


class Pipeline:
    """All sets of one stream partition, fed with its batches in order.

    Each set has a path, the version that serves, and so has each pin. Followers are the live
    versions that don't serve: what they read is fed, too, and nothing is said for them as such.
    """

    def __init__(
        self,
        paths: Sequence[SetPath],
        *,
        followers: Sequence[LiveView] = (),
        watermark: Watermark,
        position: int,
        progress: Progress,
        held: Mapping[str, Held] | None = None,
        pairs_per_step: int = PAIRS_PER_STEP,
    ) -> None:
        """`held` is what holds of sets where it is more than who serves.

        Raises `LookupError` if a version that closed C and does not serve does not follow, or one
        that `held` takes.
        """
        self._at = Standing(position=position, watermark=watermark, progress=progress)
        self._versions = Versions(paths, followers)
        for name, one in (held or {}).items():
            self._versions.obey(name, one, progress.closed)
        self._pairs_per_step = pairs_per_step
        self._closing = ClosingAtPosition(self._at, self._versions, pairs_per_step=pairs_per_step)
        self._corrections = Corrections(self._at, self._versions, pairs_per_step=pairs_per_step)
        self._successors()

    @property
    def paths(self) -> tuple[SetPath, ...]:
        """The versions that serve, and pinned ones, in the order in which they close."""
        return self._versions.paths

    @property
    def followers(self) -> tuple[LiveView, ...]:
        """The other live versions."""
        return self._versions.followers

    @property
    def position(self) -> int:
        """The first offset that is not applied."""
        return self._at.position

    @property
    def watermark(self) -> Watermark:
        """The watermark at the position, that which idleness gave apart."""
        return self._at.watermark

    @property
    def progress(self) -> Progress:
        """What is committed with the newest step, or with the next one."""
        return self._at.progress

    @property
    def bundles(self) -> list[BundleState]:
        """All bundles that are fed, each once."""
        return self._versions.bundles

    # -- in step with the log ---------------------------------------------------------------

    def replay(self, batch: Batch) -> None:
        """Apply records that are committed already: panes and watermark, no output.

        Each bundle takes what it has not applied yet.
        """
        for bundle in self.bundles:
            bundle.take(batch)
        self._at.go_on(batch)
        self._obey_floors(batch)

    def steps(self, batch: Batch) -> Iterator[Step]:
        """Apply a batch as one transaction, or as several where it says too much for one.

        A batch that is too large is halved, which changes nothing but the number of
        transactions, and of updates of the same vector; a single record that closes too much
        is preceded by the steps of its closing at its own position, before it is applied. So
        is a record at which a version closes its first as-of time after another one.
        """
        if batch.first_offset < self.position:
            raise ValueError(f"batch at {batch.first_offset} behind position {self.position}")
        waiting = cut_at_orders(batch)
        while waiting:
            part = waiting.pop()
            self._obey_floors(part)
            after = self._at.watermark_after(part)
            first = self._first_of_a_successor(part)
            if first is not None and part.offsets[0] < first:
                waiting += [part.since(first), part.below(first)]
                continue
            if first is not None:
                there = self._at.watermark_after(part.below(first + 1))
                yield from self._close_ahead(there, part)
                waiting.append(part)
                continue
            prepared = self._prepare(part)
            readings = self._read(prepared, after, self._pairs_per_step)
            if readings is None:
                if len(part.offsets) > 1:
                    waiting.extend(reversed(part.halves()))
                    continue
                yield from self._close_ahead(after, part)
                prepared = self._prepare(part)
                # Its updates are those of one entity.
                readings = self._read(prepared, after, math.inf)
                assert readings is not None
            last = not waiting and not part.markers
            yield self._apply(part, prepared, readings, after, last=last)
            if part.markers and (silence_ms := self.watermark.silence_ms) is not None:
                yield from self.silence(silence_ms)

    def _close_ahead(self, after: Watermark, part: Batch) -> Iterator[Step]:
        """Close what the first record of a part closes, before it is applied."""
        self._at.owing = True
        yield from self.close_through(self._at.effective_ms(after), part.first_offset)

    def _first_of_a_successor(self, part: Batch) -> int | None:
        """The record at which a version closes its first as-of time after another one's."""
        successors = self._successors()
        if not successors:
            return None

        def closes(some: Batch) -> bool:
            reached = self._at.effective_ms(self._at.watermark_after(some))
            return any(path.target_ms(reached) is not None for path in successors)

        return first_record(part, closes)

    def _successors(self) -> list[SetPath]:
        """Versions that have closed nothing since they took over from another one."""
        return [p for p in self.paths if self._versions.predecessor(p, self.progress) is not None]

    def _obey_floors(self, batch: Batch) -> None:
        """Before anything closes: a marker's floor holds for what its watermark closes."""
        floors = [m.floor_ms for m in batch.markers if m.floor_ms is not None]
        if floors:
            self.raise_floor(max(floors))

    def raise_floor(self, floor_ms: int, bundles: Collection[str] | None = None) -> None:
        """From `floor_ms` on every event is known, and maybe not those before.

        Holds for all bundles, or for those with one of these digests.
        """
        for state in self.bundles:
            if bundles is None or state.bundle.digest in bundles:
                state.raise_floor(floor_ms)
        for path in self.paths:
            path.obey_floor()

    def _prepare(self, batch: Batch) -> list[Prepared]:
        events = batch.events.hstack([self._at.at_arrival(batch).alias(ARRIVAL)])
        return [path.prepare(events) for path in self.paths]

    def _read(
        self, prepared: Sequence[Prepared], after: Watermark, pairs: float
    ) -> list[Reading] | None:
        """What each set needs of the rows, or None if that is more than `pairs` together."""
        effective = self._at.effective_ms(after)
        readings: list[Reading] = []
        for path, part in zip(self.paths, prepared, strict=True):
            reading = path.read(part, effective, self._pairs_per_step)
            if reading is None or reading.pairs + sum(one.pairs for one in readings) > pairs:
                return None
            readings.append(reading)
        return readings

    def _apply(
        self,
        batch: Batch,
        prepared: Sequence[Prepared],
        readings: Sequence[Reading],
        after: Watermark,
        *,
        last: bool,
    ) -> Step:
        effective = self._at.effective_ms(after)
        vectors: dict[str, pl.DataFrame] = {}
        late: list[Late] = []
        dead = list(batch.dead)
        progress = self.progress
        for path, part, reading in zip(self.paths, prepared, readings, strict=True):
            name = path.outlet
            out = path.close_batch(part, effective, reading, self._pairs_per_step)
            if out is not None and not out.is_empty():
                vectors[name] = out
            if not path.pinned:
                late.extend(Late(offset=offset, feature_set=name) for offset in part.late)
                dead.extend(_orphan(path, offset) for offset in part.without_entity)
            progress = progress.closed_further(name, path.closed_ms, path.view.name)
        # Sets may share a bundle: all of them read it before the batch goes in.
        for path, part in zip(self.paths, prepared, strict=True):
            path.apply(part, batch.next_offset)
        for bundle in self.bundles:
            bundle.take(batch)
        self._at.go_on(batch)
        self._at.owing = False
        self._at.note(progress)
        return Step(
            position=self.position,
            progress=self.progress,
            vectors=vectors,
            late=tuple(late),
            dead=tuple(dead),
            events=batch.events.height,
            last=last,
        )

    def begin(self, definitions_offset: int) -> None:
        """After replay: sets without a committed C start where the watermark has come to.

        Where they start is committed with the next step: what idleness closes for others
        before that must not count as closed for them.
        """
        effective = self._at.watermark_ms
        # Whoever was here before may have read further, and what it knew is known here.
        offset = max(self.progress.definitions_offset, definitions_offset)
        progress = replace(self.progress, definitions_offset=offset)
        for path in self.paths:
            name = path.outlet
            if name not in progress.closed:
                if effective is not None:
                    path.begin(effective)
                if path.closed_ms is not None:
                    progress = replace(progress, began={**progress.began, name: path.closed_ms})
                progress = progress.closed_further(name, path.closed_ms, path.view.name)
        self._at.progress = progress

    def skip_to(self, position: int) -> None:
        """Go on at `position`: there are no records between, only transaction markers."""
        for bundle in self.bundles:
            bundle.next_offset = max(bundle.next_offset, position)
        self._at.position = max(self.position, position)

    def flush(self) -> int:
        """Bring all bundles to disk at the position, which must be committed; rows written."""
        written = 0
        for one in self.begin_flush():
            written += one.write()
            one.ingest()
        return written

    def begin_flush(self) -> list[Flush]:
        """Flushes of all bundles at the position, which must be committed, yet to be made.

        Batches may go on while they are written, after earlier ones are ingested. A bundle that a
        replay has not reached yet is on disk as it is.
        """
        if not self.may_flush:
            raise ValueError(f"no flush at {self.position} while corrections are pending")
        return [
            bundle.begin_flush(self.watermark, self._kept_from_ms(bundle))
            for bundle in self.bundles
            if bundle.next_offset == self.position
        ]

    def _kept_from_ms(self, bundle: BundleState) -> int | None:
        wanted = self._versions.wanted_floor_ms(bundle)
        corrected = self._corrections.kept_from_ms(bundle)
        return wanted if wanted is None or corrected is None else min(wanted, corrected)

    @property
    def may_flush(self) -> bool:
        """Not beyond a fence of which corrections are pending: they are made of what is on disk."""
        pending = self._corrections.pending
        return pending is None or self.position <= pending.offset

    @property
    def open_windows(self) -> int:
        """As-of times that have begun and have not closed, over all sets."""
        effective = self._at.watermark_ms
        if effective is None:
            return 0
        return sum(path.open_windows(effective) for path in self.paths)

    @property
    def unflushed_rows(self) -> int:
        """Rows that are in memory only, an upper bound."""
        return sum(bundle.overlay.height for bundle in self.bundles)

    # -- at a position, without a record ----------------------------------------------------

    def idle(self, watermark_ms: int) -> Iterator[Step]:
        """Follow a watermark that idleness gives; it never lowers."""
        current = self._at.watermark_ms
        if current is not None and watermark_ms <= current:
            return
        self._at.note(replace(self.progress, idle_watermark_ms=watermark_ms))
        yield from self.close_through(watermark_ms, self.position)

    def silence(self, highest_ms: int) -> Iterator[Step]:
        """Close up to the first multiple of `every` after the highest event time, no further.

        The watermark stays: what comes later is judged by what has closed.
        """
        for path in self.paths:
            yield from self._close_silence(path, highest_ms)

    def resume(self) -> Iterator[Step]:
        """Finish what a crash left pending: a closing, by the version in its cursor; the
        watermark that idleness gave; a silence whose marker is committed but not obeyed; what a
        version has to close that has just taken over. Corrections are apart, or given up if they
        are not ready."""
        cursor = self.progress.cursor
        if cursor is not None:
            path = self._versions.path(cursor.outlet)
            if path.view.name != cursor.version:
                name = f"{set_of(cursor.outlet)}@{cursor.version}"
                raise ValueError(f"{name} has a closing to finish")
            yield from self._closing.close_one(
                path, cursor.as_of_ms, self.position, cursor.entities_done
            )
        yield from self._catch_up(self.paths)
        if self.correcting and not self.corrections_ready:
            yield self._corrections.given_up()

    def _catch_up(self, paths: Sequence[SetPath]) -> Iterator[Step]:
        """Close what the watermark closes at the position, or a silence that it is told there."""
        watermark_ms = self._at.watermark_ms
        if watermark_ms is not None and self.progress.closed:
            for path in paths:
                through = path.windows.closed_through(watermark_ms)
                yield from self._closing.close(path, through, self.position)
        if (silence_ms := self.watermark.silence_ms) is not None:
            for path in paths:
                yield from self._close_silence(path, silence_ms)

    def _close_silence(self, path: SetPath, highest_ms: int) -> Iterator[Step]:
        every = path.view.every_ms
        yield from self._closing.close(path, (highest_ms // every + 1) * every, self.position)

    def close_through(self, watermark_ms: int | None, position: int) -> Iterator[Step]:
        """Close all that `watermark_ms` closes over the panes as they are, set by set."""
        if watermark_ms is None:
            return
        for path in self.paths:
            yield from self._closing.close(
                path, path.windows.closed_through(watermark_ms), position
            )

    # -- versions ---------------------------------------------------------------------------

    def switch(
        self, feature_set: str, held: Held, *, epoch: int, control_offset: int
    ) -> Iterator[Step]:
        """The fence of `epoch` at the position: from here on this holds of a set.

        The first step commits that and carries the ack. Those after it close what a version that
        takes over has to close by now: its own as-of times after C, over the panes as they are;
        whatever a crash leaves of them, `resume` makes. The version that served goes on as a
        follower. Where the epoch asks for corrections, they are pending from then on. An epoch
        that holds already changes nothing.

        Raises `LookupError` for a version that does not follow, and ValueError while it
        `must_wait`.
        """
        if epoch <= self.progress.epochs.get(feature_set, 0):
            return
        step, paths = fence(
            self._at,
            self._versions,
            feature_set,
            held,
            epoch=epoch,
            control_offset=control_offset,
        )
        yield step
        yield from self._catch_up(paths)

    def must_wait(self, feature_set: str, held: Held) -> bool:
        """Whether a fence has to wait.

        While the record at the position has closed something and is not applied yet, as a crash
        may leave it: what it closes belongs to the version before the fence. And while
        corrections are pending that are in the way of it.
        """
        return self.progress.owing or in_the_way(self.progress, feature_set, held)

    # -- corrections ------------------------------------------------------------------------

    @property
    def correcting(self) -> bool:
        """Whether corrections are pending."""
        return self._corrections.pending is not None

    @property
    def corrections_ready(self) -> bool:
        """Whether they are, and what is on disk is as of their fence."""
        return self._corrections.ready

    def corrections(self) -> Iterator[Step]:
        """What is left of them. Other steps may be made between these, but no flush.

        Raises ValueError where they are pending and not ready.
        """
        return self._corrections.steps()

    # -- live versions ----------------------------------------------------------------------

    def adopt(self, feature_set: str, version: str, *, definitions_offset: int) -> None:
        """From here on `version`, a follower, serves a set that had no path.

        It begins where the watermark has come to, unless its C is known. That is committed with
        the next step, and nothing is said for it before: whoever claims knows the definitions up
        to `definitions_offset` then. Raises `LookupError` for a version that does not follow.
        """
        closed = self.progress.closed.get(feature_set)
        live = self._versions.follower(feature_set, version)
        path = SetPath(live, closed_ms=None if closed is None else closed.through_ms)
        self._versions.add(path)
        effective = self._at.watermark_ms
        progress = self.progress
        if closed is None and effective is not None:
            path.begin(effective)
        if closed is None and path.closed_ms is not None:
            progress = replace(progress, began={**progress.began, feature_set: path.closed_ms})
        progress = progress.closed_further(feature_set, path.closed_ms, version)
        offset = max(progress.definitions_offset, definitions_offset)
        self._at.progress = replace(progress, definitions_offset=offset)

    def heard(self, control_offset: int) -> None:
        """Control records below this offset are applied; committed with the next step."""
        known = self.progress
        offset = max(known.control_offset, control_offset)
        self._at.progress = replace(known, control_offset=offset)

    @property
    def needed(self) -> set[tuple[str, str]]:
        """Versions that have to go on following: predecessors, pinned ones and stand-ins, and the
        one that is being corrected."""
        return self.predecessors | self._versions.needed | self._corrections.withdrawn

    @property
    def predecessors(self) -> set[tuple[str, str]]:
        """The versions that closed C of a set or pin and don't speak for it any more. They must go
        on following until the one that speaks has closed its first as-of time."""
        return {
            (path.view.feature_set, self.progress.closed[path.outlet].version)
            for path in self._successors()
        }

    def expect(self, plans: Collection[Plan]) -> None:
        """The live versions that are to follow and don't yet: flushes leave what they need."""
        self._versions.expected = tuple(plans)

    def follow(self, live: LiveView) -> None:
        """One more live version, over bundles that are at the position and, where others read
        them too, the same states as theirs. Raises ValueError if they are not."""
        self._versions.follow(live, self.position)

    def leave(self, feature_set: str, version: str) -> list[BundleState]:
        """A follower less. The bundles that nobody needs any more are no longer fed, and are the
        caller's to close. Raises ValueError for a predecessor, a pinned one, a stand-in and what
        is being corrected, `LookupError` for no follower."""
        if (feature_set, version) in self.predecessors | self._corrections.withdrawn:
            raise ValueError(f"{feature_set}@{version} is needed by the one that has taken over")
        return self._versions.leave(feature_set, version)


def _orphan(path: SetPath, offset: int) -> DeadLetter:
    return DeadLetter(
        offset=offset,
        error="missing_entity",
        detail=f"{', '.join(path.view.entity)} must not be null",
        feature_set=path.view.feature_set,
    )
