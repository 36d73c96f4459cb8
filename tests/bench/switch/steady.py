"""The load under which versions are switched: a thousand sensors, evenly, for as long as it takes.

It goes on where the load before it ended. Each round has every sensor once; so many rounds are
an hour of event time, so that an hour closes about once a second.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import TYPE_CHECKING, Self

import numpy as np
from confluent_kafka import KafkaError, Producer

from streams.clock import SystemClock
from streams.errors import RewindowError
from tests.bench.load import (
    HOUR_MS,
    HOURS,
    LATENESS_MS,
    PARTITIONS,
    SEED,
    START_MS,
    Expected,
    Load,
    avro_values,
)

if TYPE_CHECKING:
    from tests.bench.switch.app import App

ROUNDS_PER_HOUR = 20
FLUSH_S = 30.0


def one_round(number: int, sensors: int) -> Load:
    """The events of a round."""
    value = np.round(np.random.default_rng((SEED, number)).normal(20.0, 5.0, sensors), 3)
    at_ms = START_MS + HOURS * HOUR_MS + number * HOUR_MS // ROUNDS_PER_HOUR
    sensor = np.arange(sensors)
    return Load(sensors=sensors, sensor=sensor, at_ms=np.full(sensors, at_ms), value=value)


def closing(rounds: int) -> Load:
    """An event in each partition that closes the last hour of so many rounds."""
    at_ms = START_MS + (HOURS + hours_of(rounds)) * HOUR_MS + LATENESS_MS
    sensor = np.arange(PARTITIONS)
    value = np.zeros(PARTITIONS)
    return Load(sensors=PARTITIONS, sensor=sensor, at_ms=np.full(PARTITIONS, at_ms), value=value)


def hours_of(rounds: int) -> int:
    """How many hours the first so many rounds are in, the last one begun."""
    return -(-rounds // ROUNDS_PER_HOUR)


def expected_of(rounds: int, sensors: int) -> Expected:
    """What the hours of so many rounds must say; arrays of the shape (sensors, hours)."""
    value = np.stack([one_round(number, sensors).value for number in range(rounds)])
    begins = np.arange(0, rounds, ROUNDS_PER_HOUR)
    shape = (len(begins), sensors)
    sizes = np.diff(np.append(begins, rounds))
    return Expected(
        count=np.broadcast_to(sizes[:, None], shape).T,
        total=np.add.reduceat(value, begins).T,
        least=np.minimum.reduceat(value, begins).T,
        most=np.maximum.reduceat(value, begins).T,
    )


class Steady:
    """Produces rounds while the `with` block lasts, so many a second, then closes them."""

    def __init__(self, app: App, *, sensors: int, rounds_per_s: float) -> None:
        self.rounds = 0
        """How many rounds are produced."""
        self._app = app
        self._sensors = sensors
        self._rate = rounds_per_s
        self._clock = SystemClock()
        self._done = threading.Event()
        self._failed: list[KafkaError] = []
        self._producer = Producer(
            {
                "bootstrap.servers": app.bench.kafka.addresses.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "on_delivery": lambda error, _: self._failed.append(error) if error else None,
            }
        )
        self._thread = threading.Thread(target=self._run, name="steady", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._send(closing(self.rounds))
        if self._producer.flush(FLUSH_S) or self._failed:
            raise RewindowError(f"events were not produced: {self._failed[:1]}")

    def events(self, rounds: int) -> dict[int, int]:
        """How many events each partition has of the first so many rounds."""
        share = Counter(number % PARTITIONS for number in range(self._sensors))
        return {partition: rounds * share[partition] for partition in range(PARTITIONS)}

    @property
    def all_events(self) -> dict[int, int]:
        """How many events each partition has once it is over, those that close it included."""
        return {partition: number + 1 for partition, number in self.events(self.rounds).items()}

    def _run(self) -> None:
        start_s = self._clock.monotonic_s()
        for number in itertools.count():
            due_s = start_s + number / self._rate
            if self._done.wait(max(0.0, due_s - self._clock.monotonic_s())):
                return
            self._send(one_round(number, self._sensors))
            self.rounds = number + 1

    def _send(self, load: Load) -> None:
        keys = load.keys
        for values in avro_values(load, self._app.schema_id):
            for sensor, partition, at_ms, value in zip(
                load.sensor.tolist(),
                load.partition.tolist(),
                load.at_ms.tolist(),
                values,
                strict=True,
            ):
                self._producer.produce(
                    self._app.topic, value, keys[sensor], partition, timestamp=at_ms
                )
        self._producer.poll(0)
