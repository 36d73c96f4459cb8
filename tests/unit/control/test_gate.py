"""Each thing that the gate looks at, on its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streams.control.facts import Facts, Outside
from streams.control.gate import EFFECTS, UNSUPPORTED_ACTIONS, Accept, Reject, decide
from streams.control.records import (
    Action,
    Activation,
    Code,
    Exclude,
    How,
    LiveVersion,
    Plan,
    Replay,
    Request,
    Toggle,
)
from streams.control.routes import Rules
from tests.unit.control.small import (
    NOW,
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
TOGGLED = route(V2, V1, toggles=(Toggle(version=V2, feature="n", fallback=V1),))


def toggle(**fields: Any) -> Request:
    return request(action=Action.TOGGLE, **{"feature": "n", "enabled": False, **fields})


@pytest.mark.parametrize(
    ("code", "asked", "given", "subject", "words"),
    [
        (Code.UNKNOWN_SET, request(feature_set="departure"), facts(published=None), "departure",
         "did you mean 'departures'?"),
        (Code.UNKNOWN_VERSION, activate("1.2.0"), facts(), "1.2.0", "did you mean"),
        (Code.RETIRED_VERSION, activate(V2), facts(route=route(V1, retired=(V2,))), V2, "retired"),
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
        (Code.NOT_READY, request(action=Action.PIN, target=V2), COLD, V2, "not ready"),
        (Code.NOT_PINNED, request(action=Action.UNPIN, target=V2), facts(), V2, "not pinned"),
        (Code.PINNED, request(action=Action.RETIRE, target=V2),
         facts(route=route(V1, V2, pins=(V2,))), V2, "unpin it first"),
        (Code.SERVING, request(action=Action.RETIRE, target=V1), facts(), V1, "activate another"),
        (Code.FALLBACK_IN_USE, request(action=Action.RETIRE, target=V1), facts(route=TOGGLED), "n",
         "falls back to 1.0.0"),
        (Code.UNKNOWN_FEATURE, toggle(feature="m"), facts(), "m", "no feature 'm'"),
        (Code.FALLBACK_UNUSABLE, toggle(fallback="previous"), facts(), "n", "no version before"),
        (Code.UNSUPPORTED, toggle(), facts(), "action", "does not toggle yet"),
        (Code.UNSUPPORTED, request(action=Action.PIN, target=V2), facts(), "action", "pin"),
        (Code.UNSUPPORTED, request(action=Action.UNPIN, target=V2), facts(), "action", "unpin"),
        (Code.UNSUPPORTED, request(exclude=Exclude(where="a")), ROLLED, "exclude", "leave it out"),
        (Code.UNSUPPORTED, request(repair=True), ROLLED, "repair", "leave it out"),
        (Code.UNSUPPORTED, request(checkpoint="c"), ROLLED, "checkpoint", "leave it out"),
    ],
)  # fmt: skip
def test_each_code(code: Code, asked: Request, given: Facts, subject: str, words: str) -> None:
    verdict = decide(asked, given)
    assert isinstance(verdict, Reject)
    (reason,) = [reason for reason in verdict.reasons if reason.code == code]
    assert reason.subject == subject
    assert words in reason.message
    if code is not Code.UNSUPPORTED:
        others = {reason.code for reason in verdict.reasons} - {code, Code.UNSUPPORTED}
        assert not others


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"live": (LiveVersion(version=V1),)}, "1.0.0 is not live on every partition"),
        ({"live": ()}, "1.0.0 is not live on every partition"),
    ],
)
def test_a_fallback_has_to_be_live(changed: dict[str, Any], why: str) -> None:
    given = facts(route=route(V2, activations=(UP,), **changed))
    verdict = decide(toggle(fallback="previous"), given)
    assert isinstance(verdict, Reject)
    assert why in verdict.reasons[-1].message


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"features": frozenset({"m"})}, "1.0.0 has no such feature"),
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
    asked = activate("9.0.0", if_serving=V3, deadline_ms=1, repair=True)
    assert codes(asked, facts(in_flight="r0")) == [
        Code.UNSUPPORTED,
        Code.DEADLINE_PASSED,
        Code.IF_SERVING_DIFFERS,
        Code.IN_FLIGHT,
        Code.UNKNOWN_VERSION,
    ]


def test_a_deadline_to_come_is_no_reason() -> None:
    assert plan(activate(V2, deadline_ms=NOW + 1), facts()).how is How.HOT


def test_what_is_supported_has_an_effect() -> None:
    assert set(EFFECTS) == set(Action) - UNSUPPORTED_ACTIONS
