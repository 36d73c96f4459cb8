"""A sparse index of a stream partition's log: how far event time had come at some offsets.

An entry says that no event below its offset is later than `highest_ms`. That is true of the log,
whatever becomes of other entries, so any of them may be lost. There are the more the newer they
are: each goes into a slot, and the next one that goes there takes its place. Slots have levels;
an entry's level is the highest binary digit of event time, counted in steps of `STEP_MS`, that
has changed since the entry before. So a level holds `SLOTS` entries that are 2^(level + 1) steps
apart, and what happened an age ago is known to about a sixteenth of that age.

As records of a compacted topic: the key is `STREAM/PARTITION/SLOT`, the value JSON with the
offset `o` and the event time `h`. A record with the slot `begin` says that all before it, in the
order of the topic, is about another log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.datapath.intake import EARLIEST_MS

if TYPE_CHECKING:
    from collections.abc import Iterable

STEP_MS = 1_000
SLOTS = 16
LEVELS = 40
"""More than there are steps between the earliest and the latest event time."""

_BEGIN = "begin"

Place = tuple[str, int]
"""Stream and partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """No event below `offset` is later than `highest_ms`."""

    offset: int
    highest_ms: int


@dataclass(frozen=True, slots=True)
class LogIndex:
    """Entries of one stream partition, by offset."""

    entries: tuple[Entry, ...] = ()

    def below(self, offset: int) -> LogIndex:
        """What is known of the log up to and without `offset`."""
        return LogIndex(tuple(one for one in self.entries if one.offset <= offset))

    def last_before(self, time_ms: int) -> Entry | None:
        """The last entry below which no event is as late as `time_ms`."""
        found = (one for one in reversed(self.entries) if one.highest_ms < time_ms)
        return next(found, None)

    def first_from(self, offset: int, time_ms: int) -> Entry | None:
        """The first entry at or after `offset` below which no event is as late as `time_ms`."""
        found = (one for one in self.entries if one.offset >= offset and one.highest_ms < time_ms)
        return next(found, None)


class IndexWriter:
    """Makes the records of one partition's entries; `anew` says that its log begins anew."""

    def __init__(self, stream: str, partition: int, *, anew: bool) -> None:
        self._place = f"{stream}/{partition}"
        self._anew = anew
        self._step: int | None = None

    def records(self, entry: Entry) -> list[tuple[bytes, bytes]]:
        """Keys and values; none where event time has not come a step further."""
        slot = self._slot(entry)
        if slot is None:
            return []
        begin = [(f"{self._place}/{_BEGIN}".encode(), b"{}")] if self._anew else []
        self._anew = False
        value = json.dumps({"o": entry.offset, "h": entry.highest_ms}, separators=(",", ":"))
        return [*begin, (f"{self._place}/{slot}".encode(), value.encode())]

    def _slot(self, entry: Entry) -> str | None:
        step = (entry.highest_ms - EARLIEST_MS) // STEP_MS
        before, level = self._step, LEVELS
        if before is not None:
            if step <= before:
                return None
            level = (step ^ before).bit_length() - 1
        self._step = step
        return f"{level}.{(step >> (level + 1)) % SLOTS}"


def collect(records: Iterable[tuple[bytes, bytes]]) -> dict[Place, LogIndex]:
    """The indexes that keys and values of the topic make, in its order.

    What can't be read is left out: without it more of a log is read than has to be.
    """
    found: dict[Place, dict[str, Entry]] = {}
    for key, value in records:
        try:
            stream, partition, slot = key.decode().rsplit("/", 2)
            document = json.loads(value)
            entries = found.setdefault((stream, int(partition)), {})
            if slot == _BEGIN:
                entries.clear()
            else:
                entries[slot] = Entry(offset=int(document["o"]), highest_ms=int(document["h"]))
        except (ValueError, LookupError, TypeError):
            continue
    return {
        place: LogIndex(tuple(sorted(entries.values(), key=lambda one: one.offset)))
        for place, entries in found.items()
    }
