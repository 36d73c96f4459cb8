"""The example's flights are what the documentation says, and its bad records are bad."""

from __future__ import annotations

import io
import json
from pathlib import Path

import fastavro
import pytest

from examples.flights.bad_records import ERRORS, planted_bad
from examples.flights.data import FIELDS, PARTITIONS, Flight, flights
from examples.flights.produce import SCHEMAS, Encoder
from tests.flights_data import highest_event_time_ms, keyed_events

HOUR_MS = 3_600_000
JULY_4_NOON_IN_NEW_YORK_MS = 1_372_953_600_000


@pytest.fixture(scope="module")
def year() -> list[Flight]:
    return flights()


def schema(version: str = "v0001") -> str:
    return Path(SCHEMAS / "flights-value" / f"{version}.avsc").read_text(encoding="utf-8")


def decode(value: bytes) -> object:
    parsed = fastavro.parse_schema(json.loads(schema()))
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), parsed, None)


def test_all_flights_are_there_in_order_of_scheduled_departure(year: list[Flight]) -> None:
    assert len(year) == 336_776
    times = [one.timestamp_ms for one in year]
    assert times == sorted(times)
    assert sum(bool(one.event["cancelled"]) for one in year) == 8_255
    assert {one.partition for one in year} == {0, 2, 5}


def test_local_times_become_utc_in_summer_too(year: list[Flight]) -> None:
    noon = [one for one in year if one.timestamp_ms == JULY_4_NOON_IN_NEW_YORK_MS]
    assert len(noon) == 10
    assert ("DL", 1006) in {(one.event["carrier"], one.event["flight"]) for one in noon}


def test_event_time_is_the_scheduled_one_plus_the_delay(year: list[Flight]) -> None:
    for one in year[:5_000]:
        minutes = one.event["dep_delay"] or 0.0
        assert isinstance(minutes, float)
        assert one.event["departed_at"] == one.timestamp_ms + minutes * 60_000


@pytest.mark.parametrize("version", ["v0001", "v0002"])
def test_events_survive_both_schemas(year: list[Flight], version: str) -> None:
    encode = Encoder(schema(version), 1)
    parsed = fastavro.parse_schema(json.loads(schema(version)))
    reader = fastavro.parse_schema(json.loads(schema()))
    body = encode(year[0].event)[5:]
    back = fastavro.schemaless_reader(io.BytesIO(body), parsed, reader)
    assert isinstance(back, dict)
    assert set(back) == set(FIELDS)
    assert back["dest"] == year[0].event["dest"]


def test_bad_records_are_bad_in_the_way_they_say(year: list[Flight]) -> None:
    encode = Encoder(schema(), 1)
    bad = planted_bad(year, encode, partitions=PARTITIONS)
    assert sorted(one.error for one in bad) == sorted(ERRORS * 5)
    for one in bad:
        if one.error == "tombstone":
            assert one.value is None
            continue
        assert one.value is not None
        if one.error == "wrong_magic_byte":
            assert one.value[0] != 0
        elif one.error == "truncated":
            assert len(one.value) < 5
        elif one.error == "undecodable":
            with pytest.raises((IndexError, EOFError)):
                decode(one.value)
        elif one.error == "unknown_schema_id":
            assert one.value[1:5] != b"\0\0\0\1"
        else:
            event = decode(one.value)
            assert isinstance(event, dict)
            assert (event["origin"] is None) == (one.error == "missing_entity")
            assert (event["departed_at"] is None) == (one.error == "missing_event_time")


def test_offsets_count_bad_records_too(year: list[Flight]) -> None:
    some = year[:1_000]
    bad = planted_bad(some, Encoder(schema(), 1), partitions=PARTITIONS)
    events, dead = keyed_events(some, bad)
    places = [(p, one.offset) for p, those in events.items() for one in those] + list(dead)
    assert len(places) == len(set(places)) == 1_000 + 5 * len(ERRORS)
    for partition in range(PARTITIONS):
        offsets = sorted(offset for p, offset in places if p == partition)
        assert offsets == list(range(len(offsets)))
    assert highest_event_time_ms(some) >= some[-1].timestamp_ms - 24 * HOUR_MS
