"""Flushes beside batches: begun in one turn, settled in a later one."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.errors import RewindowError
from streams.runtime.context import Limits
from streams.runtime.flushing import Flushing
from streams.runtime.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from streams.runtime.flushing import Then


class Clock:
    """Stands still until it is set."""

    s = 0.0

    def monotonic_s(self) -> float:
        return self.s


class Begun:
    """A flush that is written when it may, or fails."""

    def __init__(self, disk: Disk, position: int) -> None:
        self.disk = disk
        self.position = position

    def write(self) -> None:
        assert self.disk.may_write.wait(30)
        if self.disk.full:
            raise RewindowError("the disk is full")

    def ingest(self) -> None:
        self.disk.ingested.append(self.position)


class Disk:
    """Stands for a pipeline and its owner's context; notes what reaches the bundles."""

    def __init__(self) -> None:
        self.position = 1
        self.full = False
        self.may_write = threading.Event()
        self.ingested: list[int] = []
        self.told = asyncio.Event()
        self.clock = Clock()
        self.limits = Limits(flush_every_s=5, flush_rows=10)
        self.stats = Stats()
        self.bundles: list[Any] = []
        self.unflushed_rows = 0
        self.may_flush = True
        self.flushing = Flushing(
            cast("Any", self), cast("Any", self), begun=0, run=self._run, on_written=self.told.set
        )

    def begin_flush(self) -> list[Begun]:
        return [Begun(self, self.position)]

    async def _run(self, work: Callable[[], Any]) -> Any:
        return work()


async def test_it_is_ingested_at_the_turn_after_it_was_written() -> None:
    disk = Disk()
    seen: list[list[int]] = []

    def then() -> None:
        seen.append(list(disk.ingested))

    await disk.flushing.begin(then)
    disk.position = 2
    await disk.flushing.settle()
    assert disk.flushing.busy
    assert disk.ingested == []
    disk.may_write.set()
    await disk.told.wait()
    assert disk.ingested == []
    await disk.flushing.settle()
    assert seen == [[1]]
    assert not disk.flushing.busy


async def test_a_second_one_begins_without_waiting_and_is_written_after_the_first() -> None:
    disk = Disk()
    await disk.flushing.begin()
    disk.position = 2
    await disk.flushing.begin()
    assert disk.ingested == []
    disk.may_write.set()
    await disk.told.wait()
    disk.told.clear()
    await disk.flushing.settle()
    assert disk.ingested == [1]
    assert disk.flushing.busy
    await disk.told.wait()
    await disk.flushing.settle()
    assert disk.ingested == [1, 2]
    assert not disk.flushing.busy


async def test_a_second_one_brings_what_the_first_has_failed_to() -> None:
    disk = Disk()
    disk.full = True
    disk.may_write.set()
    await disk.flushing.begin()
    disk.position = 2
    await disk.flushing.begin()
    await disk.told.wait()
    with pytest.raises(RewindowError, match="full"):
        await disk.flushing.settle()
    disk.full = False
    await disk.flushing.begin()
    await disk.flushing.finish()
    assert disk.ingested == [2]


async def test_a_third_one_waits_for_the_first() -> None:
    disk = Disk()
    disk.may_write.set()
    for position in (1, 2, 3):
        disk.position = position
        await disk.flushing.begin()
    assert disk.ingested == [1]
    await disk.flushing.finish()
    assert disk.ingested == [1, 2, 3]


async def test_who_asks_at_the_same_position_gets_the_one_that_is_being_made() -> None:
    disk = Disk()
    seen: list[str] = []

    def noting(name: str) -> Then:
        async def note() -> None:
            seen.append(name)

        return note

    await disk.flushing.begin(noting("first"))
    await disk.flushing.begin(noting("second"))
    disk.may_write.set()
    await disk.flushing.finish()
    assert disk.ingested == [1]
    assert seen == ["first", "second"]


async def test_what_goes_wrong_is_told_to_who_settles_it() -> None:
    disk = Disk()
    disk.full = True
    disk.may_write.set()
    await disk.flushing.begin()
    await disk.told.wait()
    with pytest.raises(RewindowError, match="full"):
        await disk.flushing.settle()
    assert disk.ingested == []
    assert not disk.flushing.busy


class User:
    """Uses what is on disk until it may end."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.may_end = asyncio.Event()
        self.saw: list[list[int]] = []
        self.broken = False

    async def __call__(self) -> None:
        self.saw.append(list(self.disk.ingested))
        await self.may_end.wait()
        self.saw.append(list(self.disk.ingested))
        if self.broken:
            raise RuntimeError("it is broken")


async def _in_use() -> tuple[Disk, User]:
    """A flush at 1 that is settled and used, and one at 2 that is written."""
    disk = Disk()
    user = User(disk)
    disk.may_write.set()
    await disk.flushing.begin(user)
    await disk.told.wait()
    disk.told.clear()
    await disk.flushing.settle()
    disk.position = 2
    await disk.flushing.begin()
    await disk.told.wait()
    disk.told.clear()
    return disk, user


async def test_the_next_one_is_written_but_not_settled_while_one_is_used() -> None:
    disk, user = await _in_use()
    await disk.flushing.settle()
    assert disk.ingested == [1]
    user.may_end.set()
    await disk.told.wait()
    await disk.flushing.settle()
    assert user.saw == [[1], [1]]
    assert disk.ingested == [1, 2]


@pytest.mark.parametrize(
    ("wait", "ingested"),
    [(Flushing.finish, [1, 2]), (Flushing.close, [1])],
    ids=["finish", "close"],
)
async def test_who_wants_a_still_disk_waits_for_who_uses_it(
    wait: Callable[[Flushing], Coroutine[Any, Any, None]], ingested: list[int]
) -> None:
    disk, user = await _in_use()
    waiting = asyncio.create_task(wait(disk.flushing))
    await asyncio.sleep(0)
    assert not waiting.done()
    user.may_end.set()
    await waiting
    assert user.saw == [[1], [1]]
    assert disk.ingested == ingested


async def test_what_goes_wrong_with_a_use_is_told_at_the_next_turn() -> None:
    disk, user = await _in_use()
    user.broken = True
    user.may_end.set()
    await disk.told.wait()
    with pytest.raises(RuntimeError, match="broken"):
        await disk.flushing.settle()


async def test_who_closes_waits_for_the_thread_and_ingests_nothing() -> None:
    disk = Disk()
    await disk.flushing.begin()
    closing = asyncio.create_task(disk.flushing.close())
    await asyncio.sleep(0)
    assert not closing.done()
    disk.may_write.set()
    await closing
    assert disk.ingested == []


async def test_one_is_due_after_a_time_or_with_many_rows() -> None:
    disk = Disk()
    assert not disk.flushing.due
    disk.clock.s = 5
    assert disk.flushing.due
    await disk.flushing.begin()
    assert disk.stats.flushes == 1
    disk.clock.s = 10
    disk.unflushed_rows = 19
    assert not disk.flushing.due
    disk.unflushed_rows = 20
    assert disk.flushing.due
    disk.may_write.set()
    await disk.flushing.finish()
    disk.unflushed_rows = 9
    disk.clock.s = 9
    assert not disk.flushing.due
    disk.unflushed_rows = 10
    assert disk.flushing.due
    disk.may_flush = False
    assert not disk.flushing.due, "corrections are made of what is on disk"
