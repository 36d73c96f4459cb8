"""Checkpoints that the control path asks for: at a fence, and on their own."""

from __future__ import annotations

from streams.control.facts import CHECKPOINT_WAIT_MS
from streams.control.records import Action, Code, ReplyState, State
from tests.unit.control.small import NOW, SET, V1, V2, Run, activate, request

ID = "20260101T000000000Z-0a1b2c3d"


def two_versions() -> Run:
    run = Run(V1, V2, new_checkpoint=lambda now_ms, request_id: f"{request_id}-{now_ms}")
    run.ready(V1)
    run.ready(V2)
    return run


def switched() -> Run:
    """Fenced on both partitions, with checkpoints to come."""
    run = two_versions()
    run.ask(activate(V2))
    assert run.fence(0, 1) == ["switched"]
    return run


def test_a_switch_is_completed_when_its_checkpoint_is_stored_everywhere() -> None:
    run = switched()
    assert run.state.requests["r1"].state is State.CHECKPOINTING
    assert run.stored("r1", 1, kept=("before-1",)) == []
    run.now_ms += 7
    assert run.stored("r1", 0, kept=("before-0",)) == ["completed"]
    reply = run.replies[-1]
    assert (reply.checkpoint, reply.cut, reply.reasons) == (f"r1-{NOW}", {0: 200, 1: 201}, ())
    assert run.audit[-1].checkpoints == (f"r1-{NOW}", "before-0", "before-1")


def test_owners_learn_the_checkpoint_with_the_switch() -> None:
    run = two_versions()
    run.ask(activate(V2))
    record = run.state.requests["r1"]
    assert (record.state, record.checkpoint, record.epoch) == (State.SWITCHING, f"r1-{NOW}", 1)


def test_another_switch_need_not_wait_for_checkpoints() -> None:
    run = switched()
    assert run.state.in_flight == {}
    assert run.ask(request(request_id="r2", action=Action.ROLLBACK)) == ["accepted"]
    assert run.set.serving == V1
    assert run.fence(0, 1) == ["switched"]
    assert run.stored("r2", 0, 1) == ["completed"]
    assert run.stored("r1", 0, 1) == ["completed"]


def test_an_archive_that_fails_is_told_of_and_holds_nothing_up() -> None:
    run = switched()
    run.stored("r1", 0)
    assert run.stored("r1", 1, reason="the archive can't be reached") == ["completed"]
    [reason] = run.replies[-1].reasons
    assert (reason.code, reason.subject) == (Code.NOT_CHECKPOINTED, "flights[1]")
    assert "the archive can't be reached" in reason.message
    assert run.audit[-1].reasons == (reason,)


def test_what_nothing_is_heard_of_is_not_waited_for_for_ever() -> None:
    run = switched()
    run.stored("r1", 1)
    assert run.tick(CHECKPOINT_WAIT_MS - 1) == []
    assert run.tick(1) == ["completed"]
    assert [reason.subject for reason in run.replies[-1].reasons] == ["flights[0]"]
    # Whatever comes later changes nothing.
    assert run.stored("r1", 0) == []


def test_another_coordinator_knows_what_was_stored() -> None:
    run = switched()
    run.stored("r1", 0)
    run.take_over()
    assert run.audit[-1].event == "resumed"
    assert run.stored("r1", 1) == ["completed"]
    assert run.replies[-1].reasons == ()


def test_a_checkpoint_is_asked_for_beside_a_switch_under_way() -> None:
    run = two_versions()
    run.ask(activate(V2))
    assert run.ask(request(request_id="r2", action=Action.SNAPSHOT)) == ["accepted"]
    record = run.state.requests["r2"]
    assert (record.state, record.epoch) == (State.CHECKPOINTING, 1)
    assert run.state.in_flight == {SET: "r1"}
    assert run.stored("r2", 0, 1) == ["completed"]
    assert run.fence(0, 1) == ["switched"]


def test_the_id_may_be_given_so_that_several_sets_share_it() -> None:
    run = two_versions()
    run.ask(request(action=Action.SNAPSHOT, checkpoint=ID))
    run.stored("r1", 0, 1)
    reply = run.replies[-1]
    assert (reply.state, reply.checkpoint) == (ReplyState.COMPLETED, ID)
    assert run.set.epoch == 0


def test_where_none_are_kept_a_switch_waits_for_none_and_asking_is_refused() -> None:
    run = Run(V1, V2)
    run.ready(V1)
    run.ready(V2)
    run.ask(activate(V2))
    assert run.fence(0, 1) == ["switched", "completed"]
    assert run.replies[-1].checkpoint is None
    assert run.ask(request(request_id="r2", action=Action.SNAPSHOT)) == ["rejected"]
    assert [reason.code for reason in run.replies[-1].reasons] == [Code.NO_CHECKPOINTS]


def test_a_request_that_comes_again_meanwhile_is_answered() -> None:
    run = switched()
    assert run.ask(activate(V2)) == ["accepted"]
    assert run.replies[-1].cut == {0: 200, 1: 201}


def test_what_waits_for_its_checkpoint_only_can_not_be_cancelled() -> None:
    run = switched()
    assert run.ask(request(request_id="r2", action=Action.CANCEL, cancels="r1")) == ["rejected"]
    assert [reason.code for reason in run.replies[-1].reasons] == [Code.ONLY_FORWARD]
