"""The path of one set through one stream partition: its view, its bundle, and what is closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.batch import OFFSET
from streams.datapath.closing import CLOSED, Windows
from streams.datapath.partials import ENTITY, PANE
from streams.definitions.model import Emit
from streams.names import AS_OF
from streams.windowing.accumulators import merge_partials
from streams.windowing.panes import ceil_to, floor_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.datapath.bundle_state import BundleState
    from streams.definitions.plan import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a batch means to one set.

    `partials` has pane, entity, `@closed` (see closing.py) and accumulator columns; `late` and
    `without_entity` are offsets of events.
    """

    partials: pl.DataFrame
    late: tuple[int, ...] = ()
    without_entity: tuple[int, ...] = ()


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

    def cost(self, prepared: Prepared, watermark_ms: int | None) -> int:
        """(row, as-of time) pairs that closing after this batch would touch."""
        target = self.target_ms(watermark_ms)
        if target is None:
            return 0
        rows = self.rows(target, prepared.partials)
        return self.windows.cost(rows, self.closed_ms, target)

    def close_batch(self, prepared: Prepared, watermark_ms: int | None) -> pl.DataFrame | None:
        """Vectors of what closes within the batch, and updates if the set asks for them."""
        found = []
        target = self.target_ms(watermark_ms)
        if target is not None:
            found.append(
                self.windows.close(self.rows(target, prepared.partials), self.closed_ms, target)
            )
            self.closed_ms = target
        if self.view.emit is Emit.UPDATES and watermark_ms is not None:
            found.append(self._updates(prepared, watermark_ms))
        return pl.concat(found) if found else None

    def _updates(self, prepared: Prepared, watermark_ms: int) -> pl.DataFrame:
        """Updates of open as-of times up to the first one after the watermark."""
        through = floor_to(watermark_ms, self.view.every_ms) + self.view.every_ms
        rows = self.rows(through, prepared.partials)
        return self.windows.updates(rows, prepared.partials, self.closed_ms, through)

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

    def rows(self, target_ms: int, partials: pl.DataFrame | None = None) -> pl.DataFrame:
        """All that closing `(C, target]` reads: the bundle's rows and a batch's partials."""
        oldest = None if self.closed_ms is None else self.windows.oldest_pane_ms(self.closed_ms)
        if self.bundle.floor_ms is not None:
            # Rows below it are there until the next flush, and may be half of a pane.
            oldest = self.bundle.floor_ms if oldest is None else max(oldest, self.bundle.floor_ms)
        never = pl.lit(None, dtype=pl.Int64).alias(CLOSED)
        frames = [frame.with_columns(never) for frame in self.bundle.rows(oldest, target_ms)]
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
        first = self.next_as_of(rows, target_ms)
        every = self.view.every_ms
        low, high = 0, (target_ms - first) // every
        if self.windows.cost(rows, self.closed_ms, first) > pairs:
            return first - every if self._behind(first - every) else None
        while low < high:
            middle = (low + high + 1) // 2
            if self.windows.cost(rows, self.closed_ms, first + middle * every) <= pairs:
                low = middle
            else:
                high = middle - 1
        return first + low * every

    def next_as_of(self, rows: pl.DataFrame, target_ms: int) -> int:
        """First as-of time in `(C, target]` that has anything to say, else the target."""
        found = self.windows.next_as_of(rows, self.closed_ms, target_ms)
        return target_ms if found is None else found

    def _behind(self, as_of_ms: int) -> bool:
        return self.closed_ms is None or self.closed_ms < as_of_ms

    def close(self, rows: pl.DataFrame, through_ms: int) -> pl.DataFrame:
        """Vectors of `(C, through]`."""
        return self.windows.close(rows, self.closed_ms, through_ms)

    def slices(
        self, rows: pl.DataFrame, as_of_ms: int, done: int, pairs: int
    ) -> Iterator[tuple[pl.DataFrame, int, bool]]:
        """Vectors of one as-of time in order of entity, `done` of them skipped.

        Yields (vectors, how many entities are done with them, whether they are the last).
        """
        before = as_of_ms - self.view.every_ms
        involved = rows.filter(
            (pl.col(PANE) >= self.windows.oldest_pane_ms(before)) & (pl.col(PANE) < as_of_ms)
        )
        entities = involved[ENTITY].unique().sort()
        per_entity = max(1, -(-involved.height // max(1, entities.len())))
        step = max(1, pairs // per_entity)
        while True:
            chunk = entities.slice(done, step)
            done += chunk.len()
            inside = involved.filter(pl.col(ENTITY).is_in(chunk.implode()))
            last = done >= entities.len()
            yield self.windows.close(inside, before, as_of_ms).sort(AS_OF, ENTITY), done, last
            if last:
                return
