"""Features that are switched off and versions that are pinned, from request to end."""

from __future__ import annotations

from typing import Any

import pytest

from streams.control.audit import verify
from streams.control.facts import Outside
from streams.control.records import Action, Code, Request, State
from streams.control.set_record import Pin, Toggle
from streams.control.state import fold
from tests.unit.control.small import SET, V1, V2, V3, Run, activate, raw, request

PIN = Pin(version=V1, key_schema_id=7, value_schema_id=8)


def three_versions(*, keep: int = 2) -> Run:
    """The second of them serves."""
    run = Run(V1, V2, V3, keep=keep)
    for version in (V1, V2, V3):
        run.ready(version)
    run.ask(activate(V2, request_id="up"))
    run.fence()
    return run


def off(**fields: Any) -> Request:
    given = {"request_id": "off", "action": Action.TOGGLE, "feature": "n", "enabled": False}
    return request(**{**given, **fields})


def on(**fields: Any) -> Request:
    return off(**{"request_id": "on", "enabled": True, **fields})


def pin(action: Action = Action.PIN, **fields: Any) -> Request:
    return request(**{"request_id": action, "action": action, "target": V1, **fields})


def test_a_toggle_is_an_epoch_that_every_partition_fences() -> None:
    run = three_versions()
    assert run.ask(off()) == ["accepted"]
    assert (run.set.epoch, run.set.serving) == (2, V2)
    assert run.set.toggles == (Toggle(version=V2, feature="n"),)
    assert run.fence(0) == []
    assert run.fence(1) == ["switched", "completed"]
    reply = run.replies[-1]
    assert (reply.epoch, reply.cut, reply.target) == (2, {0: 200, 1: 201}, V2)
    assert run.ask(on()) == ["accepted"]
    assert run.set.epoch == 3
    assert not run.set.toggles


def test_a_toggle_does_not_change_what_can_be_undone() -> None:
    run = three_versions()
    run.ask(off())
    run.fence()
    run.ask(request(request_id="back"))
    assert (run.set.serving, run.set.epoch) == (V1, 3)
    assert run.set.held.off(V2) == {"n": None}
    assert run.set.held.off(V1) == {}


def test_what_stands_in_is_named_stays_live_and_can_not_be_retired() -> None:
    run = three_versions()
    run.ask(off(fallback="previous"))
    run.fence()
    assert run.set.held.off(V2) == {"n": V1}
    assert run.replies[-1].plan is not None
    assert run.replies[-1].plan.stand_in == V1
    run.keep = 0
    run.take_over()
    assert run.set.live_version(V1) is not None
    assert run.ask(request(request_id="r2", action=Action.RETIRE, target=V1)) == ["rejected"]
    assert [reason.code for reason in run.replies[-1].reasons] == [Code.FALLBACK_IN_USE]
    run.ask(on())
    assert run.set.live_version(V1) is None


def test_who_is_retired_holds_no_stand_in_any_more() -> None:
    run = three_versions()
    run.ask(off(fallback="previous"))
    run.fence()
    run.ask(activate(V3, request_id="r3"))
    run.fence()
    assert run.ask(request(request_id="r4", action=Action.RETIRE, target=V2))[-1] == "completed"
    assert not run.set.toggles


@pytest.mark.parametrize("crash", [False, True])
def test_the_audit_says_which_feature_and_what_stands_in(crash: bool) -> None:
    run = three_versions()
    run.ask(off(fallback="previous", reason="negative delays"))
    if crash:
        run.take_over()
    run.fence()
    last = run.audit[-1]
    assert (last.event, last.epoch, last.reason) == ("completed", 2, "negative delays")
    assert last.detail == (f"toggle n off with previous instead from {V2}, hot, app.rollback[0]@1")
    assert verify(run.audit, [record.stamp.audit for record in run.control]) == []
    assert fold(run.control).sets[SET].held.off(V2) == {"n": V1}


def test_a_pin_is_an_epoch_too_and_names_the_schemas_of_its_topic() -> None:
    run = three_versions()
    assert run.ask(pin(), Outside(pin=PIN)) == ["accepted"]
    assert (run.set.epoch, run.set.pinned, run.set.serving) == (2, (PIN,), V2)
    assert run.fence() == ["switched", "completed"]
    run.keep = 0
    run.take_over()
    assert run.set.live_version(V1) is not None
    assert run.ask(request(request_id="r2", action=Action.RETIRE, target=V1)) == ["rejected"]
    assert run.ask(pin(Action.UNPIN)) == ["accepted"]
    assert (run.set.epoch, run.set.pinned) == (3, ())
    assert run.set.live_version(V1) is None
    assert run.fence() == ["switched", "completed"]


def test_a_topic_is_made_for_a_pin_that_would_be_accepted_and_for_no_other() -> None:
    run = three_versions()

    def would(asked: Request, outside: Outside | None = None) -> bool:
        return run.coordinator.would_pin(raw(asked), outside or Outside(), run.now_ms)

    assert would(pin())
    assert not would(pin(), Outside(pin=PIN))
    assert not would(pin(), Outside(schema_reasons=("theirs",)))
    assert not would(pin(dry_run=True))
    assert not would(pin(target="9.9.9"))
    assert not would(pin(Action.UNPIN))
    assert not would(off())
    run.ask(pin(), Outside(pin=PIN))
    assert not would(pin())  # its answer is known


def test_a_dry_run_of_a_pin_or_toggle_changes_nothing() -> None:
    run = three_versions()
    before = run.set
    assert run.ask(pin(dry_run=True)) == ["accepted", "completed"]
    assert run.ask(off(dry_run=True)) == ["accepted", "completed"]
    assert run.set == before
    assert run.state.requests["off"].state is State.COMPLETED
