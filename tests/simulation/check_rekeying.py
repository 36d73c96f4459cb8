"""The verdict on a run of the rekeying stage: every event once, in order, where its entity belongs,
and no marker that makes late what was on time."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

from streams.datapath.rekey_progress import closes_something
from streams.datapath.rekeyed import original, read_marker
from streams.names import HEADER_PREFIX
from streams.runtime.rekey_output import entity_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.datapath.records import OneRecord
    from tests.simulation.catalog import Sent
    from tests.simulation.rekeying import RekeyWorld

LATEST_MS = 2**52
"""Events of later times are dead letters."""


def check(world: RekeyWorld) -> Iterator[str]:
    """Everything that must not be in what was committed."""
    stream = world.stream
    found: dict[tuple[int, int], int] = {}
    for number in range(stream.partitions):
        records = world.broker.all((stream.topic, number))
        yield from _events(world, number, records, found)
        for partition in range(stream.source_partitions):
            yield from _markers(world, partition, records)
    wanted = {at for at, one in world.sent.items() if _good(one)}
    yield from (f"lost: {at}" for at in sorted(wanted - found.keys()))
    dead = [
        tuple(int(dict(one.headers)[HEADER_PREFIX + name]) for name in ("partition", "offset"))
        for one in world.broker.all((world.settings.names.dlq_topic, 0))
    ]
    bad = sorted(world.sent.keys() - wanted)
    if sorted(dead) != bad:
        yield f"dead letters of {sorted(dead)}, not of {bad}"


def _good(one: Sent) -> bool:
    return _timed(one) and one.who is not None


def _timed(one: Sent) -> bool:
    """Whether it has an event time, which it moves the watermark with."""
    return not one.bad and one.at is not None and one.at < LATEST_MS


def _events(
    world: RekeyWorld, number: int, records: list[OneRecord], found: dict[tuple[int, int], int]
) -> Iterator[str]:
    """Whether events are in the right place, once and in order; notes them in `found`."""
    last: dict[int, int] = {}
    schema_id = world.stream.published.schema_id
    for record in records:
        if record.key is None:
            continue
        origin = original(record)
        at = (origin.partition, origin.offset)
        sent = world.sent.get(at)
        if sent is None or not _good(sent) or record.value != sent.value(schema_id):
            yield f"{at} was never sent so"
        elif (record.key, origin.key) != (sent.key, sent.key):
            yield f"{at} has the keys {record.key!r} and {origin.key!r}"
        if entity_hash(record.key) % world.stream.partitions != number:
            yield f"{at} is in partition {number}"
        if at in found:
            yield f"twice: {at}"
        found[at] = number
        if origin.offset <= last.get(origin.partition, -1):
            yield f"{at} comes after {last[origin.partition]}"
        last[origin.partition] = origin.offset


def _markers(world: RekeyWorld, partition: int, records: list[OneRecord]) -> Iterator[str]:
    """Whether the markers of one source partition say nothing that its events do not, and go on.

    While it is idle it may follow others, and be ahead of its own events.
    """
    told: list[int] = []
    for record in records:
        if record.key is not None:
            origin = original(record)
            if origin.partition == partition and told and not world.idles:
                before = max(_times(world, partition, origin.offset), default=None)
                if before is None or before < told[-1]:
                    yield f"{partition}@{origin.offset} comes after the marker {told[-1]}"
            continue
        marker = read_marker(record.offset, record.value)
        if marker.source_partition == partition and marker.watermark_ms is not None:
            told.append(marker.watermark_ms)
    if any(after < before for before, after in pairwise(told)):
        yield f"markers of {partition} go back: {told}"
    highest = max(_times(world, partition), default=None)
    last = told[-1] if told else None
    if highest is not None and closes_something(world.stream.views, last, highest):
        yield f"the last marker of {partition} is {last}, its events come to {highest}"


def _times(world: RekeyWorld, partition: int, before: int | None = None) -> list[int]:
    """The event times of a source partition, of the offsets before one."""
    return [
        cast("int", one.at)
        for (at, offset), one in world.sent.items()
        if at == partition and (before is None or offset < before) and _timed(one)
    ]
