"""Bundles without bad events begin with checkpoints of what they were before, or with the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.datapath.log_index import Entry, LogIndex
from streams.definitions.model import Function
from streams.errors import UnreachableError
from streams.runtime import replay, verdicts, warming
from streams.runtime.formers import reaches
from streams.runtime.replay import Replay
from streams.runtime.reviving import Need, Start
from streams.state.manifest import BundleId, Manifest
from streams.state.restore import RESTORE_STEPS
from tests.checkpoint_world import flip
from tests.small import feature, feature_set
from tests.unit.runtime.checkpoint_rig import Rig
from tests.unit.runtime.cleaning import Cleaned, exclusion
from tests.unit.runtime.town import CrashError, ReadsWorld
from tests.unit.runtime.world import marker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.datapath.rig import Click

SET = feature_set(
    feature("n"),
    feature("big", Function.COUNT, where="x > 2"),
    feature("small", Function.COUNT, where="x < 2"),
    feature("odd", Function.COUNT, where="x = 1 OR x = 3"),
    feature("s", Function.SUM, "x"),
    name="a",
    retention_ms=1_000,
)
"""Counts that must not be taken for one another."""
EVENTS: list[Click] = [
    *(("ann", 1, 1), ("bob", 2, 3), ("ann", 5, 2), ("eve", 8, 1)),
    *(("bob", 12, 99), ("eve", 14, 3), ("ann", 23, 1), ("bob", 27, 2)),
]
BAD = exclusion(3, "x > 50")
RANGE = exclusion(3, None, (0, 4, 5), (1, 0, 9))
TAKEN = (2, 3, 6)
"""After so many events there are checkpoints."""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rig]:
    def made(name: str = "one", **given: Any) -> Rig:
        given = {"sets": (SET,), "timestamps": {0: 1}, **given}
        world = Cleaned(tmp_path / name / "state", **given)
        monkeypatch.setattr(replay, "read_log", world.read_log)
        monkeypatch.setattr(verdicts, "read_log", world.read_log)
        monkeypatch.setattr(warming, "BatchReader", ReadsWorld(world))
        return Rig(world, tmp_path / name)

    return made


def town_of(rig: Rig) -> Cleaned:
    return cast("Cleaned", rig.world)


async def counted(rig: Rig, *, events: Any = EVENTS, taken: tuple[int, ...] = TAKEN) -> Cleaned:
    """All events are in what serves, and there are checkpoints."""
    town = town_of(rig)
    town.decided.decide("1.0.0!/1")
    await town.claim()
    for at, event in enumerate(events, 1):
        await town.take(event)
        if at in taken:
            await rig.take()
    return town


async def without(rig: Rig, count: int = 1) -> tuple[int, int]:
    """How many bundles were restored and events replayed until what is prepared is here."""
    town = town_of(rig)
    before = town.stats.restored, town.stats.replayed
    town.leave_out(count)
    await town.warmed()
    return town.stats.restored - before[0], town.stats.replayed - before[1]


async def plain(make: Callable[..., Rig], count: int = 1, **given: Any) -> list[tuple[Any, ...]]:
    """The rows that a replay of the whole log gives."""
    rig = make("plain", **given)
    town = await counted(rig, taken=())
    rig.world.snapshots = None
    await without(rig, count)
    found = town.rows(count)
    await town.stop()
    return found


@pytest.mark.parametrize("what", [BAD, RANGE])
async def test_it_begins_below_the_first_event_that_is_left_out(
    make: Callable[..., Rig], what: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = await plain(make, exclusions=(what,))
    rig = make(exclusions=(what,))
    town = await counted(rig)
    with caplog.at_level(logging.INFO):
        assert await without(rig) == (1, 5)
    assert "at offset 3, which was clicks/0/" in caplog.text
    assert town.rows(1) == wanted
    assert town.rows(0) != wanted


async def test_one_whose_events_lie_elsewhere_begins_with_the_newest(
    make: Callable[..., Rig],
) -> None:
    rig = make(exclusions=(exclusion(3, None, (1, 0, 9)),))
    town = await counted(rig)
    assert await without(rig) == (1, 2)
    assert town.rows(1) == town.rows(0)


async def test_where_all_checkpoints_come_after_it_the_log_is_replayed(
    make: Callable[..., Rig],
) -> None:
    wanted = await plain(make, exclusions=(BAD,))
    rig = make(exclusions=(BAD,))
    town = await counted(rig, taken=(5, 8))
    assert await without(rig) == (0, 8)
    assert town.rows(1) == wanted


@pytest.mark.parametrize("second", [exclusion(4, "x = 3"), exclusion(4, None, (0, 6, 7))])
async def test_of_several_exclusions_each_counts_where_the_checkpoint_has_its_events(
    make: Callable[..., Rig], second: Any
) -> None:
    wanted = await plain(make, 2, exclusions=(BAD, second))
    rig = make(exclusions=(BAD, second))
    town = await counted(rig, taken=(1, 4))
    await without(rig)
    town.leave_out(1, force=1, epoch=1)
    await town.obey()
    await rig.take()
    town.leave_out(2, force=1, epoch=1)
    before = town.stats.restored
    await town.warmed()
    assert town.stats.restored - before == 1
    assert town.rows(2) == wanted


@pytest.mark.parametrize("harm", ["flipped", "missing", "truncated manifest"])
async def test_a_damaged_one_is_named_and_the_one_before_is_used(
    make: Callable[..., Rig], caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    wanted = await plain(make, exclusions=(RANGE,))
    rig = make(exclusions=(RANGE,))
    town = await counted(rig)
    first, second, _ = rig.manifests()
    only = next(one for one in rig.files(second) if one not in rig.files(first))
    if harm == "flipped":
        flip(only)
    elif harm == "missing":
        only.unlink()
    else:
        path = rig.base / "archive" / second.of.manifest(second.checkpoint)
        path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert await without(rig) == (1, 6)
    assert second.checkpoint in caplog.text
    assert town.rows(1) == wanted


async def test_an_archive_that_is_away_is_done_without(
    make: Callable[..., Rig], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = await plain(make, exclusions=(BAD,))
    rig = make(exclusions=(BAD,))
    town = await counted(rig)

    def away(*_: Any) -> None:
        raise UnreachableError("the archive can't be reached")

    monkeypatch.setattr(type(rig.archive), "list", away)
    with caplog.at_level(logging.WARNING):
        assert await without(rig) == (0, 8)
    assert "can't be reached" in caplog.text
    assert town.rows(1) == wanted


# -- the process ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("step", [*RESTORE_STEPS, "dropped", "in place", "replayed"])
async def test_a_crash_on_the_way_is_taken_up_again(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    wanted = await plain(make, exclusions=(BAD,))
    rig = make(exclusions=(BAD,))
    town = await counted(rig)
    with monkeypatch.context() as patched:
        dies(rig, patched, step)
        with pytest.raises(CrashError):
            await without(rig)
    rig.start()
    await town.claim()
    await town.warmed()
    assert town.rows(1) == wanted


def dies(rig: Rig, patched: pytest.MonkeyPatch, step: str) -> None:
    """The process ends before this step of a restore, or when that much is done."""

    def at(name: str) -> None:
        if name == step:
            raise CrashError

    exchange, bring = Replay.exchange, Replay.bring

    async def in_exchange(it: Replay, bundle: Any, *given: Any) -> None:
        if step == "dropped":
            it.drop([it.states[bundle.digest]])
        at("dropped")
        await exchange(it, bundle, *given)
        at("in place")

    async def in_bring(it: Replay, *given: Any) -> None:
        await bring(it, *given)
        at("replayed")

    rig.snapshots.checkpoints.step = at
    patched.setattr(Replay, "exchange", in_exchange)
    patched.setattr(Replay, "bring", in_bring)


# -- a log that was trimmed -----------------------------------------------------------------------


async def test_ranges_need_no_more_of_the_log_than_what_follows(make: Callable[..., Rig]) -> None:
    wanted = await plain(make, exclusions=(RANGE,))
    rig = make(exclusions=(RANGE,))
    town = await counted(rig)
    town.log_start = 3
    assert await without(rig) == (1, 5)
    assert town.rows(1) == wanted


async def test_what_can_not_be_looked_through_is_not_trusted(make: Callable[..., Rig]) -> None:
    rig = make(exclusions=(BAD,))
    town = await counted(rig)
    town.log_start = 3
    assert (await without(rig))[0] == 0
    assert town.failed() == []


@pytest.mark.parametrize("crash", [False, True])
async def test_what_lies_before_the_part_that_was_looked_through_is_below_the_floor(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, crash: bool
) -> None:
    short = feature_set(feature("n"), name="a", retention_ms=10)
    events: list[Click] = [("ann", 1, 99), ("bob", 2, 99), *EVENTS[2:4], ("eve", 54, 1)]
    rig = make(sets=(short,), exclusions=(BAD,))
    town = await counted(rig, events=events, taken=(4,))
    # A replay would begin there, and hold all that is later.
    town.index = LogIndex((Entry(offset=2, highest_ms=2),))
    if crash:
        with monkeypatch.context() as patched:
            dies(rig, patched, "in place")
            with pytest.raises(CrashError):
                await without(rig)
        rig.start()
        await town.claim()
        await town.warmed()
    else:
        assert await without(rig) == (1, 1)
    meta = town.store(1).meta
    assert meta is not None
    assert (meta.next_offset, meta.floor_ms) == (4, 3)


# -- a rekeyed stream -----------------------------------------------------------------------------


async def test_a_rekeyed_stream_is_looked_through_and_keeps_its_watermarks(
    make: Callable[..., Rig],
) -> None:
    events = [
        *(EVENTS[0], marker(0, 1), EVENTS[1], marker(1, 2), EVENTS[2], EVENTS[3]),
        *(marker(0, 8), EVENTS[4], marker(1, 12), EVENTS[5], EVENTS[6], marker(0, 23)),
    ]
    what = exclusion(3, None, (0, 7, 8))
    rig = make(sources=2, exclusions=(what,))
    town = await counted(rig, events=events, taken=(3, 6, 9))
    assert await without(rig) == (1, 6)
    found = town.rows(1)
    meta = town.store(1).meta
    assert meta is not None
    assert meta.source_watermarks == {0: 23, 1: 12}
    other = make("plain", sources=2, exclusions=(what,))
    other_town = await counted(other, events=events, taken=())
    other.world.snapshots = None
    await without(other)
    assert other_town.rows(1) == found


# -- how far back ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor_ms", "start", "need", "wanted"),
    [
        (None, Start(offset=5, floor_ms=40), None, True),
        (50, Start(offset=0), None, False),
        (50, Start(offset=0), Need(needed_ms=90, wanted_ms=50), True),
        (51, Start(offset=0), Need(needed_ms=90, wanted_ms=50), False),
        (60, Start(offset=5, floor_ms=60), Need(needed_ms=90, wanted_ms=50), True),
        (61, Start(offset=5, floor_ms=60), Need(needed_ms=90, wanted_ms=50), False),
        (90, Start(offset=5, gap=True), Need(needed_ms=90, wanted_ms=50), True),
        (91, Start(offset=5, gap=True), Need(needed_ms=90, wanted_ms=50), False),
    ],
)
def test_how_far_back_a_checkpoint_has_to_go(
    floor_ms: int | None, start: Start, need: Need | None, wanted: bool
) -> None:
    manifest = Manifest(
        of=BundleId(app="app", stream="clicks", partition=0, bundle="ab"),
        checkpoint="20260131T235959123Z-0a1b2c3d",
        created_ms=0,
        reason="",
        next_offset=7,
        watermark_ms=None,
        source_watermarks={},
        floor_ms=floor_ms,
        files=(),
    )
    assert reaches(manifest, start, need) is wanted
