"""Versions that start from the checkpoint that a request names: what the gate is told, and what
owners do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.control.records import Replay
from streams.definitions.model import Function
from streams.errors import UnreachableError
from streams.runtime import replay, verdicts, warming
from streams.runtime.control.starting import find_named
from streams.runtime.warming import PAUSE_S
from tests.checkpoint_world import flip
from tests.small import feature, feature_set
from tests.unit.datapath.rig import plans_of
from tests.unit.runtime.checkpoint_rig import Rig
from tests.unit.runtime.cleaning import Cleaned, exclusion
from tests.unit.runtime.town import ReadsWorld

if TYPE_CHECKING:
    from pathlib import Path

    from streams.state.manifest import Manifest
    from tests.unit.datapath.rig import Click

V1, V2 = "1.0.0", "1.1.0"
ONE = feature_set(feature("n"), name="a", version=V1, retention_ms=1_000)
TWO = feature_set(feature("s", Function.SUM, "x"), name="a", version=V2, retention_ms=1_000)
"""Shares nothing with the first."""
EVENTS: list[Click] = [
    *(("ann", 1, 1), ("bob", 2, 1), ("ann", 5, 1), ("eve", 8, 1), ("bob", 9, 1), ("ann", 9, 1)),
]
TAKEN = (2, 4)
UNKNOWN = "20260131T235959123Z-0a1b2c3d"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rig]:
    def made(**given: Any) -> Rig:
        world = Cleaned(tmp_path / "state", timestamps={0: 1}, **given)
        monkeypatch.setattr(replay, "read_log", world.read_log)
        monkeypatch.setattr(verdicts, "read_log", world.read_log)
        monkeypatch.setattr(warming, "BatchReader", ReadsWorld(world))
        return Rig(world, tmp_path)

    return made


async def dropped(rig: Rig) -> tuple[Cleaned, list[Manifest]]:
    """1.1.0 is not live any more; its checkpoints after two and four of six events."""
    town = cast("Cleaned", rig.world)
    town.decided.decide(f"{V1}!", f"{V2}!")
    await town.claim()
    for at, event in enumerate(EVENTS, 1):
        await town.take(event)
        if at in TAKEN:
            await rig.take()
    town.decided.decide(f"{V1}!")
    await town.obey()
    digest = town.stream.version("a", V2).plan.bundles[0].digest
    return town, [one for one in rig.manifests() if one.of.bundle == digest]


def prepare(town: Cleaned, checkpoint: str) -> None:
    town.decided.decide(f"{V1}!", f"{V2}/7")
    record = town.decided.sets["a"]
    live = (record.live[0], replace(record.live[1], checkpoint=checkpoint))
    town.decided.sets["a"] = replace(record, live=live)


async def failure(town: Cleaned) -> str:
    """Why what is prepared can't be."""
    async with asyncio.timeout(60):
        while not town.failed():
            await asyncio.sleep(0.001)
            await town.obey()
    assert town.following() == set()
    (why,) = town.failed()
    return why


async def test_a_version_begins_with_the_one_that_is_named_and_not_with_a_newer_one(
    make: Callable[..., Rig],
) -> None:
    rig = make(sets=(ONE, TWO))
    town, (older, newer) = await dropped(rig)
    before = town.stats.replayed
    prepare(town, older.checkpoint)
    await town.warmed()
    assert newer.next_offset > older.next_offset
    assert town.stats.replayed - before == 4
    assert town.ready()[-1] == (V2, 7)


async def test_what_an_attempt_before_has_left_gives_way_to_it(
    make: Callable[..., Rig],
) -> None:
    rig = make(sets=(ONE, TWO))
    town, (older, newer) = await dropped(rig)
    town.gate.clear()
    prepare(town, newer.checkpoint)
    await town.obey()
    async with asyncio.timeout(60):
        while not town.stats.restored:
            await asyncio.sleep(0.001)
    before = town.stats.replayed
    prepare(town, older.checkpoint)
    town.gate.set()
    await town.claim()
    await town.warmed()
    # What serves was flushed with the newer one, and is replayed from there.
    assert town.stats.replayed - before == 2 + 4


@pytest.mark.parametrize("harm", ["unknown", "damaged", "none kept"])
async def test_without_it_the_version_fails_and_begins_with_nothing_else(
    make: Callable[..., Rig], harm: str
) -> None:
    rig = make(sets=(ONE, TWO))
    town, (older, newer) = await dropped(rig)
    wanted = UNKNOWN if harm == "unknown" else newer.checkpoint
    if harm == "damaged":
        flip(next(one for one in rig.files(newer) if one not in rig.files(older)))
    if harm == "none kept":
        town.snapshots = None
    prepare(town, wanted)
    why = await failure(town)
    assert wanted in why
    assert town.stats.restored == 0


async def test_an_archive_that_is_away_is_waited_for(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make(sets=(ONE, TWO))
    town, (older, _) = await dropped(rig)
    asked = []

    def away(*_: Any) -> None:
        asked.append(1)
        raise UnreachableError("the archive can't be reached")

    with monkeypatch.context() as patched:
        patched.setattr(type(rig.archive), "list", away)
        prepare(town, older.checkpoint)
        await town.obey()
        async with asyncio.timeout(60):
            while len(asked) < 2:
                await asyncio.sleep(PAUSE_S / 10)
    await town.warmed()
    assert town.failed() == []
    assert town.stats.restored == 1


# -- without events -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "clean"),
    [
        (exclusion(3, "at = 9"), (True, True)),
        (exclusion(3, None, (0, 3, 4)), (True, False)),
        (exclusion(3, "at = 8"), (True, False)),
    ],
)
async def test_it_has_to_be_from_before_the_first_event_that_is_left_out(
    make: Callable[..., Rig], what: Any, clean: tuple[bool, bool]
) -> None:
    rig = make(sets=(ONE,), exclusions=(what,))
    town = cast("Cleaned", rig.world)
    town.decided.decide(f"{V1}!/1")
    await town.claim()
    for at, event in enumerate(EVENTS, 1):
        await town.take(event)
        if at in TAKEN:
            await rig.take()
    for manifest, usable in zip(rig.manifests(), clean, strict=True):
        town.leave_out(1, checkpoint=manifest.checkpoint)
        if usable:
            before = town.stats.replayed
            await town.warmed()
            assert town.stats.replayed - before == 6 - manifest.next_offset
            town.leave_out(0)
            await town.obey()
        else:
            assert "from before the first event" in await failure(town)


# -- the gate -------------------------------------------------------------------------------------


async def test_the_gate_learns_what_is_there_and_what_follows_has_to_be_read(
    make: Callable[..., Rig],
) -> None:
    rig = make(sets=(ONE, TWO))
    town, (older, _) = await dropped(rig)
    plan = town.stream.version("a", V2).plan

    async def look(checkpoint: str, *partitions: int) -> Any:
        return await find_named(rig.snapshots, checkpoint, plan, plan.bundles, partitions)

    found = await look(older.checkpoint, 0)
    assert (found.missing, found.unusable) == ([], [])
    needed = Replay(topic="clicks", partition=0, needs_offset=0, log_start=1)
    assert found.replayed(needed).needs_offset == 2
    assert found.replayed(replace(needed, partition=1)).needs_offset == 0
    (why,) = (await look(older.checkpoint, 0, 1)).missing
    assert why == "it has no whole state of what a@1.1.0 needs of clicks[1]"
    (why,) = (await look(UNKNOWN, 0)).missing
    assert "clicks[0]" in why
    for file in rig.files(older):
        file.unlink()
    (why,) = (await look(older.checkpoint, 0)).missing
    assert f"checkpoint {older.checkpoint} of clicks/0/" in why


async def test_an_archive_that_is_away_is_a_reason(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make(sets=(ONE, TWO))
    town, (older, _) = await dropped(rig)
    plan = town.stream.version("a", V2).plan

    def away(*_: Any) -> None:
        raise UnreachableError("the archive can't be reached")

    monkeypatch.setattr(type(rig.archive), "list", away)
    found = await find_named(rig.snapshots, older.checkpoint, plan, plan.bundles, [0])
    assert found.missing == ["it can't be looked at (the archive can't be reached)"]


@pytest.mark.parametrize(
    ("what", "unusable"),
    [
        (exclusion(3, None, (0, 3, 4)), [False, True]),
        (exclusion(3, None, (1, 0, 9)), [False, False]),
        (exclusion(3, "at = 8"), [False, False]),
    ],
)
async def test_only_ranges_tell_the_gate_that_it_comes_after_the_first_bad_event(
    make: Callable[..., Rig], what: Any, unusable: list[bool]
) -> None:
    rig = make(sets=(ONE, TWO))
    _, manifests = await dropped(rig)
    plan = plans_of((ONE, TWO), (what,))[-1]
    found = [
        await find_named(rig.snapshots, one.checkpoint, plan, plan.bundles, [0])
        for one in manifests
    ]
    assert [bool(one.unusable) for one in found] == unusable
    assert [one.missing for one in found] == [[], []]
