"""The life of a request: for each state and each event, what happens, or why nothing does.

The table is total. After the switch there is only forward: neither a deadline nor a partition
that could not prepare takes a decision back that others have begun to obey.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from streams.control.records import AuditEvent, ReplyState, State

if TYPE_CHECKING:
    from collections.abc import Mapping

FINAL = frozenset({State.REJECTED, State.COMPLETED, State.FAILED})
"""States that no event leads out of."""


class Event(StrEnum):
    """What can happen to a request."""

    REJECT = "reject"
    DRY_RUN = "dry run"
    ACCEPT_AT_ONCE = "accept at once"
    ACCEPT_HOT = "accept hot"
    ACCEPT_COLD = "accept cold"
    ACCEPT_CHECKPOINT = "accept checkpoint"
    READY = "ready"
    LOST = "lost"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    FENCED = "fenced"
    SWITCHED = "switched"
    CHECKPOINTED = "checkpointed"
    OVERDUE = "overdue"
    REPEATED = "repeated"
    RESUMED = "resumed"


MEANING: Mapping[Event, str] = {
    Event.REJECT: "the gate refuses it, or it can't be read",
    Event.DRY_RUN: "the gate would accept it, and no more is asked",
    Event.ACCEPT_AT_ONCE: "the gate accepts it, and no partition has to do anything",
    Event.ACCEPT_HOT: "the gate accepts it, and all it takes is a fence in every partition",
    Event.ACCEPT_COLD: "the gate accepts it, and the target has to be prepared",
    Event.ACCEPT_CHECKPOINT: "the gate accepts it, and it asks for a checkpoint only",
    Event.READY: "every partition has the target ready",
    Event.LOST: "a partition can't prepare the target",
    Event.DEADLINE: "its deadline is over",
    Event.CANCELLED: "another request takes it back",
    Event.FENCED: "every partition has fenced the epoch, and no checkpoint is taken there",
    Event.SWITCHED: "every partition has fenced the epoch, and takes a checkpoint there",
    Event.CHECKPOINTED: "every partition has stored its checkpoint, or said why it can't",
    Event.OVERDUE: "a partition has not said so for a minute",
    Event.REPEATED: "a request with the same id comes again",
    Event.RESUMED: "another coordinator takes over",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What an event does: the next state, and what goes out, in order.

    Where `ignored` says why, nothing is written and the state stays.
    """

    to: State
    replies: tuple[ReplyState, ...] = ()
    audit: tuple[AuditEvent, ...] = ()
    ignored: str = ""


def _to(state: State, *said: ReplyState | AuditEvent) -> Transition:
    return Transition(
        to=state,
        replies=tuple(one for one in said if isinstance(one, ReplyState)),
        audit=tuple(one for one in said if isinstance(one, AuditEvent)),
    )


_GATE = (
    Event.REJECT,
    Event.DRY_RUN,
    Event.ACCEPT_AT_ONCE,
    Event.ACCEPT_HOT,
    Event.ACCEPT_COLD,
    Event.ACCEPT_CHECKPOINT,
)
_CHECKPOINTS = (Event.CHECKPOINTED, Event.OVERDUE)

_CHANGES: Mapping[State, Mapping[Event, Transition]] = {
    State.RECEIVED: {
        Event.REJECT: _to(State.REJECTED, ReplyState.REJECTED, AuditEvent.REJECTED),
        Event.DRY_RUN: _to(
            State.COMPLETED, ReplyState.ACCEPTED, ReplyState.COMPLETED, AuditEvent.DRY_RUN
        ),
        Event.ACCEPT_AT_ONCE: _to(
            State.COMPLETED,
            *(ReplyState.ACCEPTED, ReplyState.COMPLETED),
            *(AuditEvent.ACCEPTED, AuditEvent.COMPLETED),
        ),
        Event.ACCEPT_HOT: _to(
            State.SWITCHING, ReplyState.ACCEPTED, AuditEvent.ACCEPTED, AuditEvent.SWITCHING
        ),
        Event.ACCEPT_COLD: _to(
            State.PREPARING,
            *(ReplyState.ACCEPTED, ReplyState.PREPARING),
            *(AuditEvent.ACCEPTED, AuditEvent.PREPARING),
        ),
        Event.ACCEPT_CHECKPOINT: _to(State.CHECKPOINTING, ReplyState.ACCEPTED, AuditEvent.ACCEPTED),
    },
    State.PREPARING: {
        Event.READY: _to(State.SWITCHING, AuditEvent.SWITCHING),
        Event.LOST: _to(State.FAILED, ReplyState.FAILED, AuditEvent.FAILED),
        Event.DEADLINE: _to(State.FAILED, ReplyState.FAILED, AuditEvent.FAILED),
        Event.CANCELLED: _to(State.FAILED, ReplyState.FAILED, AuditEvent.FAILED),
        Event.REPEATED: _to(State.PREPARING, ReplyState.PREPARING, AuditEvent.REPEATED),
        Event.RESUMED: _to(State.PREPARING, AuditEvent.RESUMED),
    },
    State.SWITCHING: {
        Event.FENCED: _to(
            State.COMPLETED,
            *(ReplyState.SWITCHED, ReplyState.COMPLETED),
            *(AuditEvent.SWITCHED, AuditEvent.COMPLETED),
        ),
        Event.SWITCHED: _to(State.CHECKPOINTING, ReplyState.SWITCHED, AuditEvent.SWITCHED),
        Event.REPEATED: _to(State.SWITCHING, ReplyState.ACCEPTED, AuditEvent.REPEATED),
        Event.RESUMED: _to(State.SWITCHING, AuditEvent.RESUMED),
    },
    State.CHECKPOINTING: {
        Event.CHECKPOINTED: _to(State.COMPLETED, ReplyState.COMPLETED, AuditEvent.COMPLETED),
        Event.OVERDUE: _to(State.COMPLETED, ReplyState.COMPLETED, AuditEvent.COMPLETED),
        Event.REPEATED: _to(State.CHECKPOINTING, ReplyState.ACCEPTED, AuditEvent.REPEATED),
        Event.RESUMED: _to(State.CHECKPOINTING, AuditEvent.RESUMED),
    },
    State.REJECTED: {Event.REPEATED: _to(State.REJECTED, ReplyState.REJECTED, AuditEvent.REPEATED)},
    State.COMPLETED: {
        Event.REPEATED: _to(State.COMPLETED, ReplyState.COMPLETED, AuditEvent.REPEATED)
    },
    State.FAILED: {Event.REPEATED: _to(State.FAILED, ReplyState.FAILED, AuditEvent.REPEATED)},
}

_NOTHING: Mapping[State, Mapping[Event, str]] = {
    State.RECEIVED: {
        Event.READY: "it waits for the gate, not for partitions",
        Event.LOST: "it waits for the gate, not for partitions",
        Event.DEADLINE: "the gate refuses what is too late",
        Event.CANCELLED: "nobody knows of it yet",
        Event.FENCED: "it has no epoch yet",
        Event.SWITCHED: "it has no epoch yet",
        **dict.fromkeys(_CHECKPOINTS, "it waits for the gate, not for partitions"),
        Event.REPEATED: "it is the first with its id",
        Event.RESUMED: "nothing of it is stored: it is read again",
    },
    State.PREPARING: {
        **dict.fromkeys(_GATE, "the gate has accepted it"),
        Event.FENCED: "it has no epoch yet",
        Event.SWITCHED: "it has no epoch yet",
        **dict.fromkeys(_CHECKPOINTS, "nothing is asked for before the switch"),
    },
    State.SWITCHING: {
        **dict.fromkeys(_GATE, "the gate has accepted it"),
        Event.READY: "the epoch is decided: there is only forward",
        Event.LOST: "the epoch is decided: there is only forward",
        Event.DEADLINE: "the epoch is decided: there is only forward",
        Event.CANCELLED: "the epoch is decided: there is only forward",
        **dict.fromkeys(_CHECKPOINTS, "the fences come first"),
    },
    State.CHECKPOINTING: {
        **dict.fromkeys(_GATE, "the gate has accepted it"),
        Event.READY: "what was asked for holds: only checkpoints are waited for",
        Event.LOST: "what was asked for holds: only checkpoints are waited for",
        Event.DEADLINE: "what was asked for holds: only checkpoints are waited for",
        Event.CANCELLED: "what was asked for holds: only checkpoints are waited for",
        Event.FENCED: "the fences are there",
        Event.SWITCHED: "the fences are there",
    },
    **dict.fromkeys(
        FINAL,
        dict.fromkeys((event for event in Event if event is not Event.REPEATED), "it is over"),
    ),
}

TABLE: Mapping[tuple[State, Event], Transition] = {
    **{(state, event): it for state, row in _CHANGES.items() for event, it in row.items()},
    **{
        (state, event): Transition(to=state, ignored=why)
        for state, row in _NOTHING.items()
        for event, why in row.items()
    },
}
"""Every state and every event."""


def mermaid() -> str:
    """The table as a Mermaid state diagram, as the documentation shows it.

    Events that are ignored are left out, and in final states the repeated request too.
    """
    edges: dict[tuple[State, State], list[Event]] = {}
    for state in State:
        for event in Event:
            transition = TABLE[state, event]
            if not transition.ignored and not (state in FINAL and transition.to is state):
                edges.setdefault((state, transition.to), []).append(event)
    lines = ["stateDiagram-v2", f"    [*] --> {State.RECEIVED}"]
    lines += [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in edges.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines) + "\n"
