"""What a worker can say of itself: counted where it happens, shown by the command line."""

from __future__ import annotations

from dataclasses import dataclass, field


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
