"""What was committed with a position, wherever Kafka holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.datapath.progress import Progress
from streams.errors import RewindowError
from streams.runtime.log import read_log
from streams.runtime.producer import read_spilled

if TYPE_CHECKING:
    from streams.runtime.context import Context


async def read_progress(context: Context, metadata: str) -> Progress:
    """Progress out of commit metadata, which may name a record that holds it.

    Raises RewindowError if that is gone or can't be read, and aiokafka's errors.
    """
    if not metadata:  # somebody set the group's offsets by hand
        return Progress(definitions_offset=context.definitions_offset)
    spilled = read_spilled(metadata)
    if spilled is None:
        return Progress.decode(metadata)
    offset, _ = spilled
    topic = context.names.acks_topic
    async for records in read_log(context, topic, 0, offset, offset + 1):
        return Progress.decode((records[0].value or b"").decode())
    raise RewindowError(
        f"the commit metadata names offset {offset} of {topic}, which is gone: its "
        "retention must be unlimited. Reset the group's offsets to start over"
    )
