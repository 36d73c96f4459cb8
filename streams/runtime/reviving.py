"""From where in the log a version is brought to the stream that has no state.

Every event with an event time from S on lies at or after the first offset at which the running
maximum of event time reaches S. The index knows an offset that is at most a little before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.windowing.panes import floor_to

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.datapath.log_index import LogIndex
    from streams.datapath.progress import Progress
    from streams.definitions.plan import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Panes from `needed_ms` on have to be whole, or as-of times would be left out; those from
    `wanted_ms` on are what the version keeps."""

    needed_ms: int
    wanted_ms: int

    def lacks(self, floor_ms: int | None) -> bool:
        """Whether panes that are whole from a floor on are too few."""
        return floor_ms is not None and self.needed_ms < floor_ms

    def back_to(self, pane_ms: int) -> Need:
        """The same, with whole panes from `pane_ms` on at the latest."""
        return Need(needed_ms=min(self.needed_ms, pane_ms), wanted_ms=min(self.wanted_ms, pane_ms))

    @classmethod
    def of(cls, view: View, closed_ms: int) -> Need:
        """What a version needs to go on where its set's C is."""
        first = floor_to(closed_ms, view.every_ms) + view.every_ms
        kept_ms = closed_ms - view.longest_window_ms - view.retention_ms
        return cls(
            needed_ms=first - view.longest_window_ms, wanted_ms=floor_to(kept_ms, view.pane_ms)
        )

    @classmethod
    def of_views(cls, views: Iterable[View], progress: Progress) -> Need | None:
        """What satisfies all these versions; None for none, and where one of their sets has closed
        nothing yet."""
        needs = []
        for view in views:
            closed_ms = progress.closed_for(view.feature_set, view.version)
            if closed_ms is None:
                return None
            needs.append(cls.of(view, closed_ms))
        if not needs:
            return None
        return cls(
            needed_ms=min(one.needed_ms for one in needs),
            wanted_ms=min(one.wanted_ms for one in needs),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first offset to read, and the floor of what is built from there.

    `floor_ms` None: with the log's beginning, see floors.py. There is a `gap` where the log no
    longer holds what came before, and nothing is known of it.
    """

    offset: int
    floor_ms: int | None = None
    gap: bool = False


def find_start(
    index: LogIndex, need: Need | None, *, app_start: int, log_start: int, position: int
) -> Start:
    """Where to begin with a bundle that has nothing and has to come to `position`.

    The app began to read at `app_start`. Without a `need` everything that there is is read; so
    it is where nothing better is known.
    """
    begin = min(max(app_start, log_start), position)
    gone = log_start > app_start
    if need is None:
        return Start(offset=begin, gap=gone)
    known = index.below(position)
    found = known.last_before(need.wanted_ms)
    if found is None or found.offset < log_start:
        # What the version would keep is gone; what it needs may be there.
        found = known.first_from(log_start, need.needed_ms) if gone else None
    if found is None or found.offset < begin:
        return Start(offset=begin, gap=gone)
    return Start(offset=found.offset, floor_ms=found.highest_ms + 1)


def needed_offset(index: LogIndex, need: Need, *, app_start: int, position: int) -> int:
    """The first offset that has to be in the log, so that no as-of time is left out."""
    found = index.below(position).last_before(need.needed_ms)
    return max(app_start, 0 if found is None else found.offset)
