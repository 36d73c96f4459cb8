"""For each partition the newest word counts."""

from __future__ import annotations

from typing import Any

from streams.control.acks import Acks
from streams.control.records import Failed, Fenced, Ready
from streams.control.set_record import LiveVersion
from streams.control.state import ControlState
from tests.unit.control.small import SET, V1, V2, route

ATTEMPT = LiveVersion(version=V2, generation=3)


def ready(partition: int, generation: int = 3, **fields: Any) -> Ready:
    made: dict[str, Any] = {"feature_set": SET, "version": V2, "stream": "s", "offset": 5, **fields}
    return Ready(partition=partition, generation=generation, **made)


def failed(partition: int) -> Failed:
    return Failed(
        feature_set=SET, version=V2, generation=3, stream="s", partition=partition, reason="x"
    )


def fenced(partition: int, epoch: int, offset: int = 5) -> Fenced:
    return Fenced(
        feature_set=SET, epoch=epoch, version=V2, stream="s", partition=partition, offset=offset
    )


def state(live: LiveVersion = ATTEMPT, **fields: Any) -> ControlState:
    record = route(V1, live=(live,), generation=3, **fields)
    return ControlState(sets={SET: record})


def test_partitions_are_counted_once() -> None:
    acks = Acks(0)
    for offset, ack in enumerate([ready(0), ready(0), ready(1), ready(7), ready(1, 2)]):
        acks.add(offset, ack)
    assert acks.ready(SET, ATTEMPT, 4) == 2
    assert acks.position == 5


def test_the_newest_word_counts_in_whatever_order_it_comes() -> None:
    acks = Acks(0)
    acks.add(5, ready(0))
    acks.add(4, failed(0))
    assert (acks.ready(SET, ATTEMPT, 1), acks.failed(SET, ATTEMPT)) == (1, [])
    acks.add(6, failed(0))
    assert (acks.ready(SET, ATTEMPT, 1), acks.failed(SET, ATTEMPT)) == (0, [failed(0)])


def test_a_later_fence_is_one_for_earlier_epochs_too() -> None:
    acks = Acks(0)
    acks.add(0, fenced(0, 2, offset=20))
    assert acks.cut(SET, 2, 2) is None
    acks.add(1, fenced(1, 3, offset=30))
    acks.add(2, fenced(1, 1, offset=10))
    assert acks.cut(SET, 2, 2) == {0: 20, 1: 30}
    assert acks.cut(SET, 3, 2) is None


def test_acks_of_sets_and_attempts_to_come_are_remembered() -> None:
    acks = Acks(10)
    acks.add(12, ready(0, 4))
    acks.add(11, ready(0, feature_set="other"))
    acks.forget(state())
    assert acks.lowest() == 11
    acks.forget(ControlState())
    assert acks.lowest() == 11


def test_acks_that_no_decision_depends_on_are_forgotten() -> None:
    acks = Acks(10)
    acks.add(10, ready(0))
    acks.add(11, fenced(0, 0))
    acks.forget(state())
    assert acks.lowest() == 10
    acks.forget(state(LiveVersion(version=V2, generation=3, ready=True)))
    assert acks.lowest() == 12


def test_fences_are_remembered_while_a_request_waits_for_them() -> None:
    acks = Acks(0)
    acks.add(0, fenced(0, 1))
    waiting = state(epoch=1)
    waiting.in_flight[SET] = "r1"
    acks.forget(waiting)
    assert acks.cut(SET, 1, 1) == {0: 5}
    acks.forget(state(epoch=1))
    assert acks.cut(SET, 1, 1) is None
