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
from streams.datapath.progress import Closed, Progress
from streams.datapath.standing import Standing
from streams.datapath.step import Late as Late
from streams.datapath.step import Step as Step

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import polars as pl

    from streams.datapath.bundle_state import BundleState
    from streams.datapath.feature_set import Prepared, Reading, SetPath
    from streams.datapath.live_view import LiveView
    from streams.windowing.watermark import Watermark

PAIRS_PER_STEP = 400_000
"""How many (row, as-of time) pairs one transaction may touch, and how many rows are read at
once: bounds its length and memory."""


class Pipeline:
    """All sets of one stream partition, fed with its batches in order.

    Each set has a path: the version that serves. Followers are its other live versions: what
    they read is fed, too, and nothing is said for them.
    """

    def __init__(
        self,
        paths: Sequence[SetPath],
        *,
        followers: Sequence[LiveView] = (),
        watermark: Watermark,
        position: int,
        progress: Progress,
        pairs_per_step: int = PAIRS_PER_STEP,
    ) -> None:
        self.paths = tuple(sorted(paths, key=lambda path: path.view.feature_set))
        self.followers = tuple(followers)
        self._at = Standing(position=position, watermark=watermark, progress=progress)
        self._pairs_per_step = pairs_per_step
        self._closing = ClosingAtPosition(self._at, pairs_per_step=pairs_per_step)

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
        live = [*(path.live for path in self.paths), *self.followers]
        return list({id(bundle): bundle for one in live for bundle in one.bundles}.values())

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
        is preceded by the steps of its closing at its own position, before it is applied.
        """
        if batch.first_offset < self.position:
            raise ValueError(f"batch at {batch.first_offset} behind position {self.position}")
        waiting = _cut_at_orders(batch)
        while waiting:
            part = waiting.pop()
            self._obey_floors(part)
            after = self._at.watermark_after(part)
            prepared = self._prepare(part)
            readings = self._read(prepared, after, self._pairs_per_step)
            if readings is None:
                if len(part.offsets) > 1:
                    waiting.extend(reversed(part.halves()))
                    continue
                yield from self.close_through(self._at.effective_ms(after), part.first_offset)
                prepared = self._prepare(part)
                # Its updates are those of one entity.
                readings = self._read(prepared, after, math.inf)
                assert readings is not None
            yield self._apply(part, prepared, readings, after)
            if part.markers and (silence_ms := self.watermark.silence_ms) is not None:
                yield from self.silence(silence_ms)

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
        arrival = self._at.at_arrival(batch)
        return [path.prepare(batch.events, arrival) for path in self.paths]

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
    ) -> Step:
        effective = self._at.effective_ms(after)
        vectors: dict[str, pl.DataFrame] = {}
        late: list[Late] = []
        dead = list(batch.dead)
        closed = dict(self.progress.closed)
        for path, part, reading in zip(self.paths, prepared, readings, strict=True):
            name = path.view.feature_set
            out = path.close_batch(part, effective, reading, self._pairs_per_step)
            if out is not None and not out.is_empty():
                vectors[name] = out
            late.extend(Late(offset=offset, feature_set=name) for offset in part.late)
            dead.extend(_orphan(path, offset) for offset in part.without_entity)
            if path.closed_ms is not None:
                closed[name] = Closed(through_ms=path.closed_ms, version=path.view.version)
        # Sets may share a bundle: all of them read it before the batch goes in.
        for path, part in zip(self.paths, prepared, strict=True):
            path.apply(part, batch.next_offset)
        for bundle in self.bundles:
            bundle.take(batch)
        self._at.go_on(batch)
        self._at.note(closed=closed)
        return Step(
            position=self.position,
            progress=self.progress,
            vectors=vectors,
            late=tuple(late),
            dead=tuple(dead),
            events=batch.events.height,
        )

    def begin(self, definitions_offset: int) -> None:
        """After replay: sets without a committed C start where the watermark has come to.

        Where they start is committed with the next step: what idleness closes for others
        before that must not count as closed for them.
        """
        effective = self._at.watermark_ms
        closed = dict(self.progress.closed)
        for path in self.paths:
            if path.view.feature_set in closed:
                continue
            if effective is not None:
                path.begin(effective)
            if path.closed_ms is not None:
                through = Closed(through_ms=path.closed_ms, version=path.view.version)
                closed[path.view.feature_set] = through
        self._at.progress = replace(
            self.progress, closed=closed, definitions_offset=definitions_offset
        )

    def skip_to(self, position: int) -> None:
        """Go on at `position`: there are no records between, only transaction markers."""
        for bundle in self.bundles:
            bundle.next_offset = max(bundle.next_offset, position)
        self._at.position = max(self.position, position)

    def flush(self) -> int:
        """Bring all bundles to disk at the position, which must be committed; rows written.

        A bundle that a replay has not reached yet is on disk as it is.
        """
        return sum(
            bundle.flush(self.watermark, self._wanted_floor_ms(bundle))
            for bundle in self.bundles
            if bundle.next_offset == self.position
        )

    def _wanted_floor_ms(self, bundle: BundleState) -> int | None:
        """The lowest among the live versions that need the bundle; None while one can't tell."""
        closed = {path.view.feature_set: path.closed_ms for path in self.paths}
        floors = []
        for live in (*(path.live for path in self.paths), *self.followers):
            if bundle in live.bundles:
                closed_ms = closed[live.view.feature_set]
                if closed_ms is None:
                    return None
                floors.append(live.wanted_floor_ms(closed_ms))
        return min(floors, default=None)

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
        self._at.note(idle_watermark_ms=watermark_ms)
        yield from self.close_through(watermark_ms, self.position)

    def silence(self, highest_ms: int) -> Iterator[Step]:
        """Close up to the first multiple of `every` after the highest event time, no further.

        The watermark stays: what comes later is judged by what has closed.
        """
        for path in self.paths:
            every = path.view.every_ms
            yield from self._closing.close(path, (highest_ms // every + 1) * every, self.position)

    def resume(self) -> Iterator[Step]:
        """Finish what a crash left pending: a closing, with the version in its cursor; the
        watermark that idleness gave; a silence whose marker is committed but not obeyed."""
        cursor = self.progress.cursor
        if cursor is not None:
            path = next(p for p in self.paths if p.view.feature_set == cursor.feature_set)
            yield from self._closing.close_one(
                path, cursor.as_of_ms, self.position, cursor.entities_done
            )
        effective = self._at.watermark_ms
        if effective is not None and self.progress.closed:
            yield from self.close_through(effective, self.position)
        if (silence_ms := self.watermark.silence_ms) is not None:
            yield from self.silence(silence_ms)

    def close_through(self, watermark_ms: int | None, position: int) -> Iterator[Step]:
        """Close all that `watermark_ms` closes over the panes as they are, set by set."""
        if watermark_ms is None:
            return
        for path in self.paths:
            yield from self._closing.close(
                path, path.windows.closed_through(watermark_ms), position
            )


def _cut_at_orders(batch: Batch) -> list[Batch]:
    """Parts of a batch, last first, so that markers that say more than a watermark are obeyed
    where they stand in the log: silence ends its part, a floor has one to itself."""
    parts = [batch]
    for marker in batch.markers:
        cuts = []
        if marker.floor_ms is not None:
            cuts.append(marker.offset)
        if marker.floor_ms is not None or marker.silent:
            cuts.append(marker.offset + 1)
        for cut in cuts:
            rest = parts[-1]
            if rest.offsets[0] < cut <= rest.offsets[-1]:
                parts[-1:] = [rest.below(cut), rest.since(cut)]
    return parts[::-1]


def _orphan(path: SetPath, offset: int) -> DeadLetter:
    return DeadLetter(
        offset=offset,
        error="missing_entity",
        detail=f"{', '.join(path.view.entity)} must not be null",
        feature_set=path.view.feature_set,
    )
