"""From records to events: event time, its units and limits, and the verdict on the rest."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest

from streams.datapath.batch import OFFSET, Batch, Marker
from streams.datapath.intake import EARLIEST_MS, LATEST_MS, Intake
from streams.datapath.rekeyed import marker_value, origin_header
from streams.definitions.model import EventTime, TimeUnit
from streams.schema.decode import Decoder, header
from streams.schema.types import field_types
from streams.testing import Record
from streams.windowing.accumulators import EVENT_TIME, SOURCE_OFFSET, SOURCE_PARTITION
from tests.small import schema, source

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
HOUR_MS = 3_600_000


class Rig:
    """An intake of one schema, and records for it."""

    def __init__(self, at: Any = "long", unit: TimeUnit = TimeUnit.MS, **options: Any) -> None:
        self.schema = schema(at=at)
        self.parsed = fastavro.parse_schema(self.schema)
        fields = field_types(self.schema)
        decoder = Decoder(self.schema, fields)
        decoder.add(1, self.schema)
        timed = source(event_time=EventTime(field="at", unit=unit))
        self.intake = Intake(timed, decoder, fields, **options)

    def value(self, at: Any, who: str | None = "ann") -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self.parsed, {"who": who, "at": at})
        return header(1) + body.getvalue()

    def batch(self, *records: Record) -> Batch:
        return self.intake.batch(records, first_offset=0, partition=7)

    def time_of(self, at: Any, *, timestamp: int = -1) -> int | str:
        """Event time of one event, or what is wrong with it."""
        found = self.batch(record(0, self.value(at), timestamp=timestamp))
        if found.dead:
            assert found.events.is_empty()
            return found.dead[0].error
        time: int = found.events[EVENT_TIME][0]
        return time


def record(offset: int, value: bytes | None, **changed: Any) -> Record:
    given = {"timestamp": -1, "key": b"k", "headers": ()}
    return Record(offset=offset, value=value, **{**given, **changed})


@pytest.mark.parametrize(
    ("unit", "given", "expected"),
    [
        (TimeUnit.S, 2, 2_000),
        (TimeUnit.S, -2, -2_000),
        (TimeUnit.MS, 1_999, 1_999),
        (TimeUnit.US, 1_999, 1),
        (TimeUnit.US, -1, -1),
        (TimeUnit.US, -1_000, -1),
    ],
)
def test_a_number_is_an_event_time_in_its_unit_rounded_down(
    unit: TimeUnit, given: int, expected: int
) -> None:
    assert Rig(unit=unit).time_of(given) == expected


@pytest.mark.parametrize("unit", [TimeUnit.S, TimeUnit.MS, TimeUnit.US])
@pytest.mark.parametrize("given", [2**63 - 1, -(2**63)])
def test_absurd_numbers_are_out_of_range_in_every_unit(unit: TimeUnit, given: int) -> None:
    assert Rig(unit=unit).time_of(given) == "event_time_out_of_range"


def test_seconds_may_be_of_32_bits() -> None:
    rig = Rig(at="int", unit=TimeUnit.S)
    assert rig.time_of(1_700_000_000) == 1_700_000_000_000
    assert rig.time_of(-(2**31)) == -(2**31) * 1000


@pytest.mark.parametrize("given", [EARLIEST_MS, LATEST_MS])
def test_the_years_1_to_9999_are_in_range(given: int) -> None:
    assert Rig().time_of(given) == given


@pytest.mark.parametrize("given", [EARLIEST_MS - 1, LATEST_MS + 1])
def test_other_years_are_not(given: int) -> None:
    assert Rig().time_of(given) == "event_time_out_of_range"


def test_timestamps_are_taken_by_their_logical_type() -> None:
    assert Rig(MILLIS, TimeUnit.AVRO).time_of(5) == 5
    assert Rig(MICROS, TimeUnit.AVRO).time_of(5_999) == 5
    assert Rig(MICROS, TimeUnit.AVRO).time_of(-1) == -1


def test_a_missing_event_time_is_said_to_be_missing() -> None:
    assert Rig().time_of(None) == "missing_event_time"


def test_an_event_may_be_ahead_of_its_record_by_so_much_and_no_more() -> None:
    rig = Rig()
    assert rig.time_of(1_000 + HOUR_MS, timestamp=1_000) == 1_000 + HOUR_MS
    assert rig.time_of(1_001 + HOUR_MS, timestamp=1_000) == "event_time_ahead"
    found = rig.batch(record(0, rig.value(1_001 + HOUR_MS), timestamp=1_000))
    assert found.dead[0].detail == (
        "at is 3600001 ms after the record's own timestamp, 3600000 ms are allowed"
    )


def test_a_record_without_a_timestamp_can_not_be_ahead_of_it() -> None:
    assert Rig().time_of(LATEST_MS, timestamp=-1) == LATEST_MS


def test_good_and_bad_records_keep_their_offsets() -> None:
    rig = Rig()
    found = rig.batch(
        record(3, rig.value(1)),
        record(5, None),
        record(6, rig.value(None)),
        record(9, rig.value(2)),
    )
    assert found.events[OFFSET].to_list() == [3, 9]
    assert found.events[SOURCE_OFFSET].to_list() == [3, 9]
    assert found.events[SOURCE_PARTITION].to_list() == [7, 7]
    assert [(one.offset, one.error) for one in found.dead] == [
        (5, "tombstone"),
        (6, "missing_event_time"),
    ]
    assert (found.first_offset, found.next_offset, list(found.offsets)) == (0, 10, [3, 5, 6, 9])


def test_a_batch_of_nothing_stays_where_it_is() -> None:
    found = Rig().intake.batch([], first_offset=4, partition=0)
    assert (found.next_offset, found.events.height) == (4, 0)


def test_ids_to_look_up_are_those_the_decoder_lacks() -> None:
    rig = Rig()
    values = [rig.value(1), header(7) + b"x", None, b"\x07", header(7)]
    assert rig.intake.unknown_ids([record(i, v) for i, v in enumerate(values)]) == {7}


def test_events_of_a_rekeyed_stream_keep_where_they_came_from() -> None:
    rig = Rig(rekeyed=True)
    marker = Marker(offset=1, source_partition=2, watermark_ms=9, silent=True, floor_ms=-4)
    found = rig.batch(
        record(0, rig.value(1), headers=(origin_header(2, 55, 1_000),), timestamp=9_999_999),
        record(1, marker_value(marker), key=None),
        record(2, rig.value(1_001 + HOUR_MS), headers=(origin_header(2, 56, 1_000),)),
    )
    assert found.events.select(SOURCE_PARTITION, SOURCE_OFFSET).rows() == [(2, 55)]
    assert found.markers == (marker,)
    assert [(one.offset, one.error) for one in found.dead] == [(2, "event_time_ahead")]
