"""Taking, finding and keeping checkpoints; and what is found of every kind of damage."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from streams.errors import InvalidInputError, RefusedError, RewindowError, UnreachableError
from streams.state.archive import open_archive
from streams.state.checkpoint import TAKE_STEPS, Facts, discard
from streams.state.manifest import Manifest, Unreadable
from streams.state.prune import prune
from streams.state.restore import newest_whole, restore, restore_newest
from streams.state.store import Meta
from tests.checkpoint_world import BUNDLE, DAY_MS, S3_OPTIONS, World, flip, opened, rows_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

META = Meta(next_offset=9, watermark_ms=5, source_watermarks={1: 4}, floor_ms=-9)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.bundle.close()


@pytest.fixture(params=["directory", "s3"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    archive = None
    if request.param == "s3":
        options = {**S3_OPTIONS, "endpoint": request.getfixturevalue("s3")}
        archive = open_archive(f"s3://bucket/{secrets.token_hex(4)}", options)
    made = World(tmp_path, archive)
    yield made
    made.bundle.close()


def test_it_says_what_is_in_it(world: World) -> None:
    world.flush({(0, "a"): 1}, META)
    made = world.take(pin="r-1")
    assert world.checkpoints.all() == [made]
    assert world.checkpoints.show(made.checkpoint) == [made]
    assert world.checkpoints.show("20260101T000000000Z-00000000") == []
    assert made.of == BUNDLE
    assert (made.next_offset, made.watermark_ms, made.floor_ms) == (9, 5, -9)
    assert (made.source_watermarks, made.created_ms) == ({1: 4}, world.clock.ms)
    assert {"CURRENT", "rocksdict-config.json"} < {file.name for file in made.files}
    assert [pin.name for pins in world.checkpoints.pins().values() for pin in pins] == ["r-1"]
    assert [*world.staging.iterdir()] == []


def test_a_whole_one_is_whole_wherever_it_is_kept(either: World, tmp_path: Path) -> None:
    either.flush({(0, "a"): 1}, META)
    made = either.take()
    assert either.checkpoints.verify(made) == []
    found = restore_newest(either.checkpoints, BUNDLE, tmp_path / "new")
    assert (found.manifest, found.damages) == (made, ())
    assert rows_at(tmp_path / "new") == (META, {(0, "a"): 1})


def test_a_second_one_stores_only_what_is_new(either: World) -> None:
    first = either.taken(1)
    stored = set(either.keys("objects"))
    second = either.taken(2)
    old, new = ({file.sha256: file for file in made.files} for made in (first, second))
    assert any(file.immutable for sha256, file in new.items() if sha256 in old)
    for sha256, file in new.items():
        assert (file.key in stored) == (sha256 in old)
    assert {file.key for file in new.values()} - stored == set(either.keys("objects")) - stored
    assert either.checkpoints.verify(second) == []


def test_files_that_the_last_one_had_are_not_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr("streams.state.checkpoint._digest_of", noted)
    first = world.taken(1)
    assert sorted(read) == sorted(file.name for file in first.files)
    read.clear()
    second = world.taken(2)
    old = {file.name for file in first.files if file.immutable}
    assert {name for name in read if name.endswith(".sst")} == {
        file.name for file in second.files if file.immutable
    } - old
    assert world.checkpoints.verify(second) == []


def test_a_manifest_is_read_again_only_where_it_was_written_to(
    either: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = either.taken(1), either.taken(2)
    assert either.checkpoints.all() == [first, second]
    read: list[str] = []
    get = type(either.archive).get

    def noted(archive: Any, key: str) -> bytes | None:
        read.append(key)
        return get(archive, key)

    monkeypatch.setattr(type(either.archive), "get", noted)
    assert either.checkpoints.all() == [first, second]
    assert read == []
    harmed = either.of.manifest(first.checkpoint)
    either.archive.put(harmed, first.to_bytes()[:-1])
    unreadable, whole = either.checkpoints.all()
    assert isinstance(unreadable, Unreadable)
    assert (whole, read) == (second, [harmed])
    either.archive.delete([harmed])
    assert either.checkpoints.all() == [second]
    assert read == [harmed]


def test_the_same_state_again_stores_a_manifest_only(world: World) -> None:
    world.taken(1)
    stored = world.keys("objects")
    world.take()
    assert world.keys("objects") == stored
    assert len(world.keys("manifests")) == 2


def test_what_an_upload_that_never_ended_left_lately_is_used(world: World) -> None:
    world.flush({(0, "a"): 1}, META)
    world.checkpoints.step = fails_at("manifest")
    with pytest.raises(RewindowError, match="at manifest"):
        world.take()
    world.checkpoints.step = lambda _: None
    stored = world.keys("objects")
    world.clock.ms += DAY_MS // 5
    made = world.take()
    assert world.keys("objects") == stored
    assert world.checkpoints.verify(made) == []
    assert newest_whole(world.checkpoints, BUNDLE).manifest == made


def test_older_leftovers_are_not_relied_on(world: World) -> None:
    world.flush({(0, "a"): 1}, META)
    world.checkpoints.step = fails_at("manifest")
    with pytest.raises(RewindowError):
        world.take()
    world.checkpoints.step = lambda _: None
    stored = set(world.keys("objects"))
    world.clock.ms += DAY_MS // 3
    assert not {file.key for file in world.take().files} & stored


def test_damaged_files_are_not_inherited(world: World) -> None:
    first = world.taken(1)
    for file in first.files:
        if file.immutable:
            flip(world.file(file.key))
    second = world.taken(2)
    assert world.checkpoints.verify(second) == []
    found = newest_whole(world.checkpoints, BUNDLE, at_or_below=1)
    assert found.manifest is None
    assert {one.checkpoint for one in found.damages} == {first.checkpoint}


@pytest.mark.parametrize("step", TAKE_STEPS)
def test_ended_at_any_step_there_is_a_whole_one_or_none(world: World, step: str) -> None:
    first = world.taken(1)
    world.checkpoints.step = fails_at(step)
    world.flush({(0, "b"): 2}, Meta(next_offset=2))
    with pytest.raises(RewindowError, match=f"at {step}"):
        world.take(pin="r-1")
    found = newest_whole(world.checkpoints, BUNDLE)
    assert found.damages == ()
    assert found.manifest is not None
    assert found.manifest.next_offset == (2 if step == "tidy" else 1)
    assert world.checkpoints.verify(first) == []
    assert [*world.staging.iterdir()] == []


def test_one_that_takes_too_long_is_given_up(world: World) -> None:
    def slow(step: str) -> None:
        world.clock.ms += DAY_MS if step == "object" else 0

    world.checkpoints.step = slow
    world.flush({(0, "a"): 1}, META)
    with pytest.raises(RewindowError, match="took longer"):
        world.take()
    assert world.checkpoints.all() == []


def test_ids_are_checked_before_anything_is_stored(world: World) -> None:
    world.flush({(0, "a"): 1}, META)
    with pytest.raises(InvalidInputError, match="no checkpoint id"):
        world.take(checkpoint="latest")
    assert world.keys("objects") == []


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])


DAMAGES = {"missing": lose, "bytes instead of": cut, "its bytes were changed": flip}


@pytest.mark.parametrize("told", DAMAGES)
@pytest.mark.parametrize("name", [".sst", "MANIFEST", "CURRENT", "OPTIONS", "rocksdict-config"])
def test_damage_is_named_and_the_one_before_is_used(
    world: World, tmp_path: Path, told: str, name: str
) -> None:
    first = world.taken(1)
    world.bundle.close()
    world.bundle = opened(tmp_path / "state")
    world.flush({(0, "e1"): 5}, Meta(next_offset=2))
    second = world.take()
    shared = {file.key for file in first.files}
    fitting = [file for file in second.files if name in file.name]
    file = min(fitting, key=lambda file: file.key in shared)
    DAMAGES[told](world.file(file.key))
    damages = world.checkpoints.verify(second)
    assert [(one.subject, told in one.problem) for one in damages] == [(file.name, True)]
    assert file.key in damages[0].problem
    assert restore(world.checkpoints, second, tmp_path / "new") == damages
    assert not (tmp_path / "new").exists()
    # What the two share is damaged in both.
    before = world.checkpoints.verify(first)
    assert bool(before) == (file.key in shared)
    for found in (
        newest_whole(world.checkpoints, BUNDLE),
        restore_newest(world.checkpoints, BUNDLE, tmp_path / "new"),
    ):
        assert found.manifest == (None if before else first)
        assert found.damages == (*damages, *before)
    if before:
        assert not (tmp_path / "new").exists()
    else:
        assert rows_at(tmp_path / "new") == (Meta(next_offset=1), {(0, "e1"): 1})


@pytest.mark.parametrize("harm", ["cut", "garbage", "changed"])
def test_a_damaged_manifest_is_named_and_the_one_before_is_used(world: World, harm: str) -> None:
    first, second = world.taken(1), world.taken(2)
    data = second.to_bytes()
    harmed = {
        "cut": data[:-20],
        "garbage": b"\x00" * 10,
        "changed": data.replace(b'"next_offset":2', b'"next_offset":1'),
    }[harm]
    world.archive.put(BUNDLE.manifest(second.checkpoint), harmed)
    (unreadable,) = world.checkpoints.show(second.checkpoint)
    assert isinstance(unreadable, Unreadable)
    (damage,) = world.checkpoints.verify(unreadable)
    assert (damage.subject, damage.checkpoint) == ("manifest", second.checkpoint)
    found = newest_whole(world.checkpoints, BUNDLE)
    assert (found.manifest, found.damages) == (first, (damage,))


def test_a_file_written_to_but_with_the_same_bytes_is_whole(world: World) -> None:
    made = world.taken(1)
    for file in made.files:
        path = world.file(file.key)
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    assert newest_whole(world.checkpoints, BUNDLE).manifest == made


def test_the_one_to_use_lies_at_or_below_an_offset(world: World) -> None:
    made = {offset: world.taken(offset) for offset in (1, 5, 9)}
    for below, expected in ((0, None), (1, 1), (4, 1), (5, 5), (8, 5), (9, 9), (100, 9), (None, 9)):
        found = newest_whole(world.checkpoints, BUNDLE, at_or_below=below)
        assert found.manifest == (None if expected is None else made[expected])
        assert found.damages == ()
    only = made[5].checkpoint
    assert newest_whole(world.checkpoints, BUNDLE, only=only).manifest == made[5]
    assert newest_whole(world.checkpoints, BUNDLE, only=only, at_or_below=4).manifest is None
    elsewhere = replace(BUNDLE, partition=0)
    assert newest_whole(world.checkpoints, elsewhere).manifest is None


def test_one_id_may_name_the_checkpoints_of_several_bundles(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other", world.archive, replace(BUNDLE, partition=1))
    first = world.taken(1)
    other.flush({(0, "a"): 1}, META)
    second = other.take(checkpoint=first.checkpoint)
    other.bundle.close()
    assert world.checkpoints.show(first.checkpoint) == [second, first]
    assert world.checkpoints.keep(first.checkpoint, "r-1", "why") == [second.of, first.of]
    assert world.checkpoints.release(first.checkpoint, "r-2") == 0
    assert world.checkpoints.release(first.checkpoint, "r-1") == 2
    assert world.checkpoints.pins() == {}


def test_each_pin_keeps_until_it_is_released(world: World) -> None:
    made = world.taken(1)
    for name in ("r-1", "r-2", "r-2"):
        world.checkpoints.keep(made.checkpoint, name, f"for {name}")
    pins = world.checkpoints.pins()[BUNDLE, made.checkpoint]
    assert [(pin.name, pin.reason) for pin in pins] == [("r-1", "for r-1"), ("r-2", "for r-2")]
    world.checkpoints.release(made.checkpoint, "r-1")
    assert [pin.name for pin in world.checkpoints.pins(BUNDLE)[BUNDLE, made.checkpoint]] == ["r-2"]
    assert world.checkpoints.release(made.checkpoint) == 1
    with pytest.raises(RefusedError, match="no checkpoint 20260101T000000000Z-00000000"):
        world.checkpoints.keep("20260101T000000000Z-00000000", "r-1", "why")
    assert world.keys("pins") == []


def test_a_pin_that_cant_be_read_keeps_all_the_same(world: World) -> None:
    made = world.taken(1)
    world.archive.put(BUNDLE.pin(made.checkpoint, "r-1"), b"\xff")
    world.taken(2)
    assert prune(world.checkpoints, keep=1).removed == ()


def test_two_partitions_may_store_the_same_bytes_at_once(either: World, tmp_path: Path) -> None:
    """The steps of both alternate; each has its own objects and manifest."""
    twin = World(tmp_path / "twin", either.archive, replace(BUNDLE, partition=4))
    worlds = (either, twin)
    turns = threading.Barrier(2, timeout=60)
    for world in worlds:
        world.flush({(0, "a"): 1}, META)
        for name in ("a.sst", "b.sst"):
            (world.base / name).write_bytes(b"same" * 1000)

    def alternate(step: str) -> None:
        if step in ("look", "manifest"):
            turns.wait()

    def take(world: World) -> None:
        aside = world.checkpoints.set_aside(world.bundle, world.of, world.staging)
        for name in ("a.sst", "b.sst"):
            (world.base / name).rename(aside.path / name)
        made.append(world.checkpoints.upload(aside, Facts(reason="a test")))

    made: list[Manifest] = []
    for world in worlds:
        world.checkpoints.step = alternate
    threads = [threading.Thread(target=take, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    twin.bundle.close()
    assert len(made) == 2
    for one in made:
        assert either.checkpoints.verify(one) == []
        same = [file for file in one.files if file.name in ("a.sst", "b.sst")]
        assert len({file.key for file in same}) == 1


async def test_the_event_loop_goes_on_during_an_upload(world: World) -> None:
    """The upload waits for something that only the loop can do."""
    going = asyncio.get_running_loop()
    served = threading.Event()

    def wait(_: str) -> None:
        going.call_soon_threadsafe(served.set)
        assert served.wait(60)
        served.clear()

    world.checkpoints.step = wait
    world.flush({(0, "a"): 1}, META)
    aside = world.checkpoints.set_aside(world.bundle, BUNDLE, world.staging)
    told: list[tuple[int, int]] = []
    made = await world.checkpoints.upload_in_background(
        aside, Facts(reason="a test"), lambda done, total: told.append((done, total))
    )
    stored = sum({file.sha256: file.size_bytes for file in made.files}.values())
    assert (told[0], told[-1]) == ((0, stored), (stored, stored))
    assert told == sorted(told)


async def test_a_cancelled_upload_ends_and_leaves_nothing(world: World) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(step: str) -> None:
        if step == "object":
            reached.set()
            assert go_on.wait(60)

    world.checkpoints.step = wait
    world.flush({(0, "a"): 1}, META)
    aside = world.checkpoints.set_aside(world.bundle, BUNDLE, world.staging)
    work = asyncio.ensure_future(
        world.checkpoints.upload_in_background(aside, Facts(reason="a test"))
    )
    await asyncio.to_thread(reached.wait, 60)
    work.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert world.checkpoints.all() == []
    assert not aside.path.exists()


def test_flushes_beside_an_upload_are_not_in_it(world: World, tmp_path: Path) -> None:
    world.flush({(0, "a"): 1}, META)
    aside = world.checkpoints.set_aside(world.bundle, BUNDLE, world.staging)
    world.flush({(0, "a"): 2, (60, "b"): 3}, Meta(next_offset=20))
    world.bundle.drop_below(60)
    made = world.checkpoints.upload(aside, Facts(reason="a test"))
    assert restore(world.checkpoints, made, tmp_path / "new") == []
    assert rows_at(tmp_path / "new") == (META, {(0, "a"): 1})


def test_nothing_flushed_is_nothing_to_take(world: World) -> None:
    with pytest.raises(ValueError, match="nothing was flushed"):
        world.take()


def test_an_archive_out_of_reach_fails_and_the_state_goes_on(world: World) -> None:
    options = {**S3_OPTIONS, "endpoint": "http://127.0.0.1:9"}
    world.checkpoints.archive = open_archive("s3://bucket", options, retry_for_s=0)
    world.flush({(0, "a"): 1}, META)
    with pytest.raises(UnreachableError):
        world.take()
    assert [*world.staging.iterdir()] == []
    world.flush({(0, "a"): 2}, Meta(next_offset=10))
    discard(world.staging)
    assert not world.staging.exists()


def test_foreign_objects_are_left_alone(world: World) -> None:
    made = world.taken(1)
    for key in ("manifests/x", "objects/x/y/z/a/b", f"manifests/{BUNDLE}/readme.txt/more"):
        world.archive.put(f"{BUNDLE.app}/{key}", b"mine")
    assert world.checkpoints.all() == [made]
    prune(world.checkpoints, keep=1)
    assert world.archive.get(f"{BUNDLE.app}/objects/x/y/z/a/b") == b"mine"


def test_a_manifest_is_json_that_people_can_read(world: World) -> None:
    document = json.loads(world.taken(7).to_bytes())
    assert (document["format"], document["next_offset"]) == (1, 7)
    assert document["partition"] == BUNDLE.partition


def fails_at(step: str) -> Callable[[str], None]:
    def fail(reached: str) -> None:
        if reached == step:
            raise RewindowError(f"at {step}")

    return fail
