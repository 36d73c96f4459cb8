"""The benchmark's events are what its page says, and its expectations are plain arithmetic."""

from __future__ import annotations

import io
import json

import fastavro
import numpy as np

from tests.bench.load import (
    HOUR_MS,
    HOURS,
    LATENESS_MS,
    PARTITIONS,
    SCHEMA,
    START_MS,
    avro_values,
    expected,
    json_values,
    make_load,
    sensor_name,
)

LOAD = make_load(100_000)
SCHEMA_ID = 258


def test_there_is_every_sensor_in_every_hour_equally_often() -> None:
    count = expected(LOAD).count

    assert count.shape == (LOAD.sensors, HOURS)
    assert count.min() == count.max() == LOAD.events // count.size
    assert int(count.sum()) == LOAD.events - PARTITIONS


def test_no_event_is_late_though_they_are_out_of_order() -> None:
    for partition in range(PARTITIONS):
        at_ms = LOAD.at_ms[LOAD.partition == partition]
        behind_ms = np.maximum.accumulate(at_ms) - at_ms

        assert 0 < behind_ms.max() < LATENESS_MS


def test_the_last_event_of_each_partition_closes_the_last_hour_and_no_more() -> None:
    for partition in range(PARTITIONS):
        closing_ms = int(LOAD.at_ms[LOAD.partition == partition][-1])

        assert closing_ms - LATENESS_MS == START_MS + HOURS * HOUR_MS


def test_expectations_are_those_of_a_walk_over_the_events() -> None:
    found = expected(LOAD)
    sensor, hour = 3, 17
    values = [
        value
        for number, at_ms, value in zip(LOAD.sensor, LOAD.at_ms, LOAD.value, strict=True)
        if number == sensor and (at_ms - START_MS) // HOUR_MS == hour
    ]

    assert found.count[sensor, hour] == len(values)
    assert abs(found.total[sensor, hour] - sum(values)) < 1e-9
    assert found.least[sensor, hour] == min(values)
    assert found.most[sensor, hour] == max(values)


def test_avro_and_json_say_the_same() -> None:
    schema = fastavro.parse_schema(SCHEMA)
    avro = [value for run in avro_values(LOAD, SCHEMA_ID) for value in run]
    plain = [json.loads(value) for run in json_values(LOAD) for value in run]

    assert len(avro) == len(plain) == LOAD.events
    for position in (0, 1_234, LOAD.events - 1):
        assert avro[position][:5] == b"\x00" + SCHEMA_ID.to_bytes(4, "big")
        event = fastavro.schemaless_reader(io.BytesIO(avro[position][5:]), schema, None)
        assert isinstance(event, dict)
        at_ms = round(event["at"].timestamp() * 1000)
        assert {**event, "at": at_ms} == plain[position]
        assert event["sensor"] == sensor_name(int(LOAD.sensor[position]))
        assert at_ms == LOAD.at_ms[position]
