"""One owner and what is decided: fences, versions that become live, versions that leave."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import KafkaError

from streams.control.set_record import Toggle
from streams.datapath.progress import Closed
from streams.errors import RewindowError
from tests.small import feature, feature_set
from tests.unit.runtime.town import (
    B_ONE,
    B_TWO,
    COUNT,
    LOG,
    ONE,
    THREE,
    TOP,
    TWO,
    V1,
    V2,
    V3,
    CrashError,
    Town,
    made,
    quiet,
    with_flushes,
)
from tests.unit.runtime.world import MAX_AHEAD_MS, marker

if TYPE_CHECKING:
    from pathlib import Path

Make = Callable[..., Town]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    return partial(made, tmp_path, monkeypatch, sets=(ONE,), log=LOG)


async def at_end(town: Town) -> Town:
    """Claimed, with the whole log read."""
    await town.claim()
    await town.read_on(len(town.log) - town.position)
    return town


async def with_two(town: Town) -> Town:
    """Version 1.1.0 follows, and everybody knows that."""
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    town.decided.decide(f"{V1}!", f"{V2}!")
    await town.obey()
    return town


# -- a fence waits --------------------------------------------------------------------------------


async def test_a_fence_waits_for_the_record_that_has_closed_something(make: Make) -> None:
    town = make()
    town.limits = replace(town.limits, pairs_per_step=1)
    await with_two(await at_end(town))
    town.log.append(("ann", 22, 1))
    batch = await town._read(town._records([3]), 3)
    assert town.pipeline is not None
    town._commit(islice(town.pipeline.steps(batch), 1))  # what it closes, and not itself
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.claim()
    assert town.fences() == []
    await town.obey()
    assert town.fences() == []
    await town.read_on(1)
    await town.obey()
    assert town.fences() == [("a", V2, 1, 4)]


# -- a version becomes live -----------------------------------------------------------------------


async def test_a_version_is_warmed_joins_and_says_that_it_is_ready(make: Make) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(V1, f"{V2}/1")
    await town.obey()
    assert town.following() == set()
    await town.settle()
    assert town.following() == {("a", V2)}
    assert town.ready() == [(V1, 0), (V2, 1)]


async def test_what_a_version_shares_is_ready_without_a_replay(make: Make) -> None:
    town = await at_end(make())
    town.publish(feature_set(COUNT, name="a", version=V2, allowed_lateness_ms=5))
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    assert town.ready() == [(V2, 0)]
    assert town.stats.replayed == 0


async def test_batches_go_on_while_a_version_is_warmed(make: Make) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.gate.clear()
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.take(("ann", 21, 8))
    await town.obey()
    assert town.following() == set()
    town.gate.set()
    await town.settle()
    assert town.following() == {("a", V2)}
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    await town.take(("ann", 31, 1))
    assert town.vectors[-1] == ("a", 30, "ann", 8)


async def test_a_large_replay_is_flushed_while_a_version_is_warmed(make: Make) -> None:
    town = await at_end(with_flushes(make(), 1))
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    assert town.ready() == [(V2, 0)]


async def test_ready_is_said_again_at_news_only_until_everybody_knows(make: Make) -> None:
    town = await with_two(await at_end(make()))
    assert town.ready() == [(V2, 0)]
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.obey()
    assert town.ready() == [(V2, 0)] * 2


async def test_a_longer_window_is_not_ready_before_it_is_whole(make: Make) -> None:
    town = make(log=[("ann", 1, 1), ("ann", 8, 1), ("ann", 22, 1)], log_start=1, timestamps={1: 8})
    await at_end(town)
    assert town.floors() == [8 + MAX_AHEAD_MS]
    town.publish(feature_set(feature("n", window_ms=30), name="a", version=V2))
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    assert town.following() == {("a", V2)}
    assert town.ready() == []
    for at in (33, 44):
        await town.take(("ann", at, 1))
        await town.obey()
    assert town.ready() == [(V2, 0)]


async def test_two_new_versions_may_share_a_bundle(make: Make) -> None:
    town = await at_end(make())
    town.publish(TWO, THREE)
    town.decided.decide(f"{V1}!", V2, V3)
    await town.obey()
    await town.settle()
    assert town.failed() == []
    assert town.following() == {("a", V2), ("a", V3)}


async def test_a_version_that_cannot_be_warmed_fails_and_the_others_go_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", f"{V2}/3")
    town.gate.clear()
    await town.obey()

    def broken(*_: Any) -> Any:
        raise RewindowError("damaged")

    monkeypatch.setattr(town, "_read", broken)
    town.gate.set()
    await town.settle()
    assert town.failed() == ["damaged"]
    assert town.following() == set()
    assert town.serving() == {"a": V1}


async def test_what_is_away_for_a_moment_is_no_failure_of_the_version(make: Make) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    town.unreachable = True
    await town.obey()
    await town.settle()
    town.unreachable = False
    assert town.failed() == []


async def test_a_log_that_is_trimmed_by_now_is_warmed_from_where_it_begins(make: Make) -> None:
    town = await at_end(make(timestamps={1: 4}))
    town.log_start = 1
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    assert town.following() == {("a", V2)}


async def test_a_claim_that_ends_with_warming_leaves_nothing_open(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    town.gate.clear()
    await town.obey()

    def broken(*_: Any) -> Any:
        raise KafkaError

    with monkeypatch.context() as patched:
        patched.setattr(town, "_read", broken)
        town.gate.set()
        with suppress(KafkaError):
            await town.settle()
    await town.claim()
    await town.settle()
    assert town.failed() == []
    assert town.following() == {("a", V2)}


async def test_a_claim_that_is_cancelled_while_a_version_joins_leaves_nothing_open(
    make: Make,
) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await quiet()
    await town.take(("ann", 21, 8))
    town.gate.clear()
    joining = asyncio.create_task(town.obey())
    await quiet()
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)
    town.gate.set()
    await town.claim()
    await town.settle()
    assert town.failed() == []
    assert town.following() == {("a", V2)}


async def test_a_new_claim_takes_up_warming_where_the_last_one_was(make: Make) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    town.gate.clear()
    await town.obey()
    stopping = asyncio.create_task(town.stop())
    await asyncio.wait_for(stopping, 5)
    town.gate.set()
    await town.claim()
    await town.settle()
    assert town.ready() == [(V2, 0)]


async def test_a_version_goes_on_being_warmed_when_others_have_made_it_ready(make: Make) -> None:
    """The owner before this one had said so for this partition."""
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    town.gate.clear()
    await town.obey()
    town.decided.decide(f"{V1}!", f"{V2}!")
    await town.obey()
    town.gate.set()
    await town.settle()
    assert town.following() == {("a", V2)}


async def test_a_switch_to_a_version_that_is_being_warmed_waits_for_it(make: Make) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    town.gate.clear()
    await town.obey()
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    assert town.serving() == {"a": V1}
    town.gate.set()
    await town.settle()
    assert town.fences() == [("a", V2, 1, 3)]


async def test_what_begins_after_the_end_of_a_trimmed_log_is_not_whole(make: Make) -> None:
    """All that the open window holds is trimmed; the version that serves has it on disk."""
    town = await at_end(make())
    town.log_start = 3
    await town.stop()
    await town.claim()
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    assert town.ready() == []
    await town.take(("ann", 13, 1))
    assert town.ready() == []


async def test_a_trimmed_stream_bounds_a_version_by_what_the_owner_knows(make: Make) -> None:
    before = [("ann", 3, 1), marker(0, 3), ("bob", 24, 1), ("ann", 12, 1), marker(1, 24)]
    town = await at_end(make(sources=2, log=before))
    await town.stop()
    await town.claim()
    town.log_start = 5
    await town.take(("ann", 14, 1), marker(0, 14))
    await town.stop()
    await town.claim()
    town.publish(TWO)
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    assert town.pipeline is not None
    assert [one.floor_ms for one in town.pipeline.followers] == [25]


# -- a version takes over -------------------------------------------------------------------------


async def test_a_fence_is_at_the_position_and_closings_follow_it(make: Make) -> None:
    town = await with_two(await at_end(make()))
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    assert town.fences() == [("a", V2, 1, 3)]
    assert town.progress.control_offset == town.decided.next_offset
    await town.take(("ann", 22, 8))
    assert ("a", 20, "ann", 4) in town.vectors
    assert town.following() == {("a", V1)}


async def test_several_epochs_at_once_are_one_fence(make: Make) -> None:
    town = await with_two(await at_end(make()))
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V1, epoch=2)
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=3)
    await town.obey()
    await town.obey()
    assert town.fences() == [("a", V2, 3, 3)]


async def two_sets_decided(make: Make) -> Town:
    town = await at_end(make(sets=(ONE, B_ONE)))
    town.publish(TWO, B_TWO)
    for name in "ab":
        town.decided.decide(f"{V1}!", V2, name=name)
    await town.obey()
    await town.settle()
    for name in "ab":
        town.decided.decide(f"{V1}!", f"{V2}!", name=name, serving=V2, epoch=1)
    return town


@pytest.mark.parametrize("commits", [0, 1])
async def test_a_crash_between_the_fences_of_two_sets(make: Make, commits: int) -> None:
    town = await two_sets_decided(make)
    town.commits_left = commits
    with pytest.raises(CrashError):
        await town.obey()
    town.commits_left = None
    await town.claim()
    assert town.fences() == [("a", V2, 1, 3), ("b", V2, 1, 3)]
    assert town.serving() == {"a": V2, "b": V2}


async def test_a_crash_between_a_fence_and_its_closings(make: Make) -> None:
    slow = feature_set(COUNT, name="a", version=V1, allowed_lateness_ms=20)
    fast = feature_set(COUNT, name="a", version=V2)
    town = await at_end(make(sets=(slow,), log=[("ann", 3, 1), ("ann", 28, 4), ("ann", 33, 1)]))
    town.publish(fast)
    town.decided.decide(f"{V1}!", V2)
    await town.obey()
    await town.settle()
    before = list(town.vectors)
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    town.commits_left = 1
    with pytest.raises(CrashError):
        await town.obey()
    assert town.vectors == before
    town.commits_left = None
    await town.claim()
    assert town.fences() == [("a", V2, 1, 3)]
    assert (30, "ann") in town.of("a")
    assert len(set(town.of("a"))) == len(town.of("a"))


async def test_a_claim_brings_what_serves_by_a_decision_it_has_not_obeyed(make: Make) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.claim()
    assert town.fences() == [("a", V2, 1, 3)]


async def test_a_fresh_app_begins_with_its_first_version_and_fences_the_newest(make: Make) -> None:
    town = make(sets=(ONE, TWO), log=[])
    town.decided.decide(f"{V1}!", name="a")
    town.decided.decide(f"{V1}!", f"{V2}!", serving=V2, epoch=1)
    await town.claim()
    assert town.fences() == [("a", V2, 1, 0)]
    await town.take(("ann", 3, 7), ("ann", 11, 1))
    assert town.vectors == [("a", 10, "ann", 7)]


async def test_a_fresh_app_without_decisions_serves_its_first_versions(make: Make) -> None:
    town = await at_end(make(sets=(ONE, TWO, B_ONE)))
    assert town.serving() == {"a": V1, "b": V1}
    assert town.following() == set()
    assert town.acks == []


async def test_a_toggle_is_fenced_and_outlives_a_claim(make: Make) -> None:
    town = await at_end(make())
    toggle = Toggle(version=V1, feature="n")
    town.decided.decide(f"{V1}!", epoch=1, toggles=(toggle,))
    await town.obey()
    assert town.fences() == [("a", V1, 1, 3)]
    await town.claim()
    await town.take(("ann", 24, 1))
    assert [values for *_, values in town.vectors[-2:]] == [None, None]
    assert town.of("a")[-2:] == [(20, "ann"), (20, "bob")]


async def test_a_fence_waits_for_what_stands_in(make: Make) -> None:
    town = await with_two(await at_end(make()))
    toggle = Toggle(version=V2, feature="n", fallback=V3)
    town.publish(feature_set(COUNT, TOP, name="a", version=V3))
    town.gate.clear()
    town.decided.decide(f"{V1}!", f"{V2}!", V3, serving=V2, epoch=1, toggles=(toggle,))
    await town.obey()
    await town.settle()
    assert town.fences() == []
    town.gate.set()
    await town.settle()
    assert town.fences() == [("a", V2, 1, 3)]


async def test_a_pinned_version_stays_until_its_end_is_fenced(make: Make) -> None:
    town = await with_two(await at_end(make()))
    town.decided.decide(f"{V1}!", f"{V2}!", epoch=1, pins=(V2,))
    await town.obey()
    assert town.serving() == {"a": V1, f"a@{V2}": V2}
    await town.claim()
    assert town.serving() == {"a": V1, f"a@{V2}": V2}
    await town.take(("ann", 24, 1))
    assert town.of(f"a@{V2}") == [(20, "ann"), (20, "bob")]
    town.decided.decide(f"{V1}!", epoch=2)
    await town.obey()
    assert town.serving() == {"a": V1}
    assert town.following() == set()
    assert town.directories() == 1


# -- a set is published ---------------------------------------------------------------------------


async def test_a_set_that_is_published_while_an_owner_works_is_served_beside_the_others(
    make: Make,
) -> None:
    town = await at_end(make())
    town.publish(B_ONE)
    town.gate.clear()
    town.decided.decide(f"{V1}!")
    town.decided.decide(V1, name="b")
    await town.obey()
    await town.take(("ann", 21, 8))
    assert town.serving() == {"a": V1}
    town.gate.set()
    await town.settle()
    assert town.serving() == {"a": V1, "b": V1}
    assert town.ready() == [(V1, 0)]
    # It begins where the watermark has come to: with the windows that are open then.
    await town.take(("ann", 31, 1))
    assert [one for one in town.vectors if one[0] == "b"] == [("b", 30, "ann", 8)]
    assert town.of("a")[-1] == (30, "ann")
    assert town.progress.closed["b"] == Closed(through_ms=30, version=V1)
    await town.claim()
    await town.take(("bob", 41, 5))
    assert ("b", 40, "ann", 1) in town.vectors


async def test_a_new_set_whose_next_version_serves_by_then_is_fenced_at_once(make: Make) -> None:
    town = await at_end(make())
    town.publish(B_ONE, B_TWO)
    town.decided.decide(f"{V1}!")
    town.decided.decide(V1, name="b")
    town.decided.decide(V1, V2, name="b", serving=V2, epoch=1)
    await town.obey()
    await town.settle()
    await town.settle()
    assert town.serving() == {"a": V1, "b": V2}
    assert town.fences() == [("b", V2, 1, 3)]


# -- a version leaves -----------------------------------------------------------------------------


async def test_what_only_a_version_needed_is_deleted_when_it_leaves(make: Make) -> None:
    town = await with_two(await at_end(make()))
    assert town.directories() == 2
    town.decided.decide(f"{V1}!")
    await town.obey()
    assert town.following() == set()
    assert town.directories() == 1
    await town.take(("ann", 22, 8))
    assert ("a", 20, "ann", 1) in town.vectors


async def test_what_closed_last_stays_until_the_other_has_closed(make: Make) -> None:
    town = await with_two(await at_end(make()))
    town.decided.decide(f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    assert town.following() == {("a", V1)}
    await town.take(("ann", 22, 8))
    town.decided.decide(f"{V2}!", serving=V2, epoch=1)
    await town.obey()
    assert town.following() == set()
    assert town.directories() == 2


async def test_a_version_that_leaves_while_it_is_warmed_comes_back(make: Make) -> None:
    town = await at_end(make())
    town.publish(TWO)
    town.decided.decide(f"{V1}!", f"{V2}/1")
    town.gate.clear()
    await town.obey()
    town.decided.decide(f"{V1}!")
    await town.obey()
    town.decided.decide(f"{V1}!", f"{V2}/2")
    await town.obey()
    town.gate.set()
    await town.settle()
    assert town.ready() == [(V2, 2)]


async def test_a_new_generation_of_a_version_that_follows_is_acknowledged(make: Make) -> None:
    town = await with_two(await at_end(make()))
    town.decided.decide(f"{V1}!", f"{V2}/2")
    await town.obey()
    assert town.ready() == [(V2, 0), (V2, 2)]


async def test_a_version_that_is_warmed_keeps_what_it_shares_with_one_that_leaves(
    make: Make,
) -> None:
    town = await with_two(await at_end(make()))
    town.publish(THREE)
    town.decided.decide(f"{V1}!", f"{V2}!", V3)
    town.gate.clear()
    await town.obey()
    town.decided.decide(f"{V1}!", V3)
    await town.obey()
    town.gate.set()
    await town.settle()
    assert town.following() == {("a", V3)}


async def test_a_deletion_that_was_interrupted_does_not_matter(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = await with_two(await at_end(make()))
    await town.take(("ann", 13, 8))
    await town.stop()
    await town.claim()

    def interrupted(path: Path, **_: Any) -> None:
        for found in path.glob("MANIFEST*"):
            found.unlink()
            raise CrashError

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupted)
        town.decided.decide(f"{V1}!")
        with pytest.raises(CrashError):
            await town.obey()
    await town.claim()
    town.decided.decide(f"{V1}!", f"{V2}/2")
    await town.obey()
    await town.settle()
    assert town.failed() == []
    assert town.ready() == [(V2, 0), (V2, 2)]


async def test_what_a_former_claim_left_behind_does_not_end_this_one(make: Make) -> None:
    """The partition was elsewhere for longer than the log is kept, and the version is back."""
    town = await with_two(await at_end(make()))
    await town.stop()
    town.decided.decide(f"{V1}!")
    town.log += [("ann", 14, 1), ("ann", 15, 1)]
    await town.claim()
    await town.read_on(2)
    await town.stop()
    town.log_start, town.timestamps = 4, {4: 15}
    await town.claim()
    town.decided.decide(f"{V1}!", f"{V2}/2")
    await town.obey()
    await town.settle()
    assert town.following() == {("a", V2)}


async def test_what_nobody_needs_is_swept_at_a_claim(make: Make) -> None:
    town = await with_two(await at_end(make()))
    town.decided.decide(f"{V1}!")
    await town.claim()
    assert town.directories() == 1
