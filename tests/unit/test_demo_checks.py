"""What the demo compares with sees what is missing, doubled or changed."""

from __future__ import annotations

from collections import Counter

import pytest

from examples.flights.bad_records import BadRecord
from examples.flights.demo.sent import Place, check_dead, check_late
from examples.flights.demo.topics import Seen
from streams.datapath.batch import Marker as WrittenMarker
from streams.datapath.rekeyed import key_header, marker_value, origin_header
from tests.reference import Event, Marker
from tests.rekeyed_log import read_rekeyed

FLIGHT = Event(offset=7, timestamp_ms=1, event_time_ms=2, fields={"origin": "JFK"})


def decode(_: bytes) -> dict[str, object]:
    return {"origin": "JFK", "departed_at": 2}


def aside(
    place: Place, *, error: str = "late", value: bytes = b"v", stream: str = "flights"
) -> Seen:
    """A record that was set aside, from `place`."""
    texts = {
        "error": error,
        "partition": str(place[0]),
        "offset": str(place[1]),
        "stream": stream,
        "feature_set": "delays",
    }
    headers = {f"rewindow.{name}": text.encode() for name, text in texts.items()}
    return Seen(partition=0, offset=0, timestamp_ms=0, key=b"JFK", value=value, headers=headers)


def test_an_event_of_a_rekeyed_stream_is_read_as_it_was_written() -> None:
    headers = [origin_header(3, 2**40, 1_372_953_600_000), *key_header(b"JFK")]
    read = read_rekeyed(
        offset=9, key=b"AA", value=b"v", headers=headers, decode=decode, event_time="departed_at"
    )
    assert read == Event(
        offset=9,
        timestamp_ms=1_372_953_600_000,
        event_time_ms=2,
        fields={"origin": "JFK", "departed_at": 2},
        source_partition=3,
        source_offset=2**40,
    )


@pytest.mark.parametrize(
    "marker",
    [
        Marker(source_partition=1, watermark_ms=None),
        Marker(source_partition=0, watermark_ms=-5, silent=True, floor_ms=0),
    ],
)
def test_a_marker_is_read_as_it_was_written(marker: Marker) -> None:
    written = WrittenMarker(
        offset=4,
        source_partition=marker.source_partition,
        watermark_ms=marker.watermark_ms,
        silent=marker.silent,
        floor_ms=marker.floor_ms,
    )
    read = read_rekeyed(
        offset=4,
        key=None,
        value=marker_value(written),
        headers=(),
        decode=decode,
        event_time="departed_at",
    )
    assert read == marker


def test_a_record_of_another_form_is_no_part_of_a_rekeyed_stream() -> None:
    for key, value in ((b"AA", b"v"), (None, b'{"x":1}')):
        with pytest.raises(ValueError, match="offset 9"):
            read_rekeyed(
                offset=9, key=key, value=value, headers=(), decode=decode, event_time="departed_at"
            )


def test_late_copies_must_come_once_and_unchanged() -> None:
    events = {(0, 7): FLIGHT, (0, 8): FLIGHT, (1, 1): FLIGHT}
    found = [aside((0, 7)), aside((0, 7)), aside((1, 1), value=b"changed")]

    def fields(value: bytes) -> dict[str, object]:
        return {"origin": "JFK" if value == b"v" else "LGA"}

    expected: Counter[Place] = Counter([(0, 7), (0, 8), (1, 1)])
    copies, differences = check_late("delays", found, expected, events, fields)
    assert copies == 3
    assert sorted(differences.first) == [
        "late for delays: (0, 7) is unexpected",
        "late for delays: (0, 8) is missing",
        "late for delays: (1, 1) is not what was sent there",
    ]


def test_dead_letters_must_be_those_that_were_planted() -> None:
    bad = BadRecord(
        before=0, partition=0, timestamp_ms=0, key=b"JFK", value=b"v", error="truncated"
    )
    found = [
        aside((0, 1), error="truncated"),
        aside((0, 1), error="truncated", stream="flights.by.carrier"),
        aside((0, 2), error="undecodable"),
        aside((0, 3), error="truncated", value=b"changed"),
        aside((0, 9), error="truncated"),
        aside((0, 1), error="truncated"),
    ]
    differences = check_dead(found, {(0, offset): bad for offset in (1, 2, 3, 4)})
    assert differences.first == [
        "dead letter: (0, 2) is truncated, not undecodable",
        "dead letter: (0, 3) (truncated) has not its original bytes",
        "dead letter: (0, 9) (truncated) is sound",
        "dead letter: (0, 1) (truncated) comes twice from flights",
        "dead letter: (0, 4) (truncated) is missing",
    ]
    assert differences.number == 5
