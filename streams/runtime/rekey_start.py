"""Where a cursor of the rekeying stage goes on after its claim, or begins."""

from __future__ import annotations

from dataclasses import dataclass

from streams.datapath.rekey_progress import RekeyProgress
from streams.definitions.model import StartAt
from streams.errors import RefusedError, RewindowError, UnreachableError
from streams.runtime.offsets import Committed, Offsets
from streams.runtime.streams import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A position with its progress; `committed` says that Kafka has it already."""

    position: int
    progress: RekeyProgress
    committed: bool


def find_start(offsets: Offsets, stream: Stream, group: str, partition: int) -> Start:
    """Where source partition `partition` goes on; blocking.

    Raises `RefusedError` where going on would lose events or write them twice, and
    `UnreachableError` where Kafka can't be asked.
    """
    topic = stream.published.source.topic
    try:
        # The stream's ends before the positions: what they hold had a position before it.
        ends = offsets.ends((stream.topic, number) for number in range(stream.partitions))
        here = (topic, partition)
        found = offsets.committed(group, [here]).get(here)
        first, end = offsets.starts([here])[here], offsets.ends([here])[here]
        if found is None:
            # Others may be in a transaction: whether they have a position is all that counts.
            everywhere = [(topic, number) for number in range(stream.source_partitions)]
            committed = offsets.committed(group, everywhere, stable=False)
            if not committed and any(ends.values()):
                raise RefusedError(_offsets_gone(stream, group))
            return _beginning(offsets, stream, partition, first, end)
    except RefusedError:
        raise
    except (RewindowError, TimeoutError) as error:
        raise UnreachableError(str(error)) from error
    _refuse_gap(f"{topic}/{partition}", group, found, first, end)
    if not found.metadata:
        # Set by hand: the one who set it decided what to leave out.
        progress = RekeyProgress(floor_wanted=found.offset > 0)
        return Start(position=found.offset, progress=progress, committed=False)
    progress = RekeyProgress.decode(found.metadata)
    return Start(position=found.offset, progress=progress, committed=True)


def _beginning(offsets: Offsets, stream: Stream, partition: int, first: int, end: int) -> Start:
    source = stream.published.source
    match source.start:
        case StartAt.EARLIEST:
            position = first
        case StartAt.LATEST:
            position = end
        case timestamp_ms:
            here = (source.topic, partition)
            position = offsets.at_time([here], timestamp_ms)[here]
    progress = RekeyProgress(floor_wanted=position > 0)
    return Start(position=position, progress=progress, committed=False)


def _refuse_gap(where: str, group: str, found: Committed, first: int, end: int) -> None:
    if first <= found.offset <= end:
        return
    what = (
        f"{where} now begins at offset {first}: its retention deleted records that were not "
        "read yet. To go on without them"
        if found.offset < first
        else f"{where} ends at offset {end}: it was deleted and made anew. To go on with what "
        "it holds now"
    )
    raise RefusedError(
        f"group {group} is at offset {found.offset}, but {what}, stop all workers and run "
        f"kafka-consumer-groups.sh --group {group} --topic {where.rpartition('/')[0]} "
        "--reset-offsets --to-earliest --execute"
    )


def _offsets_gone(stream: Stream, group: str) -> str:
    return (
        f"topic {stream.topic} holds events, but group {group} has no committed offsets: they "
        "were deleted or have expired, and starting over would write every event twice. Set "
        "them with kafka-consumer-groups.sh --reset-offsets to where the group was, or delete "
        f"the topic and the state of {stream.name} and start under another --app"
    )
