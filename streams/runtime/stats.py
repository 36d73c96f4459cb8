"""What a worker can say of itself: counted where it happens, shown by the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streams.datapath.closing import OVERFLOWED

if TYPE_CHECKING:
    from streams.datapath.pipeline import Pipeline, Step
    from streams.datapath.progress import Progress


@dataclass(slots=True, kw_only=True)
class PartitionStats:
    """One stream partition, as its owner sees it."""

    stream: str
    partition: int
    state: str = "recovering"
    position: int = 0
    end: int = 0
    watermark_ms: int | None = None
    open_rows: int = 0
    open_windows: int = 0
    closed: dict[str, int] = field(default_factory=dict)

    def show(self, position: int, progress: Progress, pipeline: Pipeline) -> None:
        """What is committed, and what the pipeline holds."""
        self.position = position
        self.watermark_ms = progress.watermark_ms
        self.closed = {name: c.through_ms for name, c in progress.closed.items()}
        self.open_rows = pipeline.unflushed_rows
        self.open_windows = pipeline.open_windows

    @property
    def lag(self) -> int:
        """Offsets between the position and the end of the log."""
        return max(0, self.end - self.position)


@dataclass(slots=True, kw_only=True)
class SnapshotStats:
    """Checkpoints of this worker: how many were stored, the newest one, and what hinders.

    `error` is why the last one could not be stored, empty if it was; `pending` are on their way.
    """

    enabled: bool = False
    taken: int = 0
    pending: int = 0
    last_id: str = ""
    last_ms: int | None = None
    error: str = ""


@dataclass(slots=True, kw_only=True)
class Stats:
    """Counters since the worker started, and its partitions by (stream, partition)."""

    events: int = 0
    vectors: int = 0
    late: int = 0
    dead: int = 0
    transactions: int = 0
    flushes: int = 0
    claims: int = 0
    replayed: int = 0
    overflowed: int = 0
    restored: int = 0
    snapshots: SnapshotStats = field(default_factory=SnapshotStats)
    partitions: dict[tuple[str, int], PartitionStats] = field(default_factory=dict)

    def count(self, step: Step) -> None:
        """A step is committed."""
        self.events += step.events
        self.vectors += sum(frame.height for frame in step.vectors.values())
        self.late += len(step.late)
        self.dead += len(step.dead)
        self.overflowed += sum(int(frame[OVERFLOWED].sum()) for frame in step.vectors.values())
