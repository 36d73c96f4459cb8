"""When checkpoints are taken, and what an archive that fails does to the data path: nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from streams.errors import UnreachableError
from streams.runtime import replay, verdicts
from streams.runtime.taking import PERIODIC, STOPPED
from streams.state.checkpoint import Facts
from tests.unit.runtime.checkpoint_rig import PARTITION, PERIOD_MS, Rig
from tests.unit.runtime.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from streams.runtime.snapshots import Stored


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rig]:
    def made(**given: Any) -> Rig:
        world = World(tmp_path / "state", timestamps={0: 3}, **given)
        monkeypatch.setattr(replay, "read_log", world.read_log)
        monkeypatch.setattr(verdicts, "read_log", world.read_log)
        return Rig(world, tmp_path)

    return made


async def test_one_is_taken_in_each_period_after_the_next_flush(make: Callable[..., Rig]) -> None:
    rig = make()
    world = await rig.world.claim()
    taking = rig.taking()
    await world.take(("ann", 3, 1))
    assert not taking.due
    rig.clock.ms += PERIOD_MS
    assert taking.due
    await taking.flush()
    await rig.snapshots.finish(60)
    await world.take(("ann", 4, 1))
    assert not taking.due  # one is enough
    [made] = rig.manifests()
    assert (made.next_offset, made.reason, made.schema_ids) == (1, PERIODIC, (3, 7))
    assert made.notes == {"instance": "one", "versions": "a@1.0.0"}
    assert rig.stats.last_id == made.checkpoint
    assert (rig.stats.taken, rig.stats.pending) == (1, 0)


async def test_all_partitions_call_a_period_by_the_same_id(make: Callable[..., Rig]) -> None:
    rig = make()
    first = rig.snapshots.slot_id
    rig.clock.ms += PERIOD_MS - 1 - rig.clock.ms % PERIOD_MS
    other = rig.start()
    assert other.slot_id == first
    rig.clock.ms += 1
    assert other.slot_id > first


async def test_where_nothing_comes_it_is_taken_all_the_same_and_only_once(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(("ann", 3, 1))
    taking = rig.taking()
    for _ in range(3):
        rig.clock.ms += PERIOD_MS
        await taking.look()
        await rig.snapshots.finish(60)
    assert [one.next_offset for one in rig.manifests()] == [1]


async def test_a_clean_stop_takes_one(make: Callable[..., Rig]) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(("ann", 3, 1))
    await rig.taking().parting()
    await world.stop()
    await rig.snapshots.finish(60)
    [made] = rig.manifests()
    assert (made.next_offset, made.reason) == (1, STOPPED)


async def test_old_ones_go_as_new_ones_come(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.start(keep=2)
    world = await rig.world.claim()
    for at in range(4):
        await world.take(("ann", 3 + at, 1))
        await rig.take()
    assert [one.next_offset for one in rig.manifests()] == [3, 4]


async def test_what_is_asked_for_is_kept_and_so_is_the_newest_before_it(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    rig.start(keep=1)
    world = await rig.world.claim()
    await world.take(("ann", 3, 1))
    [before] = await rig.take()
    await world.take(("ann", 4, 1))
    told: list[Stored] = []
    rig.clock.ms += 1_000
    assert world.pipeline is not None
    facts = Facts(reason="rollback r1", checkpoint=rig.snapshots.checkpoints.new_id(), pin="r1")
    await rig.taking().asked(
        facts,
        [state.bundle.digest for state in world.pipeline.bundles],
        keeps_before=True,
        on_end=told.append,
    )
    await rig.snapshots.finish(60)
    for at in range(2):
        await world.take(("ann", 5 + at, 1))
        await rig.take()
    assert [one.next_offset for one in rig.manifests()] == [1, 2, 4]
    assert [(one.checkpoint, one.kept, one.error) for one in told] == [
        (facts.checkpoint, (before.checkpoint,), "")
    ]
    pins = rig.snapshots.checkpoints.pins()
    assert sorted(pin.reason for found in pins.values() for pin in found) == [
        "before rollback r1",
        "rollback r1",
    ]


async def test_an_archive_that_is_away_is_told_of_and_asked_again_in_the_next_period(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(("ann", 3, 1))
    taking = rig.taking()

    def away(*_: Any) -> None:
        raise UnreachableError("the archive can't be reached")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(type(rig.archive), "put_file", away)
        rig.clock.ms += PERIOD_MS
        await taking.look()
        await rig.snapshots.finish(60)
    assert rig.manifests() == []
    assert "can't be reached" in rig.stats.error
    assert "can't be reached" in caplog.text
    rig.clock.ms += PERIOD_MS
    await taking.look()
    await rig.snapshots.finish(60)
    assert [one.next_offset for one in rig.manifests()] == [1]
    assert rig.stats.error == ""


async def test_a_disk_that_refuses_links_does_not_end_the_data_path(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(("ann", 3, 1))
    rig.snapshots.staging.parent.mkdir(exist_ok=True)
    rig.snapshots.staging.write_text("in the way")
    rig.clock.ms += PERIOD_MS
    taking = rig.taking()
    rig.clock.ms += PERIOD_MS
    await taking.look()
    await world.take(("ann", 4, 1))
    assert "can't be made" in rig.stats.error
    assert rig.manifests() == []


async def test_uploads_of_a_partition_never_overlap_and_a_period_waits_for_them(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(("ann", 3, 1))
    going_on, most = [0], [0]
    gate = threading.Event()
    put_file = type(rig.archive).put_file

    def slow(*args: Any, **given: Any) -> Any:
        going_on[0] += 1
        most[0] = max(most[0], going_on[0])
        gate.wait(60)
        try:
            return put_file(*args, **given)
        finally:
            going_on[0] -= 1

    monkeypatch.setattr(type(rig.archive), "put_file", slow)
    taking = rig.taking()
    assert world.pipeline is not None
    digests = [state.bundle.digest for state in world.pipeline.bundles]
    for n in range(3):
        facts = Facts(reason="r", checkpoint=rig.snapshots.checkpoints.new_id(), pin=f"r{n}")
        await taking.asked(facts, digests, keeps_before=False, on_end=lambda _: None)
    rig.clock.ms += PERIOD_MS
    assert rig.snapshots.busy(PARTITION)
    assert not taking.due
    # Beside a waiting archive the data path goes on.
    await world.take(("ann", 4, 1))
    gate.set()
    await rig.snapshots.finish(60)
    assert most == [1]
    assert taking.due
    assert len(rig.manifests()) == 3


async def test_an_upload_that_takes_too_long_is_given_up_at_the_end(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(("ann", 3, 1))
    gate = threading.Event()
    put_file = type(rig.archive).put_file

    def slow(*args: Any, **given: Any) -> Any:
        gate.wait(60)
        return put_file(*args, **given)

    monkeypatch.setattr(type(rig.archive), "put_file", slow)
    taking = rig.taking()
    rig.clock.ms += PERIOD_MS
    await taking.look()
    asyncio.get_running_loop().call_later(0.2, gate.set)
    await rig.snapshots.finish(0)
    assert rig.manifests() == []
    assert not rig.snapshots.staging.exists()


async def test_what_a_crash_left_set_aside_goes_at_the_next_start(make: Callable[..., Rig]) -> None:
    rig = make()
    left = rig.snapshots.staging / "left"
    left.mkdir(parents=True)
    rig.start()
    assert not left.exists()
