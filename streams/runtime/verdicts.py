"""Verdicts that a replay can't come to again: ids that the registry did not know back then.

Such a record is in the DLQ and in no pane. Should the id be known by now, a replay would take
it for good; so replays skip what the DLQ holds under this error (design I2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.runtime.log import read_log
from streams.schema.decode import BadRecord

if TYPE_CHECKING:
    from streams.runtime.context import Context
    from streams.runtime.streams import Stream


async def unknown_back_then(
    context: Context, stream: Stream, partition: int, start: int, end: int
) -> frozenset[int]:
    """Offsets in `[start, end)` that `stream` set aside because of an unknown schema id.

    Another stream of the same source may have asked the registry at another time.
    """
    if start >= end:
        return frozenset()
    at = (context.names.dlq_topic, 0)
    first = (await context.run(lambda: context.offsets.starts([at])))[at]
    last = (await context.run(lambda: context.offsets.ends([at])))[at]
    found = set()
    wanted = {
        "rewindow.error": str(BadRecord.UNKNOWN_SCHEMA_ID).encode(),
        "rewindow.stream": stream.name.encode(),
        "rewindow.topic": stream.topic.encode(),
        "rewindow.partition": str(partition).encode(),
    }
    async for records in read_log(context, *at, first, last):
        for record in records:
            headers = dict(record.headers)
            if all(headers.get(name) == value for name, value in wanted.items()):
                offset = int(headers["rewindow.offset"])
                if start <= offset < end:
                    found.add(offset)
    return frozenset(found)
