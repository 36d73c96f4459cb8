"""Each thing that the gate looks at, on its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streams.control.facts import Facts, Outside
from streams.control.gate import Accept, Reject, decide
from streams.control.records import Action, Code, How, Plan, Replay, Request
from streams.control.routes import Rules
from streams.control.set_record import Activation, LiveVersion, Pin, Toggle
from streams.definitions.exclusions import Exclude, Exclusion, OffsetRange
from tests.unit.control.small import (
    NOW,
    PARTITIONS,
    SET,
    V1,
    V2,
    V3,
    activate,
    facts,
    published,
    request,
    route,
)

UP = Activation(version=V2, from_version=V1, epoch=1)
GONE = Replay(topic="flights", partition=1, needs_offset=40, log_start=50)


def codes(asked: Request, given: Facts) -> list[str]:
    verdict = decide(asked, given)
    assert isinstance(verdict, Reject)
    for reason in verdict.reasons:
        assert reason.message
    return [reason.code for reason in verdict.reasons]


def plan(asked: Request, given: Facts) -> Plan:
    verdict = decide(asked, given)
    assert isinstance(verdict, Accept), verdict
    return verdict.plan


def test_a_live_version_is_activated_hot() -> None:
    found = plan(activate(V2), facts())
    assert (found.how, found.from_version, found.target) == (How.HOT, V1, V2)
    assert (found.topic, found.partitions, found.partitions_ready) == ("flights", 2, 2)


def test_a_version_that_is_not_ready_is_cold() -> None:
    warming = route(V1, live=(LiveVersion(version=V2),))
    replay = replace(GONE, needs_offset=60)
    given = facts(route=warming, partitions_ready=1, outside=Outside(replays=(replay,)))
    found = plan(activate(V2), given)
    assert (found.how, found.partitions_ready, found.replays) == (How.COLD, 1, (replay,))


def test_who_stands_in_for_a_feature_has_to_be_ready_with_the_version() -> None:
    """An exclusion has made all versions anew: 1.1.0 is ready, and 1.0.0 is not, which stands in
    for a feature of it."""
    live = tuple(
        LiveVersion(version=one, generation=9, excluding=9, ready=one != V1) for one in (V1, V2, V3)
    )
    given = facts(
        route=route(
            V3,
            live=live,
            served=(V1, V2, V3),
            excluding=9,
            exclusions=(Exclusion(number=9, where="x > 1"),),
            activations=(UP, Activation(version=V3, from_version=V2, epoch=3)),
            toggles=(Toggle(version=V2, feature="n", fallback=V1),),
        )
    )
    assert plan(request(action=Action.ROLLBACK), given).how is How.COLD
    pin = request(action=Action.PIN, target=V2)
    assert codes(pin, given) == [Code.NOT_READY]


def test_undoing_goes_where_the_latest_activation_came_from() -> None:
    rules = Rules(published=(V1, V2, V3), keep=0)
    given = facts(route=route(V2, V1, activations=(UP,), served=(V3, V1, V2)), rules=rules)
    found = plan(request(), given)
    assert (found.how, found.target, found.undoes) == (How.HOT, V1, (V2,))
    assert found.becomes_cold == (V2,)


def test_a_version_that_does_not_serve_can_be_retired() -> None:
    found = plan(request(action=Action.RETIRE, target=V2), facts())
    assert (found.how, found.becomes_cold) == (How.AT_ONCE, (V2,))


def test_a_live_version_needs_no_source() -> None:
    assert plan(activate(V2), facts(outside=Outside(replays=(GONE,)))).how is How.HOT


ROLLED = facts(route=route(V2, V1, activations=(UP,)))
COLD = facts(route=route(V1), outside=Outside(replays=(GONE,)))
OFF = Toggle(version=V1, feature="n")
TOGGLED = route(V2, V1, activations=(UP,), toggles=(Toggle(version=V2, feature="n", fallback=V1),))
FAR = OffsetRange(partition=2, start=0, end=1)
PINNED = Pin(version=V2, key_schema_id=7, value_schema_id=8)


def pin(**fields: Any) -> Request:
    return request(action=Action.PIN, **{"target": V2, **fields})


def toggle(**fields: Any) -> Request:
    return request(action=Action.TOGGLE, **{"feature": "n", "enabled": False, **fields})


@pytest.mark.parametrize(
    ("code", "asked", "given", "subject", "words"),
    [
        (Code.UNKNOWN_SET, request(feature_set="departure"), facts(published=None), "departure",
         "did you mean 'departures'?"),
        (Code.UNKNOWN_VERSION, activate("1.2.0"), facts(), "1.2.0", "did you mean"),
        (Code.RETIRED_VERSION, activate(V2), facts(route=route(V1, retired=(V2,))), V2, "retired"),
        (Code.RETIRED_VERSION, activate(V2), facts(route=route(V1, V3, retired=(V2,))), V2,
         "name one that is live (2.0.0), or publish"),
        (Code.ALREADY_SERVING, activate(V1), facts(), V1, "serves already"),
        (Code.IF_SERVING_DIFFERS, activate(V2, if_serving=V3), facts(), V1, "1.0.0 serves"),
        (Code.IN_FLIGHT, activate(V2), facts(in_flight="r0"), "r0", "'r0' is under way"),
        (Code.SCHEMA_REFUSED, activate(V2), facts(outside=Outside(schema_reasons=("type",))), V2,
         "refused: type"),
        (Code.SOURCE_GONE, activate(V2), COLD, "flights[1]",
         "from offset 40, and the topic begins at 50"),
        (Code.NO_STREAM, activate(V2), facts(published=published(V1, V2, partitions=0)), "flights",
         "does not exist"),
        (Code.NOTHING_TO_UNDO, request(), facts(), SET, "name the version"),
        (Code.DEADLINE_PASSED, activate(V2, deadline_ms=NOW), facts(), "deadline_ms", "0 ms"),
        (Code.NOT_READY, pin(), COLD, V2, "not ready"),
        (Code.NOT_PINNED, request(action=Action.UNPIN, target=V2), facts(), V2, "not pinned"),
        (Code.PINNED, request(action=Action.RETIRE, target=V2),
         facts(route=route(V1, V2, pinned=(PINNED,))), V2, "unpin it first"),
        (Code.SERVING, request(action=Action.RETIRE, target=V1), facts(), V1, "activate another"),
        (Code.FALLBACK_IN_USE, request(action=Action.RETIRE, target=V1), facts(route=TOGGLED), "n",
         "falls back to 1.0.0"),
        (Code.UNKNOWN_FEATURE, toggle(feature="m"), facts(), "m", "no feature 'm'"),
        (Code.FALLBACK_UNUSABLE, toggle(fallback="previous"), facts(), "n", "no version before"),
        (Code.NOT_OFF, toggle(enabled=True), facts(), "n", "n of 1.0.0 is not switched off"),
        (Code.ALREADY_OFF, toggle(), facts(route=route(V1, toggles=(OFF,))), "n",
         "is switched off already"),
        (Code.ALREADY_OFF, toggle(fallback="previous"), facts(route=TOGGLED), "n",
         "and 1.0.0 stands in for it"),
        (Code.NO_STREAM, toggle(), facts(published=published(V1, partitions=0)), "flights",
         "does not exist"),
        (Code.NO_STREAM, pin(), facts(published=published(V1, V2, partitions=0)), "flights",
         "does not exist"),
        (Code.ALREADY_PINNED, pin(), facts(route=route(V1, V2, pinned=(PINNED,))), V2,
         "is pinned already"),
        (Code.SCHEMA_REFUSED, pin(), facts(outside=Outside(schema_reasons=("theirs",))), V2,
         "refused: theirs"),
        (Code.EXCLUDE_REFUSED, request(exclude=Exclude(where="a")),
         facts(outside=Outside(exclude_reasons=("no field",))), "exclude.where", "no field"),
        (Code.EXCLUDE_REFUSED, request(exclude=Exclude(offsets=(FAR,))), facts(),
         "exclude.offsets", "has partitions 0 to 1, and no 2"),
        (Code.EXCLUDE_REFUSED, request(exclude=Exclude(where="a")),
         facts(route=route(V1, exclusions=(Exclusion(number=1, where="a"),), excluding=1)),
         "exclude", "leaves these events out already"),
        (Code.SOURCE_GONE, request(exclude=Exclude(where="a")),
         facts(outside=Outside(replays=(GONE,))), "flights[1]",
         "from offset 40, and the topic begins at 50"),
        (Code.NO_CHECKPOINTS, activate(V2, checkpoint="c"), facts(), "snapshots", "are kept"),
        (Code.CHECKPOINT_UNKNOWN, activate(V2, checkpoint="c"),
         facts(checkpoints=True, outside=Outside(checkpoint_missing=("it lacks",))), "c",
         "checkpoint c: it lacks"),
        (Code.CHECKPOINT_UNUSABLE, activate(V2, checkpoint="c"),
         facts(checkpoints=True, outside=Outside(checkpoint_unusable=("too late",))), "c",
         "checkpoint c: too late"),
    ],
)  # fmt: skip
def test_each_code(code: Code, asked: Request, given: Facts, subject: str, words: str) -> None:
    verdict = decide(asked, given)
    assert isinstance(verdict, Reject)
    (reason,) = [reason for reason in verdict.reasons if reason.code == code]
    assert reason.subject == subject
    assert words in reason.message
    assert {reason.code for reason in verdict.reasons} == {code}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"live": (LiveVersion(version=V1),)}, "1.0.0 is not live on every partition"),
        ({"live": ()}, "1.0.0 is not live on every partition"),
        ({"retired": (V1,)}, "1.0.0 is retired"),
        ({"toggles": (OFF,)}, "it is switched off in 1.0.0, too"),
    ],
)
def test_a_fallback_has_to_be_live(changed: dict[str, Any], why: str) -> None:
    given = facts(route=route(V2, V1, **{"activations": (UP,), **changed}))
    verdict = decide(toggle(fallback="previous"), given)
    assert isinstance(verdict, Reject)
    assert why in verdict.reasons[-1].message


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"features": {"m": "Int64"}}, "1.0.0 has no such feature"),
        ({"features": {"n": "Float64"}}, "1.0.0 has it as Float64"),
        ({"every_ms": 1}, "1.0.0 has another interval"),
    ],
)
def test_a_fallback_has_to_fit(changed: dict[str, Any], why: str) -> None:
    both = published(V1, V2)
    fitting = replace(both, versions=(replace(both.versions[0], **changed), both.versions[1]))
    given = facts(route=ROLLED.route, published=fitting)
    verdict = decide(toggle(fallback="previous"), given)
    assert isinstance(verdict, Reject)
    assert why in verdict.reasons[-1].message


def test_all_reasons_are_collected() -> None:
    asked = activate("9.0.0", if_serving=V3, deadline_ms=1, checkpoint="x")
    assert codes(asked, facts(in_flight="r0")) == [
        Code.DEADLINE_PASSED,
        Code.IF_SERVING_DIFFERS,
        Code.IN_FLIGHT,
        Code.UNKNOWN_VERSION,
        Code.NO_CHECKPOINTS,
    ]


def test_a_deadline_to_come_is_no_reason() -> None:
    assert plan(activate(V2, deadline_ms=NOW + 1), facts()).how is How.HOT


@pytest.mark.parametrize(("ready", "ready_on"), [((V2,), PARTITIONS), ((), 1)])
def test_a_toggle_takes_a_fence_whether_its_version_is_live_or_not(
    ready: tuple[str, ...], ready_on: int
) -> None:
    given = facts(route=route(V1, *ready), partitions_ready=ready_on)
    found = plan(toggle(target=V2), given)
    assert (found.how, found.target, found.from_version) == (How.HOT, V2, V1)
    assert (found.feature, found.enabled, found.stand_in) == ("n", False, None)


def test_a_toggle_without_a_target_is_about_who_serves() -> None:
    assert plan(toggle(), facts()).target == V1


def test_what_stands_in_is_the_version_before_the_one_that_is_asked_about() -> None:
    ups = (UP, Activation(version=V3, from_version=V2, epoch=2))
    given = facts(route=route(V3, V1, V2, activations=ups))
    assert plan(toggle(fallback="previous"), given).stand_in == V2
    assert plan(toggle(target=V2, fallback="previous"), given).stand_in == V1


def test_what_is_off_may_get_another_stand_in() -> None:
    bare = replace(TOGGLED, toggles=(Toggle(version=V2, feature="n"),))
    assert plan(toggle(fallback="previous"), facts(route=bare)).stand_in == V1
    assert plan(toggle(), facts(route=TOGGLED)).stand_in is None
    assert plan(toggle(enabled=True), facts(route=TOGGLED)).enabled


def test_what_is_switched_on_again_no_longer_keeps_its_stand_in_live() -> None:
    rules = Rules(published=(V1, V2), keep=0)
    served = replace(TOGGLED, served=(V1, V2))
    found = plan(toggle(enabled=True), facts(route=served, rules=rules))
    assert found.becomes_cold == (V1,)


def test_a_pin_takes_a_fence_and_so_does_its_end() -> None:
    assert plan(pin(), facts()).how is How.HOT
    assert plan(pin(target=V1), facts()).how is How.HOT
    unpin = request(action=Action.UNPIN, target=V2)
    assert plan(unpin, facts(route=route(V1, V2, pinned=(PINNED,)))).how is How.HOT
