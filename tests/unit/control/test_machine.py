"""The table of a request's life."""

from __future__ import annotations

from pathlib import Path

from streams.control.machine import FINAL, MEANING, TABLE, Event, mermaid
from streams.control.records import AuditEvent, ReplyState, State


def test_every_event_in_every_state_is_decided() -> None:
    assert set(TABLE) == {(state, event) for state in State for event in Event}
    for transition in TABLE.values():
        assert bool(transition.ignored) != bool(transition.replies or transition.audit)


def test_what_is_ignored_changes_nothing() -> None:
    for (state, _), transition in TABLE.items():
        if transition.ignored:
            assert (transition.to, transition.replies, transition.audit) == (state, (), ())


def test_final_states_never_change() -> None:
    for (state, _), transition in TABLE.items():
        if state in FINAL:
            assert transition.to is state


def test_whatever_is_done_is_audited() -> None:
    for transition in TABLE.values():
        assert transition.ignored or transition.audit


def test_a_request_that_comes_again_is_answered_and_changes_nothing() -> None:
    for state in State:
        if state is not State.RECEIVED:
            transition = TABLE[state, Event.REPEATED]
            assert transition.to is state
            assert len(transition.replies) == 1
            assert transition.audit == (AuditEvent.REPEATED,)


def test_after_the_switch_there_is_only_forward() -> None:
    ways = {TABLE[State.SWITCHING, event].to for event in Event}
    assert ways == {State.SWITCHING, State.CHECKPOINTING, State.COMPLETED}


def test_each_final_state_is_reached_with_its_own_reply() -> None:
    for (state, _), transition in TABLE.items():
        if transition.to in FINAL and state not in FINAL:
            assert transition.replies[-1] == ReplyState(transition.to.value)


def test_every_state_can_be_reached_and_left_for_a_final_one() -> None:
    reached = {State.RECEIVED}
    for _ in State:
        reached |= {TABLE[state, event].to for state in reached for event in Event}
    assert reached == set(State)
    ends = set(FINAL)
    for _ in State:
        ends |= {s for s in State if any(TABLE[s, event].to in ends for event in Event)}
    assert ends == set(State)


def test_every_event_is_explained() -> None:
    assert set(MEANING) == set(Event)


def test_the_diagram_shows_every_change() -> None:
    assert (
        mermaid()
        == """stateDiagram-v2
    [*] --> received
    received --> rejected: reject
    received --> completed: dry run, accept at once
    received --> switching: accept hot
    received --> preparing: accept cold
    received --> checkpointing: accept checkpoint
    preparing --> switching: ready
    preparing --> failed: lost, deadline, cancelled
    preparing --> preparing: repeated, resumed
    switching --> completed: fenced
    switching --> checkpointing: switched
    switching --> switching: repeated, resumed
    checkpointing --> completed: checkpointed, overdue
    checkpointing --> checkpointing: repeated, resumed
    rejected --> [*]
    completed --> [*]
    failed --> [*]
"""
    )


def test_the_documentation_shows_this_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "control-path.md"
    text = page.read_text(encoding="utf-8")
    assert f"```mermaid\n{mermaid()}```" in text
    for event, meaning in MEANING.items():
        assert f"| {event} | {meaning} |" in text
