"""The judge: what must hold of everything that a run has left in the broker."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

import fastavro

from streams.control.audit import verify
from streams.control.codec import decode_ack, decode_audit, decode_control, decode_reply
from streams.control.machine import FINAL
from streams.control.records import (
    Action,
    AuditEvent,
    Fenced,
    Held,
    ReplyState,
    RequestRecord,
    SetRecord,
    State,
)
from streams.datapath.progress import Progress
from streams.names import AS_OF, KIND_FIELD, VERSION_FIELD, outlet, set_of
from streams.runtime.control.acks import is_ack
from streams.runtime.producer import read_spilled
from streams.schema.decode import HEADER_BYTES
from tests.reference import Decided, Idle, Pin, Reference, Row, Switch, Toggle, compare
from tests.simulation import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.control.records import ControlRecord
    from streams.datapath.records import OneRecord
    from tests.simulation.world import World

DECIDED = (AuditEvent.REJECTED, AuditEvent.DRY_RUN, AuditEvent.ACCEPTED)
ENDED = (
    ReplyState.REJECTED,
    ReplyState.COMPLETED,
    ReplyState.FAILED,
)


def progress_at(world: World, partition: int) -> tuple[int, Progress]:
    """Committed position and progress of a partition of the source."""
    group = world.settings.names.worker_group
    known = world.broker.offsets.get((group, (catalog.SOURCE.topic, partition)))
    return (0, Progress()) if known is None else (known[0], _progress(world, known[1]))


def _progress(world: World, metadata: str) -> Progress:
    spilled = read_spilled(metadata)
    if spilled is None:
        return Progress.decode(metadata)
    entry = world.broker.log((world.settings.names.acks_topic, 0)).entries[spilled[0]]
    assert entry.record is not None
    return Progress.decode((entry.record.value or b"").decode())


def check(world: World) -> Iterator[str]:
    """Everything that is wrong."""
    yield from _control(world)
    late: Counter[tuple[str, int, int]] = Counter()
    dead: Counter[tuple[int, int]] = Counter()
    for partition in range(world.partitions):
        reference, problems = _reference(world, partition)
        yield from problems
        for wrong in compare(reference.vectors, _rows(world, partition), reference.corrections):
            doubtful = wrong.detail == "correction" and wrong.key in reference.doubtful
            if wrong.what == "missing" and doubtful:
                continue
            yield f"vector {wrong.what}: {wrong.key} of partition {partition}: {wrong.detail}"
        late.update((name, partition, offset) for name, offset in reference.late)
        dead.update((partition, offset) for offset, _ in reference.dead)
        dead.update((p, o) for (p, o), one in world.sent.items() if p == partition and one.bad)
    names = world.settings.names
    found_late: Counter[tuple[str, int, int]] = Counter()
    for record in world.broker.all((names.late_topic, 0)):
        said = dict(record.headers)
        found_late[
            said["rewindow.feature_set"].decode(),
            int(said["rewindow.partition"]),
            int(said["rewindow.offset"]),
        ] += 1
    if found_late != late:
        yield f"late copies: {found_late - late} too many, {late - found_late} missing"
    found_dead = {
        (int(said["rewindow.partition"]), int(said["rewindow.offset"]))
        for record in world.broker.all((names.dlq_topic, 0))
        for said in (dict(record.headers),)
    }
    if found_dead != set(dead):
        yield f"dead letters: {found_dead - set(dead)} too many, {set(dead) - found_dead} missing"


# -- the data path ------------------------------------------------------------------------------


def _reference(world: World, partition: int) -> tuple[Reference, list[str]]:
    """The reference model, told what was committed of switches and idleness, where it was."""
    at = (catalog.SOURCE.topic, partition)
    group = world.settings.names.worker_group
    reference = Reference(world.sets, catalog.FIELDS, max_ahead_ms=catalog.MAX_AHEAD_MS)
    records = iter(world.broker.all(at))
    upcoming = next(records, None)
    before, position = Progress(), 0
    problems: list[str] = []
    held = decided(world)
    for made in world.broker.committed:
        for one_group, one_at, offset, metadata in made.offsets:
            if (one_group, one_at) != (group, at):
                continue
            after = _progress(world, metadata)
            if offset < position:
                problems.append(f"partition {partition}: position {position} to {offset}")
            position = offset
            problems += _backwards(partition, before, after)
            idle_ms = after.idle_watermark_ms
            switched = {
                name: epoch
                for name, epoch in after.epochs.items()
                if epoch != before.epochs.get(name, 0)
            }
            if switched or idle_ms != before.idle_watermark_ms:
                while upcoming is not None and upcoming.offset < offset:
                    _feed(world, reference, partition, upcoming)
                    upcoming = next(records, None)
            if idle_ms is not None and idle_ms != before.idle_watermark_ms:
                reference.feed(Idle(watermark_ms=idle_ms))
            for name, epoch in switched.items():
                now = held.get((name, epoch))
                if now is None:
                    problems.append(f"partition {partition}: nobody decided epoch {epoch}")
                    continue
                earlier = held[name, before.epochs.get(name, 0)]
                reference.feed_all(_changes(name, earlier, now))
            before = after
    while upcoming is not None:
        _feed(world, reference, partition, upcoming)
        upcoming = next(records, None)
    return reference, problems


def _changes(name: str, before: Held, after: Held) -> Iterator[Decided]:
    """What is decided from one epoch to another, in the order in which it holds."""
    for toggle in before.toggles:
        if toggle.feature not in after.off(toggle.version):
            yield Toggle(
                feature_set=name, version=toggle.version, feature=toggle.feature, off=False
            )
    for toggle in after.toggles:
        yield Toggle(
            feature_set=name,
            version=toggle.version,
            feature=toggle.feature,
            off=True,
            stand_in=toggle.fallback,
        )
    repair = after.corrects == before.serving
    yield Switch(feature_set=name, version=after.serving, repair=repair)
    earlier, later = ({pin.version for pin in one.pinned} for one in (before, after))
    for version in sorted(earlier ^ later):
        yield Pin(feature_set=name, version=version, pinned=version in later)


def _feed(world: World, reference: Reference, partition: int, record: OneRecord) -> None:
    sent = world.sent.get((partition, record.offset))
    if sent is not None and not sent.bad:
        reference.feed(sent.event(record.offset, record.timestamp))


def _backwards(partition: int, before: Progress, after: Progress) -> Iterator[str]:
    for name, closed in before.closed.items():
        now = after.closed.get(name)
        if now is None and "@" in name and after.epochs != before.epochs:
            continue  # a pin has ended
        if now is None or now.through_ms < closed.through_ms:
            yield f"partition {partition}: C of {name} from {closed} to {now}"
    for name, epoch in before.epochs.items():
        if after.epochs.get(name, 0) < epoch:
            yield f"partition {partition}: epoch of {name} back from {epoch}"
    for name in ("control_offset", "definitions_offset"):
        if getattr(after, name) < getattr(before, name):
            yield f"partition {partition}: {name} went back"


def _rows(world: World, partition: int) -> Iterator[Row]:
    """The vectors of a partition, each by the version that served, or was pinned, by the epoch in
    its header."""
    names, held = world.settings.names, decided(world)
    topics = {one.name: names.features_topic(one.name) for one in world.sets}
    topics |= {
        outlet(one.name, one.version): names.pinned_topic(one.name, one.version)
        for one in world.sets
    }
    for name, topic in sorted(topics.items()):
        for record in world.broker.all((topic, partition)):
            value = record.value or b""
            schema = world.registry.schemas[int.from_bytes(value[1:HEADER_BYTES], "big") - 1]
            fields = fastavro.schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), _parsed(schema))
            assert isinstance(fields, dict)
            headers = dict(record.headers)
            version, kind = fields.pop(VERSION_FIELD), fields.pop(KIND_FIELD)
            who, as_of = fields.pop("who"), fields.pop(AS_OF)
            now = held.get((set_of(name), int(headers["rewindow.epoch"])))
            assert now is not None, "an epoch that nobody decided is found elsewhere"
            pins = {outlet(set_of(name), pin.version): pin.version for pin in now.pinned}
            expected = pins.get(name) if "@" in name else now.serving
            if version != expected or headers["rewindow.version"].decode() != version:
                world.problem(f"{name} of {who} as of {as_of}: by {version}, not by {expected}")
            yield Row(
                feature_set=name,
                entity=(who,),
                as_of_ms=round(as_of.timestamp() * 1000),
                kind=kind,
                values=fields,
            )


_PARSED: dict[str, Any] = {}


def _parsed(schema: dict[str, Any]) -> Any:
    key = repr(schema)
    if key not in _PARSED:
        _PARSED[key] = fastavro.parse_schema(dict(schema))
    return _PARSED[key]


def decided(world: World) -> dict[tuple[str, int], Held]:
    """What holds by each epoch, as the control topic has it."""
    first = [one for one in world.sets if one.version == "1.0.0"]
    found = {(one.name, 0): Held(serving=one.version) for one in first}
    for record in world.broker.all((world.settings.names.control_topic, 0)):
        body = decode_control(record.value or b"").body
        if isinstance(body, SetRecord):
            found[body.feature_set, body.epoch] = body.held
    return found


def audit_trail(world: World) -> Iterator[str]:
    """The audit trail for people who look at a run that failed."""
    for record in world.broker.all((world.settings.names.audit_topic, 0)):
        one = decode_audit(record.value or b"")
        words = (one.event, one.request_id, one.feature_set, one.version, one.epoch, dict(one.cut))
        yield f"audit {one.seq}: " + " ".join(str(word) for word in words if word)


# -- the control path ---------------------------------------------------------------------------


def _control(world: World) -> Iterator[str]:
    names, broker = world.settings.names, world.broker
    control = [decode_control(r.value or b"") for r in broker.all((names.control_topic, 0))]
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
    yield from _cuts(world, last)


def _epochs(control: list[ControlRecord]) -> Iterator[str]:
    known: dict[str, SetRecord] = {}
    for one in control:
        body = one.body
        if not isinstance(body, SetRecord):
            continue
        before = known.get(body.feature_set)
        if before is not None:
            step = body.epoch - before.epoch
            if step not in (0, 1):
                yield f"{body.feature_set} went from epoch {before.epoch} to {body.epoch}"
            if step == 0 and (body.serving, body.pinned) != (before.serving, before.pinned):
                yield f"{body.feature_set} changed what holds in epoch {body.epoch}"
        live = body.live_version(body.serving)
        if live is None:
            yield f"{body.feature_set}@{body.serving} serves and is not live"
        new = before is not None and body.serving != before.serving
        if new and live is not None and not live.ready:
            yield f"{body.feature_set}@{body.serving} serves and is not ready"
        for version in body.held.versions:
            if body.live_version(version) is None:
                yield f"{body.feature_set}@{version} is needed and is not live"
        if body.serving in body.retired:
            yield f"{body.feature_set}@{body.serving} serves and is retired"
        known[body.feature_set] = body


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
