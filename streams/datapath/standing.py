"""Where a stream partition stands: position, watermark, and what is committed with them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streams.datapath.batch import OFFSET
from streams.windowing.accumulators import EVENT_TIME

if TYPE_CHECKING:
    import polars as pl

    from streams.datapath.batch import Batch
    from streams.datapath.progress import Cursor, Progress
    from streams.windowing.watermark import Watermark


class Standing:
    """Goes on as steps are made; `progress` is that of the newest one."""

    def __init__(self, *, position: int, watermark: Watermark, progress: Progress) -> None:
        self.position = position
        self.watermark = watermark
        self.progress = progress
        self.owing = progress.owing
        """See `Progress.owing`; goes into the next step."""

    @property
    def watermark_ms(self) -> int | None:
        """The watermark, that which idleness gave included."""
        return self.effective_ms(self.watermark)

    def effective_ms(self, watermark: Watermark) -> int | None:
        """The watermark's value, or the one that idleness gave if that is higher."""
        value, idle = watermark.value_ms, self.progress.idle_watermark_ms
        if value is None or idle is None:
            return idle if value is None else value
        return max(value, idle)

    def watermark_after(self, batch: Batch) -> Watermark:
        """The watermark at the end of a batch that begins at the position."""
        watermark = self.watermark.after_events(batch.events[EVENT_TIME])
        for marker in batch.markers:
            watermark = watermark.after_marker(
                marker.source_partition, marker.watermark_ms, silent=marker.silent
            )
        return watermark

    def at_arrival(self, batch: Batch) -> pl.Series:
        """The watermark at each event of such a batch, itself included."""
        markers = [(m.offset, m.source_partition, m.watermark_ms) for m in batch.markers]
        at = self.watermark.at_arrival(batch.events[EVENT_TIME], batch.events[OFFSET], markers)
        idle = self.progress.idle_watermark_ms
        if idle is not None:
            at = at.fill_null(idle).clip(lower_bound=idle)
        return at

    def go_on(self, batch: Batch) -> None:
        """To the end of a batch."""
        self.watermark = self.watermark_after(batch)
        self.position = batch.next_offset

    def note(self, progress: Progress, cursor: Cursor | None = None) -> None:
        """What the next step commits: `progress`, with the watermark, and this cursor or none."""
        self.progress = replace(
            progress, cursor=cursor, watermark_ms=self.watermark_ms, owing=self.owing
        )
