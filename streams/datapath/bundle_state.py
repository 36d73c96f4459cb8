"""One bundle of one stream partition: what is on disk, what is not yet, and the way there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.overlay import Overlay
from streams.datapath.partials import ENTITY, PANE, Partials
from streams.state.store import Meta, PaneStore
from streams.windowing.accumulators import merge_partials
from streams.windowing.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streams.definitions.plan import Bundle

OLDEST_PANE_MS = -(2**62)
"""Below every pane that an event time in range can have."""

_SILENT = "silent"


class BundleState:
    """Rows of a bundle at `next_offset`: those of the store below, the overlay's above."""

    def __init__(
        self,
        bundle: Bundle,
        fields: Mapping[str, pl.DataType],
        store: PaneStore,
        *,
        next_offset: int = 0,
        floor_ms: int | None = None,
        notes: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`notes` are the caller's, for the meta's `extra`; asked for at each flush."""
        self.bundle = bundle
        self.partials = Partials(bundle, fields)
        self.store = store
        self.overlay = Overlay(bundle.accumulators)
        self._notes = notes
        meta = store.meta
        self.next_offset = next_offset if meta is None else meta.next_offset
        self.floor_ms = floor_ms if meta is None else meta.floor_ms

    def raise_floor(self, floor_ms: int) -> None:
        """Panes before `floor_ms` may miss events; the floor never lowers."""
        self.floor_ms = floor_ms if self.floor_ms is None else max(floor_ms, self.floor_ms)

    def apply(self, partials: pl.DataFrame, next_offset: int) -> None:
        """Take the partials of the records up to `next_offset`, once however often told."""
        if next_offset > self.next_offset:
            self.overlay.add(partials)
            self.next_offset = next_offset

    def rows(self, start_ms: int | None, end_ms: int) -> list[pl.DataFrame]:
        """Partials with pane in `[start_ms, end_ms)`; several may share a key."""
        start = OLDEST_PANE_MS if start_ms is None else start_ms
        return [self.store.scan(start, end_ms), *self.overlay.between(start_ms, end_ms)]

    def flush(self, watermark: Watermark, floor_ms: int | None) -> int:
        """Bring everything to disk at `next_offset`; returns the number of rows written.

        The floor only grows. Panes below it go away afterwards.
        """
        if floor_ms is not None:
            self.raise_floor(floor_ms)
        merged = self._merged_with_store()
        meta = _meta(self.next_offset, watermark, self.floor_ms, self._notes())
        self.store.flush(merged, meta)
        self.overlay.clear()
        if self.floor_ms is not None:
            self.store.drop_below(self.floor_ms)
        return merged.height

    def _merged_with_store(self) -> pl.DataFrame:
        rows = self.overlay.merged()
        if rows is None:
            return self.empty()
        if self.floor_ms is not None:
            rows = rows.filter(pl.col(PANE) >= self.floor_ms)
        known = self.store.lookup(rows.select(PANE, ENTITY))
        if known.is_empty():
            return rows
        both = pl.concat([known.select(rows.columns), rows])
        return merge_partials(both, [PANE, ENTITY], self.bundle.accumulators)

    def empty(self) -> pl.DataFrame:
        """A rows frame without rows."""
        return pl.DataFrame(schema=rows_schema(self.bundle.columns))


def _meta(
    next_offset: int, watermark: Watermark, floor_ms: int | None, notes: Mapping[str, str]
) -> Meta:
    return Meta(
        next_offset=next_offset,
        watermark_ms=watermark.highest_ms,
        source_watermarks=dict(watermark.by_source),
        floor_ms=floor_ms,
        extra={**notes, _SILENT: json.dumps(sorted(watermark.silent))},
    )


def watermark_of(meta: Meta | None, sources: int) -> Watermark:
    """The watermark at a bundle's `next_offset`; of an empty one before anything came."""
    if meta is None:
        return Watermark(sources=sources)
    return Watermark(
        sources=sources,
        highest_ms=meta.watermark_ms,
        by_source=dict(meta.source_watermarks),
        silent=frozenset(json.loads(meta.extra.get(_SILENT, "[]"))),
    )


def rows_schema(columns: Sequence[tuple[str, pl.DataType]]) -> dict[str, pl.DataType]:
    """Schema of a rows frame: pane, entity, accumulator columns."""
    return {PANE: pl.Int64(), ENTITY: pl.String(), **dict(columns)}
