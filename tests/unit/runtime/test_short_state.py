"""State whose panes do not go back as far as a version needs: it is made whole where the log or an
archive has what it lacks, and where nothing has, no as-of time is left out.

Windows of 1.0.0 are 10 ms, those of 1.1.0 30 ms; both count the same.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.control.set_record import LiveVersion, Pin, SetRecord, Toggle
from streams.datapath.log_index import Entry, LogIndex
from streams.definitions.model import Function
from streams.errors import RefusedError, UnreachableError
from streams.runtime import replay, verdicts, warming
from streams.runtime.obedience import ShortStateError
from tests.small import feature, feature_set
from tests.unit.runtime.checkpoint_rig import Rig
from tests.unit.runtime.cleaning import Cleaned, exclusion
from tests.unit.runtime.town import ReadsWorld, Town

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.datapath.rig import Click

V1, V2 = "1.0.0", "1.1.0"
ONE = feature_set(feature("n"), name="a", version=V1)
LONGER = feature_set(feature("n", window_ms=30), name="a", version=V2)
LONGER_SUM = feature_set(
    feature("n", window_ms=30), feature("s", Function.SUM, "x"), name="a", version=V2
)
EVENTS: list[Click] = [
    ("ann", 1, 1),
    ("ann", 12, 1),
    ("ann", 25, 1),
    ("ann", 36, 1),
    ("ann", 37, 1),
]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def made(kind: type[Town] = Town, **given: Any) -> Any:
        town = kind(tmp_path / "state", **{"sets": (ONE, LONGER), "timestamps": {0: 1}, **given})
        monkeypatch.setattr(replay, "read_log", town.read_log)
        monkeypatch.setattr(verdicts, "read_log", town.read_log)
        monkeypatch.setattr(warming, "BatchReader", ReadsWorld(town))
        return town

    return made


@pytest.fixture
def archived(make: Callable[..., Any], tmp_path: Path) -> Callable[..., Rig]:
    return lambda **given: Rig(make(**given), tmp_path)


async def short(town: Town) -> Town:
    """Its panes go back as far as 1.0.0 needs, and no further; the claim is over."""
    town.decided.decide(f"{V1}!")
    await town.claim()
    await town.take(*EVENTS)
    await town.stop()
    return town


async def claimed_again(town: Town) -> None:
    """What decisions ask for needs another claim, which is made."""
    with pytest.raises(ShortStateError, match="would not be whole"):
        await town.obey()
    await town.claim()


# -- who takes over -------------------------------------------------------------------------------


async def test_the_owner_before_had_it_whole_and_this_one_makes_it_so(
    make: Callable[..., Any],
) -> None:
    town = await short(make())
    town.decided.decide(f"{V1}!", V2)  # others have said that it is ready, one of them here
    await town.claim()
    await town.settle()
    assert town.ready() == []
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await claimed_again(town)
    await town.take(("ann", 47, 1))
    assert town.vectors[-1] == ("a", 40, "ann", 4)


async def test_what_is_still_to_come_keeps_the_panes_that_it_counts_on(
    make: Callable[..., Any],
) -> None:
    town = make(sets=(ONE, LONGER_SUM))
    town.decided.decide(f"{V1}!")
    await town.claim()
    await town.take(*EVENTS[:3])
    await town.stop(flush=False)
    town.decided.decide(f"{V1}!", V2)
    await town.claim()
    town.gate.clear()  # what it lacks can't be read for now
    await town.take(*EVENTS[3:])
    town.pipeline.flush()
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    assert town.serving() == {"a": V1}
    town.gate.set()
    await town.settle()
    assert town.serving() == {"a": V2}
    await town.take(("ann", 47, 1))
    assert [one[:3] for one in town.vectors if one[1] == 40] == [("a", 40, "ann")]


async def test_where_nothing_holds_what_it_lacks_the_other_version_goes_on(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is lost, and the log begins at the event of 30 now: whole from 35 on."""
    town = make(timestamps={0: 1, 3: 30})
    town.decided.decide(f"{V1}!", f"{V2}!")
    await town.claim()
    times = (1, 12, 25, 30, 46, 56)
    await town.take(*(("ann", at, 1) for at in times))
    await town.stop()
    shutil.rmtree(town.state_dir / "clicks")
    town.log_start = 3
    await town.claim()
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    assert town.fences() == []
    assert "a@1.1.0 takes over once its windows lie in what is kept" in caplog.text
    for at in (67, 78, 89):
        await town.take(("ann", at, 1))
        await town.obey()
    # As of 60 1.0.0 counts its 10 ms; 1.1.0's first window is [40, 70).
    assert town.vectors[-3:] == [("a", 60, "ann", 1), ("a", 70, "ann", 3), ("a", 80, "ann", 3)]
    assert [fence[1] for fence in town.fences()] == [V2]


async def test_before_anything_has_closed_longer_windows_are_no_readier_than_they_will_be(
    make: Callable[..., Any],
) -> None:
    town = make(log=[("ann", 1, 1)] * 3, log_start=3)
    await town.claim()
    town.decided.decide(V1, V2)
    await town.obey()
    await town.settle()
    await town.take(("ann", 5, 1), ("ann", 12, 1), ("ann", 18, 1), ("ann", 25, 1))
    await town.obey()
    assert town.ready() == [(V1, 0)]
    await town.take(("ann", 37, 1), ("ann", 48, 1))
    await town.obey()
    assert town.ready() == [(V1, 0), (V2, 0)]
    assert [one[1] for one in town.vectors] == [20, 30, 40]


async def test_who_stands_in_has_to_be_whole_as_well(make: Callable[..., Any]) -> None:
    old = feature_set(feature("n", window_ms=30), name="a", version=V1)
    new = feature_set(feature("n"), name="a", version=V2)
    log = [("ann", 11, 1), ("ann", 8, 1), ("ann", 12, 1), ("ann", 22, 1)]
    town = make(sets=(old, new), log=log, log_start=1, timestamps={1: 8})
    town.decided.decide(f"{V2}!", serving=V2)
    town.stream.first = lambda _: V2
    await town.claim()
    await town.read_on(3)
    await town.take(("ann", 24, 1), ("ann", 31, 1))
    town.decided.decide(V1, f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    await town.settle()
    off = (Toggle(version=V2, feature="n", fallback=V1),)
    town.decided.decide(V1, f"{V2}!", serving=V2, epoch=2, toggles=off)
    await claimed_again(town)
    await town.take(("ann", 41, 1))
    # Whole from 13 on: as of 40 its window [10, 40) is not, as of 50 it is.
    assert town.vectors[-1] == ("a", 40, "ann", 1)
    await town.obey()
    await town.take(("ann", 52, 1))
    assert town.vectors[-1] == ("a", 50, "ann", 4)


async def test_a_pin_that_lags_behind_its_set_goes_on_where_it_is(
    make: Callable[..., Any],
) -> None:
    """1.0.0 (lateness 30) is pinned, 1.1.0 (lateness 0) serves; an exclusion makes both anew."""
    slow = feature_set(feature("n"), name="a", version=V1, allowed_lateness_ms=30)
    fast = feature_set(feature("n"), name="a", version=V2)
    left_out = (exclusion(5, None, (0, 3, 4)),)
    town = make(Cleaned, sets=(slow, fast), exclusions=left_out)
    before = (LiveVersion(version=V1, ready=True), LiveVersion(version=V2, ready=True))

    def decide(live: tuple[LiveVersion, ...], epoch: int, **given: Any) -> None:
        town.decided.next_offset += 1
        record = SetRecord(feature_set="a", serving=V2, epoch=epoch, live=live, **given)
        town.decided.sets["a"] = record
        town.decided.history["a", epoch] = record.held

    def anew(*, ready: bool) -> tuple[LiveVersion, ...]:
        return tuple(
            LiveVersion(version=one, generation=5, excluding=5, ready=ready) for one in (V1, V2)
        )

    pins = (Pin(version=V1, key_schema_id=1, value_schema_id=2),)
    decide(before, 1)
    await town.claim()
    await town.take(("ann", 5, 1), ("ann", 15, 1), ("ann", 25, 1))
    decide(before, 2, pinned=pins)
    await town.obey()
    await town.take(("bob", 35, 1), *(("ann", at, 1) for at in range(45, 100, 10)))
    town.index = LogIndex(tuple(Entry(offset=o, highest_ms=10 * o - 5) for o in range(1, 10)))
    decide((*before, *anew(ready=False)), 2, pinned=pins, exclusions=left_out)
    await town.obey()
    await town.settle()
    assert {version for version, generation in town.ready() if generation == 5} == {V1, V2}
    live = (*before, *anew(ready=True))
    decide(live, 3, pinned=pins, exclusions=left_out, excluding=5, corrects=V2)
    await town.obey()
    await town.take(*(("ann", at, 1) for at in (105, 115, 125, 135)))
    times = sorted({one[1] for one in town.vectors if one[0] == f"a@{V1}"})
    assert times == list(range(times[0], 101, 10))


async def test_a_set_without_a_path_is_adopted_by_what_speaks_for_it(
    make: Callable[..., Any],
) -> None:
    """Of a new set only the version that leaves an event out could be brought to the stream."""
    other = feature_set(feature("m", Function.MAX, "x"), name="b", version=V1)
    town = make(Cleaned, sets=(ONE,))
    town.decided.decide(f"{V1}!")
    await town.claim()
    await town.take(*EVENTS[:2])
    town.exclusions = (exclusion(5, None, (0, 1, 2)),)
    town.publish(other)
    town.decided.next_offset += 1
    record = town.decided.sets["b"] = SetRecord(
        feature_set="b",
        serving=V1,
        epoch=1,
        excluding=5,
        exclusions=town.exclusions,
        live=(LiveVersion(version=V1, generation=5, ready=True, excluding=5),),
        served=(V1,),
        corrects=V1,
    )
    town.decided.history["b", 1] = record.held
    await town.obey()
    await town.settle()
    assert ("b", V1, 1, 2) in town.fences()


# -- what a claim finds ---------------------------------------------------------------------------


async def test_what_serves_keeps_its_state_where_only_a_follower_lacks_something(
    archived: Callable[..., Rig],
) -> None:
    town = cast("Town", archived().world)
    await short(town)
    town.log_start = len(EVENTS)
    town.decided.decide(f"{V1}!", f"{V2}!")
    await town.claim()
    await town.take(("ann", 47, 1))
    assert town.vectors[-1] == ("a", 40, "ann", 2)


async def test_an_archive_that_is_away_is_in_nobodys_way(
    archived: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = archived()
    town = cast("Town", rig.world)
    town.decided.decide(f"{V1}!")
    await town.claim()
    await town.take(*EVENTS)
    await rig.take()
    await town.stop()
    town.log_start = 4
    town.decided.decide(f"{V1}!", f"{V2}!")

    def away(*_: Any, **__: Any) -> None:
        raise UnreachableError("the archive is away")

    with monkeypatch.context() as patch:
        patch.setattr(type(rig.archive), "list", away)
        await town.claim()
    await town.take(("ann", 47, 1))
    assert town.vectors[-1] == ("a", 40, "ann", 2)


async def test_a_checkpoint_that_is_as_short_does_not_stand_for_the_log(
    archived: Callable[..., Rig],
) -> None:
    rig = archived()
    town = cast("Town", rig.world)
    town.decided.decide(f"{V1}!")
    await town.claim()
    await town.take(*EVENTS)
    await rig.take()
    await town.stop()
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.claim()
    await town.take(("ann", 47, 1))
    assert (town.stats.restored, town.vectors[-1]) == (0, ("a", 40, "ann", 4))


async def test_a_checkpoint_that_goes_back_far_enough_does(archived: Callable[..., Rig]) -> None:
    """The newest one is as short as the disk, and the log begins late; an older one is whole."""
    rig = archived()
    town = cast("Town", rig.world)
    town.decided.decide(f"{V1}!")
    await town.claim()
    await town.take(*EVENTS[:2])
    await rig.take()
    await town.take(*EVENTS[2:])
    await rig.take()
    await town.stop()
    town.log_start = 2
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.claim()
    await town.take(("ann", 47, 1))
    assert (town.stats.restored, town.vectors[-1]) == (1, ("a", 40, "ann", 4))


async def test_a_log_that_begins_in_the_middle_is_not_read_again_and_again(
    make: Callable[..., Any],
) -> None:
    """It has nothing that the state lacks: both have the floor that its beginning gives."""
    town = make(log=[("ann", 1, 1)] * 3, log_start=3)
    await town.claim()
    town.decided.decide(V1, V2)
    await town.obey()
    await town.settle()
    town.decided.decide(f"{V1}!", f"{V2}!")
    await town.obey()
    await town.take(*EVENTS[1:])
    await town.stop()
    before = town.stats.replayed
    await town.claim()
    assert town.stats.replayed == before


async def test_a_stale_disk_is_as_good_as_an_empty_one(make: Callable[..., Any]) -> None:
    """It comes back after longer than the topic's retention; others have gone on meanwhile."""
    town = make(sets=(ONE,), timestamps={0: 1, 3: 30})
    await town.claim()
    await town.take(*EVENTS[:2])
    await town.stop()
    disk, elsewhere = town.state_dir / "clicks", town.state_dir / "elsewhere"
    disk.rename(elsewhere)
    await town.claim()
    await town.take(("ann", 25, 1), ("ann", 30, 1), ("ann", 46, 1), ("ann", 56, 1))
    await town.stop()
    shutil.rmtree(disk)
    elsewhere.rename(disk)
    town.log_start = 3
    await town.claim()
    await town.take(("ann", 67, 1))
    assert town.vectors[-1] == ("a", 60, "ann", 1)


async def test_a_log_that_was_trimmed_beyond_what_is_committed_is_refused(
    make: Callable[..., Any],
) -> None:
    town = make(sets=(ONE,))
    await town.claim()
    await town.take(*EVENTS)
    await town.stop()
    town.log += [("ann", 41, 1), ("ann", 42, 1)]
    town.log_start = 6
    with pytest.raises(RefusedError, match="offset 5 is needed next"):
        await town.claim()
