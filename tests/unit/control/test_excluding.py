"""Events that a set leaves out, from request to end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streams.control.audit import verify
from streams.control.records import Action, Code, Failed, Ready, ReplyState, Request, State
from streams.control.set_record import LiveVersion, Pin
from streams.control.state import fold
from streams.definitions.exclusions import Exclude, OffsetRange
from tests.unit.control.small import PARTITIONS, SET, STREAM, V1, V2, V3, Run, activate, request

FEATURE = "n"
BAD = Exclude(where="delay > 1000")
WORSE = Exclude(offsets=(OffsetRange(partition=0, start=5, end=9),))


def exclude(what: Exclude = BAD, **fields: Any) -> Request:
    return request(**{"request_id": "clean", "exclude": what, **fields})


def three_versions() -> Run:
    """The second of them serves."""
    run = Run(V1, V2, V3)
    for version in (V1, V2, V3):
        run.ready(version)
    run.ask(activate(V2, request_id="up"))
    run.fence()
    return run


def prepared(run: Run, number: int) -> list[LiveVersion]:
    return [one for one in run.set.live if one.excluding == number]


def ready(run: Run, live: LiveVersion, *partitions: int) -> list[str]:
    return run.ack(
        *(
            Ready(
                feature_set=SET,
                version=live.version,
                generation=live.generation,
                stream=STREAM,
                partition=partition,
                offset=100,
            )
            for partition in partitions or range(PARTITIONS)
        )
    )


def clean(run: Run, **fields: Any) -> None:
    """Exclude, and do all that it takes."""
    run.ask(exclude(**fields))
    pending = run.set.pending
    assert pending is not None
    for one in prepared(run, pending.number):
        ready(run, one)
    run.fence()


def test_the_version_that_serves_is_prepared_without_the_events_and_then_switched_to() -> None:
    run = three_versions()
    before = run.set
    assert run.ask(exclude()) == ["accepted", "preparing"]
    (pending,) = run.set.exclusions
    assert (pending.where, run.set.excluding, run.set.pending) == (BAD.where, 0, pending)
    (live,) = prepared(run, pending.number)
    assert (live.version, live.name) == (V2, f"{V2}~{pending.number}")
    assert prepared(run, 0) == list(before.live)
    assert run.set.held == before.held
    assert ready(run, live, 0) == []
    assert ready(run, live, 1) == []
    after = run.set
    assert (after.serving, after.epoch, after.excluding) == (V2, 2, pending.number)
    assert (after.corrects, after.held.speaker) == (V2, live.name)
    assert after.activations == before.activations
    assert run.fence() == ["switched", "completed"]
    assert run.replies[-1].target == V2
    assert verify(run.audit) == []
    assert fold(run.control) == run.state


def test_all_other_live_versions_are_made_live_anew_without_the_events() -> None:
    run = three_versions()
    clean(run)
    assert {one.version for one in run.set.live} == {V1, V2, V3}
    assert {one.excluding for one in run.set.live} == {run.set.excluding}
    assert [one.version for one in run.set.live if one.ready] == [V2]
    run.publish(V1, V2, V3, "3.0.0")
    news = run.set.live_version("3.0.0")
    assert news is not None
    assert news.excluding == run.set.excluding


def test_what_speaks_besides_has_to_be_ready_too() -> None:
    run = three_versions()
    pinned = replace(run.set, pinned=(Pin(version=V1, key_schema_id=1, value_schema_id=2),))
    run.state.sets[SET] = pinned
    run.ask(exclude())
    assert run.set.pending is not None
    first, second = prepared(run, run.set.pending.number)
    assert {first.version, second.version} == {V1, V2}
    ready(run, first)
    assert run.set.excluding == 0
    ready(run, second)
    assert run.set.excluding == first.excluding


def test_a_later_switch_waits_for_what_stands_in_without_the_events_too() -> None:
    run = three_versions()
    off = {"feature": FEATURE, "enabled": False, "fallback": "previous"}
    run.ask(request(action=Action.TOGGLE, request_id="off", **off))
    run.fence()
    run.ask(activate(V3, request_id="third"))
    run.fence()
    clean(run)
    anew = {one.version: one for one in prepared(run, run.set.excluding)}
    ready(run, anew[V2])
    assert run.ask(request(request_id="back")) == ["accepted", "preparing"]
    ready(run, anew[V1])
    run.fence()
    assert run.set.serving == V2
    assert run.replies[-1].state is ReplyState.COMPLETED


def test_an_attempt_that_fails_leaves_no_trace_and_its_number_to_nobody() -> None:
    run = three_versions()
    before = run.set
    run.ask(exclude())
    assert run.set.pending is not None
    number = run.set.pending.number
    (live,) = prepared(run, number)
    said = run.ack(
        Failed(
            feature_set=SET,
            version=V2,
            generation=live.generation,
            stream=STREAM,
            partition=1,
            reason="no disk",
        )
    )
    assert said == ["failed"]
    assert run.set.exclusions == ()
    assert run.set.live == before.live
    assert run.state.requests["clean"].state is State.FAILED
    run.ask(exclude(request_id="again"))
    assert run.set.pending is not None
    assert run.set.pending.number > number


def test_a_deadline_and_a_cancel_end_the_preparation() -> None:
    run = three_versions()
    before = run.set
    run.ask(exclude(deadline_ms=run.now_ms + 10))
    assert run.tick(20) == ["failed"]
    assert (run.set.exclusions, run.set.live) == ((), before.live)
    run.ask(exclude(request_id="again"))
    run.ask(request(request_id="stop", action=Action.CANCEL, cancels="again"))
    assert run.state.requests["again"].state is State.FAILED
    assert (run.set.exclusions, run.set.live) == ((), before.live)


def test_exclusions_add_up() -> None:
    run = three_versions()
    clean(run)
    first = run.set.excluding
    clean(run, request_id="more", what=WORSE)
    assert [one.number for one in run.set.exclusions] == [first, run.set.excluding]
    assert run.set.exclusions[1].offsets == WORSE.offsets
    assert run.set.corrects == f"{V2}~{first}"
    assert run.ask(exclude(request_id="same")) == ["rejected"]
    assert [one.code for one in run.replies[-1].reasons] == [Code.EXCLUDE_REFUSED]


def test_another_version_may_take_over_with_it_and_the_activation_is_undone() -> None:
    run = three_versions()
    clean(run, target=V1)
    assert (run.set.serving, run.set.activations) == (V1, ())
    assert run.set.corrects == V2
    assert run.set.held.speaker == f"{V1}~{run.set.excluding}"


def test_later_switches_stay_without_the_events_and_correct_by_repair_only() -> None:
    run = three_versions()
    clean(run)
    run.ready(V1)
    assert run.ask(request(request_id="back")) == ["accepted"]
    assert (run.set.serving, run.set.corrects) == (V1, None)
    assert run.set.held.speaker == f"{V1}~{run.set.excluding}"


def test_another_coordinator_goes_on() -> None:
    run = three_versions()
    run.ask(exclude())
    assert run.set.pending is not None
    (live,) = prepared(run, run.set.pending.number)
    ready(run, live, 0)
    run.take_over()
    assert run.set.pending is not None
    ready(run, live, 1)
    run.take_over()
    assert run.set.excluding == live.excluding
    assert run.fence() == ["switched", "completed"]


def test_a_dry_run_tells_what_it_takes() -> None:
    run = three_versions()
    before = run.set
    assert run.ask(exclude(dry_run=True)) == ["accepted", "completed"]
    plan = run.replies[-1].plan
    assert plan is not None
    assert (plan.how, plan.target, plan.undoes, plan.partitions_ready) == ("cold", V2, (), 0)
    assert run.set == before
    assert "without events where delay > 1000" in run.audit[-1].detail
