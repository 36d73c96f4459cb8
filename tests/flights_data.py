"""The flights as the reference model reads them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, cast

from tests.reference import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.flights.bad_records import BadRecord
    from examples.flights.data import Flight


def keyed_events(
    flights: Sequence[Flight], bad: Sequence[BadRecord] = ()
) -> tuple[dict[int, list[Event]], dict[tuple[int, int], str]]:
    """What the topic holds once the flights and the bad records are produced.

    Returns the sound events of each partition, with their offsets, and the error of each
    bad record by (partition, offset). Assumes a topic that was empty and one producer that
    sends no record twice.
    """
    next_offset: defaultdict[int, int] = defaultdict(int)
    events: defaultdict[int, list[Event]] = defaultdict(list)
    dead: dict[tuple[int, int], str] = {}
    planted: defaultdict[int, list[BadRecord]] = defaultdict(list)
    for record in bad:
        planted[record.before].append(record)
    for i, flight in enumerate(flights):
        for record in planted.get(i, ()):
            dead[record.partition, next_offset[record.partition]] = record.error
            next_offset[record.partition] += 1
        offset = next_offset[flight.partition]
        next_offset[flight.partition] += 1
        events[flight.partition].append(
            Event(
                offset=offset,
                timestamp_ms=flight.timestamp_ms,
                event_time_ms=cast("int", flight.event["departed_at"]),
                fields=flight.event,
                source_partition=flight.partition,
            )
        )
    return dict(events), dead


def highest_event_time_ms(flights: Sequence[Flight]) -> int:
    """The event time after which silence closes what is open."""
    return max(cast("int", flight.event["departed_at"]) for flight in flights)
