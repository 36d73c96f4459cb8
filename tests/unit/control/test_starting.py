"""A request that names the checkpoint to start from, from its gate to its end."""

from __future__ import annotations

import pytest

from streams.control.facts import Outside
from streams.control.records import Action, Code, State
from streams.control.set_record import SetRecord
from streams.definitions.exclusions import Exclude
from tests.unit.control.small import V1, V2, V3, Run, activate, raw, request

ID = "20260101T000000000Z-0a1b2c3d"
LATER = "20260102T000000000Z-0a1b2c3d"


def two_versions(**given: bool) -> Run:
    run = Run(V1, V2, new_checkpoint=lambda now_ms, request_id: f"{request_id}-{now_ms}")
    run.ready(V1)
    if given.get("live"):
        run.ready(V2)
    return run


def begun(record: SetRecord) -> dict[str, str | None]:
    return {one.name: one.checkpoint for one in record.live}


def codes(run: Run) -> list[str]:
    return [reason.code for reason in run.replies[-1].reasons]


def test_what_is_prepared_starts_from_it_and_every_reply_names_it() -> None:
    run = two_versions()
    generation = run.set.generation
    assert run.ask(activate(V2, checkpoint=ID)) == ["accepted", "preparing"]
    assert begun(run.set) == {V1: None, V2: ID}
    # What was on its way began elsewhere: this is another attempt.
    assert run.set.generation > generation
    run.ready(V2)
    run.fence()
    assert run.stored("r1", 0, 1) == ["completed"]
    assert {reply.checkpoint for reply in run.replies} == {ID}
    plan = run.replies[-1].plan
    assert plan is not None
    assert plan.checkpoint == ID
    assert codes(run) == []
    assert run.audit[-1].detail.startswith(f"activate from checkpoint {ID} ")
    assert run.audit[-1].checkpoints == ("r1-1000000",)


def test_an_attempt_from_another_one_is_another_attempt() -> None:
    run = two_versions()
    run.ask(activate(V2, checkpoint=ID))
    first = run.set.live_version(V2)
    run.failed(V2, 1)
    run.ask(activate(V2, request_id="r2", checkpoint=LATER))
    second = run.set.live_version(V2)
    assert first is not None
    assert second is not None
    assert second.generation > first.generation
    assert second.checkpoint == LATER


@pytest.mark.parametrize("end", ["lost", "deadline", "cancelled"])
def test_what_stays_live_after_a_failure_does_not_start_from_it_any_more(end: str) -> None:
    run = two_versions()
    run.ask(activate(V2, checkpoint=ID, deadline_ms=run.now_ms + 10))
    generation = run.set.generation
    if end == "lost":
        run.failed(V2, 0)
    elif end == "deadline":
        run.tick(10)
    else:
        run.ask(request(request_id="r9", action=Action.CANCEL, cancels="r1"))
    assert run.state.requests["r1"].state is State.FAILED
    # 1.1.0 never served, so it stays live: it is warmed as any.
    assert begun(run.set) == {V1: None, V2: None}
    assert run.set.generation > generation
    run.ready(V2)
    assert run.ask(activate(V2, request_id="r2")) == ["accepted"]


def test_a_live_target_has_nothing_restored_and_the_replies_say_so() -> None:
    run = two_versions(live=True)
    assert run.ask(activate(V2, checkpoint=ID, dry_run=True)) == ["accepted", "completed"]
    assert codes(run) == [Code.NOTHING_RESTORED]
    assert run.ask(activate(V2, request_id="r2", checkpoint=ID)) == ["accepted"]
    assert run.fence() == ["switched"]
    assert run.stored("r2", 0, 1) == ["completed"]
    reply = run.replies[-1]
    assert codes(run) == [Code.NOTHING_RESTORED]
    assert "1.1.0 is live" in reply.reasons[0].message
    assert reply.plan is not None
    assert (reply.plan.checkpoint, reply.checkpoint) == (None, "r2-1000000")


def test_a_live_target_needs_one_that_there_is_all_the_same() -> None:
    run = two_versions(live=True)
    missing = Outside(checkpoint_missing=("there is none",))
    assert run.ask(activate(V2, checkpoint=ID), missing) == ["rejected"]
    assert codes(run) == [Code.CHECKPOINT_UNKNOWN]


def test_all_that_speaks_without_the_events_starts_from_it() -> None:
    run = Run(V1, V2, V3, new_checkpoint=lambda now_ms, request_id: f"{request_id}-{now_ms}")
    for version in (V1, V2, V3):
        run.ready(version)
    asked = request(exclude=Exclude(where="delay > 9"), checkpoint=ID)
    target = run.coordinator.target
    found = target(raw(asked))
    assert found is not None
    assert (found.prepared, found.checkpoint) == ((V1,), ID)
    assert run.ask(asked) == ["accepted", "preparing"]
    number = run.set.exclusions[-1].number
    assert begun(run.set) == {V1: None, V2: None, V3: None, f"{V1}~{number}": ID}
