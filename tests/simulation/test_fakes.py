"""What the simulation stands on: a broker that is one, time that jumps, processes that end."""

from __future__ import annotations

import asyncio
import threading
from random import Random
from typing import TYPE_CHECKING

import pytest
from aiokafka.errors import ProducerFenced

from tests.polars_pool import in_pool
from tests.simulation.broker import Broker
from tests.simulation.loop import KilledError, Process, Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

AT = ("topic", 0)


def broker() -> Broker:
    return Broker(lambda: 0.0, lambda: 0)


def values(of: Broker) -> list[bytes | None]:
    return [record.value for record in of.all(AT)]


# -- the broker ---------------------------------------------------------------------------------


def test_a_transaction_is_read_when_it_is_committed_and_its_offsets_hold_then() -> None:
    one = broker()
    epoch = one.init("p")
    transaction = one.transaction("p", epoch)
    one.append(AT, None, b"in", transaction=transaction)
    one.append(AT, None, b"after")
    transaction.offsets.append(("g", AT, 7, "text"))
    assert (values(one), one.stable(AT), one.end(AT)) == ([], 0, 2)
    assert one.pending("g", AT)
    assert ("g", AT) not in one.offsets
    one.commit("p", epoch)
    assert (values(one), one.end(AT)) == ([b"in", b"after"], 3)
    assert one.offsets["g", AT] == (7, "text")
    assert not one.pending("g", AT)
    # The marker is no record, and is passed.
    assert one.read(AT, 2, 10) == ([], 3)


def test_who_starts_anew_fences_and_aborts_what_was_open() -> None:
    one = broker()
    first = one.init("p")
    one.append(AT, None, b"lost", transaction=one.transaction("p", first))
    second = one.init("p")
    with pytest.raises(ProducerFenced):
        one.commit("p", first)
    with pytest.raises(ProducerFenced):
        one.transaction("p", first)
    one.append(AT, None, b"kept", transaction=one.transaction("p", second))
    one.commit("p", second)
    assert values(one) == [b"kept"]


# -- processes ----------------------------------------------------------------------------------


def run(*work: Callable[[], Coroutine[None, None, None]]) -> tuple[Scheduler, list[Process]]:
    """Each in a process of its own, until the first one is done."""
    scheduler = Scheduler(Random(1))
    processes = [Process(scheduler, str(number), None) for number in range(len(work))]
    for process, one in zip(processes[1:], work[1:], strict=True):
        process.create_task(one())
    assert scheduler.run(processes[0], work[0](), limit_s=100)
    return scheduler, processes


def test_time_jumps_to_where_somebody_goes_on() -> None:
    seen = []

    async def sleeps(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((seconds, asyncio.get_running_loop().time()))

    scheduler, _ = run(lambda: sleeps(50), lambda: sleeps(20), lambda: sleeps(70))
    assert seen == [(20, 20), (50, 50)]
    assert scheduler.now_s == 50


def test_who_waits_for_what_never_comes_is_stuck() -> None:
    scheduler = Scheduler(Random(1))
    process = Process(scheduler, "one", None)

    async def waits() -> None:
        await asyncio.Event().wait()

    assert not scheduler.run(process, waits(), limit_s=100)
    process.clear()


def test_a_process_that_is_killed_stops_where_it_is() -> None:
    done = []

    async def dies() -> None:
        try:
            done.append("before")
            Process.current().kill()
            done.append("after")
        except Exception:
            done.append("caught")
        finally:
            await asyncio.sleep(0)
            done.append("later")

    async def waits() -> None:
        await asyncio.sleep(1)

    _, (_, dead) = run(waits, dies)
    assert done == ["before"]
    with pytest.raises(KilledError):
        dead.live()
    dead.clear()


def test_a_frozen_process_goes_on_where_it_was() -> None:
    seen: list[float] = []
    scheduler = Scheduler(Random(1))
    main, other = (Process(scheduler, name, None) for name in ("main", "other"))

    async def ticks() -> None:
        await asyncio.sleep(1)
        seen.append(scheduler.now_s)

    async def waits() -> None:
        await asyncio.sleep(0.5)
        other.frozen = True
        await asyncio.sleep(5)
        other.frozen = False
        await asyncio.sleep(1)

    other.create_task(ticks())
    assert scheduler.run(main, waits(), limit_s=100)
    assert seen == [5.5]


# -- the pool -----------------------------------------------------------------------------------


def test_what_is_done_in_the_pool_is_as_if_it_were_done_here() -> None:
    threads: list[int] = []

    def work() -> int:
        threads.append(threading.get_native_id())
        return 7

    def fails() -> None:
        raise KeyError("why")

    assert in_pool(work) == 7
    assert len(threads) == 1
    assert threads[0] != threading.get_native_id()
    with pytest.raises(KeyError, match="why"):
        in_pool(fails)
