"""Runs a worker in this process, and notes when each partition goes on and recovers.

    python -m tests.bench.switch.noting NOTES worker ARGUMENT…

NOTES gets a line for each: `progress TOPIC PARTITION SECONDS`, when a transaction had ended, or a
batch was done that needed none of its own; `recovery BEGIN END`, when bringing a partition's state
to the committed position began and ended; and `checkpoint BEGIN END`, when one bundle of one
partition was set aside, and stored. Seconds are those of the monotonic clock, which all processes
share.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streams.cli.main import main
from streams.clock import SystemClock
from streams.runtime.owner import PartitionOwner
from streams.runtime.producer import PartitionProducer
from streams.runtime.recovery import Recovery
from streams.state.checkpoint import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import TopicPartition

    from streams.datapath.pipeline import Pipeline
    from streams.runtime.producer import Outgoing
    from streams.runtime.transport import Fetched
    from streams.state.checkpoint import Aside
    from streams.state.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """A partition had gone on: a transaction had ended, or a batch was done that says nothing."""

    topic: str
    partition: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A partition's state was brought to its position."""

    begin_s: float
    end_s: float


@dataclass(slots=True, kw_only=True)
class Notes:
    """What a worker has noted, in order."""

    progress: list[Advanced] = field(default_factory=list)
    recoveries: list[Recovered] = field(default_factory=list)
    checkpoints: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of each."""


def read_notes(notes: Path) -> Notes:
    """What is noted so far; a line that is being written is left for later."""
    found = Notes()
    text = notes.read_text(encoding="utf-8") if notes.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        match line.split():
            case ["progress", topic, partition, at]:
                one = Advanced(topic=topic, partition=int(partition), at_s=float(at))
                found.progress.append(one)
            case ["recovery", begin, end]:
                found.recoveries.append(Recovered(begin_s=float(begin), end_s=float(end)))
            case ["checkpoint", begin, end]:
                found.checkpoints.append((float(begin), float(end)))
    return found


def note(notes: Path) -> None:
    """Begin to write to `notes`."""
    lines = notes.open("a", buffering=1, encoding="utf-8")
    clock = SystemClock()
    commit, work, pipeline = PartitionProducer.commit, PartitionOwner._work, Recovery.pipeline
    set_aside, upload = Checkpoints.set_aside, Checkpoints.upload
    begun_s: dict[str, float] = {}

    async def committing(
        self: PartitionProducer,
        outgoing: Iterable[Outgoing],
        offset: tuple[TopicPartition, int, str] | None,
        **options: Any,
    ) -> None:
        await commit(self, outgoing, offset, **options)
        if offset is not None:
            topic, partition = offset[0]
            lines.write(f"progress {topic} {partition} {clock.monotonic_s()}\n")

    async def working(self: PartitionOwner, fetched: Fetched) -> None:
        await work(self, fetched)
        lines.write(f"progress {self.stream.topic} {self.partition} {clock.monotonic_s()}\n")

    async def recovering(self: Recovery) -> Pipeline:
        begin_s = clock.monotonic_s()
        made = await pipeline(self)
        lines.write(f"recovery {begin_s} {clock.monotonic_s()}\n")
        return made

    def setting_aside(self: Checkpoints, *arguments: Any) -> Aside:
        begin_s = clock.monotonic_s()
        aside = set_aside(self, *arguments)
        begun_s[aside.upload] = begin_s
        return aside

    def uploading(self: Checkpoints, aside: Aside, *arguments: Any) -> Manifest:
        try:
            return upload(self, aside, *arguments)
        finally:
            lines.write(f"checkpoint {begun_s.pop(aside.upload)} {clock.monotonic_s()}\n")

    PartitionProducer.commit = committing  # type: ignore[method-assign]
    PartitionOwner._work = working  # type: ignore[method-assign]
    Recovery.pipeline = recovering  # type: ignore[method-assign]
    Checkpoints.set_aside = setting_aside  # type: ignore[method-assign,assignment]
    Checkpoints.upload = uploading  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    note(Path(sys.argv[1]))
    sys.argv = ["rewindow", *sys.argv[2:]]
    main()
