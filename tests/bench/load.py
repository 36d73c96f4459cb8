"""The events of the benchmark, the same on every machine, and what must come out of them.

Sensors measure something over 50 hours. Event time goes on evenly and is shuffled over short
stretches, so the log is out of order by less than the allowed lateness. Each sensor measures
equally often in each hour, so the number of (sensor, hour) rows is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyruhvro

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SEED = 7
HOUR_MS = 3_600_000
HOURS = 50
SENSORS = 1_000
EVENTS_PER_ROW = 5
PARTITIONS = 4
LATENESS_MS = 60_000
START_MS = 1_735_689_600_000  # 2025-01-01T00:00Z
LEAST_EVENTS = HOURS * PARTITIONS * EVENTS_PER_ROW

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "measurement",
    "fields": [
        {"name": "sensor", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "value", "type": "double"},
    ],
}

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Events in the order in which they are produced: sensor number, event time, value.

    The last of each partition is there to close the last hour: `rows` holds what is before it.
    """

    sensors: int
    sensor: Ints
    at_ms: Ints
    value: Doubles

    @property
    def events(self) -> int:
        return len(self.sensor)

    @property
    def partition(self) -> Ints:
        """Partition of each event; a sensor's events are all in one."""
        return self.sensor % PARTITIONS

    @property
    def unclosed(self) -> Load:
        """Without the events that close the last hour."""
        return replace(
            self,
            sensor=self.sensor[:-PARTITIONS],
            at_ms=self.at_ms[:-PARTITIONS],
            value=self.value[:-PARTITIONS],
        )

    @property
    def keys(self) -> list[bytes]:
        """Record key of each sensor."""
        return [sensor_name(number).encode() for number in range(self.sensors)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What each (sensor, hour) row must say; arrays of the shape (sensors, hours)."""

    count: Ints
    total: Doubles
    least: Doubles
    most: Doubles


def sensor_name(number: int) -> str:
    """Name of a sensor, as it is in the events."""
    return f"sensor-{number:04d}"


def make_load(events: int, *, sensors: int | None = None) -> Load:
    """About `events` events over all hours, `SENSORS` sensors or fewer if there are few."""
    if sensors is None:
        sensors = max(PARTITIONS, min(SENSORS, events // (HOURS * EVENTS_PER_ROW)))
    rounds = -(-events // (HOURS * sensors))
    random = np.random.default_rng(SEED)
    # A round has each sensor once, in an order of its own.
    order = np.broadcast_to(np.arange(sensors), (HOURS * rounds, sensors))
    sensor = random.permuted(order, axis=1).ravel()
    at_ms = START_MS + (np.arange(len(sensor)) * HOURS * HOUR_MS) // len(sensor)
    disorder = random.integers(0, LATENESS_MS // 2, len(sensor))
    produced = np.argsort(at_ms + disorder, kind="stable")
    value = np.round(random.normal(20.0, 5.0, len(sensor)), 3)
    closing = np.arange(PARTITIONS)
    return Load(
        sensors=sensors,
        sensor=np.concatenate([sensor[produced], closing]),
        at_ms=np.concatenate(
            [at_ms[produced], np.full(PARTITIONS, START_MS + HOURS * HOUR_MS + LATENESS_MS)]
        ),
        value=np.concatenate([value[produced], np.zeros(PARTITIONS)]),
    )


def expected(load: Load) -> Expected:
    """The statistics of each row, by plain arithmetic over the events."""
    inside = slice(0, load.events - PARTITIONS)
    sensor, value = load.sensor[inside], load.value[inside]
    row = sensor * HOURS + (load.at_ms[inside] - START_MS) // HOUR_MS
    shape = (load.sensors, HOURS)
    size = load.sensors * HOURS
    least, most = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(least, row, value)
    np.maximum.at(most, row, value)
    return Expected(
        count=np.bincount(row, minlength=size).reshape(shape),
        total=np.bincount(row, weights=value, minlength=size).astype(np.float64).reshape(shape),
        least=least.reshape(shape),
        most=most.reshape(shape),
    )


def avro_values(load: Load, schema_id: int) -> Iterator[Sequence[bytes]]:
    """The events in Confluent's wire format, in runs of some thousand."""
    head = b"\x00" + schema_id.to_bytes(4, "big")
    schema = json.dumps(SCHEMA)
    fields = pyruhvro.avro_to_arrow_schema(schema)
    names = np.array([sensor_name(number) for number in range(load.sensors)])
    for run in _runs(load):
        table = pa.table([names[load.sensor[run]], load.at_ms[run], load.value[run]], fields.names)
        for batch in table.cast(fields).combine_chunks().to_batches():
            for bodies in pyruhvro.serialize_record_batch(batch, schema, 1):
                yield [head + body for body in bodies.to_pylist()]


def json_values(load: Load) -> Iterator[Sequence[bytes]]:
    """The events as JSON, in runs of some thousand."""
    for run in _runs(load):
        columns = zip(
            load.sensor[run].tolist(), load.at_ms[run].tolist(), load.value[run].tolist(),
            strict=True,
        )  # fmt: skip
        yield [
            json.dumps({"sensor": sensor_name(sensor), "at": at, "value": value}).encode()
            for sensor, at, value in columns
        ]


def _runs(load: Load, size: int = 50_000) -> Iterator[slice]:
    for start in range(0, load.events, size):
        yield slice(start, start + size)
