"""From events to partials: the one group-by that a batch costs for what is read together."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import polars as pl

from streams.definitions.expressions import check_expression, check_filter
from streams.state.rows import ENTITY as ENTITY
from streams.state.rows import PANE as PANE
from streams.windowing.accumulators import (
    EVENT_TIME,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    Kind,
    storage_type,
)
from streams.windowing.entity import entity_text
from streams.windowing.panes import pane_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.definitions.exclusions import Exclude
    from streams.definitions.plan import Accumulator, Bundle

Events = TypeVar("Events", pl.DataFrame, pl.LazyFrame)


class Partials:
    """Builds partials of bundles with the same panes and filters, all in one frame, out of frames
    of events with the source's `fields`."""

    def __init__(self, bundles: Sequence[Bundle], fields: Mapping[str, pl.DataType]) -> None:
        first = bundles[0]
        if any(_events_of(one) != _events_of(first) for one in bundles):
            raise ValueError("bundles that are built together have panes and filters in common")
        self.accumulators = tuple(a for one in bundles for a in one.accumulators)
        self._where = _kept(first, fields)
        self._values: dict[tuple[str | None, str | None, str], tuple[str, pl.Expr]] = {}
        self._value_of = {a.name: self._value(a, fields) for a in self.accumulators}
        self._selected = [
            pane_of(pl.col(EVENT_TIME), first.pane_ms).alias(PANE),
            entity_text(first.entity).alias(ENTITY),
            *map(pl.col, (EVENT_TIME, SOURCE_PARTITION, SOURCE_OFFSET)),
            *(expr for _, expr in self._values.values()),
        ]
        self._built = [e for a in self.accumulators for e in a.build(self._value_of[a.name])]
        self._ordered = any(a.kind in (Kind.FIRST, Kind.LAST) for a in self.accumulators)

    def _value(self, accumulator: Accumulator, fields: Mapping[str, pl.DataType]) -> str:
        """Name of the column with the accumulator's values; shared where they are equal."""
        kept = storage_type(accumulator.kind, accumulator.dtype)
        key = (accumulator.where, accumulator.expression, str(kept))
        if accumulator.kind is Kind.COUNT:
            key = (accumulator.where, accumulator.expression, "count")
        if key not in self._values:
            expr = pl.lit(1, dtype=pl.Int8)
            if accumulator.expression is not None:
                expr = check_expression(accumulator.expression, fields).expr
                if accumulator.kind is not Kind.COUNT:
                    expr = _cast(expr, accumulator, kept)
            if accumulator.where is not None:
                expr = pl.when(check_filter(accumulator.where, fields).expr).then(expr)
            name = f"_v{len(self._values)}"
            self._values[key] = (name, expr.alias(name))
        return self._values[key][0]

    def select(self, events: Events, extra: Sequence[str | pl.Expr] = ()) -> Events:
        """Events of the bundle: pane, entity, values, order columns and the `extra` ones.

        Events that the set's filter takes out, or an exclusion, are gone; an entity may be null.
        """
        frame = events if self._where is None else events.filter(self._where)
        return frame.select(*self._selected, *extra)

    def build(self, selected: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """Partials by `keys` (`@pane`, `@entity` and what else) out of `select`'s frame."""
        if self._ordered:
            selected = selected.sort(EVENT_TIME, SOURCE_PARTITION, SOURCE_OFFSET)
        built = selected.group_by(keys).agg(self._built)
        finished = [
            series
            for a in self.accumulators
            for series in a.finish_build(built, self._value_of[a.name])
        ]
        return built.with_columns(finished) if finished else built


def _events_of(bundle: Bundle) -> tuple[object, ...]:
    """Which events go into a bundle, and into which panes."""
    return bundle.pane_ms, bundle.where, bundle.exclusions


def _kept(bundle: Bundle, fields: Mapping[str, pl.DataType]) -> pl.Expr | None:
    """Whether an event is one of the bundle's, never null; None: all are."""
    kept = []
    if bundle.where is not None:
        kept.append(check_filter(bundle.where, fields).expr.fill_null(False))
    kept += [left_out(one, fields).not_() for one in bundle.exclusions]
    return pl.all_horizontal(kept) if kept else None


def left_out(exclude: Exclude, fields: Mapping[str, pl.DataType]) -> pl.Expr:
    """Whether an event is one of those to leave out, never null."""
    found = []
    if exclude.where is not None:
        found.append(check_filter(exclude.where, fields).expr.fill_null(False))
    for offsets in exclude.offsets:
        offset = pl.col(SOURCE_OFFSET)
        inside = (offset >= offsets.start) & (offset < offsets.end)
        found.append((pl.col(SOURCE_PARTITION) == offsets.partition) & inside)
    return pl.any_horizontal(found) if found else pl.lit(False)


def _cast(expr: pl.Expr, accumulator: Accumulator, kept: pl.DataType) -> pl.Expr:
    if accumulator.kind is Kind.FREQUENT and accumulator.dtype == pl.Boolean:
        return pl.when(expr).then(pl.lit("true")).when(expr.not_()).then(pl.lit("false"))
    return expr.cast(kept)
