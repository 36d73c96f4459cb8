"""A live version in one stream partition: its view, and its bundles read as one."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.bundle_state import not_below
from streams.datapath.closing import CLOSED, Windows
from streams.datapath.collecting import collected
from streams.datapath.entity_runs import Range
from streams.datapath.partials import ENTITY, PANE, Partials

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from streams.datapath.bundle_state import BundleState
    from streams.definitions.plan import Plan, View

_NEVER = pl.lit(None, dtype=pl.Int64).alias(CLOSED)


class LiveView:
    """A view over the bundles that follow the stream for it.

    A row of the view is a row of one of them, with nulls for what others keep: to merge rows
    is to merge their keys, and a null is nothing in every accumulator. An entity has an event
    in a pane where any of them has a row.
    """

    def __init__(
        self, view: View, bundles: Sequence[BundleState], fields: Mapping[str, pl.DataType]
    ) -> None:
        self.view = view
        self.bundles = tuple(bundles)
        self.windows = Windows(view=view)
        self.partials = (
            bundles[0].partials
            if len(bundles) == 1
            else Partials([one.bundle for one in bundles], fields)
        )
        self._columns = [PANE, ENTITY, CLOSED, *(name for name, _ in view.columns)]

    @classmethod
    def of(
        cls, plan: Plan, states: Mapping[str, BundleState], fields: Mapping[str, pl.DataType]
    ) -> LiveView:
        """The view of a plan over the states of its bundles, which are found by digest."""
        return cls(plan.view, [states[bundle.digest] for bundle in plan.bundles], fields)

    def narrowed(self, features: Collection[str]) -> LiveView:
        """The same over these features only, and so maybe over shorter windows."""
        kept = tuple(one for one in self.view.features if one.name in features)
        longest = max(one.window_ms for one in kept)
        made = copy(self)
        made.view = replace(self.view, features=kept, longest_window_ms=longest)
        made.windows = Windows(view=made.view)
        made._columns = [PANE, ENTITY, CLOSED, *(name for name, _ in made.view.columns)]
        return made

    def on_disk(self) -> LiveView:
        """The same over the bundles as they are on disk."""
        made = copy(self)
        made.bundles = tuple(one.on_disk() for one in self.bundles)
        return made

    @property
    def name(self) -> tuple[str, str]:
        """Set, and what the version goes by here."""
        return self.view.feature_set, self.view.name

    @property
    def floor_ms(self) -> int | None:
        """From here on the panes of all its bundles are whole; None: all are."""
        known = [one.floor_ms for one in self.bundles if one.floor_ms is not None]
        return max(known, default=None)

    def oldest_ms(self, closed_ms: int | None) -> int | None:
        """Start of the oldest pane that as-of times after `closed_ms` may read; None: any.

        Rows below the floor are there until the next flush, and may be half of a pane. Where the
        window as of `closed_ms` begins before the floor nothing was said as of it, and nobody
        gets an `empty` who has left it.
        """
        floor = self.floor_ms
        if closed_ms is None:
            return floor
        oldest = self.windows.oldest_pane_ms(closed_ms)
        return oldest if floor is None or floor <= oldest else oldest + self.view.every_ms

    # -- a batch ------------------------------------------------------------------------------

    def prepare(self, events: pl.DataFrame, closed: pl.Expr) -> pl.DataFrame:
        """Partials of a batch, see `build`; events without an entity are left out."""
        selected = self.select(events, closed)
        return self.build(selected.filter(pl.col(ENTITY).is_not_null()))

    def select(self, events: pl.DataFrame, closed: pl.Expr, *extra: str) -> pl.DataFrame:
        """As `Partials.select`, with `@closed` and `@late`; `closed` is what had closed when an
        event arrived."""
        selected = self.partials.select(events.lazy(), [*extra, closed.alias(CLOSED)])
        return collected(self.windows.judged(selected))

    def build(self, selected: pl.DataFrame) -> pl.DataFrame:
        """Partials by pane, entity and `@closed` of what `select` gave.

        `@closed` is null for what counts in every window of its pane, else what had closed when
        an event arrived.
        """
        floors = [one.floor_ms for one in self.bundles]
        lowest = min((ms for ms in floors if ms is not None), default=None)
        if lowest is not None and None not in floors:
            selected = not_below(selected, lowest)
        return self.partials.build(selected, [PANE, ENTITY, CLOSED])

    # -- rows ---------------------------------------------------------------------------------

    def rows(self, start_ms: int | None, end_ms: int, limit: int) -> tuple[list[pl.DataFrame], int]:
        """As `BundleState.rows`; the bundles share the limit."""
        found: list[pl.DataFrame] = []
        whole_ms = end_ms
        for bundle in self.bundles:
            frames, whole_ms = bundle.rows(start_ms, whole_ms, self._share(limit))
            found += frames
        if len(self.bundles) > 1 and whole_ms < end_ms:
            found = [frame.filter(pl.col(PANE) < whole_ms) for frame in found]
        return found, whole_ms

    def crowded(self, start_ms: int | None, end_ms: int, limit: int) -> bool:
        """Whether `rows` is known to leave something out; reads nothing."""
        share = self._share(limit)
        return any(one.crowded(start_ms, end_ms, share) for one in self.bundles)

    def rows_of(
        self, entities: pl.DataFrame, start_ms: int | None, end_ms: int, limit: int
    ) -> list[pl.DataFrame] | None:
        """As `BundleState.rows_of`; the bundles share the limit."""
        frames: list[pl.DataFrame] = []
        for bundle in self.bundles:
            found = bundle.rows_of(entities, start_ms, end_ms, self._share(limit))
            if found is None:
                return None
            frames += found
        return frames

    def panes(self, start_ms: int | None, end_ms: int) -> list[int]:
        """The panes in `[start_ms, end_ms)` that have rows, ascending."""
        if len(self.bundles) == 1:
            return self.bundles[0].panes(start_ms, end_ms)
        return sorted({pane for one in self.bundles for pane in one.panes(start_ms, end_ms)})

    def ranges(self, start_ms: int | None, end_ms: int) -> list[Range]:
        """The panes in `[start_ms, end_ms)` of each bundle."""
        return [Range(bundle=one, start_ms=start_ms, end_ms=end_ms) for one in self.bundles]

    def frame(
        self, found: Sequence[pl.DataFrame], partials: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Rows, which count in every window of their pane, and a batch's partials, as one.

        Columns: `@pane`, `@entity`, `@closed`, and what the view needs of the accumulators'.
        """
        if len(self.bundles) == 1:
            some = [frame for frame in found if not frame.is_empty()] or found[:1]
            parts = [one.lazy().select(PANE, ENTITY, _NEVER, *self._columns[3:]) for one in some]
            if partials is not None:
                parts.append(partials.lazy().select(self._columns))
            return collected(pl.concat(parts))
        frames = [frame.with_columns(_NEVER) for frame in found]
        if partials is not None:
            frames.append(not_below(partials, self.floor_ms))
        return pl.concat(
            [frame.select(_known(self._columns, frame.columns)) for frame in frames],
            how="diagonal",
        ).select(self._columns)

    def _share(self, limit: int) -> int:
        return max(1, limit // len(self.bundles))


def _known(wanted: Sequence[str], columns: Collection[str]) -> list[str]:
    return [name for name in wanted if name in columns]
