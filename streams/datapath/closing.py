"""Vectors of as-of times: which ones a run of rows belongs to, and their values.

Rows are partials with `@pane`, `@entity`, accumulator columns and `@closed`: null for what counts
in every window of its pane, else the highest as-of time that had closed when the events
arrived; they count for later ones only. So any number of as-of times close in one pass, each
over the panes as they were at the record that closed it, and the cut into batches never shows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.collecting import collected
from streams.datapath.partials import ENTITY, PANE
from streams.names import AS_OF, KIND_FIELD
from streams.windowing.accumulators import SKETCHED, overflowed, result, sketch_result
from streams.windowing.functions import Function
from streams.windowing.panes import first_as_of, floor_to, last_as_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.definitions.plan import FeatureView, View

CLOSED = "@closed"
LATE = "@late"
"""Column of events: whether every window of their pane had closed."""

OVERFLOWED = "@overflowed"
"""Column of vectors: how many of its sums of integers left 64 bits and are null."""

FINAL = "final"
EMPTY = "empty"
UPDATE = "update"
CORRECTION = "correction"

_FIRST = "@first"
_LAST = "@last"
_KEYS = [AS_OF, ENTITY]

_ZERO_OVER_NOTHING = (Function.COUNT, Function.APPROX_DISTINCT)


class Windows:
    """Closing arithmetic of one view."""

    def __init__(self, *, view: View) -> None:
        self.view = view
        self._made = _made(view.pane_ms, view.every_ms, view.longest_window_ms, view.features)

    def closed_through(self, watermark_ms: int) -> int:
        """Highest as-of time that a watermark closes."""
        return floor_to(watermark_ms - self.view.allowed_lateness_ms, self.view.every_ms)

    def oldest_pane_ms(self, closed_ms: int) -> int:
        """Start of the oldest pane that an as-of time after `closed_ms` can need.

        It is in the window before the next one, which decides who gets an `empty`.
        """
        return closed_ms - self.view.longest_window_ms

    def kept_from_ms(self, closed_ms: int) -> int:
        """Start of the oldest pane that is kept where `closed_ms` is C, retention included."""
        oldest = self.oldest_pane_ms(closed_ms) - self.view.retention_ms
        return floor_to(oldest, self.view.pane_ms)

    def judged(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Events whose `@closed` says what had closed when they arrived, with `@late`; and where no
        window of their pane had closed, `@closed` is null."""
        return events.with_columns(self._made.closed_for_some, self._made.late)

    def _bounds(self, after_ms: int | None, through_ms: int) -> tuple[pl.Expr, pl.Expr]:
        """First and last as-of time in `(after, through]` that a row counts for."""
        after = [] if after_ms is None else [pl.lit(after_ms + self.view.every_ms)]
        first = pl.max_horizontal(self._made.first_as_of, self._made.after_closed, *after)
        return first, pl.min_horizontal(self._made.last_as_of, pl.lit(through_ms))

    def cost(self, rows: pl.DataFrame, after_ms: int | None, through_ms: int) -> int:
        """How many (row, as-of time) pairs the closing of `(after, through]` touches.

        An upper bound of its vectors and the measure of its memory.
        """
        # One more for each row: the `empty` after its last as-of time.
        return self._count(rows, after_ms, through_ms, more=1)

    def most_updates(self, touched: pl.DataFrame, after_ms: int | None, through_ms: int) -> int:
        """An upper bound of the vectors in `(after, through]` that `touched` rows change."""
        first, last = self._bounds(after_ms, through_ms)
        bounded = touched.select(ENTITY, first.alias(_FIRST), last.alias(_LAST))
        bounded = bounded.filter(pl.col(_FIRST) <= pl.col(_LAST))
        spans = bounded.group_by(ENTITY).agg(pl.col(_FIRST).min(), pl.col(_LAST).max())
        times = (pl.col(_LAST) - pl.col(_FIRST)) // self.view.every_ms + 1
        return int(spans.select(times.sum()).item() or 0)

    def _count(
        self, rows: pl.DataFrame, after_ms: int | None, through_ms: int, *, more: int
    ) -> int:
        if rows.is_empty():
            return 0
        first, last = self._bounds(after_ms, through_ms)
        times = (last - first) // self.view.every_ms + (1 + more)
        return int(rows.select(times.clip(lower_bound=0).sum()).item() or 0)

    def next_as_of(self, rows: pl.DataFrame, after_ms: int | None, through_ms: int) -> int | None:
        """First as-of time in `(after, through]` that has anything to say, if any.

        Of the rows only `@pane` and `@closed` are looked at.
        """
        if rows.is_empty():
            return None
        first, last = self._bounds(after_ms, through_ms)
        ends = self._made.gone_as_of
        has_end = ends <= through_ms
        if after_ms is not None:
            has_end &= ends > after_ms
        times = rows.select(
            pl.when(first <= last).then(first).when(has_end).then(ends).min()
        ).item()
        return None if times is None else int(times)

    def close(self, rows: pl.DataFrame, after_ms: int | None, through_ms: int) -> pl.DataFrame:
        """Vectors of every as-of time in `(after, through]`, by as-of time, then entity.

        Columns: `@entity` (text), `as_of` (Int64 ms), `rewindow_kind`, features by name.
        """
        if rows.is_empty():
            return self._made.no_vectors
        pairs = self._pairs(rows, after_ms, through_ms)
        finals = collected(self.values(pairs, FINAL).sort(AS_OF, ENTITY))
        empties = self._empties(rows, finals, after_ms, through_ms)
        return finals if empties.is_empty() else pl.concat([finals, empties]).sort(AS_OF, ENTITY)

    def succeed(self, rows: pl.DataFrame, known: pl.Series, as_of_ms: int) -> pl.DataFrame:
        """Vectors of the first as-of time after those of another version, by entity.

        One `final` for each entity with an event in the longest window, and one `empty` for
        each of the `known` ones that has none: those that the other version had last.
        """
        pairs = self._pairs(rows, as_of_ms - self.view.every_ms, as_of_ms)
        return self._with_gone(self.values(pairs, FINAL), known, as_of_ms, EMPTY)

    def correct(self, rows: pl.DataFrame | None, known: pl.Series, as_of_ms: int) -> pl.DataFrame:
        """Vectors `correction` of one as-of time, by entity: over nothing for each of the `known`
        ones that has no event in the longest window, and for all of them without `rows`."""
        if rows is None:
            return collected(self._gone(known.unique(), as_of_ms, CORRECTION).sort(ENTITY))
        pairs = self._pairs(rows, as_of_ms - self.view.every_ms, as_of_ms)
        return self._with_gone(self.values(pairs, CORRECTION), known, as_of_ms, CORRECTION)

    def _with_gone(
        self, vectors: pl.LazyFrame, known: pl.Series, as_of_ms: int, kind: str
    ) -> pl.DataFrame:
        said = collected(vectors.sort(AS_OF, ENTITY))
        others = known.unique()
        others = others.filter(~others.is_in(said[ENTITY].implode()))
        if others.is_empty():
            return said
        gone = self._gone(others, as_of_ms, kind)
        return collected(pl.concat([said.lazy(), gone]).sort(AS_OF, ENTITY))

    def _gone(self, entities: pl.Series, as_of_ms: int, kind: str) -> pl.LazyFrame:
        as_of = pl.lit(as_of_ms, dtype=pl.Int64).alias(AS_OF)
        return self._over_nothing(entities.to_frame(ENTITY).lazy().with_columns(as_of), kind)

    def updates(
        self,
        rows: pl.DataFrame,
        touched: pl.DataFrame,
        closed_ms: int | None,
        through_ms: int,
        pairs: int,
    ) -> pl.DataFrame:
        """Vectors of the open as-of times in `(closed, through]` that `touched` rows change.

        `rows` are all those of the entities of `touched`. As-of times are taken together while
        they have at most so many `pairs`; a single one has no more than there are rows.
        """
        first = self.next_as_of(rows, closed_ms, through_ms)
        if (
            first is not None
            and first < through_ms
            and self._count(rows, closed_ms, through_ms, more=0) > pairs
        ):
            middle = floor_to((first + through_ms) // 2, self.view.every_ms)
            earlier = self.updates(rows, touched, closed_ms, middle, pairs)
            return pl.concat([earlier, self.updates(rows, touched, middle, through_ms, pairs)])
        changed = self._pairs(touched.select(PANE, ENTITY, CLOSED), closed_ms, through_ms)
        changed = changed.select(AS_OF, ENTITY).unique()
        near = self._pairs(rows, closed_ms, through_ms)
        near = near.join(changed, on=_KEYS, how="semi")
        return collected(self.values(near, UPDATE).sort(AS_OF, ENTITY))

    def _pairs(self, rows: pl.DataFrame, after_ms: int | None, through_ms: int) -> pl.LazyFrame:
        """One row for each as-of time of each row, in a column `as_of`."""
        first, last = self._bounds(after_ms, through_ms)
        times = pl.int_ranges(first, last + 1, self.view.every_ms).alias(AS_OF)
        return rows.lazy().select(pl.exclude(CLOSED), times).explode(AS_OF, empty_as_null=False)

    def _empties(
        self, rows: pl.DataFrame, finals: pl.DataFrame, after_ms: int | None, through_ms: int
    ) -> pl.DataFrame:
        """One vector for each entity whose last event has just left the longest window."""
        in_range = pl.col(AS_OF) <= through_ms
        if after_ms is not None:
            in_range &= pl.col(AS_OF) > after_ms
        left = (
            rows.lazy()
            .select(self._made.gone_as_of, ENTITY, CLOSED)
            .filter(in_range & self._made.open_to_it)
        )
        gone = left.unique(_KEYS).join(finals.lazy(), on=_KEYS, how="anti")
        return collected(self._over_nothing(gone))

    def _over_nothing(self, gone: pl.LazyFrame, kind: str = EMPTY) -> pl.LazyFrame:
        """A vector with nothing in it for each entity and as-of time of `gone`."""
        return gone.select(ENTITY, AS_OF, pl.lit(kind).alias(KIND_FIELD), *self._made.nothing)

    def values(self, pairs: pl.LazyFrame, kind: str) -> pl.LazyFrame:
        """Vectors of the (as-of time, entity) groups of `pairs`, all features computed."""
        longest, *others = self._made.by_window
        if others:
            pairs = collected(pairs).lazy()  # once, for all windows
        vectors = longest.computed(pairs)
        for one in others:
            inside = pairs.filter(pl.col(AS_OF) <= pl.col(PANE) + one.window_ms)
            vectors = vectors.join(one.computed(inside), on=_KEYS, how="left")
        overflows = pl.sum_horizontal(one.overflows for one in self._made.by_window)
        return vectors.select(
            ENTITY,
            AS_OF,
            pl.lit(kind).alias(KIND_FIELD),
            overflows.cast(pl.UInt32).alias(OVERFLOWED),
            *self._made.values,
        )

    def values_for(
        self, vectors: pl.DataFrame, rows: pl.DataFrame, after_ms: int | None, through_ms: int
    ) -> pl.DataFrame:
        """All features for the entities and as-of times of `vectors`, all in `(after, through]`.

        Those with no row in the longest window are left out.
        """
        keys = vectors.select(AS_OF, ENTITY)
        pairs = self._pairs(rows, after_ms, through_ms).join(keys.lazy(), on=_KEYS, how="semi")
        return collected(self.values(pairs, FINAL).drop(KIND_FIELD, OVERFLOWED))


class _Made:
    """Expressions that depend on a view alone.

    They are made once: where a closing has few rows that takes longer than what they compute.
    """

    def __init__(
        self, pane_ms: int, every_ms: int, longest_window_ms: int, features: Sequence[FeatureView]
    ) -> None:
        self.first_as_of = first_as_of(pl.col(PANE), pane_ms, every_ms)
        self.last_as_of = last_as_of(pl.col(PANE), longest_window_ms, every_ms)
        some_closed = pl.col(CLOSED) >= self.first_as_of
        self.closed_for_some = pl.when(some_closed).then(pl.col(CLOSED)).alias(CLOSED)
        self.late = (self.last_as_of <= pl.col(CLOSED)).alias(LATE)
        self.after_closed = pl.col(CLOSED) + every_ms
        self.gone_as_of = (self.last_as_of + every_ms).alias(AS_OF)
        self.open_to_it = pl.col(CLOSED).is_null() | (pl.col(CLOSED) < pl.col(AS_OF))
        windows: dict[int, list[FeatureView]] = {}
        for feature in features:
            windows.setdefault(feature.window_ms, []).append(feature)
        self.by_window = [_OfWindow(*one) for one in sorted(windows.items(), reverse=True)]
        """The longest window comes first: all vectors have an event in it."""
        self.values = [zero_over_nothing(feature) for feature in features]
        self.nothing = [
            pl.lit(0, dtype=pl.UInt32).alias(OVERFLOWED),
            *(_over_nothing(feature) for feature in features),
        ]
        self.no_vectors = pl.DataFrame(
            schema={
                ENTITY: pl.String(),
                AS_OF: pl.Int64(),
                KIND_FIELD: pl.String(),
                OVERFLOWED: pl.UInt32(),
                **{feature.name: feature.dtype for feature in features},
            }
        )


@lru_cache(maxsize=1_000)
def _made(
    pane_ms: int, every_ms: int, longest_window_ms: int, features: tuple[FeatureView, ...]
) -> _Made:
    return _Made(pane_ms, every_ms, longest_window_ms, features)


class _OfWindow:
    """The features of one window length."""

    def __init__(self, window_ms: int, features: Sequence[FeatureView]) -> None:
        self.window_ms = window_ms
        self.overflows = f"{OVERFLOWED}.{window_ms}"
        """Column with the number of sums that left 64 bits."""
        used = {a.name: a for feature in features for a in feature.accumulators}
        self._merge = [e for a in used.values() for e in a.merge()]
        counted = [
            overflowed(feature.accumulators[0])
            for feature in features
            if feature.function is Function.SUM and feature.dtype == pl.Int64
        ]
        zero = pl.lit(0, dtype=pl.UInt32)
        self._sketched = [one for one in features if one.function in SKETCHED]
        self._values = [
            *_KEYS,
            pl.sum_horizontal(zero, *counted).alias(self.overflows),
            *(
                result(one.function, one.accumulators, one.dtype).alias(one.name)
                for one in features
                if one.function not in SKETCHED
            ),
        ]

    def computed(self, pairs: pl.LazyFrame) -> pl.LazyFrame:
        """The features of the (as-of time, entity) groups of `pairs`."""
        merged = pairs.group_by(_KEYS).agg(self._merge)
        if not self._sketched:
            return merged.select(self._values)
        gathered = collected(merged)
        sketched = [
            sketch_result(
                gathered[one.accumulators[0].name],
                one.function,
                one.accumulators[0],
                q=one.q,
                k=one.k,
            ).alias(one.name)
            for one in self._sketched
        ]
        return gathered.select(self._values).with_columns(sketched).lazy()


def zero_over_nothing(feature: FeatureView) -> pl.Expr:
    """A feature's column, with 0 for null where a count has nothing to count."""
    column = pl.col(feature.name)
    return column.fill_null(0) if feature.function in _ZERO_OVER_NOTHING else column


def _over_nothing(feature: FeatureView) -> pl.Expr:
    value = 0 if feature.function in _ZERO_OVER_NOTHING else None
    return pl.lit(value, dtype=feature.dtype).alias(feature.name)
