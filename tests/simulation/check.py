"""The judge: what must hold of everything that a run has left in the broker."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

import fastavro

from streams.control.codec import decode_audit
from streams.control.set_record import Held, SetRecord
from streams.datapath.progress import Progress
from streams.names import AS_OF, KIND_FIELD, VERSION_FIELD, outlet, set_of
from streams.runtime.producer import read_spilled
from streams.schema.decode import HEADER_BYTES
from tests.left_out import without
from tests.reference import Decided, Idle, Pin, Reference, Row, Switch, Toggle, compare
from tests.simulation import catalog
from tests.simulation.check_control import check_control, control_records, in_force

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.datapath.records import OneRecord
    from streams.definitions.exclusions import Exclusion
    from streams.definitions.model import FeatureSet
    from tests.simulation.world import World


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
    yield from check_control(world)
    late: Counter[tuple[str, int, int]] = Counter()
    dead: Counter[tuple[int, int]] = Counter()
    for partition in range(world.partitions):
        reference, problems = _reference(world, partition)
        yield from problems
        for wrong in compare(reference.vectors, _rows(world, partition), reference.corrections):
            kind = "empty" if "@" in wrong.key[0] else "correction"
            doubtful = wrong.detail == kind and wrong.key in reference.doubtful
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
    sets = [*world.sets, *_left_out(world, partition)]
    reference = Reference(sets, catalog.FIELDS, max_ahead_ms=catalog.MAX_AHEAD_MS)
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


def _left_out(world: World, partition: int) -> Iterator[FeatureSet]:
    """What versions are without the events that are left out by any epoch."""
    for name, found in exclusions(world).items():
        for at in range(1, len(found) + 1):
            for one in world.sets:
                if one.name == name:
                    yield without(one, found[:at], partition=partition)


def _changes(name: str, before: Held, after: Held) -> Iterator[Decided]:
    """What is decided from one epoch to another, in the order in which it holds."""
    off = {(after.name(it.version), it.feature) for it in after.toggles}
    for toggle in before.toggles:
        version = before.name(toggle.version)
        if (version, toggle.feature) not in off:
            yield Toggle(feature_set=name, version=version, feature=toggle.feature, off=False)
    for toggle in after.toggles:
        yield Toggle(
            feature_set=name,
            version=after.name(toggle.version),
            feature=toggle.feature,
            off=True,
            stand_in=None if toggle.fallback is None else after.name(toggle.fallback),
        )
    repair = after.corrects == before.speaker
    yield Switch(feature_set=name, version=after.speaker, repair=repair)
    earlier, later = (
        {pin.version: one.name(pin.version) for pin in one.pinned} for one in (before, after)
    )
    for version in sorted(earlier.keys() | later.keys()):
        if version not in later:
            yield Pin(feature_set=name, version=version, pinned=False)
        elif earlier.get(version) != later[version]:
            yield Pin(feature_set=name, version=later[version], pinned=True)


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
    for record in control_records(world):
        body = record.body
        if isinstance(body, SetRecord):
            found[body.feature_set, body.epoch] = body.held
    return found


def exclusions(world: World) -> dict[str, tuple[Exclusion, ...]]:
    """What each set leaves out in the end, as the control topic has it."""
    found: dict[str, tuple[Exclusion, ...]] = {}
    for record in control_records(world):
        body = record.body
        if isinstance(body, SetRecord):
            found[body.feature_set] = in_force(body)
    return found


def audit_trail(world: World) -> Iterator[str]:
    """The audit trail for people who look at a run that failed."""
    for record in world.broker.all((world.settings.names.audit_topic, 0)):
        one = decode_audit(record.value or b"")
        words = (one.event, one.request_id, one.feature_set, one.version, one.epoch, dict(one.cut))
        yield f"audit {one.seq}: " + " ".join(str(word) for word in words if word)
