"""Features that are switched off: null, or what another version of the set makes of them.

A stand-in's values are computed by its own view, over its own panes, for the entities and as-of
times of the vectors that go out. What an as-of time holds is decided by the version that speaks:
the events that had arrived when it closed there.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.closing import zero_over_nothing
from streams.names import AS_OF
from streams.state.rows import ENTITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.datapath.entity_runs import Range
    from streams.datapath.live_view import LiveView
    from streams.definitions.plan import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of the version that speaks, and those of each stand-in of it."""

    own: pl.DataFrame
    others: tuple[pl.DataFrame, ...] = ()


class Off:
    """The features of a view that are switched off, and the version that stands in for each."""

    def __init__(self, view: View, features: Mapping[str, LiveView | None]) -> None:
        self.features = dict(features)
        self._nulls = [
            pl.lit(None, dtype=feature.dtype).alias(feature.name)
            for feature in view.features
            if feature.name in features and features[feature.name] is None
        ]
        by_name: dict[tuple[str, str], tuple[LiveView, list[str]]] = {}
        for feature, live in features.items():
            if live is not None:
                by_name.setdefault(live.name, (live, []))[1].append(feature)
        self._stand_ins = [live.narrowed(names) for live, names in by_name.values()]

    def on_disk(self) -> Off:
        """The same over the bundles as they are on disk."""
        made = copy(self)
        made._stand_ins = [live.on_disk() for live in self._stand_ins]
        return made

    @property
    def stand_ins(self) -> Sequence[LiveView]:
        """The versions that stand in, each with the features that it does so for."""
        return self._stand_ins

    # -- what is read -------------------------------------------------------------------------

    def prepare(self, events: pl.DataFrame, closed: pl.Expr) -> tuple[pl.DataFrame, ...]:
        """Partials of a batch; `closed` is what had closed when an event arrived."""
        return tuple(live.prepare(events, closed) for live in self._stand_ins)

    def rows(
        self,
        closed_ms: int | None,
        target_ms: int,
        limit: int,
        partials: Sequence[pl.DataFrame] | None = None,
    ) -> tuple[tuple[pl.DataFrame, ...], int]:
        """As `LiveView.rows`, for `(closed, target]` and together with a batch's partials."""
        frames = []
        for number, live in enumerate(self._stand_ins):
            found, target_ms = live.rows(live.oldest_ms(closed_ms), target_ms, limit)
            frames.append(live.frame(found, None if partials is None else partials[number]))
        return tuple(frames), target_ms

    def rows_of(
        self,
        entities: pl.DataFrame,
        closed_ms: int | None,
        through_ms: int,
        limit: int,
        partials: Sequence[pl.DataFrame],
    ) -> tuple[pl.DataFrame, ...] | None:
        """As `LiveView.rows_of`, for `(closed, through]` and together with a batch's partials."""
        frames = []
        for live, added in zip(self._stand_ins, partials, strict=True):
            found = live.rows_of(entities, live.oldest_ms(closed_ms), through_ms, limit)
            if found is None:
                return None
            frames.append(live.frame(found, added))
        return tuple(frames)

    def cost(self, rows: Sequence[pl.DataFrame], closed_ms: int | None, through_ms: int) -> int:
        """How many (row, as-of time) pairs `fill` touches."""
        return sum(
            live.windows.cost(frame, closed_ms, through_ms)
            for live, frame in zip(self._stand_ins, rows, strict=True)
        )

    def ranges(self, closed_ms: int, as_of_ms: int) -> list[list[Range]]:
        """As `LiveView.ranges`, of each stand-in."""
        return [live.ranges(live.oldest_ms(closed_ms), as_of_ms) for live in self._stand_ins]

    def frames(self, runs: Sequence[Sequence[pl.DataFrame]]) -> tuple[pl.DataFrame, ...]:
        """What was read of `ranges`, as rows."""
        return tuple(live.frame(found) for live, found in zip(self._stand_ins, runs, strict=True))

    # -- what goes out ------------------------------------------------------------------------

    def fill(
        self,
        vectors: pl.DataFrame,
        rows: Sequence[pl.DataFrame],
        closed_ms: int | None,
        through_ms: int,
    ) -> pl.DataFrame:
        """Vectors of `(closed, through]` as they may go out, whatever their kind.

        Where a stand-in has no event it is what its feature is over nothing.
        """
        if not self.features:
            return vectors
        columns = vectors.columns
        for live, frame in zip(self._stand_ins, rows, strict=True):
            found = live.windows.values_for(vectors, frame, closed_ms, through_ms)
            features = live.view.features
            vectors = vectors.drop(feature.name for feature in features).join(
                found, on=[AS_OF, ENTITY], how="left", maintain_order="left"
            )
            vectors = vectors.with_columns(zero_over_nothing(feature) for feature in features)
        return vectors.with_columns(self._nulls).select(columns)
