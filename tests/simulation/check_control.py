"""What must hold of the control topics that a run has left in the broker."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from streams.control.audit import verify
from streams.control.codec import decode_audit, decode_reply
from streams.control.machine import FINAL
from streams.control.records import Action, AuditEvent, Fenced, RequestRecord, State
from streams.control.set_record import SetRecord
from streams.definitions.exclusions import Exclude
from streams.runtime.control.acks import is_ack
from tests.simulation.once import decode_ack, decode_control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.control.records import ControlRecord
    from streams.definitions.exclusions import Exclusion
    from tests.simulation.world import World

DECIDED = (AuditEvent.REJECTED, AuditEvent.DRY_RUN, AuditEvent.ACCEPTED)


def control_records(world: World) -> list[ControlRecord]:
    """All that was decided."""
    at = (world.settings.names.control_topic, 0)
    return [decode_control(record.value or b"") for record in world.broker.all(at)]


def in_force(record: SetRecord) -> tuple[Exclusion, ...]:
    """What a set leaves out by this record."""
    return tuple(one for one in record.exclusions if one.number <= record.excluding)


def check_control(world: World) -> Iterator[str]:
    """Everything that is wrong with what was decided."""
    names, broker = world.settings.names, world.broker
    control = control_records(world)
    audit = [decode_audit(r.value or b"") for r in broker.all((names.audit_topic, 0))]
    replies = [decode_reply(r.value or b"") for r in broker.all((names.replies_topic, 0))]
    for finding in verify(audit, [one.stamp.audit for one in control]):
        yield f"audit: {finding.message}"
    yield from _epochs(control)
    ended = {(r.origin.offset, r.state) for r in replies}
    told = {record.detail.rpartition("@")[2] for record in audit}
    for record in broker.all((names.rollback_topic, 0)):
        if str(record.offset) not in told:
            yield f"request at {record.offset} is not in the audit trail"
        answers = [state for offset, state in ended if offset == record.offset]
        if not answers:
            yield f"request at {record.offset} was not answered"
    verdicts = Counter(r.request_id for r in audit if r.event in DECIDED and r.request_id)
    for request_id, count in verdicts.items():
        unreadable = sum(
            1
            for r in audit
            if r.request_id == request_id
            and r.event is AuditEvent.REJECTED
            and r.feature_set is None
        )
        if count - unreadable > 1:
            yield f"request {request_id} was decided {count} times"
    last: dict[str, RequestRecord] = {}
    for one in control:
        if isinstance(one.body, RequestRecord) and one.body.request_id:
            last[one.body.request_id] = one.body
    for request_id, ended_as in last.items():
        if ended_as.state not in FINAL:
            yield f"request {request_id} ended as {ended_as.state}"
    yield from _exclusions(control, last)
    yield from _cuts(world, last)


def _epochs(control: list[ControlRecord]) -> Iterator[str]:
    known: dict[str, SetRecord] = {}
    for one in control:
        body = one.body
        if not isinstance(body, SetRecord):
            continue
        before = known.get(body.feature_set)
        if before is not None:
            yield from _step(before, body)
        live = body.live_version(body.serving)
        if live is None:
            yield f"{body.feature_set}@{body.serving} serves and is not live"
        for version in body.held.versions:
            if body.live_version(version) is None:
                yield f"{body.feature_set}@{version} is needed and is not live"
        if body.serving in body.retired:
            yield f"{body.feature_set}@{body.serving} serves and is retired"
        known[body.feature_set] = body


def _step(before: SetRecord, after: SetRecord) -> Iterator[str]:
    """From one record about a set to the next one."""
    name, step = after.feature_set, after.epoch - before.epoch
    if step not in (0, 1):
        yield f"{name} went from epoch {before.epoch} to {after.epoch}"
    held, was = ((one.serving, one.pinned, one.excluding, in_force(one)) for one in (after, before))
    if step == 0 and held != was:
        yield f"{name} changed what holds in epoch {after.epoch}"
    news: tuple[str, ...] = ()
    if after.excluding != before.excluding:
        news = after.held.versions
        if in_force(after)[:-1] != in_force(before):
            yield f"{name} leaves out {in_force(after)} after {in_force(before)}"
    elif after.serving != before.serving:
        news = (after.serving,)
    for version in news:
        live = after.live_version(version)
        if live is not None and not live.ready:
            yield f"{name}@{version} speaks and is not ready"


def _exclusions(control: list[ControlRecord], last: dict[str, RequestRecord]) -> Iterator[str]:
    """A set leaves out what was asked for and done, and nothing else; what was not done has left
    no trace."""
    sets: dict[str, SetRecord] = {}
    for one in control:
        if isinstance(one.body, SetRecord):
            sets[one.body.feature_set] = one.body
    asked: dict[str, list[tuple[int, Exclude]]] = {}
    for record in last.values():
        request = record.request
        if record.epoch is not None and request is not None and request.exclude is not None:
            asked.setdefault(request.feature_set, []).append((record.epoch, request.exclude))
    for name, found in sets.items():
        wanted = [it for _, it in sorted(asked.get(name, ()), key=lambda one: one[0])]
        known = [Exclude(where=it.where, offsets=it.offsets) for it in in_force(found)]
        if known != wanted:
            yield f"{name} leaves out {known}, and was asked for {wanted}"
        if found.pending is not None:
            yield f"{name} goes on to prepare {found.pending}"
        if any(one.excluding != found.excluding for one in found.live):
            yield f"{name} leaves out up to {found.excluding}, and has live {found.live}"


def _cuts(world: World, last: dict[str, RequestRecord]) -> Iterator[str]:
    """A completed switch says where each partition was fenced, as its owner said."""
    names, broker = world.settings.names, world.broker
    fences: dict[tuple[str, int, int], int] = {}
    correcting: set[tuple[str, int, int]] = set()
    for record in broker.all((names.acks_topic, 0)):
        if not is_ack(record.headers):
            continue
        ack = decode_ack(record.value or b"")
        if isinstance(ack, Fenced):
            key = (ack.feature_set, ack.epoch, ack.partition)
            again = key in correcting and ack.corrections is not None
            if again:  # the corrections that it led to are made
                correcting.discard(key)
            elif ack.corrections is None:
                correcting.add(key)
            if key in fences and (not again or fences[key] != ack.offset):
                yield f"epoch {ack.epoch} of {ack.feature_set} was fenced twice"
            fences[key] = ack.offset
    for request_id, done in last.items():
        if done.state is not State.COMPLETED or done.epoch is None or done.request is None:
            continue
        if done.request.action is Action.SNAPSHOT:
            continue  # the epoch in which it was asked for
        name = done.request.feature_set
        if set(done.cut) != set(range(world.partitions)):
            yield f"request {request_id} was completed with the cut {dict(done.cut)}"
        for partition, offset in done.cut.items():
            known = {
                at
                for (one, epoch, p), at in fences.items()
                if one == name and p == partition and epoch >= done.epoch
            }
            if offset not in known:
                yield f"request {request_id}: no fence of partition {partition} at {offset}"
