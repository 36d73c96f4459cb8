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
        self._sealed: list[tuple[int, list[pl.DataFrame]]] = []
        """What is on its way to the disk, by the number of its seal."""
        self._seals = 0

    def add(self, partials: pl.DataFrame) -> None:
        """Append a frame of partials: pane, entity, accumulator columns.

        Frames are merged once the new ones weigh as much as half of the merged one, so
        that each row is merged a bounded number of times however large the overlay grows.
        """
        if partials.is_empty():
            return
        self._frames.append(partials)
        new_rows = sum(frame.height for frame in self._frames[1:])
        grown = len(self._frames) >= MERGE_FRAMES and 2 * new_rows >= self._frames[0].height
        if grown or len(self._frames) >= MERGE_FRAMES_AT_MOST:
            self.merged()

    @property
    def height(self) -> int:
        """Rows held, an upper bound of the distinct ones."""
        return sum(frame.height for frame in self._all)

    @property
    def _all(self) -> list[pl.DataFrame]:
        return [*(frame for _, frames in self._sealed for frame in frames), *self._frames]

    def merged(self) -> pl.DataFrame | None:
        """One row per (pane, entity) of what is not sealed, or None if there is nothing."""
        self._frames = [] if (frame := self._merge(self._frames)) is None else [frame]
        return frame

    def seal(self) -> int:
        """Set aside what is not yet, for the disk; the number of this seal. Takes no time.

        It still is read until `forget`.
        """
        self._seals += 1
        self._sealed = [*self._sealed, (self._seals, self._frames)]
        self._frames = []
        return self._seals

    def sealed(self, through: int) -> pl.DataFrame | None:
        """One row per (pane, entity) of what was set aside up to a seal and is not forgotten, or
        None if there is nothing. May run beside readers and writers."""
        return self._merge([one for n, frames in self._sealed if n <= through for one in frames])

    def forget(self, through: int) -> None:
        """What was set aside up to a seal has reached the disk."""
        self._sealed = [(number, frames) for number, frames in self._sealed if number > through]

    def between(self, start_ms: int | None, end_ms: int) -> list[pl.DataFrame]:
        """Frames of the rows with pane in `[start_ms, end_ms)`; several may share a key, and each
        frame has rows."""
        found = (_inside(frame, start_ms, end_ms) for frame in self._all)
        return [frame for frame in found if frame is not None]

    def recent(self, start_ms: int | None, end_ms: int) -> pl.DataFrame | None:
        """As `between`, one row per (pane, entity); None if there is nothing at all."""
        self.merged()
        return self._merge(self.between(start_ms, end_ms))

    def _merge(self, frames: Sequence[pl.DataFrame]) -> pl.DataFrame | None:
        if len(frames) > 1:
            return merge_partials(pl.concat(frames), [PANE, ENTITY], self._accumulators)
        return frames[0] if frames else None


def _inside(frame: pl.DataFrame, start_ms: int | None, end_ms: int) -> pl.DataFrame | None:
    """What of a frame is in there, if anything. Mostly that is all or nothing."""
    panes = frame[PANE]
    first_ms, last_ms = panes.min(), panes.max()
    assert isinstance(first_ms, int)
    assert isinstance(last_ms, int)
    start_ms = first_ms if start_ms is None else start_ms
    if last_ms < start_ms or end_ms <= first_ms:
        return None
    if start_ms <= first_ms and last_ms < end_ms:
        return frame
    inside = frame.filter((panes >= start_ms) & (panes < end_ms))
    return None if inside.is_empty() else inside
