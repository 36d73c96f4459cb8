"""A decision in the making: what one transaction of the coordinator will hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from streams.control.audit import chained
from streams.control.machine import FINAL, TABLE, Event
from streams.control.records import (
    GENESIS,
    Action,
    AuditEvent,
    AuditRecord,
    ControlRecord,
    Head,
    Origin,
    Reason,
    Reply,
    ReplyState,
    RequestRecord,
    Stamp,
)
from streams.control.set_record import SetRecord

if TYPE_CHECKING:
    from streams.control.records import Request
    from streams.control.routes import Rules
    from streams.control.set_record import LiveVersion
    from streams.control.state import ControlState
    from streams.definitions.exclusions import Exclude, Exclusion


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What one transaction holds, each in order; `base` is the audit chain that it goes on with.

    Together with it the offset `requests_offset` of the rollback topic is committed.
    """

    base: Head
    stamp: Stamp
    control: tuple[ControlRecord, ...]
    audit: tuple[AuditRecord, ...]
    replies: tuple[Reply, ...]

    @property
    def requests_offset(self) -> int:
        return self.stamp.requests_offset


class Draft:
    """Collects changes on top of a state that it leaves alone."""

    def __init__(
        self,
        state: ControlState,
        now_ms: int,
        *,
        acks_offset: int,
        requests_offset: int | None = None,
    ) -> None:
        self.now_ms = now_ms
        self._state = state
        self._acks_offset = acks_offset
        self._requests_offset = (
            state.requests_offset if requests_offset is None else requests_offset
        )
        self._sets: dict[str, SetRecord] = {}
        self._requests: dict[Origin, RequestRecord] = {}
        self._replies: list[Reply] = []
        self._audit: list[AuditRecord] = []

    def route(self, feature_set: str, rules: Rules) -> SetRecord:
        """The set as it is with the changes so far."""
        return self._sets.get(feature_set) or self._state.route(feature_set, rules)

    def under_way(self) -> list[RequestRecord]:
        """The requests that are under way with the changes so far, by set."""
        requests = [self._requests.get(it.origin, it) for it in self._state.under_way()]
        return [it for it in requests if it.state not in FINAL]

    def put(self, record: SetRecord, request_id: str | None = None) -> None:
        """Decide this about a set."""
        self._sets[record.feature_set] = replace(record, request_id=request_id)

    def note(self, event: AuditEvent, record: SetRecord, live: LiveVersion) -> None:
        """Put what happened to a version of a set on the audit trail."""
        number = live.excluding
        self._log(
            event,
            feature_set=record.feature_set,
            version=live.version,
            epoch=record.epoch,
            detail=f"without the events of exclusion {number}" if number else "",
        )

    def move(
        self,
        record: RequestRecord,
        event: Event,
        *,
        answers: Origin | None = None,
        remarks: tuple[Reason, ...] = (),
        **changes: Any,
    ) -> None:
        """Let `event` happen to a request; `changes` are fields of its record.

        `answers` is the record that is answered if it is not the request's own; `remarks` go
        into the replies and the audit trail, and not into the record.
        """
        transition = TABLE[record.state, event]
        if transition.ignored:
            return
        times = record.times
        if transition.to is not record.state:
            times = {**times, transition.to.value: self.now_ms}
        after = replace(record, state=transition.to, times=times, **changes)
        self._requests[record.origin] = after
        origin = answers or after.origin
        for state in transition.replies:
            self._replies.append(_reply(after, state, origin, remarks, self.now_ms))
        for kind in transition.audit:
            self._log_request(kind, after, origin, remarks)

    def finish(self) -> Decision | None:
        """The decision; None if nothing changes."""
        head = self._state.audit
        links = []
        for record in self._audit:
            linked, head = chained(head, record)
            links.append(linked)
        stamp = Stamp(
            at_ms=self.now_ms,
            requests_offset=self._requests_offset,
            acks_offset=self._acks_offset,
            audit=head,
        )
        bodies: list[SetRecord | RequestRecord] = [
            *self._sets.values(),
            *self._requests.values(),
        ]
        if not bodies:
            return None
        return Decision(
            base=self._state.audit,
            stamp=stamp,
            control=tuple(ControlRecord(stamp=stamp, body=body) for body in bodies),
            audit=tuple(links),
            replies=tuple(self._replies),
        )

    def _log_request(
        self, event: AuditEvent, record: RequestRecord, origin: Origin, remarks: tuple[Reason, ...]
    ) -> None:
        request, plan = record.request, record.plan
        where = f"{origin.topic}[{origin.partition}]@{origin.offset}"
        if request is None:
            self._log(event, request_id=record.request_id, reasons=record.reasons, detail=where)
            return
        route = "" if plan is None else f" from {plan.from_version}, {plan.how}"
        self._log(
            event,
            request_id=request.request_id,
            feature_set=request.feature_set,
            version=_version(record),
            epoch=record.epoch,
            requested_by=request.requested_by,
            reason=request.reason,
            cut=record.cut,
            checkpoints=(() if record.checkpoint is None else (record.checkpoint, *record.kept)),
            reasons=(*record.reasons, *remarks),
            duration_ms=max(0, self.now_ms - record.times["received"]),
            detail=f"{_asked(request)}{route}{_corrected(record)}, {where}",
        )

    def _log(self, event: AuditEvent, **fields: Any) -> None:
        record = AuditRecord(seq=0, previous=GENESIS, at_ms=self.now_ms, event=event, **fields)
        self._audit.append(record)


def _asked(request: Request) -> str:
    """The action, and what it is about besides a version."""
    if request.feature is None:
        parts: list[str] = [request.action]
        if request.exclude is not None:
            parts.append(f"without {excluded_text(request.exclude)}")
        elif request.repair:
            parts.append("with repair")
        if request.checkpoint is not None and request.action is not Action.SNAPSHOT:
            parts.append(f"from checkpoint {request.checkpoint}")
        return " ".join(parts)
    instead = "" if request.fallback is None else f" with {request.fallback} instead"
    return f"{request.action} {request.feature} {'on' if request.enabled else 'off'}{instead}"


def _corrected(record: RequestRecord) -> str:
    made = record.corrections
    return "" if made is None else f", {made} correction{'' if made == 1 else 's'}"


def excluded_text(exclude: Exclude | Exclusion) -> str:
    """What is left out, in a few words."""
    parts = [] if exclude.where is None else [f"events where {exclude.where}"]
    parts += [f"{one.partition}:{one.start}-{one.end}" for one in exclude.offsets]
    return ", ".join(parts)


def _version(record: RequestRecord) -> str | None:
    """The version that it is about, as far as that is known."""
    if record.plan is not None:
        return record.plan.target
    return None if record.request is None else record.request.target


def _reply(
    record: RequestRecord,
    state: ReplyState,
    origin: Origin,
    remarks: tuple[Reason, ...],
    now_ms: int,
) -> Reply:
    request, plan = record.request, record.plan
    return Reply(
        request_id=record.request_id,
        state=state,
        origin=origin,
        action=None if request is None else request.action,
        feature_set=None if request is None else request.feature_set,
        target=_version(record),
        dry_run=request is not None and request.dry_run,
        reasons=(*record.reasons, *remarks),
        plan=plan,
        cut_topic=plan.topic if plan and record.cut else None,
        cut=record.cut,
        checkpoint=(plan and plan.checkpoint) or record.checkpoint,
        epoch=record.epoch,
        corrections=record.corrections,
        at_ms=now_ms,
        times=record.times,
    )
