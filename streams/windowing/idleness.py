"""Which partitions of a source are idle, and when the source is silent as a whole.

Event time of a partition stands still when nothing comes. A partition is idle if it has been
read to its end, nothing has come for `idle_after`, and another partition has moved since; it
then follows the lowest watermark of those that move. If nothing comes anywhere for
`close_after`, the source is silent.

    idle_after = 4, one column per second, x = records came, . = at its end, > = lagging

        p0  x x x x x x x x           p0  x . . . . . . . . . . x . . . .
        p1  x . . . . . . .           p1  x . . . . . . . . . . . . . . .
                    ^ p1 idle                                           ^ p1 idle

On the right the whole source was silent, so the timers start anew at p0's record: p1 has time
to bring what a common outage held up, and that is not late.

Two records seen by the same look are simultaneous: neither partition has moved since the
other. A partition that can't be read, or lags, is neither idle nor silent; it counts as moving.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One partition at a look: next offset applied, high watermark of its log, watermark.

    `position` counts records that are applied and committed; None is not known.
    """

    position: int | None
    end: int | None
    watermark_ms: int | None

    @property
    def at_end(self) -> bool:
        """Whether the partition could be read, and has been to its end."""
        return self.position is not None and self.end is not None and self.position >= self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a look showed.

    `idle` has the watermark that each idle partition follows. `silent_ms` is the highest event
    time of a source that is silent, else None.
    """

    idle: Mapping[int, int] = field(default_factory=dict)
    silent_ms: int | None = None


@dataclass(slots=True, kw_only=True)
class _Seen:
    sight: Sight
    moved_s: float | None
    """When something last came; None: never, as far as is known."""
    since_s: float
    """When the timer started."""


class Idleness:
    """Remembers the partitions of one source from look to look; times are monotonic seconds."""

    def __init__(self, *, idle_after_s: float, close_after_s: float | None) -> None:
        self._idle_after_s = idle_after_s
        self._close_after_s = close_after_s
        self._seen: dict[int, _Seen] = {}
        self._quiet_since_s = 0.0
        """When anything last came anywhere, or the first look."""

    def look(self, sights: Mapping[int, Sight], now_s: float) -> Verdict:
        """Judge all partitions of the source, each with its sight; call it again and again."""
        moved = {p for p, sight in sights.items() if self._note(p, sight, now_s)}
        if moved:
            if now_s - self._quiet_since_s >= self._idle_after_s:
                for seen in self._seen.values():
                    seen.since_s = now_s
            self._quiet_since_s = now_s
        return Verdict(idle=self._idle(now_s), silent_ms=self._silence(now_s))

    def _note(self, partition: int, sight: Sight, now_s: float) -> bool:
        """Take a sight; whether the partition moves, as what lags or can't be read does."""
        seen = self._seen.get(partition)
        if seen is None:
            # What has a watermark had records, some time before this first look.
            moved = now_s if sight.watermark_ms is not None or not sight.at_end else None
            self._seen[partition] = _Seen(sight=sight, moved_s=moved, since_s=now_s)
            if len(self._seen) == 1:
                self._quiet_since_s = now_s
            return not sight.at_end
        before = seen.sight
        # The watermark is no sign: idleness moves it too. Nor is coming to an end that was there
        # at the look before: what came then has moved it then.
        came = sight.end != before.end
        if sight.watermark_ms is None:
            # A partition that can't be read keeps the watermark that it had.
            known = before.watermark_ms
            sight = Sight(position=sight.position, end=sight.end, watermark_ms=known)
        seen.sight = sight
        if came or not sight.at_end:
            seen.moved_s = seen.since_s = now_s
            return True
        return False

    def _idle(self, now_s: float) -> dict[int, int]:
        """Idle partitions, and what each follows: the lowest of those that moved after it.

        Those that move are not idle themselves, hence in order of movement, newest first.
        """
        follows: dict[int, int] = {}
        idle: set[int] = set()
        newest_first = sorted(self._seen, key=lambda p: (_moved(self._seen[p]), p), reverse=True)
        for partition in newest_first:
            seen = self._seen[partition]
            if not seen.sight.at_end or now_s - seen.since_s < self._idle_after_s:
                continue
            moving = [
                other.sight.watermark_ms
                for number, other in self._seen.items()
                if number not in idle
                and _moved(other) > _moved(seen)
                and _moved(other) >= seen.since_s
            ]
            if not moving:
                continue
            idle.add(partition)
            known = [watermark for watermark in moving if watermark is not None]
            if len(known) == len(moving):
                follows[partition] = min(known)
        return follows

    def _silence(self, now_s: float) -> int | None:
        if self._close_after_s is None or now_s - self._quiet_since_s < self._close_after_s:
            return None
        if not all(seen.sight.at_end for seen in self._seen.values()):
            return None
        known = [seen.sight.watermark_ms for seen in self._seen.values()]
        return max((one for one in known if one is not None), default=None)


def _moved(seen: _Seen) -> float:
    return float("-inf") if seen.moved_s is None else seen.moved_s
