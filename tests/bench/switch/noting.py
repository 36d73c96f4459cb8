"""Runs a worker in this process, and notes when each partition commits and recovers.

    python -m tests.bench.switch.noting NOTES worker ARGUMENT…

NOTES gets a line for each: `commit TOPIC PARTITION SECONDS`, when its transaction had ended, and
`recovery TOPIC PARTITION SECONDS SECONDS`, when bringing the state to the committed position
began and ended; by the monotonic clock, which all processes share.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streams.cli.main import main
from streams.clock import SystemClock
from streams.runtime.producer import PartitionProducer
from streams.runtime.recovery import Recovery

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import TopicPartition

    from streams.datapath.pipeline import Pipeline
    from streams.runtime.producer import Outgoing


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A partition's transaction had ended."""

    topic: str
    partition: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A partition's state was brought to its position."""

    topic: str
    partition: int
    begin_s: float
    end_s: float


def read_notes(notes: Path) -> tuple[list[Commit], list[Recovered]]:
    """What is noted so far, in order; a line that is being written is left for later."""
    commits: list[Commit] = []
    recoveries: list[Recovered] = []
    if not notes.exists():
        return commits, recoveries
    for line in notes.read_text(encoding="utf-8").splitlines(keepends=True):
        what, *rest = line.split()
        if not line.endswith("\n"):
            break
        match what:
            case "commit":
                topic, partition, at = rest
                commits.append(Commit(topic=topic, partition=int(partition), at_s=float(at)))
            case _:
                topic, partition, begin, end = rest
                recoveries.append(
                    Recovered(
                        topic=topic,
                        partition=int(partition),
                        begin_s=float(begin),
                        end_s=float(end),
                    )
                )
    return commits, recoveries


def note(notes: Path) -> None:
    """Begin to write to `notes`."""
    lines = notes.open("a", buffering=1, encoding="utf-8")
    clock = SystemClock()
    commit, pipeline = PartitionProducer.commit, Recovery.pipeline

    async def committing(
        self: PartitionProducer,
        outgoing: Iterable[Outgoing],
        offset: tuple[TopicPartition, int, str] | None,
        **options: Any,
    ) -> None:
        await commit(self, outgoing, offset, **options)
        if offset is not None:
            topic, partition = offset[0]
            lines.write(f"commit {topic} {partition} {clock.monotonic_s()}\n")

    async def recovering(self: Recovery) -> Pipeline:
        begin_s = clock.monotonic_s()
        made = await pipeline(self)
        at = f"{self._stream.topic} {self._partition}"
        lines.write(f"recovery {at} {begin_s} {clock.monotonic_s()}\n")
        return made

    PartitionProducer.commit = committing  # type: ignore[method-assign]
    Recovery.pipeline = recovering  # type: ignore[method-assign]


if __name__ == "__main__":
    note(Path(sys.argv[1]))
    sys.argv = ["rewindow", *sys.argv[2:]]
    main()
