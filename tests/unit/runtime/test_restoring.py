"""Claims and versions that begin with a checkpoint, and checkpoints that can't be trusted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.definitions.model import Function
from streams.errors import RefusedError, UnreachableError
from streams.runtime import replay, restoring, verdicts, warming
from streams.runtime.restoring import fetch
from streams.state.bundle import Bundle
from streams.state.manifest import BundleId
from streams.state.rows import RowLayout
from tests.checkpoint_world import flip
from tests.small import feature, feature_set
from tests.unit.datapath.rig import planned
from tests.unit.runtime.checkpoint_rig import PARTITION, Rig
from tests.unit.runtime.town import ReadsWorld, Town
from tests.unit.runtime.world import A, World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.datapath.rig import Click

EVENTS: list[Click] = [("ann", 1, 1), ("bob", 2, 1), ("ann", 5, 1), ("eve", 8, 1)]
REST: list[Click] = [("ann", 12, 1), ("bob", 22, 1)]
WHOLE = [
    *(("a", 10, "ann", 2), ("a", 10, "bob", 1), ("a", 10, "eve", 1)),
    *(("a", 20, "ann", 1), ("a", 20, "bob", 0), ("a", 20, "eve", 0)),
]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rig]:
    def made(town: bool = False, **given: Any) -> Rig:
        world = (Town if town else World)(tmp_path / "state", timestamps={0: 1}, **given)
        if not town:
            world.stats = SimpleNamespace(replayed=0, restored=0)
        monkeypatch.setattr(replay, "read_log", world.read_log)
        monkeypatch.setattr(verdicts, "read_log", world.read_log)
        monkeypatch.setattr(warming, "BatchReader", ReadsWorld(world))
        return Rig(world, tmp_path)

    return made


async def with_three(rig: Rig) -> Rig:
    """Checkpoints after the first, second and third of four events; the disk is lost."""
    world = await rig.world.claim()
    for event in EVENTS[:3]:
        await world.take(event)
        await rig.take()
    await world.take(EVENTS[3])
    await rig.lose_the_disk()
    return rig


async def finished(rig: Rig) -> list[tuple[str, int, str, int]]:
    """All vectors, after the rest of the stream."""
    await rig.world.take(*REST)
    return rig.world.vectors


async def test_an_empty_disk_begins_with_the_newest_and_replays_the_rest(
    make: Callable[..., Rig],
) -> None:
    rig = await with_three(make())
    await rig.world.claim()
    assert (rig.world.stats.restored, rig.world.stats.replayed) == (1, 1)
    assert await finished(rig) == WHOLE


async def test_state_that_is_there_is_used_as_it_is(make: Callable[..., Rig]) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(*EVENTS)
    await rig.take()
    await world.claim()
    assert world.stats.restored == 0


@pytest.mark.parametrize("harm", ["flipped", "missing", "truncated manifest"])
async def test_a_damaged_one_is_named_and_the_one_before_is_used(
    make: Callable[..., Rig], caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    rig = await with_three(make())
    newest = rig.manifests()[-1]
    older = {file for one in rig.manifests()[:-1] for file in rig.files(one)}
    only_newest = next(file for file in rig.files(newest) if file not in older)
    if harm == "flipped":
        flip(only_newest)
    elif harm == "missing":
        only_newest.unlink()
    else:
        manifest = rig.base / "archive" / newest.of.manifest(newest.checkpoint)
        manifest.write_bytes(manifest.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        await rig.world.claim()
    assert newest.checkpoint in caplog.text
    assert (rig.world.stats.restored, rig.world.stats.replayed) == (1, 2)
    assert await finished(rig) == WHOLE


async def test_files_that_are_not_what_the_manifest_says_are_not_used(
    make: Callable[..., Rig], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await with_three(make())
    newest = rig.manifests()[-1]
    compare = restoring._other_meta

    def wrong(meta: Any, manifest: Any) -> str:
        return "is wrong" if manifest == newest else compare(meta, manifest)

    monkeypatch.setattr(restoring, "_other_meta", wrong)
    with caplog.at_level(logging.WARNING):
        await rig.world.claim()
    assert newest.checkpoint in caplog.text
    assert rig.world.stats.replayed == 2
    assert await finished(rig) == WHOLE


async def test_without_a_whole_one_the_stream_is_replayed(make: Callable[..., Rig]) -> None:
    rig = await with_three(make())
    for manifest in rig.manifests():
        for file in rig.files(manifest):
            file.unlink(missing_ok=True)
    await rig.world.claim()
    assert (rig.world.stats.restored, rig.world.stats.replayed) == (0, 4)
    assert await finished(rig) == WHOLE


async def test_an_archive_that_is_away_is_done_without(
    make: Callable[..., Rig], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await with_three(make())

    def away(*_: Any) -> None:
        raise UnreachableError("the archive can't be reached")

    monkeypatch.setattr(type(rig.archive), "list", away)
    with caplog.at_level(logging.WARNING):
        await rig.world.claim()
    assert "can't be reached" in caplog.text
    assert rig.world.stats.replayed == 4
    assert await finished(rig) == WHOLE


async def test_nothing_is_restored_beyond_what_is_committed(make: Callable[..., Rig]) -> None:
    rig = await with_three(make())
    rig.world.position = 2
    with pytest.raises(RefusedError, match="has applied offset 3, but the app's group is at 2"):
        await rig.world.claim()


async def test_offsets_that_are_gone_are_refused_where_checkpoints_know_better(
    make: Callable[..., Rig],
) -> None:
    rig = await with_three(make())
    rig.world.committed = False
    with pytest.raises(RefusedError, match="committed offsets were deleted"):
        await rig.world.claim()


# -- a log that was trimmed -----------------------------------------------------------------------


async def test_a_checkpoint_makes_up_for_what_the_topic_no_longer_holds(
    make: Callable[..., Rig],
) -> None:
    rig = await with_three(make())
    rig.world.log_start = 3
    await rig.world.claim()
    assert await finished(rig) == WHOLE


async def test_state_that_is_too_old_for_the_topic_gives_way_to_a_checkpoint(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(EVENTS[0])
    await world.stop()
    await world.claim()
    await world.take(*EVENTS[1:3])
    # What is set aside comes from another disk: here the flush is undone.
    state = world.state_dir / "clicks"
    old = world.state_dir / "old"
    await world.stop(flush=False)
    state.rename(old)
    world.position = 1
    await world.claim()
    await world.read_on(2)
    await rig.take()
    await world.take(EVENTS[3])
    await rig.lose_the_disk()
    old.rename(state)
    world.log_start = 3
    await world.claim()
    assert world.stats.restored == 1
    assert await finished(rig) == WHOLE


async def test_a_topic_that_begins_after_the_newest_checkpoint_is_refused(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    world = await rig.world.claim()
    await world.take(*EVENTS[:2])
    await rig.take()
    await world.take(EVENTS[2], ("ann", 13, 1), ("ann", 14, 1))
    await rig.lose_the_disk()
    world.log_start = 4
    with pytest.raises(RefusedError, match="is lost and the topic now begins at offset 4"):
        await world.claim()


# -- versions -------------------------------------------------------------------------------------

COUNT = feature("n")
SUM = feature("s", Function.SUM, "x")
ONE = feature_set(COUNT, name="a", version="1.0.0")
TWO = feature_set(COUNT, SUM, name="a", version="1.1.0")


async def test_a_version_that_was_dropped_comes_back_from_its_checkpoint(
    make: Callable[..., Rig],
) -> None:
    rig = make(town=True, sets=(ONE, TWO))
    town = cast("Town", rig.world)
    town.decided.decide("1.0.0!", "1.1.0!")
    await town.claim()
    await town.take(*EVENTS)
    await rig.take()
    town.decided.decide("1.0.0!")
    await town.obey()
    assert town.following() == set()
    await town.take(("ann", 9, 5))
    before = town.stats.replayed
    town.decided.decide("1.0.0!", "1.1.0/1")
    await town.obey()
    async with asyncio.timeout(60):
        while not town.warm:
            await asyncio.sleep(0.01)
    await town.obey()
    assert town.stats.restored == 1
    assert town.stats.replayed - before == 1
    town.decided.decide("1.0.0!", "1.1.0!", serving="1.1.0", epoch=1)
    await town.obey()
    await town.take(*REST)
    assert [one for one in town.vectors if one[1] == 10] == [
        ("a", 10, "ann", 7),
        ("a", 10, "bob", 1),
        ("a", 10, "eve", 1),
    ]


async def test_files_become_those_of_another_bundle_with_the_same_accumulators(
    make: Callable[..., Rig],
) -> None:
    rig = await with_three(make())
    newest = rig.manifests()[-1]
    bundle = planned(A).bundles[0]
    other = BundleId(app="app", stream="clicks", partition=0, bundle="ab" * 8)
    found = await fetch(
        rig.snapshots,
        rig.snapshots.bundle_id(PARTITION, bundle.digest),
        bundle,
        World.resources,
        at_or_below=2,
        becomes=other,
    )
    assert found is not None
    assert found.manifest.next_offset == 2 < newest.next_offset
    store = Bundle.open(
        found.path,
        RowLayout(bundle.columns),
        identity=other.identity,
        resources=World.resources,
    )
    assert store.meta is not None
    assert store.meta.next_offset == 2
    store.close()
