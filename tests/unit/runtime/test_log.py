"""A range of a log, read to its end and no further."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.datapath.records import OneRecord, Records, columns
from streams.runtime import log
from streams.runtime.context import Context, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

END_OF_LOG = 12


class FakeConsumer:
    """A consumer of a log whose offsets 3 and 11 hold transaction markers."""

    made: list[FakeConsumer]

    def __init__(self, *, max_poll_records: int, **_: Any) -> None:
        self.stopped = False
        self._at_once = max_poll_records
        self._position = 0
        FakeConsumer.made.append(self)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, _: Any) -> None: ...

    def seek(self, _: Any, offset: int) -> None:
        self._position = offset

    async def position(self, _: Any) -> int:
        return self._position

    async def getmany(self, tp: Any, **_: Any) -> dict[Any, Records]:
        left = [offset for offset in range(self._position, END_OF_LOG) if offset not in (3, 11)]
        found = left[: self._at_once]
        self._position = END_OF_LOG if found == left else found[-1] + 1
        return {tp: columns([[record(offset) for offset in found]])} if found else {}


def record(offset: int) -> OneRecord:
    return OneRecord(offset=offset, timestamp=0, key=None, value=b"%d" % offset, headers=())


async def read(
    monkeypatch: pytest.MonkeyPatch, start: int, end: int, at_once: int = 100
) -> list[Sequence[int]]:
    """Offsets by batch."""
    FakeConsumer.made = []
    monkeypatch.setattr(log, "ColumnConsumer", FakeConsumer)
    limits = Limits(records_per_fetch=at_once)
    context = cast("Context", SimpleNamespace(kafka_config={}, limits=limits))
    found: list[Sequence[int]] = []
    async for records in log.read_log(context, "topic", 0, start, end):
        assert list(records.values) == [b"%d" % offset for offset in records.offsets]
        found.append(list(records.offsets))
    assert all(consumer.stopped for consumer in FakeConsumer.made)
    return found


async def test_what_lies_beyond_the_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await read(monkeypatch, 1, 6) == [[1, 2, 4, 5]]
    assert await read(monkeypatch, 2, 4) == [[2]]


async def test_a_batch_has_as_many_records_as_the_limit_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await read(monkeypatch, 0, 8, at_once=3) == [[0, 1, 2], [4, 5, 6], [7]]


async def test_markers_at_the_end_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await read(monkeypatch, 9, END_OF_LOG) == [[9, 10]]
    assert await read(monkeypatch, 11, END_OF_LOG) == []


async def test_an_empty_range_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await read(monkeypatch, 5, 5) == []
    assert not FakeConsumer.made
