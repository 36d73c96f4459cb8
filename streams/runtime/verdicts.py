"""Verdicts that a replay can't come to again: ids that the registry did not know back then.

Such a record is in the DLQ and in no pane. Should the id be known by now, a replay would take
it for good; so replays skip what the DLQ holds under this error (design I2).

A dead letter goes out with the commit of its record's offset. So when a bundle is flushed,
whatever the DLQ will say of offsets that are not in it comes after the DLQ's end of that moment.
The bundle's meta remembers that end, and a replay from there reads no more than what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.errors import RewindowError
from streams.runtime.log import read_log
from streams.schema.decode import BadRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.runtime.context import Context
    from streams.runtime.streams import Stream
    from streams.state.store import Meta

ASK_EVERY_S = 30.0
"""How often the DLQ's end is asked for: a replay reads that much more of it."""

_NOTE = "dlq"


class DeadLettersSince:
    """From which DLQ offset on there may be verdicts on what the bundles have not applied.

    One for a claim; `since` holds for offsets from the replay's start on.
    """

    def __init__(self, context: Context, since: int) -> None:
        self.since = since
        self._context = context
        self._replayed = False
        self._asked_s: float | None = None

    @staticmethod
    def noted(meta: Meta | None) -> int:
        """What a bundle's meta remembers; 0, the DLQ's beginning, if it is nothing."""
        return 0 if meta is None else int(meta.extra.get(_NOTE, 0))

    def replayed(self) -> None:
        """From now on the bundles are flushed at committed positions that nothing follows."""
        self._replayed = True

    def notes(self) -> Mapping[str, str]:
        """What the metas of a flush have to say; asks Kafka now and then, and may block."""
        if self._replayed:
            self._ask()
        return {_NOTE: str(self.since)} if self.since else {}

    def _ask(self) -> None:
        now_s = self._context.clock.monotonic_s()
        if self._asked_s is not None and now_s - self._asked_s < ASK_EVERY_S:
            return
        self._asked_s = now_s
        at = (self._context.names.dlq_topic, 0)
        try:
            self.since = self._context.offsets.ends([at])[at]
        except (RewindowError, TimeoutError):
            return  # what was noted before holds as well


async def unknown_back_then(
    context: Context, stream: Stream, partition: int, start: int, end: int, *, since: int = 0
) -> frozenset[int]:
    """Offsets in `[start, end)` that `stream` set aside because of an unknown schema id.

    The DLQ is read from offset `since` on. Another stream of the same source may have asked
    the registry at another time.
    """
    if start >= end:
        return frozenset()
    at = (context.names.dlq_topic, 0)
    first = (await context.run(lambda: context.offsets.starts([at])))[at]
    last = (await context.run(lambda: context.offsets.ends([at])))[at]
    if first < since <= last:  # a DLQ that ends before it was made anew
        first = since
    found = set()
    wanted = {
        "rewindow.error": str(BadRecord.UNKNOWN_SCHEMA_ID).encode(),
        "rewindow.stream": stream.name.encode(),
        "rewindow.topic": stream.topic.encode(),
        "rewindow.partition": str(partition).encode(),
    }
    async for records in read_log(context, *at, first, last):
        for each in records.headers:
            headers = dict(each)
            if all(headers.get(name) == value for name, value in wanted.items()):
                offset = int(headers["rewindow.offset"])
                if start <= offset < end:
                    found.add(offset)
    return frozenset(found)
