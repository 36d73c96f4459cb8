"""The rows of several ranges of panes in runs of whole entities, so that what does not fit into
memory at once can be computed entity by entity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from streams.datapath.bundle_state import OLDEST_PANE_MS, BundleState
from streams.datapath.partials import ENTITY, PANE
from streams.state.rows import first_of_each

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The panes in `[start_ms, end_ms)` of a bundle; without a start, all before the end."""

    bundle: BundleState
    start_ms: int | None
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All rows of a run of entities, a frame for each range; several rows may share a key."""

    frames: tuple[pl.DataFrame, ...]
    last: bool

    @property
    def entities(self) -> pl.Series:
        """The entities in order of their bytes."""
        return pl.concat([frame[ENTITY] for frame in self.frames]).unique().sort()


def entity_runs(ranges: Sequence[Range], limit: int) -> Iterator[Run]:
    """Runs of whole entities in order of their bytes, until all of them have come.

    At most `limit` rows are held at a time, or two per pane of each range if that is more.
    The bundles must stay as they are until the last run is taken.
    """
    sides = [_Side(one) for one in ranges]
    after: str | None = None
    while True:
        parts: list[list[pl.DataFrame]] = [[] for _ in sides]
        held = 0
        while True:
            sources = max(1, sum(side.sources for side in sides))
            each = max(1, (limit - held) // sources)
            found = [side.next(after, each) for side in sides]
            after = _whole_through([frame for pair in found for frame in pair], each)
            for side, part, pair in zip(sides, parts, found, strict=True):
                rows = pl.concat(pair)
                if after is not None:
                    rows = rows.filter(pl.col(ENTITY) <= after)
                    side.forget(pair[0], after)
                part.append(rows)
                held += rows.height
            # A run that is not half full takes more: entities may crowd in few panes.
            if after is None or 2 * held > limit or held + sources > limit:
                break
        yield Run(frames=tuple(pl.concat(part) for part in parts), last=after is None)
        if after is None:
            return


class _Side:
    """What is left of one range: panes on disk, and rows that are not there yet."""

    def __init__(self, of: Range) -> None:
        start = OLDEST_PANE_MS if of.start_ms is None else of.start_ms
        self._store = of.bundle.store
        self._panes = self._store.panes(start, of.end_ms)
        self._recent = of.bundle.recent(of.start_ms, of.end_ms)

    @property
    def sources(self) -> int:
        """How many runs of rows there are, each of a pane and sorted by entity."""
        return len(self._panes) + self._recent[PANE].n_unique()

    def next(self, after: str | None, each: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The next `each` rows of each pane, on disk and not."""
        stored = self._store.scan_each(self._panes, after, each)
        return stored, first_of_each(self._recent, None, each)

    def forget(self, stored: pl.DataFrame, after: str) -> None:
        """Go on after an entity; panes that had no rows left in `stored` are done."""
        self._recent = self._recent.filter(pl.col(ENTITY) > after)
        self._panes = stored[PANE].unique().sort().to_list()


def _whole_through(frames: Sequence[pl.DataFrame], each: int) -> str | None:
    """The last entity that is whole where `each` rows of a pane were read; None: all are."""
    ends = [
        frame.group_by(PANE)
        .agg(pl.len(), pl.col(ENTITY).max())
        .filter(pl.col("len") == each)[ENTITY]
        .min()
        for frame in frames
        if frame.height >= each
    ]
    return min((str(end) for end in ends if end is not None), default=None)
