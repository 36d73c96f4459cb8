"""The state half of a claim over a log in memory: floors of what begins late, and verdicts.

Sets count events in windows of 10 ms, closed as soon as the watermark is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.datapath.batch import Marker
from streams.definitions.model import Function
from streams.runtime import replay, verdicts
from tests.small import feature, feature_set
from tests.unit.datapath.rig import Click
from tests.unit.runtime.world import MAX_AHEAD_MS, A, World, marker

if TYPE_CHECKING:
    from pathlib import Path

B = feature_set(feature("s", Function.SUM, "x"), name="b")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def made(**given: Any) -> World:
        world = World(tmp_path, **given)
        monkeypatch.setattr(replay, "read_log", world.read_log)
        monkeypatch.setattr(verdicts, "read_log", world.read_log)
        return world

    return made


# -- a source as it is --------------------------------------------------------------------------


async def test_a_log_from_its_beginning_has_no_floor(make: Callable[..., World]) -> None:
    world = await make(timestamps={0: 3}).claim()
    await world.take(("ann", 3, 1), ("ann", 12, 1))
    assert world.floors() == [None]
    assert world.of("a") == [(10, "ann")]


async def test_the_first_timestamp_tells_from_when_on_panes_are_whole(
    make: Callable[..., World],
) -> None:
    world = make(log=[("ann", 1, 1), ("ann", 2, 1)], log_start=2, timestamps={1: 2, 2: 7})
    await world.claim()
    await world.take(("ann", 6, 1), ("ann", 13, 1), ("ann", 22, 1), ("ann", 31, 1))
    assert world.floors() == [7 + MAX_AHEAD_MS]
    assert world.of("a") == [(30, "ann")]  # [12, …) is whole, so is [20, 30)


async def test_where_the_producer_sets_no_timestamp_event_time_stands_for_it(
    make: Callable[..., World],
) -> None:
    world = make(log=[("ann", 1, 1)], log_start=1, timestamps={2: 500})
    await world.claim()
    await world.take(("ann", 7, 1), ("ann", 8, 1), ("ann", 31, 1))
    assert world.floors() == [7 + MAX_AHEAD_MS]


async def test_a_floor_is_waited_for_over_a_stop_without_records(
    make: Callable[..., World],
) -> None:
    world = make(log=[("ann", 1, 1)], log_start=1, timestamps={1: 7})
    for _ in range(3):
        await world.claim()
        await world.stop()
    await world.claim()
    assert world.floors() == [None]
    await world.take(("ann", 7, 1))
    assert world.floors() == [7 + MAX_AHEAD_MS]
    await world.stop()
    await world.claim()
    await world.take(("ann", 60, 1))
    assert world.floors()[0] is not None
    assert (20, "ann") not in world.of("a")


# -- a rekeyed stream that was trimmed ------------------------------------------------------------

TRIMMED: list[Click | Marker] = [
    ("ann", 3, 1),
    marker(0, 3),
    ("bob", 24, 1),
    ("ann", 12, 1),
    marker(1, 24),
    # The log begins here: of [20, 30) it lacks an event.
    ("bob", 27, 1),
    marker(0, 12),
    marker(1, 27),
]
"""Source partition 1 is ahead of 0."""


async def test_a_trimmed_stream_tells_its_floor_by_the_first_markers(
    make: Callable[..., World],
) -> None:
    world = make(sources=2, log=list(TRIMMED), log_start=5)
    world.read_up_to(len(TRIMMED))
    await world.claim()
    assert world.floors() == [28]
    await world.take(("ann", 33, 1), marker(0, 33), ("bob", 44, 1), marker(1, 44))
    await world.take(marker(0, 44))
    assert world.of("a") == [(40, "ann")]


async def test_a_whole_stream_has_no_floor(make: Callable[..., World]) -> None:
    world = make(sources=2, log=list(TRIMMED))
    world.read_up_to(len(TRIMMED))
    await world.claim()
    assert world.floors() == [None]


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_marker_that_is_yet_to_come_is_waited_for(
    make: Callable[..., World], flushed: bool
) -> None:
    world = make(sources=2, log=TRIMMED[:7], log_start=5)
    world.read_up_to(7)
    await world.claim()
    assert world.floors() == [13]
    await world.stop(flush=flushed)
    await world.claim()
    await world.take(("bob", 29, 1))
    # One batch, cut at the marker that says something.
    await world.take(("bob", 31, 1), marker(1, 31), ("ann", 41, 1), marker(0, 41))
    assert world.floors() == [32]
    await world.take(marker(1, 60), ("ann", 60, 1), marker(0, 60))
    assert world.of("a") == [(50, "ann"), (60, "ann")]


async def test_what_another_set_knows_of_the_trimmed_part_bounds_it(
    make: Callable[..., World],
) -> None:
    world = make(sources=2, log=TRIMMED[:5])
    world.read_up_to(5)
    await world.claim()
    await world.stop()
    # Set b is added when only the marker of source partition 0 can still be read.
    world.log += [("ann", 14, 1), marker(0, 14)]
    world.read_up_to(len(world.log))
    world.log_start = 5
    world.sets = (A, B)
    await world.claim()
    assert world.floors()[1] == 25
    await world.take(("bob", 26, 1), marker(1, 26))
    assert world.floors()[1] == 27
    assert (world.floors()[0] or 0) < 0


# -- verdicts -------------------------------------------------------------------------------------


async def test_a_replay_reads_of_the_dlq_what_came_after_its_flush(
    make: Callable[..., World],
) -> None:
    world = await make(timestamps={0: 3}).claim()
    world.dead = [0, 1, 2]
    await world.take(("ann", 3, 1))
    await world.stop()
    await world.claim()
    await world.take(("bob", 4, 1), ("bob", 5, 1))
    world.dead.append(2)
    await world.claim()
    assert world.dlq_read_from == [3]
    await world.take(("ann", 12, 1))
    assert world.vectors == [("a", 10, "ann", 1), ("a", 10, "bob", 1)]


async def test_a_flush_within_a_replay_remembers_what_the_replay_read_from(
    make: Callable[..., World],
) -> None:
    world = await make(at_once=1).claim()
    await world.take(("ann", 3, 1))
    world.dead = [9]
    await world.stop()
    await world.claim()
    await world.take(("bob", 4, 1), ("bob", 5, 1))
    world.dead.append(2)
    await world.claim()  # flushes after each record
    await world.claim()
    assert world.dlq_read_from == [1, 1]
    await world.take(("ann", 12, 1))
    assert world.vectors == [("a", 10, "ann", 1), ("a", 10, "bob", 1)]


async def test_the_end_of_the_dlq_is_asked_for_now_and_then(make: Callable[..., World]) -> None:
    world = await make().claim()
    dead = verdicts.DeadLettersSince(cast("Any", world), 1)
    world.dead = [7] * 5
    assert dead.notes() == {"dlq": "1"}
    dead.replayed()
    assert dead.notes() == {"dlq": "5"}
    world.dead = [7] * 6
    assert dead.notes() == {"dlq": "5"}
    world.now_s = verdicts.ASK_EVERY_S
    world.unreachable = True
    assert dead.notes() == {"dlq": "5"}
    world.now_s = 2 * verdicts.ASK_EVERY_S
    world.unreachable = False
    assert dead.notes() == {"dlq": "6"}
