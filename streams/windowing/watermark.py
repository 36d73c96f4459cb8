"""How far event time has come in a stream partition.

Keyed source: the highest event time seen. Rekeyed stream: the lowest of its source
partitions' watermarks, as the markers in the stream tell them; a source partition without a
marker counts as minus infinity, and a marker never lowers. `None` is minus infinity.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """Immutable; `sources` is the number of source partitions, 0 for a keyed source."""

    sources: int = 0
    highest_ms: int | None = None
    by_source: Mapping[int, int] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()
    """Source partitions whose newest marker says that the whole source is silent."""

    @property
    def value_ms(self) -> int | None:
        """The watermark, in milliseconds since the epoch."""
        if not self.sources:
            return self.highest_ms
        if len(self.by_source) < self.sources:
            return None
        return min(self.by_source.values())

    @property
    def silence_ms(self) -> int | None:
        """Highest event time of the source if it is silent as a whole, else None."""
        if not self.by_source or len(self.silent) < self.sources:
            return None
        return max(self.by_source.values())

    def after_events(self, event_time: pl.Series) -> Watermark:
        """After events of these times; they count for keyed sources and as `highest_ms`."""
        newest = event_time.max()
        if newest is None:
            return self
        assert isinstance(newest, int)
        highest = newest if self.highest_ms is None else max(self.highest_ms, newest)
        return replace(self, highest_ms=highest)

    def after_marker(
        self, source_partition: int, watermark_ms: int | None, *, silent: bool = False
    ) -> Watermark:
        """After a marker of one source partition."""
        one = frozenset((source_partition,))
        quiet = self.silent | one if silent else self.silent - one
        if watermark_ms is None:
            return replace(self, silent=quiet)
        known = self.by_source.get(source_partition, watermark_ms)
        by_source = {**self.by_source, source_partition: max(known, watermark_ms)}
        return replace(self, by_source=by_source, silent=quiet)

    def joined(self, other: Watermark) -> Watermark:
        """The higher of both in all parts: what two readers of one log know together."""
        highs = [ms for ms in (self.highest_ms, other.highest_ms) if ms is not None]
        by_source = {**other.by_source, **self.by_source}
        for partition in self.by_source.keys() & other.by_source.keys():
            by_source[partition] = max(self.by_source[partition], other.by_source[partition])
        return replace(self, highest_ms=max(highs, default=None), by_source=by_source)

    def at_arrival(
        self,
        event_time: pl.Series,
        offsets: pl.Series,
        markers: Sequence[tuple[int, int, int | None]],
    ) -> pl.Series:
        """The watermark at each event, itself included: Int64, null for minus infinity.

        `markers` are (offset, source partition, watermark), in order.
        """
        if not self.sources:
            running = np.maximum.accumulate(event_time.to_numpy())
            if self.highest_ms is not None:
                running = np.maximum(running, self.highest_ms)
            return pl.Series(running, dtype=pl.Int64)
        at = [self.value_ms]
        bounds = []
        watermark = self
        for offset, source_partition, watermark_ms in markers:
            watermark = watermark.after_marker(source_partition, watermark_ms)
            bounds.append(offset)
            at.append(watermark.value_ms)
        index = pl.Series(bounds, dtype=pl.Int64).search_sorted(offsets, side="right")
        return pl.Series(at, dtype=pl.Int64).gather(index)
