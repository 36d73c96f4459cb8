"""What the pipeline is fed: a run of one stream partition's records, decoded."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from streams.windowing.accumulators import EVENT_TIME, SOURCE_OFFSET, SOURCE_PARTITION

if TYPE_CHECKING:
    from collections.abc import Sequence

OFFSET = "@offset"

ORDER_COLUMNS: dict[str, pl.DataType] = {
    OFFSET: pl.Int64(),
    EVENT_TIME: pl.Int64(),
    SOURCE_PARTITION: pl.Int32(),
    SOURCE_OFFSET: pl.Int64(),
}
"""Columns that every frame of events has, before the source's own fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A watermark marker in a rekeyed stream, written after its source partition's events.

    `watermark_ms` is that of the cursor that wrote it; `silent` says that the whole source
    was silent for `close_after`; `floor_ms` is the time from which the stream holds every
    event.
    """

    offset: int
    source_partition: int
    watermark_ms: int | None
    silent: bool = False
    floor_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that can't be used: its offset, the kind of error, and the particulars."""

    offset: int
    error: str
    detail: str
    feature_set: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records at `[first_offset, next_offset)`; `offsets` names each, good, bad or marker.

    `events` has the `ORDER_COLUMNS` and the source's fields, in order of offset. Transactions
    leave holes between offsets, so positions are offsets and never counts.
    """

    first_offset: int
    next_offset: int
    offsets: Sequence[int]
    events: pl.DataFrame
    markers: tuple[Marker, ...] = ()
    dead: tuple[DeadLetter, ...] = ()

    def halves(self) -> tuple[Batch, Batch]:
        """The batch as two, cut between records; needs at least two records."""
        middle = self.offsets[len(self.offsets) // 2]
        return self._part(self.first_offset, middle), self._part(middle, self.next_offset)

    def below(self, offset: int) -> Batch:
        """The records below `offset`."""
        return self._part(self.first_offset, min(offset, self.next_offset))

    def since(self, offset: int) -> Batch:
        """The records at `offset` and after."""
        return self._part(max(offset, self.first_offset), self.next_offset)

    def _part(self, low: int, high: int) -> Batch:
        offsets, of_events = self.offsets, self.events[OFFSET].to_numpy()
        first = int(np.searchsorted(of_events, low))
        return Batch(
            first_offset=low,
            next_offset=high,
            offsets=offsets[bisect_left(offsets, low) : bisect_left(offsets, high)],
            events=self.events.slice(first, int(np.searchsorted(of_events, high)) - first),
            markers=tuple(m for m in self.markers if low <= m.offset < high),
            dead=tuple(d for d in self.dead if low <= d.offset < high),
        )
