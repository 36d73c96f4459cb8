"""Which events a set leaves out, besides what its definition says."""

from __future__ import annotations

from dataclasses import dataclass

NEVER = 1 << 63
"""Past all offsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetRange:
    """Offsets of one partition, from `start` up to and without `end`."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclude:
    """Events to leave out: those that `where` (SQL) selects, and those in the ranges.

    Partitions and offsets are the source's.
    """

    where: str | None = None
    offsets: tuple[OffsetRange, ...] = ()

    def first_offset(self, partition: int) -> int:
        """The first offset of a partition in the ranges; past all offsets where there is none."""
        return min((it.start for it in self.offsets if it.partition == partition), default=NEVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """An `Exclude` that a set plans with from its `number` on.

    Numbers only grow, and none is given twice, not even where an attempt has failed.
    """

    number: int
    where: str | None = None
    offsets: tuple[OffsetRange, ...] = ()
