"""The steps of the control path: each adds what it decides to a draft."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streams.control.effects import effect
from streams.control.gate import Accept, Reject, decide
from streams.control.machine import Event
from streams.control.records import Action, AuditEvent, Code, How, Plan, Reason, State
from streams.control.routes import marked_ready, prepared, settled

if TYPE_CHECKING:
    from streams.control.draft import Draft
    from streams.control.facts import Known, Outside
    from streams.control.records import Failed, Request, RequestRecord
    from streams.control.set_record import Pin

_ACCEPTED = {
    How.HOT: Event.ACCEPT_HOT,
    How.COLD: Event.ACCEPT_COLD,
    How.AT_ONCE: Event.ACCEPT_AT_ONCE,
}


def judge(
    draft: Draft, known: Known, received: RequestRecord, request: Request, outside: Outside
) -> None:
    """Ask the gate about a new request, and begin what it accepts."""
    verdict = decide(request, known.facts(request, outside, draft.now_ms))
    if request.checkpoint is not None and isinstance(verdict, Accept):
        received = replace(received, reasons=_nothing_restored(request.checkpoint, verdict.plan))
    if isinstance(verdict, Reject):
        draft.move(received, Event.REJECT, reasons=verdict.reasons)
    elif request.dry_run:
        draft.move(received, Event.DRY_RUN, plan=verdict.plan)
    elif verdict.plan.how is How.CHECKPOINT:
        assert known.new_checkpoint is not None
        wanted = request.checkpoint or known.new_checkpoint(draft.now_ms, request.request_id)
        epoch = draft.route(request.feature_set, known.rules(request.feature_set)).epoch
        draft.move(
            received,
            Event.ACCEPT_CHECKPOINT,
            plan=verdict.plan,
            epoch=epoch,
            checkpoint=wanted,
        )
    elif verdict.plan.how is How.COLD:
        _prepare(draft, known, received, request, verdict.plan)
    else:
        event = _ACCEPTED[verdict.plan.how]
        _take_effect(draft, known, received, request, verdict.plan, event, outside.pin)
        for other in draft.under_way():
            if other.request_id == request.cancels:
                draft.move(other, Event.CANCELLED, reasons=(_cancelled(request),))


def warm(draft: Draft, known: Known, name: str) -> None:
    """New versions of a set become live, live ones ready, and those no longer kept cold."""
    published, rules = known.catalog.sets[name], known.rules(name)
    before = draft.route(name, rules)
    targets = [
        record.plan.target
        for record in draft.under_way()
        if record.plan and record.request and record.request.feature_set == name
        if record.state is not State.CHECKPOINTING
    ]
    after = settled(before, rules, preparing=targets[0] if targets else None)
    is_new = name not in known.state.sets
    names = {one.name for one in before.live}
    for one in after.live:
        if is_new or one.name not in names:
            draft.note(AuditEvent.LIVE, after, one)
        if one.ready or not published.partitions:
            continue
        if known.acks.ready(name, one, published.partitions) == published.partitions:
            after = marked_ready(after, one)
            draft.note(AuditEvent.READY, after, one)
    for one in before.live:
        if one.name not in {it.name for it in after.live}:
            draft.note(AuditEvent.COLD, after, one)
    if is_new or after != before:
        draft.put(after)


def drive(draft: Draft, known: Known, record: RequestRecord) -> None:
    """Bring a request that is under way as far as it goes."""
    request, plan = record.request, record.plan
    if request is None or plan is None or request.feature_set not in known.catalog.sets:
        return
    if record.state is State.SWITCHING:
        cut = known.acks.cut(request.feature_set, record.epoch or 0, plan.partitions)
        if cut is not None:
            made = known.acks.corrections(request.feature_set, record.epoch or 0)
            corrections = made if request.repair or request.exclude is not None else None
            event = Event.FENCED if record.checkpoint is None else Event.SWITCHED
            draft.move(record, event, cut=cut, corrections=corrections)
        return
    if record.state is State.CHECKPOINTING:
        _await_checkpoints(draft, known, record, plan)
        return
    rules = known.rules(request.feature_set)
    name, partitions = request.feature_set, plan.partitions
    needed = draft.route(name, rules).preparing(plan.target)
    failed = [ack for one in needed for ack in known.acks.failed(name, one)]
    ready = min(
        (partitions if it.ready else known.acks.ready(name, it, partitions) for it in needed),
        default=0,
    )
    if needed and all(one.ready for one in needed):
        _take_effect(draft, known, record, request, plan, Event.READY)
    elif failed:
        _give_up(draft, known, record, request, Event.LOST, [_lost(one) for one in failed])
    elif request.deadline_ms is not None and request.deadline_ms <= draft.now_ms:
        message = (
            f"{plan.target} was ready on {ready} of {plan.partitions} partitions when the "
            "deadline passed: nothing has changed; ask again with a later one"
        )
        reason = Reason(code=Code.DEADLINE_PASSED, message=message, subject="deadline_ms")
        _give_up(draft, known, record, request, Event.DEADLINE, [reason])


def _await_checkpoints(draft: Draft, known: Known, record: RequestRecord, plan: Plan) -> None:
    """It ends when all partitions have said how their checkpoint went, or after a while."""
    assert record.request_id is not None
    told = known.acks.checkpoints(record.request_id)
    silent = [partition for partition in range(plan.partitions) if partition not in told]
    waited_ms = draft.now_ms - record.times[State.CHECKPOINTING.value]
    if silent and waited_ms < known.checkpoint_wait_ms:
        return
    draft.move(
        record,
        Event.OVERDUE if silent else Event.CHECKPOINTED,
        remarks=(
            *(_not_stored(plan, one.partition, one.reason) for one in told.values() if one.reason),
            *(_not_stored(plan, one, "nothing was heard of it in time") for one in silent),
        ),
        kept=tuple(sorted({kept for one in told.values() for kept in one.kept})),
    )


def _not_stored(plan: Plan, partition: int, why: str) -> Reason:
    where = f"{plan.topic}[{partition}]"
    message = f"{where} has no checkpoint of this: {why}"
    return Reason(code=Code.NOT_CHECKPOINTED, message=message, subject=where)


def _prepare(
    draft: Draft, known: Known, received: RequestRecord, request: Request, plan: Plan
) -> None:
    """The target becomes live; a new attempt begins where the last one has failed."""
    rules = known.rules(request.feature_set)
    route = draft.route(request.feature_set, rules)
    failed = any(
        known.acks.failed(request.feature_set, one) for one in route.preparing(plan.target)
    )
    again = (failed or request.checkpoint is not None) and request.exclude is None
    after = prepared(
        route,
        plan.target,
        rules,
        again=again,
        exclude=request.exclude,
        checkpoint=request.checkpoint,
    )
    draft.put(after, request.request_id)
    draft.move(received, Event.ACCEPT_COLD, plan=plan)


def _take_effect(
    draft: Draft,
    known: Known,
    record: RequestRecord,
    request: Request,
    plan: Plan,
    event: Event,
    pin: Pin | None = None,
) -> None:
    """From this decision on the set is as the request wants it."""
    rules = known.rules(request.feature_set)
    route = draft.route(request.feature_set, rules)
    after = effect(request, route, plan.target, rules, pin)
    draft.put(after, request.request_id)
    if after.epoch == route.epoch:
        draft.move(record, event, plan=plan)
        return
    checkpoint = None
    if known.new_checkpoint is not None and request.action in (Action.ACTIVATE, Action.ROLLBACK):
        checkpoint = known.new_checkpoint(draft.now_ms, request.request_id)
    draft.move(record, event, plan=plan, epoch=after.epoch, checkpoint=checkpoint)


def _give_up(
    draft: Draft,
    known: Known,
    record: RequestRecord,
    request: Request,
    event: Event,
    reasons: list[Reason],
) -> None:
    """The preparation ends, and its target is live only if it would be without it."""
    rules = known.rules(request.feature_set)
    before = draft.route(request.feature_set, rules)
    after = settled(before, rules)
    if after != before:
        draft.put(after, request.request_id)
    draft.move(record, event, reasons=tuple(reasons))


def _nothing_restored(checkpoint: str, plan: Plan) -> tuple[Reason, ...]:
    """What to say of a checkpoint to start from where the target is where the stream is."""
    if plan.how is not How.HOT:
        return ()
    message = f"{plan.target} is live: nothing had to be restored from checkpoint {checkpoint}"
    return (Reason(code=Code.NOTHING_RESTORED, message=message, subject=checkpoint),)


def _cancelled(by: Request) -> Reason:
    why = f" ({by.reason})" if by.reason else ""
    who = f" of {by.requested_by}" if by.requested_by else ""
    message = f"cancelled by request {by.request_id!r}{who}{why}: nothing has changed"
    return Reason(code=Code.CANCELLED, message=message, subject=by.request_id)


def _lost(ack: Failed) -> Reason:
    message = (
        f"partition {ack.partition} of {ack.stream} can't prepare {ack.version} "
        f"({ack.reason}): nothing has changed; mend that and ask again"
    )
    return Reason(code=Code.NOT_PREPARED, message=message, subject=f"{ack.stream}[{ack.partition}]")
