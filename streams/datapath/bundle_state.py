"""One bundle of one stream partition: what is on disk, what is not yet, and the way there."""

from __future__ import annotations

import json
from copy import copy
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.overlay import Overlay
from streams.datapath.partials import ENTITY, PANE, Partials
from streams.state.store import Meta, PaneStore
from streams.windowing.accumulators import merge_partials
from streams.windowing.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streams.datapath.batch import Batch
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
        self.partials = Partials([bundle], fields)
        self.store = store
        self.overlay = Overlay(bundle.accumulators)
        self._notes = notes
        self._crowded: tuple[int, int, int] | None = None
        """Panes that hold more rows on disk than that limit, as was seen since the last flush."""
        meta = store.meta
        self.next_offset = next_offset if meta is None else meta.next_offset
        self.floor_ms = floor_ms if meta is None else meta.floor_ms

    def noted_by(self, notes: Callable[[], Mapping[str, str]]) -> None:
        """From now on these are the notes."""
        self._notes = notes

    @property
    def stored_at(self) -> int | None:
        """The offset at which it is on disk; None: nowhere."""
        meta = self.store.meta
        return None if meta is None else meta.next_offset

    def on_disk(self) -> BundleState:
        """The bundle as it is on disk, for as long as no other flush is ingested."""
        made = copy(self)
        made.overlay, made._crowded = Overlay(self.bundle.accumulators), None
        if (meta := self.store.meta) is not None:
            made.next_offset, made.floor_ms = meta.next_offset, meta.floor_ms
        return made

    def raise_floor(self, floor_ms: int) -> None:
        """Panes before `floor_ms` may miss events; the floor never lowers."""
        self.floor_ms = floor_ms if self.floor_ms is None else max(floor_ms, self.floor_ms)

    def apply(self, partials: pl.DataFrame, next_offset: int) -> None:
        """Take the partials of the records up to `next_offset`, once however often told."""
        if next_offset > self.next_offset:
            self.overlay.add(partials)
            self.next_offset = next_offset

    def take(self, batch: Batch) -> None:
        """Apply what of a batch is not applied yet; nothing is said about its events."""
        if batch.next_offset <= self.next_offset:
            return
        news = batch if self.next_offset <= batch.first_offset else batch.since(self.next_offset)
        selected = self.partials.select(news.events)
        if selected[ENTITY].null_count():
            selected = selected.filter(pl.col(ENTITY).is_not_null())
        selected = not_below(selected, self.floor_ms)
        self.apply(self.partials.build(selected, [PANE, ENTITY]), batch.next_offset)

    def rows(self, start_ms: int | None, end_ms: int, limit: int) -> tuple[list[pl.DataFrame], int]:
        """Partials with pane in `[start_ms, end_ms)`; several may share a key.

        Where these are more than `limit`, those of the first panes only. Second: the pane
        below which they are whole, `end_ms` if nothing is left out.
        """
        start = OLDEST_PANE_MS if start_ms is None else start_ms
        found = [
            self.store.scan(start, end_ms, limit + 1),
            *self.overlay.between(start_ms, end_ms),
        ]
        if found[0].height > limit:
            self._crowded = (start, end_ms, limit)
        if sum(frame.height for frame in found) <= limit:
            return found, end_ms
        sizes = pl.concat([frame.select(PANE) for frame in found]).group_by(PANE).len().sort(PANE)
        cut = int(sizes.filter(pl.col("len").cum_sum() > limit)[PANE][0])
        return [frame.filter(pl.col(PANE) < cut) for frame in found], cut

    def crowded(self, start_ms: int | None, end_ms: int, limit: int) -> bool:
        """Whether `rows` is known to leave something out; reads nothing."""
        start = OLDEST_PANE_MS if start_ms is None else start_ms
        if self._crowded is None:
            return False
        known_start, known_end, known_limit = self._crowded
        return start <= known_start and known_end <= end_ms and limit <= known_limit

    def panes(self, start_ms: int | None, end_ms: int) -> list[int]:
        """The panes in `[start_ms, end_ms)` that have rows, ascending."""
        start = OLDEST_PANE_MS if start_ms is None else start_ms
        recent = self.overlay.between(start_ms, end_ms)
        return sorted({*self.store.panes(start, end_ms), *(p for f in recent for p in f[PANE])})

    def rows_of(
        self, entities: pl.DataFrame, start_ms: int | None, end_ms: int, limit: int
    ) -> list[pl.DataFrame] | None:
        """As `rows`, of the given `@entity` values only; None if that may be more than `limit`.

        A single entity is never too much.
        """
        start = OLDEST_PANE_MS if start_ms is None else start_ms
        panes = self.store.panes(start, end_ms)
        if entities.height <= 1 or entities.height * len(panes) <= limit:
            keys = entities.join(pl.DataFrame({PANE: panes}, {PANE: pl.Int64}), how="cross")
            found = [self.store.lookup(keys), *self.overlay.between(start_ms, end_ms)]
        elif self.crowded(start_ms, end_ms, limit):
            return None
        else:
            found, whole_ms = self.rows(start_ms, end_ms, limit)
            if whole_ms < end_ms:
                return None
        return [frame.join(entities, on=ENTITY, how="semi") for frame in found]

    def recent(self, start_ms: int | None, end_ms: int) -> pl.DataFrame:
        """What is not on disk of the panes in `[start_ms, end_ms)`, each key once, sorted."""
        found = self.overlay.recent(start_ms, end_ms)
        empty = self.empty()
        return empty if found is None else found.select(empty.columns).sort(PANE, ENTITY)

    def flush(self, watermark: Watermark, floor_ms: int | None) -> int:
        """Bring everything to disk at `next_offset`; returns the number of rows written.

        The floor only grows. Panes below it go away afterwards.
        """
        begun = self.begin_flush(watermark, floor_ms)
        written = begun.write()
        begun.ingest()
        return written

    def begin_flush(self, watermark: Watermark, floor_ms: int | None) -> Flush:
        """Seal all that is not on disk, at `next_offset`, for a flush that is yet to be made.

        It is to be written after those that were begun before are ingested; what these have not
        brought to the disk by then is in it, and they are over.
        """
        if floor_ms is not None:
            self.raise_floor(floor_ms)
        meta = _meta(self.next_offset, watermark, self.floor_ms, self._notes())
        return Flush(self, self.overlay.seal(), meta)

    def ingested(self, through: int) -> None:
        """What was set aside up to that seal is on disk."""
        self.overlay.forget(through)
        self._crowded = None

    def merged_with_store(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with what is on disk of their keys; reads nothing that is not."""
        if rows.is_empty():
            return rows
        known = self.store.lookup(rows.select(PANE, ENTITY))
        if known.is_empty():
            return rows
        both = pl.concat([known.select(rows.columns), rows])
        return merge_partials(both, [PANE, ENTITY], self.bundle.accumulators)

    def empty(self) -> pl.DataFrame:
        """A rows frame without rows."""
        return pl.DataFrame(schema=rows_schema(self.bundle.columns))


class Flush:
    """Rows of a bundle on their way to the disk, as they were at one offset."""

    def __init__(self, state: BundleState, seal: int, meta: Meta) -> None:
        self._state = state
        self._seal = seal
        self._meta = meta

    def write(self) -> int:
        """Write them aside, which may be done beside batches; returns how many rows these are."""
        state = self._state
        rows = state.overlay.sealed(self._seal)
        rows = state.empty() if rows is None else not_below(rows, self._meta.floor_ms)
        merged = state.merged_with_store(rows)
        state.store.write(merged, self._meta)
        return merged.height

    def ingest(self) -> None:
        """From here on they are read from the disk: between two batches."""
        self._state.store.ingest()
        self._state.ingested(self._seal)
        if self._meta.floor_ms is not None:
            self._state.store.drop_below(self._meta.floor_ms)


def not_below(rows: pl.DataFrame, floor_ms: int | None) -> pl.DataFrame:
    """The rows of panes at a floor and after; mostly these are all."""
    if floor_ms is None or (rows[PANE] >= floor_ms).all():
        return rows
    return rows.filter(pl.col(PANE) >= floor_ms)


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
