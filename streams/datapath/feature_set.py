"""The path of one set through one stream partition: its view, its bundle, and what is closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.batch import OFFSET
from streams.datapath.closing import CLOSED, Windows
from streams.datapath.partials import ENTITY, PANE
from streams.definitions.model import Emit
from streams.windowing.accumulators import merge_partials
from streams.windowing.panes import ceil_to, floor_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.datapath.bundle_state import BundleState
    from streams.definitions.plan import View

_NEVER = pl.lit(None, dtype=pl.Int64).alias(CLOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a batch means to one set.

    `partials` has pane, entity, `@closed` (see closing.py) and accumulator columns; `late` and
    `without_entity` are offsets of events.
    """

    partials: pl.DataFrame
    late: tuple[int, ...] = ()
    without_entity: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Rows that a batch closes with up to `target_ms` and makes updates of, if it does.

    `pairs` is what they count against the limit of a transaction: for a closing its (row, as-of
    time) pairs, for updates the vectors; at least the number of rows.
    """

    target_ms: int | None
    closing: pl.DataFrame | None
    updating: pl.DataFrame | None
    pairs: int


class SetPath:
    """One set's closing over one bundle. `closed_ms` is C: None while nothing has closed."""

    def __init__(self, view: View, bundle: BundleState, *, closed_ms: int | None = None) -> None:
        self.view = view
        self.bundle = bundle
        self.windows = Windows(view=view, pane_ms=bundle.bundle.pane_ms)
        self.closed_ms = closed_ms
        self.raise_floor(bundle.floor_ms)

    def raise_floor(self, floor_ms: int | None) -> None:
        """Panes are whole from `floor_ms` on: as-of times that need older ones never close."""
        if floor_ms is None:
            return
        first = ceil_to(floor_ms + self.view.longest_window_ms, self.view.every_ms)
        before = first - self.view.every_ms
        self.closed_ms = before if self.closed_ms is None else max(self.closed_ms, before)

    def begin(self, watermark_ms: int) -> None:
        """Start at a watermark: what it closes is not this set's to say."""
        through = self.windows.closed_through(watermark_ms)
        self.closed_ms = through if self.closed_ms is None else max(self.closed_ms, through)

    @property
    def wanted_floor_ms(self) -> int | None:
        """Start of the oldest pane that this set still needs, its retention included."""
        if self.closed_ms is None:
            return None
        oldest = self.windows.oldest_pane_ms(self.closed_ms) - self.view.retention_ms
        return floor_to(oldest, self.bundle.bundle.pane_ms)

    # -- a batch ----------------------------------------------------------------------------

    def prepare(self, events: pl.DataFrame, arrival: pl.Series | None) -> Prepared:
        """Partials and verdicts of a batch; `arrival` is the watermark at each event.

        Without it the events are a replay: committed, so nothing is said about them.
        """
        closed = pl.lit(None, dtype=pl.Int64)
        if arrival is not None:
            lateness, every = self.view.allowed_lateness_ms, self.view.every_ms
            closed = (pl.lit(arrival) - lateness).floordiv(every) * every
            if self.closed_ms is not None:
                closed = pl.max_horizontal(closed, pl.lit(self.closed_ms))
        events = events.with_columns(closed.alias(CLOSED))
        selected = self.bundle.partials.select(events, extra=[OFFSET, CLOSED])
        orphans: tuple[int, ...] = ()
        if selected[ENTITY].null_count():
            orphans = tuple(selected.filter(pl.col(ENTITY).is_null())[OFFSET])
            selected = selected.filter(pl.col(ENTITY).is_not_null())
        late: tuple[int, ...] = ()
        if arrival is not None:
            is_late = self.windows.last_as_of() <= pl.col(CLOSED)
            late = tuple(selected.filter(is_late)[OFFSET])
            on_time = pl.col(CLOSED) < self.windows.first_as_of()
            selected = selected.with_columns(pl.when(~on_time).then(pl.col(CLOSED)).alias(CLOSED))
        if self.bundle.floor_ms is not None:
            selected = selected.filter(pl.col(PANE) >= self.bundle.floor_ms)
        partials = self.bundle.partials.build(selected, [PANE, ENTITY, CLOSED])
        return Prepared(partials=partials, late=late, without_entity=orphans)

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
            if self.bundle.crowded(self._oldest_ms(self.closed_ms), target, limit):
                return None
            closing, whole_ms = self.rows(target, limit, partials)
            if whole_ms < target:
                return None
            pairs += self.windows.cost(closing, self.closed_ms, target)
        if self.view.emit is Emit.UPDATES and watermark_ms is not None and partials.height:
            closed = self.closed_ms if target is None else target
            through = self._updated_through(watermark_ms)
            entities = partials.select(ENTITY).unique()
            oldest = self._oldest_ms(None if closed is None else closed + self.view.every_ms)
            found = self.bundle.rows_of(entities, oldest, through, limit)
            if found is None:
                return None
            updating = self._frame(found, partials)
            vectors = self.windows.most_updates(partials, closed, through)
            pairs += max(vectors, updating.height)
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
            found.append(self.windows.close(reading.closing, self.closed_ms, target))
            self.closed_ms = target
        if watermark_ms is not None and reading.updating is not None:
            through = self._updated_through(watermark_ms)
            found.append(
                self.windows.updates(
                    reading.updating, prepared.partials, self.closed_ms, through, limit
                )
            )
        return pl.concat(found) if found else None

    def _updated_through(self, watermark_ms: int) -> int:
        """Updates are of open as-of times up to the first one after the watermark."""
        return floor_to(watermark_ms, self.view.every_ms) + self.view.every_ms

    def apply(self, prepared: Prepared, next_offset: int) -> None:
        """The batch's partials go to the bundle."""
        partials = prepared.partials
        has_late = partials[CLOSED].null_count() < partials.height
        partials = partials.drop(CLOSED)
        if has_late:
            accumulators = self.bundle.bundle.accumulators
            partials = merge_partials(partials, [PANE, ENTITY], accumulators)
        self.bundle.apply(partials, next_offset)

    # -- a closing at a position ------------------------------------------------------------

    def rows(
        self, target_ms: int, limit: int, partials: pl.DataFrame | None = None
    ) -> tuple[pl.DataFrame, int]:
        """All that closing `(C, target]` reads: the bundle's rows and a batch's partials.

        Where the bundle's are more than `limit`, those that closing up to an earlier as-of time
        reads. Second: that time, or the target; it may be C or before it.
        """
        found, whole_ms = self.bundle.rows(self._oldest_ms(self.closed_ms), target_ms, limit)
        return self._frame(found, partials), floor_to(whole_ms, self.view.every_ms)

    def _oldest_ms(self, closed_ms: int | None) -> int | None:
        """Start of the oldest pane that as-of times after `closed_ms` may read; None: any."""
        oldest = None if closed_ms is None else self.windows.oldest_pane_ms(closed_ms)
        floor = self.bundle.floor_ms
        if oldest is None or floor is None:
            return oldest if floor is None else floor
        # Rows below it are there until the next flush, and may be half of a pane.
        return max(oldest, floor)

    def _frame(
        self, found: Sequence[pl.DataFrame], partials: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Rows of the bundle, which count in every window of their pane, and partials."""
        frames = [frame.with_columns(_NEVER) for frame in found]
        if partials is not None:
            frames.append(partials)
        columns = [PANE, ENTITY, CLOSED, *(name for name, _ in self.bundle.bundle.columns)]
        return pl.concat([frame.select(columns) for frame in frames])

    def run(self, rows: pl.DataFrame, target_ms: int, pairs: int) -> int | None:
        """The highest as-of time up to which closing touches at most `pairs`.

        None if a single as-of time is more than that.
        """
        if self.windows.cost(rows, self.closed_ms, target_ms) <= pairs:
            return target_ms
        first = self.windows.next_as_of(rows, self.closed_ms, target_ms)
        if first is None:
            return target_ms
        every = self.view.every_ms
        low, high = 0, (target_ms - first) // every
        if self.windows.cost(rows, self.closed_ms, first) > pairs:
            return first - every if self.behind(first - every) else None
        while low < high:
            middle = (low + high + 1) // 2
            if self.windows.cost(rows, self.closed_ms, first + middle * every) <= pairs:
                low = middle
            else:
                high = middle - 1
        return first + low * every

    def next_as_of(self, target_ms: int) -> int:
        """First as-of time in `(C, target]` that has anything to say, else the target.

        Panes tell it: no value is read.
        """
        panes = self.bundle.panes(self._oldest_ms(self.closed_ms), target_ms)
        rows = pl.DataFrame({PANE: panes}, {PANE: pl.Int64}).with_columns(_NEVER)
        found = self.windows.next_as_of(rows, self.closed_ms, target_ms)
        return target_ms if found is None else found

    def behind(self, as_of_ms: int) -> bool:
        """Whether this as-of time is not closed yet."""
        return self.closed_ms is None or self.closed_ms < as_of_ms

    def close(self, rows: pl.DataFrame, through_ms: int) -> pl.DataFrame:
        """Vectors of `(C, through]`."""
        return self.windows.close(rows, self.closed_ms, through_ms)

    def slices(
        self, as_of_ms: int, done: int, limit: int
    ) -> Iterator[tuple[pl.DataFrame, int, bool]]:
        """Vectors of one as-of time in order of entity, `done` of them skipped.

        Yields (vectors, how many entities are done with them, whether they are the last). A
        slice is made of at most `limit` rows, see `BundleState.by_entity`.
        """
        before = as_of_ms - self.view.every_ms
        counted = 0
        for found, last in self.bundle.by_entity(self._oldest_ms(before), as_of_ms, limit):
            entities = found[ENTITY].unique().sort()
            skipped = min(max(done - counted, 0), entities.len())
            counted += entities.len()
            if skipped == entities.len() and not last:
                continue
            rows = self._frame([found])
            if skipped:
                rows = rows.filter(pl.col(ENTITY) > entities[skipped - 1])
            yield self.windows.close(rows, before, as_of_ms), counted, last
