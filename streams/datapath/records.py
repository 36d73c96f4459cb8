"""Kafka records as the data path reads them, whichever client brought them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """What is read of a Kafka record; `timestamp` in ms, -1 where the producer set none."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRecord:
    """A record taken out of a run of them."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Records(Sequence[Record]):
    """A run of records as columns of equal length.

    Lists of numbers and bytes, where objects would be: the garbage collector goes through
    every object it knows again and again, and with some 100,000 records waiting that took
    more time than all else done to them.
    """

    offsets: Sequence[int]
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        if isinstance(at, slice):
            return Records(
                offsets=self.offsets[at],
                timestamps=self.timestamps[at],
                keys=self.keys[at],
                values=self.values[at],
                headers=self.headers[at],
            )
        return OneRecord(
            offset=self.offsets[at],
            timestamp=self.timestamps[at],
            key=self.keys[at],
            value=self.values[at],
            headers=self.headers[at],
        )

    def where(self, wanted: Sequence[bool]) -> Records:
        """The records at the positions that are true in `wanted`."""
        return Records(
            offsets=list(compress(self.offsets, wanted)),
            timestamps=list(compress(self.timestamps, wanted)),
            keys=list(compress(self.keys, wanted)),
            values=list(compress(self.values, wanted)),
            headers=list(compress(self.headers, wanted)),
        )

    def take(self, positions: Sequence[int]) -> Records:
        """The records at `positions`, in that order."""
        return Records(
            offsets=[self.offsets[at] for at in positions],
            timestamps=[self.timestamps[at] for at in positions],
            keys=[self.keys[at] for at in positions],
            values=[self.values[at] for at in positions],
            headers=[self.headers[at] for at in positions],
        )


def as_columns(records: Sequence[Record]) -> Records:
    """The records as columns, which they may be already."""
    return records if isinstance(records, Records) else columns([records])


def columns(runs: Iterable[Sequence[Record]]) -> Records:
    """Runs of records, one after the other, as one."""
    offsets: list[int] = []
    timestamps: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[Headers] = []
    for run in runs:
        offsets += [record.offset for record in run]
        timestamps += [record.timestamp for record in run]
        keys += [record.key for record in run]
        values += [record.value for record in run]
        # An empty tuple is always the same one, an empty list is an object of its own.
        headers += [record.headers or () for record in run]
    return Records(
        offsets=offsets, timestamps=timestamps, keys=keys, values=values, headers=headers
    )
