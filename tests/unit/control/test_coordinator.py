"""Requests from their arrival to their end, and what a coordinator finds that takes over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from streams.control.audit import verify
from streams.control.facts import Outside, Target
from streams.control.records import (
    Action,
    AuditEvent,
    Code,
    ReplyState,
    Request,
    RequestRecord,
    State,
)
from streams.control.requests import parse_json
from streams.control.set_record import SetRecord
from streams.control.state import fold
from tests.unit.control.small import NOW, SET, V1, V2, V3, Run, activate, raw, request

if TYPE_CHECKING:
    from collections.abc import Callable


def two_versions(*, keep: int = 2) -> Run:
    run = Run(V1, V2, keep=keep)
    run.ready(V1)
    run.ready(V2)
    return run


def live(record: SetRecord) -> list[str]:
    return [one.version for one in record.live]


def test_the_first_version_serves_and_new_ones_are_live() -> None:
    run = Run(V1)
    assert (run.set.serving, run.set.epoch, live(run.set)) == (V1, 0, [V1])
    run.publish(V1, V2)
    assert (run.set.serving, run.set.epoch, live(run.set)) == (V1, 0, [V1, V2])
    assert run.set.definitions_offset == 3
    assert run.events() == ["live", "live"]


def test_with_fewer_to_keep_versions_become_cold_and_are_ready_again_later() -> None:
    run = two_versions()
    run.ask(activate(V2))
    run.fence()
    for keep, expected in ((0, [V2]), (2, [V1, V2])):
        run.keep = keep
        run.take_over()
        assert live(run.set) == expected
    assert run.events()[-2:] == ["cold", "live"]
    first = run.set.live_version(V1)
    assert first is not None
    assert not first.ready


def test_nothing_new_decides_nothing() -> None:
    run = Run(V1)
    assert run.coordinator.on_time(NOW) is None
    assert run.coordinator.on_published(run.catalog, NOW) is None
    assert run.coordinator.resume(NOW) is None


def test_an_older_reading_of_the_definitions_is_left_alone() -> None:
    run = Run(V1)
    older = run.catalog
    run.publish(V1, V2)
    assert run.coordinator.on_published(older, NOW) is None
    assert run.ask(activate(V2, dry_run=True))[0] == "accepted"


def test_a_version_is_ready_when_every_partition_is() -> None:
    run = Run(V1)
    run.ready(V1, 0)
    assert not run.set.live[0].ready
    run.ready(V1, 1)
    assert run.set.live[0].ready
    assert run.events() == ["live", "ready"]


def test_a_hot_switch() -> None:
    run = two_versions()
    run.now_ms += 5
    assert run.ask(activate(V2)) == ["accepted"]
    assert (run.set.serving, run.set.epoch, run.set.request_id) == (V2, 1, "r1")
    assert run.state.in_flight == {SET: "r1"}
    run.now_ms += 5
    assert run.fence(1) == []
    assert run.fence(0) == ["switched", "completed"]
    reply = run.replies[-1]
    assert (reply.cut_topic, reply.cut, reply.epoch) == ("flights", {0: 200, 1: 201}, 1)
    assert reply.times == {"received": NOW + 5, "switching": NOW + 5, "completed": NOW + 10}
    assert run.state.in_flight == {}
    assert run.audit[-1].duration_ms == 5
    assert run.events()[-4:] == ["accepted", "switching", "switched", "completed"]


def test_a_cold_switch_waits_for_every_partition() -> None:
    run = Run(V1, V2)
    assert run.ask(activate(V2)) == ["accepted", "preparing"]
    assert run.set.serving == V1
    run.ready(V2, 0)
    assert run.set.serving == V1
    assert run.ready(V2, 1) == []
    assert (run.set.serving, run.set.epoch) == (V2, 1)
    assert run.fence() == ["switched", "completed"]


def test_a_cold_version_becomes_live_anew() -> None:
    run = two_versions(keep=0)
    run.ask(activate(V2))
    run.fence()
    run.ask(request(request_id="r2"))
    run.ready(V1)
    run.fence()
    assert live(run.set) == [V1]
    assert run.ask(activate(V2, request_id="r3")) == ["accepted", "preparing"]
    again = run.set.live_version(V2)
    assert again is not None
    assert (again.generation, again.ready) == (3, False)


def test_a_version_that_was_taken_back_stays_live() -> None:
    run = two_versions()
    run.ask(activate(V2))
    run.fence()
    run.ask(request(request_id="r2"))
    run.fence()
    assert live(run.set) == [V1, V2]
    assert run.ask(activate(V2, request_id="r3")) == ["accepted"]
    assert run.fence() == ["switched", "completed"]


def test_a_rollback_takes_the_latest_activation_back() -> None:
    run = two_versions()
    run.ask(activate(V2))
    run.fence()
    assert run.ask(request(request_id="r2", if_serving=V2)) == ["accepted"]
    assert (run.set.serving, run.set.epoch, run.set.activations) == (V1, 2, ())
    run.fence()
    assert run.ask(request(request_id="r3")) == ["rejected"]
    assert run.replies[-1].reasons[0].code == Code.NOTHING_TO_UNDO


def test_a_retired_version_is_cold_for_good() -> None:
    run = two_versions()
    assert run.ask(request(action=Action.RETIRE, target=V2)) == ["accepted", "completed"]
    assert (run.set.retired, live(run.set), run.set.epoch) == ((V2,), [V1], 0)
    run.publish(V1, V2, V3)
    assert live(run.set) == [V1, V3]
    assert run.ask(activate(V2, request_id="r2")) == ["rejected"]


def test_a_dry_run_says_what_would_happen_and_does_nothing() -> None:
    run = two_versions()
    before = run.set
    assert run.ask(activate(V2, dry_run=True)) == ["accepted", "completed"]
    reply = run.replies[-1]
    assert reply.dry_run
    assert reply.plan is not None
    assert (run.set, run.state.in_flight, run.events()[-1]) == (before, {}, "dry_run")


def test_a_refused_request_is_answered_and_audited() -> None:
    run = two_versions()
    before = run.set
    outside = Outside(schema_reasons=("a type changes",))
    assert run.ask(activate(V2), outside) == ["rejected"]
    assert run.replies[-1].reasons[0].code == Code.SCHEMA_REFUSED
    assert run.audit[-1].reasons == run.replies[-1].reasons
    assert run.set == before


def test_one_request_at_a_time_for_a_set() -> None:
    run = two_versions()
    run.ask(activate(V2))
    assert run.ask(request(request_id="r2")) == ["rejected"]
    assert run.replies[-1].reasons[0].code == Code.IN_FLIGHT


def test_an_unreadable_request_is_answered_by_its_place() -> None:
    run = two_versions()
    assert run.ask(parse_json(b"{")) == ["rejected"]
    reply = run.replies[-1]
    assert (reply.request_id, reply.origin.offset) == (None, 0)
    assert run.audit[-1].detail == "app.rollback[0]@0"
    assert run.ask(parse_json(b'{"request_id": "r1"}')) == ["rejected"]
    assert run.replies[-1].request_id == "r1"
    assert run.state.requests == {}
    assert run.ask(activate(V2)) == ["accepted"]


def test_an_unreadable_request_does_not_speak_for_another_one() -> None:
    run = two_versions()
    run.ask(activate(V2))
    assert run.ask(parse_json(b'{"request_id": "r1"}')) == ["rejected"]
    assert run.replies[-1].request_id is None
    assert run.state.requests["r1"].state is State.SWITCHING


@pytest.mark.parametrize("state", [State.REJECTED, State.PREPARING, State.SWITCHING, "completed"])
def test_a_request_that_comes_again_gets_the_same_answer(state: str) -> None:
    run = Run(V1, V2) if state is State.PREPARING else two_versions()
    asked = activate("9.9.9" if state is State.REJECTED else V2)
    run.ask(asked)
    if state == "completed":
        run.fence()
    before = (run.state.requests["r1"], run.set)
    answer = "accepted" if state is State.SWITCHING else state
    assert run.ask(asked) == [answer]
    assert (run.state.requests["r1"], run.set) == before
    assert (run.replies[-1].origin.offset, run.replies[-1].reasons) == (1, before[0].reasons)
    assert run.events()[-1] == "repeated"


def test_another_request_under_the_same_id_is_told_so() -> None:
    run = two_versions()
    run.ask(activate(V2))
    assert run.ask(request(action=Action.RETIRE, target=V2)) == ["accepted"]
    (reason,) = run.replies[-1].reasons
    assert (reason.code, reason.subject) == (Code.REPEATED, "request_id")
    assert run.audit[-1].reasons == (reason,)
    assert run.state.requests["r1"].reasons == ()


def test_a_record_that_is_decided_is_not_decided_again() -> None:
    run = two_versions()
    run.ask(activate(V2))
    assert run.coordinator.on_request(raw(activate(V2), 0), Outside(), NOW) is None


def test_a_deadline_ends_the_preparation() -> None:
    run = Run(V1, V2)
    run.ask(activate(V2, deadline_ms=NOW + 100))
    run.ready(V2, 0)
    assert run.tick(99) == []
    assert run.tick(1) == ["failed"]
    (reason,) = run.replies[-1].reasons
    assert (reason.code, "ready on 1 of 2" in reason.message) == (Code.DEADLINE_PASSED, True)
    assert (run.set.serving, run.set.epoch, run.state.in_flight) == (V1, 0, {})
    run.ready(V2, 1)
    assert run.ask(activate(V2, request_id="r2")) == ["accepted"]


def test_what_is_ready_at_the_deadline_is_switched() -> None:
    run = Run(V1, V2)
    run.ask(activate(V2, deadline_ms=NOW + 100))
    run.now_ms += 100
    run.ready(V2)
    assert run.set.serving == V2


def test_no_deadline_takes_a_switch_back() -> None:
    run = two_versions()
    run.ask(activate(V2, deadline_ms=NOW + 100))
    assert run.tick(1_000) == []
    assert run.fence() == ["switched", "completed"]


def cancel(of: str, **fields: Any) -> Request:
    return request(**{"request_id": "c1", "action": Action.CANCEL, "cancels": of, **fields})


def test_what_is_prepared_is_cancelled_and_the_set_takes_others() -> None:
    run = Run(V1, V2, V3, keep=0)
    for version in (V1, V2, V3):
        run.ready(version)
    for version in (V2, V3):
        run.ask(activate(version, request_id=version))
        run.fence()
    assert run.set.live_version(V1) is None
    run.ask(activate(V1))
    assert run.set.live_version(V1) is not None
    (would,) = {run.ask(cancel("r1", request_id="c0", dry_run=True))[-1]}
    assert (would, run.state.in_flight) == ("completed", {SET: "r1"})
    assert run.ask(cancel("r1", reason="too slow")) == ["accepted", "completed", "failed"]
    (reason,) = run.state.requests["r1"].reasons
    assert (reason.code, reason.subject, "too slow" in reason.message) == (
        Code.CANCELLED,
        "c1",
        True,
    )
    assert (run.set.live_version(V1), run.state.in_flight, run.set.epoch) == (None, {}, 2)
    plan = run.state.requests["c1"].plan
    assert plan is not None
    assert (plan.how, plan.target, plan.from_version, plan.becomes_cold) == (
        "at_once",
        V1,
        V3,
        (V1,),
    )
    assert run.events()[-3:] == ["accepted", "completed", "failed"]
    run.take_over()
    run.ask(activate(V2, request_id="r2"))
    assert run.state.in_flight == {SET: "r2"}


def test_after_the_switch_there_is_nothing_to_cancel() -> None:
    run = two_versions()
    run.ask(activate(V2))
    before = run.set
    for name, of, code in (
        ("c1", "r1", Code.ONLY_FORWARD),
        ("c2", "r0", Code.UNKNOWN_REQUEST),
        ("c3", "c1", Code.REQUEST_OVER),
    ):
        assert run.ask(cancel(of, request_id=name)) == ["rejected"]
        assert [one.code for one in run.replies[-1].reasons] == [code]
    assert run.set == before
    run.fence()
    assert run.ask(cancel("r1", request_id="c4")) == ["rejected"]
    assert [one.code for one in run.replies[-1].reasons] == [Code.REQUEST_OVER]


def test_a_cancel_names_the_set_of_the_other_request() -> None:
    run = Run(V1, V2)
    run.ask(activate(V2))
    run.ask(cancel("r1", feature_set="other"))
    assert [one.code for one in run.replies[-1].reasons] == [Code.UNKNOWN_SET]
    assert run.coordinator.target(raw(cancel("r1", request_id="c2"), 9)) is None


@pytest.mark.parametrize("action", [Action.TOGGLE, Action.UNPIN, Action.RETIRE])
def test_what_makes_no_version_speak_asks_nobody_outside(action: Action) -> None:
    run = two_versions()
    asked = request(action=action, target=V2, feature="n")
    assert run.coordinator.target(raw(asked, 9)) is None


def test_a_partition_that_can_not_prepare_ends_the_preparation() -> None:
    run = Run(V1, V2)
    run.ask(activate(V2))
    assert run.failed(V2, 1) == ["failed"]
    (reason,) = run.replies[-1].reasons
    assert (reason.code, reason.subject) == (Code.NOT_PREPARED, "flights[1]")
    assert "no disk" in reason.message
    assert run.set.serving == V1


def test_after_a_failure_a_new_attempt_begins() -> None:
    run = Run(V1, V2)
    first = run.set.live_version(V2)
    run.ask(activate(V2))
    assert run.set.live_version(V2) == first
    run.failed(V2, 1)
    assert run.ask(activate(V2, request_id="r2")) == ["accepted", "preparing"]
    second = run.set.live_version(V2)
    assert first is not None
    assert second is not None
    assert second.generation == first.generation + 1
    assert run.ready(V2) == []
    assert run.set.serving == V2


def test_a_version_that_was_cold_does_not_stay_live_after_a_failure() -> None:
    run = two_versions(keep=0)
    run.ask(activate(V2))
    run.fence()
    run.ask(request(request_id="r2"))
    run.ready(V1)
    run.fence()
    run.ask(activate(V2, request_id="r3"))
    run.publish(V1, V2, V3)
    assert live(run.set) == [V1, V2, V3]
    run.failed(V2, 0)
    assert live(run.set) == [V1, V3]


def test_fences_of_earlier_epochs_do_not_count() -> None:
    run = two_versions()
    run.ask(activate(V2))
    run.fence()
    run.ask(request(request_id="r2"))
    assert run.fence(epoch=1) == []
    assert run.fence(0) == []
    assert run.fence(1) == ["switched", "completed"]


def test_a_version_is_not_ready_while_there_is_no_stream() -> None:
    run = Run(V1, V2)
    none = replace(run.catalog, sets={SET: replace(run.catalog.sets[SET], partitions=0)})
    assert run.coordinator.on_published(none, NOW) is None
    assert run.ask(activate(V2)) == ["rejected"]
    assert run.replies[-1].reasons[0].code == Code.NO_STREAM


def test_what_the_gate_needs_to_know_more_of() -> None:
    run = two_versions()
    target = run.coordinator.target
    hot = Target(feature_set=SET, version=V2, cold=False, left_out={SET: ()}, prepared=(V2,))
    assert target(raw(activate(V2))) == hot
    assert target(raw(activate("9.9.9"))) is None
    assert target(raw(request())) is None
    assert target(raw(Request(request_id="x", feature_set="other"))) is None
    assert target(raw(parse_json(b"{"))) is None
    run.ask(activate(V2))
    assert target(raw(activate(V2))) is None
    back = replace(hot, version=V1, prepared=(V1,))
    assert target(raw(request(request_id="r2"))) == back
    from_it = replace(back, checkpoint="c")
    assert target(raw(request(request_id="r2", checkpoint="c"))) == from_it


@pytest.mark.parametrize("at", range(6))
def test_another_coordinator_goes_on_at_any_step(at: int) -> None:
    run = Run(V1, V2)
    steps: list[Callable[[], list[str]]] = [
        lambda: run.ask(activate(V2)),
        lambda: run.ready(V2, 0),
        lambda: run.ready(V2, 1),
        lambda: run.fence(0),
        lambda: run.fence(1),
    ]
    for number, step in enumerate(steps):
        if number == at:
            run.take_over()
        step()
    if at == len(steps):
        run.take_over()
    outcome = [reply.state for reply in run.replies]
    assert outcome == ["accepted", "preparing", "switched", "completed"]
    assert run.replies[-1].cut == {0: 200, 1: 201}
    assert run.events().count("resumed") == (0 < at < 5)
    assert verify(run.audit, [record.stamp.audit for record in run.control]) == []


def test_what_was_not_committed_leaves_nothing_behind() -> None:
    run = two_versions()
    before = fold(run.control)
    lost = run.coordinator.on_request(raw(activate(V2)), Outside(), NOW)
    assert lost is not None
    assert run.state == before
    assert run.coordinator.on_request(raw(activate(V2)), Outside(), NOW) == lost


def test_a_decision_is_committed_only_on_top_of_what_it_knew() -> None:
    run = two_versions()
    early = run.coordinator.on_request(raw(activate(V2)), Outside(), NOW)
    assert early is not None
    run.publish(V1, V2, V3)
    with pytest.raises(ValueError, match="another decision was committed"):
        run.coordinator.commit(early)


def test_each_decision_says_where_to_go_on() -> None:
    run = two_versions()
    decision = run.coordinator.on_request(raw(activate(V2), 7), Outside(), NOW)
    assert decision is not None
    assert decision.requests_offset == 8
    assert decision.stamp.acks_offset == 4
    assert {record.stamp for record in decision.control} == {decision.stamp}
    kinds = [type(record.body) for record in decision.control]
    assert kinds == [SetRecord, RequestRecord]
    assert [reply.state for reply in decision.replies] == [ReplyState.ACCEPTED]
    events = [record.event for record in decision.audit]
    assert events == [AuditEvent.ACCEPTED, AuditEvent.SWITCHING]
