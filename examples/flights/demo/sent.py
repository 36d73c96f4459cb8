"""What was sent to the flights' topic, and what must have become of it in other topics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from examples.flights.bad_records import BadRecord, planted_bad
from examples.flights.data import PARTITIONS, Flight, flights
from examples.flights.produce import SCHEMAS, Encoder
from tests.flights_data import highest_event_time_ms, keyed_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from examples.flights.demo.topics import Seen
    from tests.reference import Event

SCHEMA = "v0001"
CARRIED = ("missing_entity", "missing_event_time", "event_time_ahead")
"""Bad records that can be decoded: a rekeyed stream may hold them."""

Place = tuple[int, int]
"""Partition and offset in the flights' topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The topic's contents: sound events by place, and planted bad records by place."""

    events: Mapping[Place, Event]
    by_partition: Mapping[int, Sequence[Event]]
    bad: Mapping[Place, BadRecord]
    highest_event_time_ms: int

    @property
    def ends(self) -> dict[int, int]:
        """The offset after the last record of each partition that has any."""
        ends: dict[int, int] = {}
        for partition, offset in (*self.events, *self.bad):
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        return ends


def sent(flown: Sequence[Flight], bad: Sequence[BadRecord]) -> Sent:
    """What a topic holds that was empty, once all is produced."""
    by_partition, dead = keyed_events(flown, bad)
    events = {(p, one.offset): one for p, those in by_partition.items() for one in those}
    return Sent(
        events=events,
        by_partition=by_partition,
        # Both in the order of production.
        bad=dict(zip(dead, sorted(bad, key=lambda one: one.before), strict=True)),
        highest_event_time_ms=highest_event_time_ms(flown),
    )


def sent_without_kafka(limit: int | None, bad_copies: int) -> Sent:
    """What will be sent; the bytes of bad records carry a schema id that is none."""
    flown = flights(limit=limit)
    schema = (SCHEMAS / "flights-value" / f"{SCHEMA}.avsc").read_text(encoding="utf-8")
    encode = Encoder(schema, 0)
    return sent(flown, planted_bad(flown, encode, partitions=PARTITIONS, copies=bad_copies))


@dataclass(slots=True)
class Differences:
    """Mismatches: how many, and the first few in words."""

    number: int = 0
    first: list[str] = field(default_factory=list)
    shown: int = 10

    def add(self, text: str) -> None:
        self.number += 1
        if len(self.first) < self.shown:
            self.first.append(text)

    def add_all(self, other: Differences) -> None:
        for text in other.first:
            self.add(text)
        self.number += other.number - len(other.first)


def place_of(record: Seen) -> Place:
    """Where a record that was set aside came from, as its headers say."""
    return int(record.text("partition")), int(record.text("offset"))


def check_late(
    name: str,
    found: Iterable[Seen],
    expected: Counter[Place],
    events: Mapping[Place, Event],
    decode: Callable[[bytes], Mapping[str, object]],
) -> tuple[int, Differences]:
    """The late topic against the events that were late for set `name`; copies, differences."""
    differences = Differences()
    copies: Counter[Place] = Counter()
    for record in found:
        if record.text("feature_set") != name:
            continue
        place = place_of(record)
        copies[place] += 1
        event = events.get(place)
        if event is None or record.value is None or decode(record.value) != event.fields:
            differences.add(f"late for {name}: {place} is not what was sent there")
        elif record.key != str(event.fields["origin"]).encode():
            differences.add(f"late for {name}: {place} has lost its key")
    for place in (expected - copies).elements():
        differences.add(f"late for {name}: {place} is missing")
    for place in (copies - expected).elements():
        differences.add(f"late for {name}: {place} is unexpected")
    return copies.total(), differences


def check_dead(found: Iterable[Seen], planted: Mapping[Place, BadRecord]) -> Differences:
    """The dead-letter topic against the planted records."""
    differences = Differences()
    seen: set[tuple[Place, str]] = set()
    for record in found:
        place, error, stream = place_of(record), record.text("error"), record.text("stream")
        bad = planted.get(place)
        if bad is None:
            differences.add(f"dead letter: {place} ({error}) is sound")
        elif error != bad.error:
            differences.add(f"dead letter: {place} is {bad.error}, not {error}")
        elif (record.key, record.value) != (bad.key, bad.value):
            differences.add(f"dead letter: {place} ({error}) has not its original bytes")
        elif (place, stream) in seen:
            differences.add(f"dead letter: {place} ({error}) comes twice from {stream}")
        seen.add((place, stream))
    for place in planted.keys() - {place for place, _ in seen}:
        differences.add(f"dead letter: {place} ({planted[place].error}) is missing")
    return differences
