"""Partials that are not on disk yet: a few frames, merged now and then by one group-by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.partials import ENTITY, PANE
from streams.windowing.accumulators import Columnar, merge_partials

if TYPE_CHECKING:
    from collections.abc import Sequence

MERGE_FRAMES = 8
MERGE_FRAMES_AT_MOST = 64


class Overlay:
    """The rows frames of a bundle since its last flush."""

    def __init__(self, accumulators: Sequence[Columnar]) -> None:
        self._accumulators = accumulators
        self._frames: list[pl.DataFrame] = []

    def add(self, partials: pl.DataFrame) -> None:
        """Append a frame of partials: pane, entity, accumulator columns.

        Frames are merged once the new ones weigh as much as half of the merged one, so
        that each row is merged a bounded number of times however large the overlay grows.
        """
        if partials.is_empty():
            return
        self._frames.append(partials)
        new_rows = self.height - self._frames[0].height
        grown = len(self._frames) >= MERGE_FRAMES and 2 * new_rows >= self._frames[0].height
        if grown or len(self._frames) >= MERGE_FRAMES_AT_MOST:
            self.merged()

    @property
    def height(self) -> int:
        """Rows held, an upper bound of the distinct ones."""
        return sum(frame.height for frame in self._frames)

    def merged(self) -> pl.DataFrame | None:
        """One row per (pane, entity), or None if there is nothing."""
        if len(self._frames) > 1:
            frame = pl.concat(self._frames)
            self._frames = [merge_partials(frame, [PANE, ENTITY], self._accumulators)]
        return self._frames[0] if self._frames else None

    def between(self, start_ms: int | None, end_ms: int) -> list[pl.DataFrame]:
        """Frames of the rows with pane in `[start_ms, end_ms)`; several may share a key."""
        inside = pl.col(PANE) < end_ms
        if start_ms is not None:
            inside &= pl.col(PANE) >= start_ms
        return [frame.filter(inside) for frame in self._frames]

    def clear(self) -> None:
        """Forget everything: it has reached the disk."""
        self._frames = []
