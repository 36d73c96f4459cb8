"""The data path of one stream partition: batches in, transactions out; pure apart from the
state port.

Each step that comes out is one Kafka transaction: its vectors, late copies and dead letters go
out with the commit of its position. Steps are made one after the other, each after the one
before is committed; whoever can't commit a step drops the pipeline and claims anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from streams.datapath.batch import OFFSET, Batch, DeadLetter
from streams.datapath.progress import Closed, Cursor, Progress
from streams.windowing.accumulators import EVENT_TIME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import polars as pl

    from streams.datapath.feature_set import Prepared, Reading, SetPath
    from streams.windowing.watermark import Watermark

PAIRS_PER_STEP = 400_000
"""How many (row, as-of time) pairs one transaction may touch, and how many rows are read at
once: bounds its length and memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """An event that came after everything it belongs to had closed, for one set."""

    offset: int
    feature_set: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One transaction: what goes out, and the position and progress committed with it."""

    position: int
    progress: Progress
    vectors: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    late: tuple[Late, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    events: int = 0


class Pipeline:
    """All sets of one stream partition, fed with its batches in order."""

    def __init__(
        self,
        paths: Sequence[SetPath],
        *,
        watermark: Watermark,
        position: int,
        progress: Progress,
        pairs_per_step: int = PAIRS_PER_STEP,
    ) -> None:
        self.paths = tuple(sorted(paths, key=lambda path: path.view.feature_set))
        self.position = position
        self.watermark = watermark
        self.progress = progress
        self._pairs_per_step = pairs_per_step

    # -- in step with the log ---------------------------------------------------------------

    def replay(self, batch: Batch) -> None:
        """Apply records that are committed already: panes and watermark, no output.

        Each bundle takes what it has not applied yet.
        """
        for path in self.paths:
            news = batch.since(path.bundle.next_offset)
            path.apply(path.prepare(news.events, None), batch.next_offset)
        self.watermark = self._watermark_after(batch)
        self.position = batch.next_offset
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
            after = self._watermark_after(part)
            prepared = self._prepare(part)
            readings = self._read(prepared, after, self._pairs_per_step)
            if readings is None:
                if len(part.offsets) > 1:
                    waiting.extend(reversed(part.halves()))
                    continue
                yield from self.close_through(self._effective(after), part.first_offset)
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
        for path in self.paths:
            if bundles is None or path.bundle.bundle.digest in bundles:
                path.bundle.raise_floor(floor_ms)
                path.raise_floor(path.bundle.floor_ms)

    def _prepare(self, batch: Batch) -> list[Prepared]:
        arrival = self._at_arrival(batch)
        return [path.prepare(batch.events, arrival) for path in self.paths]

    def _read(
        self, prepared: Sequence[Prepared], after: Watermark, pairs: float
    ) -> list[Reading] | None:
        """What each set needs of the rows, or None if that is more than `pairs` together."""
        effective = self._effective(after)
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
        effective = self._effective(after)
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
        self.watermark = after
        self.position = batch.next_offset
        self._progress(closed=closed)
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
        effective = self._effective(self.watermark)
        closed = dict(self.progress.closed)
        for path in self.paths:
            if path.view.feature_set in closed:
                continue
            if effective is not None:
                path.begin(effective)
            if path.closed_ms is not None:
                through = Closed(through_ms=path.closed_ms, version=path.view.version)
                closed[path.view.feature_set] = through
        self.progress = replace(self.progress, closed=closed, definitions_offset=definitions_offset)

    def skip_to(self, position: int) -> None:
        """Go on at `position`: there are no records between, only transaction markers."""
        for path in self.paths:
            path.bundle.next_offset = max(path.bundle.next_offset, position)
        self.position = max(self.position, position)

    def flush(self) -> int:
        """Bring all bundles to disk at the position, which must be committed; rows written.

        A bundle that a replay has not reached yet is on disk as it is.
        """
        written = 0
        for bundle in {id(path.bundle): path.bundle for path in self.paths}.values():
            if bundle.next_offset != self.position:
                continue
            floors = [path.wanted_floor_ms for path in self.paths if path.bundle is bundle]
            known = [floor for floor in floors if floor is not None]
            floor = min(known) if len(known) == len(floors) else None
            written += bundle.flush(self.watermark, floor)
        return written

    @property
    def open_windows(self) -> int:
        """As-of times that have begun and have not closed, over all sets."""
        effective = self._effective(self.watermark)
        if effective is None:
            return 0
        return sum(path.open_windows(effective) for path in self.paths)

    @property
    def unflushed_rows(self) -> int:
        """Rows that are in memory only, an upper bound."""
        return sum(path.bundle.overlay.height for path in self.paths)

    # -- at a position, without a record ----------------------------------------------------

    def idle(self, watermark_ms: int) -> Iterator[Step]:
        """Follow a watermark that idleness gives; it never lowers."""
        current = self._effective(self.watermark)
        if current is not None and watermark_ms <= current:
            return
        self._progress(idle_watermark_ms=watermark_ms)
        yield from self.close_through(watermark_ms, self.position)

    def silence(self, highest_ms: int) -> Iterator[Step]:
        """Close up to the first multiple of `every` after the highest event time, no further.

        The watermark stays: what comes later is judged by what has closed.
        """
        for path in self.paths:
            every = path.view.every_ms
            yield from self._close_set(path, (highest_ms // every + 1) * every, self.position)

    def resume(self) -> Iterator[Step]:
        """Finish what a crash left pending: a closing, with the version in its cursor; the
        watermark that idleness gave; a silence whose marker is committed but not obeyed."""
        cursor = self.progress.cursor
        if cursor is not None:
            path = next(p for p in self.paths if p.view.feature_set == cursor.feature_set)
            yield from self._close_one(path, cursor.as_of_ms, self.position, cursor.entities_done)
        effective = self._effective(self.watermark)
        if effective is not None and self.progress.closed:
            yield from self.close_through(effective, self.position)
        if (silence_ms := self.watermark.silence_ms) is not None:
            yield from self.silence(silence_ms)

    def close_through(self, watermark_ms: int | None, position: int) -> Iterator[Step]:
        """Close all that `watermark_ms` closes over the panes as they are, set by set."""
        if watermark_ms is None:
            return
        for path in self.paths:
            yield from self._close_set(path, path.windows.closed_through(watermark_ms), position)

    def _close_set(self, path: SetPath, target_ms: int, position: int) -> Iterator[Step]:
        """Steps that close `(C, target]`: runs of as-of times, each run within the limit."""
        while path.behind(target_ms):
            rows, whole_ms = path.rows(target_ms, self._pairs_per_step)
            through = whole_ms if path.behind(whole_ms) else None
            while through is not None and path.behind(whole_ms):
                through = path.run(rows, whole_ms, self._pairs_per_step)
                if through is not None:
                    yield self._closing(path, position, path.close(rows, through), through)
            if through is None:
                del rows
                yield from self._close_one(path, path.next_as_of(target_ms), position, 0)

    def _close_one(self, path: SetPath, as_of_ms: int, position: int, done: int) -> Iterator[Step]:
        """Steps that close a single as-of time, so many entities at a time, by their bytes."""
        before = as_of_ms - path.view.every_ms
        for vectors, count, last in path.slices(as_of_ms, done, self._pairs_per_step):
            if last:
                yield self._closing(path, position, vectors, as_of_ms)
                return
            cursor = Cursor(
                feature_set=path.view.feature_set,
                version=path.view.version,
                as_of_ms=as_of_ms,
                entities_done=count,
            )
            yield self._closing(path, position, vectors, before, cursor)

    def _closing(
        self,
        path: SetPath,
        position: int,
        vectors: pl.DataFrame,
        through_ms: int,
        cursor: Cursor | None = None,
    ) -> Step:
        path.closed_ms = through_ms
        name = path.view.feature_set
        closed = {
            **self.progress.closed,
            name: Closed(through_ms=through_ms, version=path.view.version),
        }
        self._progress(closed=closed, cursor=cursor)
        return Step(
            position=position,
            progress=self.progress,
            vectors={} if vectors.is_empty() else {name: vectors},
        )

    # -- watermarks -------------------------------------------------------------------------

    def _progress(
        self,
        *,
        closed: Mapping[str, Closed] | None = None,
        cursor: Cursor | None = None,
        idle_watermark_ms: int | None = None,
    ) -> None:
        known = self.progress
        self.progress = replace(
            known,
            closed=known.closed if closed is None else closed,
            cursor=cursor,
            idle_watermark_ms=known.idle_watermark_ms
            if idle_watermark_ms is None
            else idle_watermark_ms,
            watermark_ms=self._effective(self.watermark),
        )

    def _effective(self, watermark: Watermark) -> int | None:
        """The watermark, or the one that idleness gave if that is higher."""
        value, idle = watermark.value_ms, self.progress.idle_watermark_ms
        if value is None or idle is None:
            return idle if value is None else value
        return max(value, idle)

    def _watermark_after(self, batch: Batch) -> Watermark:
        watermark = self.watermark.after_events(batch.events[EVENT_TIME])
        for marker in batch.markers:
            watermark = watermark.after_marker(
                marker.source_partition, marker.watermark_ms, silent=marker.silent
            )
        return watermark

    def _at_arrival(self, batch: Batch) -> pl.Series:
        markers = [(m.offset, m.source_partition, m.watermark_ms) for m in batch.markers]
        at = self.watermark.at_arrival(batch.events[EVENT_TIME], batch.events[OFFSET], markers)
        idle = self.progress.idle_watermark_ms
        if idle is not None:
            at = at.fill_null(idle).clip(lower_bound=idle)
        return at


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
