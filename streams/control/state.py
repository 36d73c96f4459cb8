"""The state of the control path: a fold over the control topic, in its order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streams.control.machine import FINAL
from streams.control.records import ControlRecord, Head, RequestRecord, State
from streams.control.routes import default_route
from streams.control.set_record import SetRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.control.routes import Rules


@dataclass(slots=True)
class ControlState:
    """The newest record of each set and of each request.

    `in_flight` maps a set to the id of the request that is under way for it; `checkpointing` are
    the ids of those that only wait for checkpoints, and keep no other from its set. The offsets are
    those of the newest `Stamp`. Records that could not be read as requests leave only that.
    """

    sets: dict[str, SetRecord] = field(default_factory=dict)
    requests: dict[str, RequestRecord] = field(default_factory=dict)
    in_flight: dict[str, str] = field(default_factory=dict)
    checkpointing: dict[str, None] = field(default_factory=dict)
    requests_offset: int = 0
    acks_offset: int = 0
    audit: Head = field(default_factory=Head)

    def apply(self, record: ControlRecord) -> None:
        """Take in the next record of the topic."""
        stamp, body = record.stamp, record.body
        self.requests_offset = stamp.requests_offset
        self.acks_offset = stamp.acks_offset
        self.audit = stamp.audit
        if isinstance(body, SetRecord):
            self.sets[body.feature_set] = body
        elif body.request is not None:
            request = body.request
            self.requests[request.request_id] = body
            if body.state is State.CHECKPOINTING:
                self.checkpointing[request.request_id] = None
            else:
                self.checkpointing.pop(request.request_id, None)
            if body.state not in (*FINAL, State.CHECKPOINTING):
                self.in_flight[request.feature_set] = request.request_id
            elif self.in_flight.get(request.feature_set) == request.request_id:
                del self.in_flight[request.feature_set]

    def route(self, feature_set: str, rules: Rules) -> SetRecord:
        """What is decided about a published set, or holds by default."""
        return self.sets.get(feature_set) or default_route(feature_set, rules)

    def under_way(self) -> list[RequestRecord]:
        """The requests that are in no final state: by set, then those that wait for checkpoints."""
        ids = [*(self.in_flight[name] for name in sorted(self.in_flight)), *self.checkpointing]
        return [self.requests[one] for one in ids]


def fold(records: Iterable[ControlRecord]) -> ControlState:
    """The state after `records`, which are the topic's from its beginning."""
    state = ControlState()
    for record in records:
        state.apply(record)
    return state
