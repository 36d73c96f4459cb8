"""Where a coordinator goes on after its claim: what Kafka holds of the control path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.control.state import ControlState
from streams.errors import RefusedError, RewindowError, UnreachableError
from streams.runtime.log import read_log

if TYPE_CHECKING:
    from streams.names import Names
    from streams.runtime.context import Context
    from streams.runtime.control.reading import ControlReader
    from streams.runtime.offsets import Offsets

BRING_BACK = "bring the topics back as they were, or stop all workers and start under another --app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """First offsets and ends of the topics, and the committed position of the requests."""

    committed: int | None
    control_end: int
    rollback: tuple[int, int]
    acks: tuple[int, int]


def read_positions(offsets: Offsets, names: Names) -> Positions:
    """Blocking. Raises UnreachableError if Kafka can't be asked."""
    rollback, control = (names.rollback_topic, 0), (names.control_topic, 0)
    acks = (names.acks_topic, 0)
    try:
        # Before the ends: what is committed lies below them.
        committed = offsets.committed(names.coordinator_group, [rollback]).get(rollback)
        starts = offsets.starts([rollback, acks])
        ends = offsets.ends([rollback, control, acks])
    except (RewindowError, TimeoutError) as error:
        raise UnreachableError(str(error)) from error
    return Positions(
        committed=None if committed is None else committed.offset,
        control_end=ends[control],
        rollback=(starts[rollback], ends[rollback]),
        acks=(starts[acks], ends[acks]),
    )


async def read_control(context: Context, reader: ControlReader, end: int) -> ControlState:
    """The state that the control topic gives up to and without `end`.

    Raises RewindowError if it holds what rewindow did not write, and aiokafka's errors.
    """
    topic = context.names.control_topic
    state = ControlState()
    async for records in read_log(context, topic, 0, 0, end):
        for record in records:
            try:
                state.apply(await reader.control(record.value))
            except ValueError as error:
                raise RewindowError(unreadable(topic, record.offset, error)) from error
    return state


def unreadable(topic: str, offset: int, error: Exception) -> str:
    """What to say of a record of the control topic that can't be read."""
    return (
        f"topic {topic} offset {offset}: {error}; was it written by a newer rewindow, or by "
        f"something else? Only the coordinator may write there: {BRING_BACK}"
    )


def refuse_gaps(names: Names, state: ControlState, found: Positions) -> None:
    """Raises RefusedError where the topics do not belong together any more.

    A committed position is the control topic's word again, so one that is gone, or was set
    back by hand, does not matter.
    """
    if found.committed is not None and found.committed > state.requests_offset:
        raise RefusedError(
            f"group {names.coordinator_group} has read requests up to offset {found.committed}, "
            f"but topic {names.control_topic} knows of none beyond {state.requests_offset}: it "
            f"was deleted or made anew, or the group's offset was set by hand. Set that offset "
            f"back to {state.requests_offset}, or {BRING_BACK}"
        )
    if state.requests_offset > found.rollback[1]:
        raise RefusedError(
            f"requests up to offset {state.requests_offset} of {names.rollback_topic} are "
            f"decided, but the topic ends at {found.rollback[1]}: it was deleted or made anew; "
            f"{BRING_BACK}"
        )
    first, end = found.acks
    if not first <= state.acks_offset <= end:
        raise RefusedError(
            f"acks from offset {state.acks_offset} on are needed, but topic {names.acks_topic} "
            f"holds {first} to {end}: its retention must be unlimited; {BRING_BACK}"
        )
