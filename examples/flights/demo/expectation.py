"""What must come out of one feature set, by the reference model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from examples.flights.data import FIELDS
from examples.flights.demo.sent import CARRIED, Differences, Place, Sent
from examples.flights.demo.topics import EventReader, TopicReader
from tests.reference import Event, Reference, Vector, VectorKey
from tests.rekeyed_log import read_rekeyed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.definitions.model import FeatureSet, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Vectors and late events of one set; `last_offsets` are a rekeyed stream's last events."""

    vectors: Mapping[VectorKey, Vector]
    late: Counter[Place]
    differences: Differences
    last_offsets: Mapping[int, int] = field(default_factory=dict)


def expect_keyed(definition: FeatureSet, source: Source, contents: Sent) -> Expectation:
    """What the flights' topic must give for a set whose entity its key names."""
    vectors: dict[VectorKey, Vector] = {}
    late: Counter[Place] = Counter()
    for partition, events in contents.by_partition.items():
        reference = Reference([definition], FIELDS, max_ahead_ms=source.max_ahead_ms)
        reference.feed_all(events).silence(contents.highest_event_time_ms)
        vectors |= reference.vectors
        late.update((partition, offset) for _, offset in reference.late)
    return Expectation(vectors=vectors, late=late, differences=Differences())


class RekeyedStream:
    """The rekeyed stream: what follows from it, and whether it holds each event once."""

    def __init__(
        self,
        definition: FeatureSet,
        source: Source,
        contents: Sent,
        topic: str,
        *,
        client: Mapping[str, str],
        registry_url: str,
        source_partitions: int,
    ) -> None:
        self._definition = definition
        self._source = source
        self._contents = contents
        self._source_partitions = source_partitions
        self._reader = TopicReader(client, topic)
        self._decode = EventReader(registry_url)
        self._references: dict[int, Reference] = {}
        self._differences = Differences()
        self._places: dict[Place, Place] = {}
        self._seen: set[Place] = set()
        self._order: dict[Place, int] = {}
        self._homes: dict[tuple[object, ...], int] = {}
        self._last_offsets: dict[int, int] = {}

    def follow(self) -> None:
        """Take what is on the topic and was not taken yet."""
        for record in self._reader.to_end():
            entry = read_rekeyed(
                offset=record.offset,
                key=record.key,
                value=record.value,
                headers=record.headers.items(),
                decode=self._decode,
                event_time=self._source.event_time.field,
            )
            if isinstance(entry, Event):
                self._check(record.partition, entry)
            reference = self._references.get(record.partition)
            if reference is None:
                reference = self._references[record.partition] = Reference(
                    [self._definition],
                    FIELDS,
                    source_partitions=self._source_partitions,
                    max_ahead_ms=self._source.max_ahead_ms,
                )
            reference.feed(entry)

    def expectation(self) -> Expectation:
        """What must come out; closes the reader."""
        self._reader.close()
        for place in self._contents.events.keys() - self._seen:
            self._differences.add(f"rekeyed stream: event {place} is missing")
        vectors: dict[VectorKey, Vector] = {}
        late: Counter[Place] = Counter()
        for partition, reference in self._references.items():
            vectors |= reference.vectors
            late.update(self._places[partition, offset] for _, offset in reference.late)
        return Expectation(
            vectors=vectors,
            late=late,
            differences=self._differences,
            last_offsets=self._last_offsets,
        )

    def _check(self, partition: int, event: Event) -> None:
        assert event.source_offset is not None
        place = (event.source_partition, event.source_offset)
        self._places[partition, event.offset] = place
        self._last_offsets[partition] = event.offset
        problem = self._problem(partition, event, place)
        if problem is not None:
            self._differences.add(f"rekeyed stream: event {place} {problem}")
        self._seen.add(place)
        self._order[partition, place[0]] = place[1]

    def _problem(self, partition: int, event: Event, place: Place) -> str | None:
        if place in self._seen:
            return "comes twice"
        if place[1] < self._order.get((partition, place[0]), -1):
            return "comes after a later one"
        sound = self._contents.events.get(place)
        if sound is None:
            bad = self._contents.bad.get(place)
            return None if bad is not None and bad.error in CARRIED else "was never sent"
        if (sound.fields, sound.timestamp_ms) != (event.fields, event.timestamp_ms):
            return "is not as it was sent"
        entity = tuple(event.fields[name] for name in self._definition.entity)
        if self._homes.setdefault(entity, partition) != partition:
            return f"of {entity} is on partition {partition}, others elsewhere"
        return None
