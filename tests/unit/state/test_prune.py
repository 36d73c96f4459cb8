"""Pruning: what goes, what stays, and that nothing goes that somebody counts on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from streams.errors import RefusedError, RewindowError
from streams.state.manifest import Manifest
from streams.state.prune import PRUNE_STEPS, prune, sizes, sizes_of_versions
from streams.state.restore import newest_whole
from streams.state.store import Meta
from tests.checkpoint_world import BUNDLE, DAY_MS, World, flip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.bundle.close()


def whole(world: World) -> list[int]:
    """Offsets of all checkpoints, each read from end to end."""
    found = world.checkpoints.all()
    for one in found:
        assert world.checkpoints.verify(one) == []
    return [one.next_offset for one in found if isinstance(one, Manifest)]


def test_the_newest_and_the_kept_ones_stay(world: World) -> None:
    made = [world.taken(offset) for offset in range(6)]
    world.checkpoints.keep(made[1].checkpoint, "r-1", "why")
    result = prune(world.checkpoints, keep=2)
    assert result.removed == tuple((BUNDLE, made[n].checkpoint) for n in (0, 2, 3))
    assert whole(world) == [1, 4, 5]
    world.checkpoints.release(made[1].checkpoint)
    assert prune(world.checkpoints, keep=2).removed == ((BUNDLE, made[1].checkpoint),)
    assert prune(world.checkpoints, keep=2).removed == ()
    with pytest.raises(ValueError, match="at least one"):
        prune(world.checkpoints, keep=0)


def test_files_of_removed_checkpoints_go_when_no_upload_can_count_on_them(world: World) -> None:
    made = [world.taken(offset) for offset in range(4)]
    assert prune(world.checkpoints, keep=1).orphans == 0
    world.clock.ms += DAY_MS + 10_000
    before = {stored.key: stored.size_bytes for stored in world.archive.list(BUNDLE.app)}
    result = prune(world.checkpoints, keep=1)
    assert set(world.keys("objects")) == {file.key for file in made[-1].files}
    gone = before.keys() - {stored.key for stored in world.archive.list(BUNDLE.app)}
    assert result.orphans == len(gone) > 0
    assert result.freed_bytes == sum(before[key] for key in gone)
    assert whole(world) == [3]


def test_a_prune_beside_an_upload_takes_nothing_from_it(world: World) -> None:
    """At each of its steps, as strict as can be, also by a clock half a day ahead."""
    for offset in range(3):
        world.taken(offset)

    def beside(_: str) -> None:
        world.checkpoints.step = lambda _: None
        world.clock.ms += DAY_MS // 2
        prune(world.checkpoints, keep=1)
        world.clock.ms -= DAY_MS // 2
        world.checkpoints.step = beside

    world.checkpoints.step = beside
    world.clock.ms += 2 * DAY_MS
    world.taken(3)
    world.taken(4)
    world.checkpoints.step = lambda _: None
    assert whole(world)[-1] == 4
    world.clock.ms += 2 * DAY_MS
    prune(world.checkpoints, keep=1)
    assert whole(world) == [4]


@pytest.mark.parametrize("step", PRUNE_STEPS)
def test_an_upload_beside_a_prune_loses_nothing(world: World, step: str) -> None:
    for offset in range(3):
        world.taken(offset)
    world.clock.ms += 2 * DAY_MS
    seen: list[int] = []

    def beside(reached: str) -> None:
        if reached == step:
            world.checkpoints.step = lambda _: None
            seen.append(world.taken(10 + len(seen)).next_offset)
            world.checkpoints.step = beside

    world.checkpoints.step = beside
    prune(world.checkpoints, keep=1)
    world.checkpoints.step = lambda _: None
    assert seen
    assert set(seen) <= set(whole(world))


@pytest.mark.parametrize("step", PRUNE_STEPS)
def test_ended_at_any_step_the_next_prune_ends_it(world: World, step: str) -> None:
    for offset in range(3):
        world.taken(offset)
    world.clock.ms += 2 * DAY_MS

    def fail(reached: str) -> None:
        if reached == step:
            raise RewindowError("ended")

    world.checkpoints.step = fail
    with pytest.raises(RewindowError, match="ended"):
        prune(world.checkpoints, keep=1)
    world.checkpoints.step = lambda _: None
    assert newest_whole(world.checkpoints, BUNDLE).damages == ()
    assert whole(world)[-1] == 2
    world.clock.ms += DAY_MS
    prune(world.checkpoints, keep=1)
    newest = newest_whole(world.checkpoints, BUNDLE).manifest
    assert newest is not None
    assert set(world.keys("objects")) == {file.key for file in newest.files}
    assert world.keys("condemned") == []


def test_who_keeps_one_that_is_just_being_removed_is_refused(world: World) -> None:
    first = world.taken(1)
    world.taken(2)
    told: list[str] = []

    def beside(reached: str) -> None:
        if reached == "manifest":
            world.checkpoints.step = lambda _: None
            with pytest.raises(RefusedError, match="being removed") as caught:
                world.checkpoints.keep(first.checkpoint, "r-1", "why")
            told.append(str(caught.value))

    world.checkpoints.step = beside
    assert prune(world.checkpoints, keep=1).removed == ((BUNDLE, first.checkpoint),)
    assert told
    assert world.keys("pins") == []


def test_who_keeps_one_before_it_is_condemned_keeps_it(world: World) -> None:
    first = world.taken(1)
    world.taken(2)

    def beside(reached: str) -> None:
        assert reached == "condemn"
        world.checkpoints.step = lambda _: None
        world.checkpoints.keep(first.checkpoint, "r-1", "why")

    world.checkpoints.step = beside
    assert prune(world.checkpoints, keep=1).removed == ()
    assert whole(world) == [1, 2]
    assert world.keys("condemned") == []


def test_a_refused_keep_takes_no_pin_that_was_there(world: World) -> None:
    made = world.taken(1)
    world.checkpoints.keep(made.checkpoint, "r-1", "why")
    condemned = f"{BUNDLE.condemned(made.checkpoint)}/{world.checkpoints.new_id()}.json"
    world.archive.put(condemned, b"{}")
    for pin in ("r-1", "r-2"):
        with pytest.raises(RefusedError):
            world.checkpoints.keep(made.checkpoint, pin, "why")
    assert world.keys("pins") == [BUNDLE.pin(made.checkpoint, "r-1")]
    world.clock.ms += DAY_MS
    world.checkpoints.keep(made.checkpoint, "r-2", "why")
    prune(world.checkpoints, keep=1)
    assert world.keys("condemned") == []


def test_damaged_ones_displace_no_whole_one(world: World) -> None:
    made = [world.taken(offset) for offset in range(4)]
    shared = {file.key for file in made[1].files}
    own = next(file for file in made[3].files if file.key not in shared and file.immutable)
    world.file(own.key).unlink()
    world.archive.put(BUNDLE.manifest(made[2].checkpoint), b"cut")
    world.clock.ms += 2 * DAY_MS
    result = prune(world.checkpoints, keep=1)
    assert result.removed == ((BUNDLE, made[0].checkpoint),)
    assert (result.held, result.orphans) == ((BUNDLE,), 0)
    found = newest_whole(world.checkpoints, BUNDLE)
    assert found.manifest == made[1]
    world.taken(9)
    result = prune(world.checkpoints, keep=1)
    assert len(result.removed) == 3
    assert whole(world) == [9]


def test_what_a_later_version_wrote_stays_with_all_files(world: World) -> None:
    made = [world.taken(offset) for offset in range(3)]
    document = {**json.loads(made[0].to_bytes()), "format": 2}
    world.archive.put(BUNDLE.manifest(made[0].checkpoint), json.dumps(document).encode())
    stored = world.keys("objects")
    world.clock.ms += 2 * DAY_MS
    result = prune(world.checkpoints, keep=1)
    assert result.removed == ((BUNDLE, made[1].checkpoint),)
    assert result.held == (BUNDLE,)
    assert world.keys("objects") == stored


def test_bundles_that_no_version_needs_go_but_for_what_is_kept(
    world: World, tmp_path: Path
) -> None:
    other = World(tmp_path / "other", world.archive, replace(BUNDLE, bundle="cd34"))
    for one in (world, other):
        one.taken(1)
        one.taken(2)
    (first, _), (_, kept) = world.checkpoints.all(BUNDLE), other.checkpoints.all(other.of)
    world.checkpoints.keep(kept.checkpoint, "r-1", "why")
    world.clock.ms += 2 * DAY_MS
    prune(world.checkpoints, keep=2, unused=["cd34"])
    assert [one.checkpoint for one in world.checkpoints.all(other.of)] == [kept.checkpoint]
    assert first in world.checkpoints.all(BUNDLE)
    world.checkpoints.release(kept.checkpoint)
    prune(world.checkpoints, keep=2, unused=["cd34"], only=other.of)
    assert world.archive.list(other.of.objects()) == []
    assert len(whole(world)) == 2
    other.bundle.close()


def test_pins_of_what_never_came_to_be_go(world: World) -> None:
    def fail(reached: str) -> None:
        if reached == "manifest":
            raise RewindowError("ended")

    world.flush({(0, "a"): 1}, Meta(next_offset=1))
    world.checkpoints.step = fail
    with pytest.raises(RewindowError):
        world.take(pin="r-1")
    world.checkpoints.step = lambda _: None
    prune(world.checkpoints, keep=1)
    assert len(world.keys("pins")) == 1
    world.clock.ms += 2 * DAY_MS
    prune(world.checkpoints, keep=1)
    assert world.archive.list(BUNDLE.app) == []


def test_sizes_tell_what_each_bundle_and_version_takes(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other", world.archive, replace(BUNDLE, bundle="cd34"))
    newest = [one.taken(offset) for one in (world, other) for offset in (1, 2)][1::2]
    found = sizes(world.checkpoints)
    for made in newest:
        size = found[made.of]
        stored = world.archive.list(made.of.objects())
        assert size.newest_bytes == made.size_bytes
        assert size.stored_bytes == sum(one.size_bytes for one in stored)
        assert (size.checkpoints, size.orphan_bytes) == (2, 0)
    one, two = (found[made.of].stored_bytes for made in newest)
    by_version = sizes_of_versions(
        found, {"1.0.0": ["ab12"], "1.1.0": ["ab12", "cd34"], "2.0.0": []}
    )
    assert by_version == {"1.0.0": (one, 0), "1.1.0": (one + two, two), "2.0.0": (0, 0)}
    prune(world.checkpoints, keep=1)
    assert sizes(world.checkpoints)[BUNDLE].orphan_bytes > 0
    other.bundle.close()


def test_a_damaged_newest_is_no_ground_to_build_on(world: World) -> None:
    first, second = world.taken(1), world.taken(2)
    own = {file.key: file for file in second.files}.keys() - {file.key for file in first.files}
    for key in own:
        flip(world.file(key))
    world.clock.ms += 2 * DAY_MS
    world.taken(3)
    prune(world.checkpoints, keep=1)
    world.clock.ms += 2 * DAY_MS
    prune(world.checkpoints, keep=1)
    assert whole(world) == [3]
