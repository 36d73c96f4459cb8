"""The path of one set through one stream partition: the version that serves, and what is closed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.batch import OFFSET
from streams.datapath.closing import CLOSED, LATE
from streams.datapath.entity_runs import Range, entity_runs
from streams.datapath.partials import ENTITY, PANE
from streams.datapath.stand_ins import Off, Rows
from streams.definitions.model import Emit
from streams.names import outlet
from streams.windowing.accumulators import merge_partials
from streams.windowing.panes import ceil_to, floor_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.datapath.bundle_state import BundleState
    from streams.datapath.live_view import LiveView
    from streams.datapath.versions import Predecessor

ARRIVAL = "@arrival"
"""Column of events: the watermark in ms when they arrived, themselves included; null before any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a batch means to one set.

    `partials` has pane, entity, `@closed` (see closing.py) and accumulator columns, and so have
    those of each stand-in; `late` and `without_entity` are offsets of events.
    """

    partials: pl.DataFrame
    stand_ins: tuple[pl.DataFrame, ...] = ()
    late: tuple[int, ...] = ()
    without_entity: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Rows that a batch closes with up to `target_ms` and makes updates of, if it does.

    `pairs` is what they count against the limit of a transaction: for a closing its (row, as-of
    time) pairs, for updates the vectors; at least the number of rows.
    """

    target_ms: int | None
    closing: Rows | None
    updating: Rows | None
    pairs: int


class SetPath:
    """One set's closing by the version that serves, or by a pinned one for itself.

    `closed_ms` is the last of that version's as-of times up to C: None while nothing has
    closed. `off` is what of it is switched off.
    """

    def __init__(
        self, live: LiveView, *, closed_ms: int | None = None, pinned: bool = False
    ) -> None:
        """`closed_ms` is C, whichever version closed it."""
        self.live = live
        self.view = live.view
        self.windows = live.windows
        self.pinned = pinned
        self.outlet = (
            outlet(self.view.feature_set, self.view.version) if pinned else live.view.feature_set
        )
        self.off = Off(live.view, {})
        self.closed_ms = None if closed_ms is None else floor_to(closed_ms, self.view.every_ms)
        self.obey_floor()

    def obey_floor(self) -> None:
        """As-of times that need panes older than the bundles' floor never close."""
        floor_ms = self.live.floor_ms
        if floor_ms is None:
            return
        first = ceil_to(floor_ms + self.view.longest_window_ms, self.view.every_ms)
        before = first - self.view.every_ms
        self.closed_ms = before if self.closed_ms is None else max(self.closed_ms, before)

    def begin(self, watermark_ms: int, closed_ms: int | None = None) -> None:
        """Start at a watermark: what it closes is not this path's to say, nor what is closed."""
        through = self.windows.closed_through(watermark_ms)
        if closed_ms is not None:
            through = max(through, floor_to(closed_ms, self.view.every_ms))
        self.closed_ms = through if self.closed_ms is None else max(self.closed_ms, through)

    # -- a batch ----------------------------------------------------------------------------

    def prepare(self, events: pl.DataFrame) -> Prepared:
        """Partials and verdicts of a batch; `@arrival` is the watermark at each event."""
        lateness, every = self.view.allowed_lateness_ms, self.view.every_ms
        closed = (pl.col(ARRIVAL) - lateness).floordiv(every) * every
        if self.closed_ms is not None:
            closed = pl.max_horizontal(closed, pl.lit(self.closed_ms))
        selected = self.live.select(events, closed, OFFSET)
        orphans: tuple[int, ...] = ()
        if selected[ENTITY].null_count():
            orphans = tuple(selected.filter(pl.col(ENTITY).is_null())[OFFSET])
            selected = selected.filter(pl.col(ENTITY).is_not_null())
        return Prepared(
            partials=self.live.build(selected),
            stand_ins=self.off.prepare(events, closed),
            late=tuple(selected[OFFSET].filter(selected[LATE])),
            without_entity=orphans,
        )

    def target_ms(self, watermark_ms: int | None) -> int | None:
        """The as-of time up to which a watermark closes, if that is news."""
        if watermark_ms is None:
            return None
        target = self.windows.closed_through(watermark_ms)
        return target if self.closed_ms is None or target > self.closed_ms else None

    def open_windows(self, watermark_ms: int) -> int:
        """As-of times whose interval has begun by `watermark_ms` and that are not closed."""
        if self.closed_ms is None:
            return 0
        every = self.view.every_ms
        return max(0, (floor_to(watermark_ms, every) + every - self.closed_ms) // every)

    def read(self, prepared: Prepared, watermark_ms: int | None, limit: int) -> Reading | None:
        """What `close_batch` needs of the rows, or None if that is more than `limit` rows.

        Updates of a single entity are never too much.
        """
        partials = prepared.partials
        target = self.target_ms(watermark_ms)
        closing = updating = None
        pairs = 0
        if target is not None:
            if self.live.crowded(self.live.oldest_ms(self.closed_ms), target, limit):
                return None
            closing, whole_ms = self.rows(target, limit, prepared)
            if whole_ms < target:
                return None
            pairs += self._cost(closing, target)
        if self.view.emit is Emit.UPDATES and watermark_ms is not None and partials.height:
            closed = self.closed_ms if target is None else target
            through = self._updated_through(watermark_ms)
            entities = partials.select(ENTITY).unique()
            after = None if closed is None else closed + self.view.every_ms
            found = self.live.rows_of(entities, self.live.oldest_ms(after), through, limit)
            others = self.off.rows_of(entities, after, through, limit, prepared.stand_ins)
            if found is None or others is None:
                return None
            updating = Rows(own=self.live.frame(found, partials), others=others)
            vectors = self.windows.most_updates(partials, closed, through)
            pairs += max(vectors, updating.own.height) + self.off.cost(others, closed, through)
        return Reading(target_ms=target, closing=closing, updating=updating, pairs=pairs)

    def close_batch(
        self, prepared: Prepared, watermark_ms: int | None, reading: Reading, limit: int
    ) -> pl.DataFrame | None:
        """Vectors of what closes within the batch, and updates if the set asks for them.

        Updates are made of at most `limit` (row, as-of time) pairs at a time.
        """
        found = []
        target = reading.target_ms
        if target is not None and reading.closing is not None:
            found.append(self.close(reading.closing, target))
            self.closed_ms = target
        if watermark_ms is not None and reading.updating is not None:
            through = self._updated_through(watermark_ms)
            rows, closed = reading.updating, self.closed_ms
            made = self.windows.updates(rows.own, prepared.partials, closed, through, limit)
            found.append(self.off.fill(made, rows.others, closed, through))
        return pl.concat(found) if found else None

    def _updated_through(self, watermark_ms: int) -> int:
        """Updates are of open as-of times up to the first one after the watermark."""
        return floor_to(watermark_ms, self.view.every_ms) + self.view.every_ms

    def apply(self, prepared: Prepared, next_offset: int) -> None:
        """The batch's partials go to the bundles."""
        partials = prepared.partials
        has_late = partials[CLOSED].null_count() < partials.height
        partials = partials.clone()
        partials.drop_in_place(CLOSED)
        if has_late:
            partials = merge_partials(partials, [PANE, ENTITY], self.live.partials.accumulators)
        if len(self.live.bundles) == 1:
            self.live.bundles[0].apply(partials, next_offset)
            return
        for bundle in self.live.bundles:
            bundle.apply(_part(partials, bundle), next_offset)

    # -- a closing at a position ------------------------------------------------------------

    def rows(
        self, target_ms: int, limit: int, prepared: Prepared | None = None
    ) -> tuple[Rows, int]:
        """All that closing `(C, target]` reads: the bundles' rows and a batch's partials.

        Where the bundles' are more than `limit`, those that closing up to an earlier as-of time
        reads. Second: that time, or the target; it may be C or before it.
        """
        closed = self.closed_ms
        found, whole_ms = self.live.rows(self.live.oldest_ms(closed), target_ms, limit)
        partials = None if prepared is None else prepared.partials
        added = None if prepared is None else prepared.stand_ins
        others, whole_ms = self.off.rows(closed, whole_ms, limit, added)
        rows = Rows(own=self.live.frame(found, partials), others=others)
        return rows, floor_to(whole_ms, self.view.every_ms)

    def _cost(self, rows: Rows, through_ms: int) -> int:
        """How many (row, as-of time) pairs the closing of `(C, through]` touches."""
        own = self.windows.cost(rows.own, self.closed_ms, through_ms)
        return own + self.off.cost(rows.others, self.closed_ms, through_ms)

    def run(self, rows: Rows, target_ms: int, pairs: int) -> int | None:
        """The highest as-of time up to which closing touches at most `pairs`.

        None if a single as-of time is more than that.
        """
        if self._cost(rows, target_ms) <= pairs:
            return target_ms
        first = self.windows.next_as_of(rows.own, self.closed_ms, target_ms)
        if first is None:
            return target_ms
        every = self.view.every_ms
        low, high = 0, (target_ms - first) // every
        if self._cost(rows, first) > pairs:
            return first - every if self.behind(first - every) else None
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(rows, first + middle * every) <= pairs:
                low = middle
            else:
                high = middle - 1
        return first + low * every

    def next_as_of(self, target_ms: int) -> int:
        """First as-of time in `(C, target]` that has anything to say, else the target.

        Panes tell it: no value is read.
        """
        panes = self.live.panes(self.live.oldest_ms(self.closed_ms), target_ms)
        schema = {PANE: pl.Int64, CLOSED: pl.Int64}
        rows = pl.DataFrame({PANE: panes, CLOSED: [None] * len(panes)}, schema)
        found = self.windows.next_as_of(rows, self.closed_ms, target_ms)
        return target_ms if found is None else found

    def behind(self, as_of_ms: int) -> bool:
        """Whether this as-of time is not closed yet."""
        return self.closed_ms is None or self.closed_ms < as_of_ms

    def close(self, rows: Rows, through_ms: int) -> pl.DataFrame:
        """Vectors of `(C, through]`."""
        vectors = self.windows.close(rows.own, self.closed_ms, through_ms)
        return self.off.fill(vectors, rows.others, self.closed_ms, through_ms)

    @property
    def next_ms(self) -> int:
        """The first as-of time after C, which must be known."""
        assert self.closed_ms is not None
        return self.closed_ms + self.view.every_ms

    def slices(
        self, as_of_ms: int, done: int, limit: int, predecessor: Predecessor | None = None
    ) -> Iterator[tuple[pl.DataFrame, int, bool]]:
        """Vectors of one as-of time in order of entity, `done` of them skipped.

        With a predecessor it is the first one after C: an `empty` goes to the entities that the
        predecessor had as of C and that have no event now.

        Yields (vectors, how many entities are done with them, whether they are the last). A
        slice is made of at most `limit` rows, see `entity_runs`.
        """
        before = as_of_ms - self.view.every_ms
        counted = 0
        own = self.live.ranges(self.live.oldest_ms(before), as_of_ms)
        theirs = [] if predecessor is None else [_last_window(predecessor)]
        others = self.off.ranges(before, as_of_ms)
        for run in entity_runs([*own, *theirs, *chain.from_iterable(others)], limit):
            entities = run.entities
            skipped = min(max(done - counted, 0), entities.len())
            counted += entities.len()
            if skipped == entities.len() and not run.last:
                continue
            frames = iter(run.frames)
            rows = self.live.frame(list(islice(frames, len(own))))
            if skipped:
                rows = rows.filter(pl.col(ENTITY) > entities[skipped - 1])
            if predecessor is None:
                vectors = self.windows.close(rows, before, as_of_ms)
            else:
                known = next(frames)[ENTITY]
                if skipped:
                    known = known.filter(known > entities[skipped - 1])
                vectors = self.windows.succeed(rows, known, as_of_ms)
            stand_ins = self.off.frames([list(islice(frames, len(one))) for one in others])
            yield self.off.fill(vectors, stand_ins, before, as_of_ms), counted, run.last


def _last_window(predecessor: Predecessor) -> Range:
    """Where a version's entities as of C are: any of its bundles tells.

    Nowhere if that window begins before its floor: nothing was said as of C.
    """
    live, closed_ms = predecessor.live, predecessor.closed_ms
    start_ms = closed_ms - live.view.longest_window_ms
    if live.floor_ms is not None and start_ms < live.floor_ms:
        start_ms = closed_ms
    return Range(bundle=live.bundles[0], start_ms=start_ms, end_ms=closed_ms)


def _part(partials: pl.DataFrame, bundle: BundleState) -> pl.DataFrame:
    """What of the partials of several bundles is one bundle's."""
    own = partials.select(PANE, ENTITY, *(name for name, _ in bundle.bundle.columns))
    return own if bundle.floor_ms is None else own.filter(pl.col(PANE) >= bundle.floor_ms)
