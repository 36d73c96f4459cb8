"""A producer that never stops: at full speed to a mark, at a pace while something is changed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from examples.flights.data import PARTITIONS
from examples.flights.produce import Encoder, ensure_topic, register_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import Message

    from examples.flights.data import Flight

BURST = 2_000
BURSTS_IN_A_SPAN = 100
PACE_S = 0.1


class Producing:
    """Produces flights beside its user while the `with` block lasts.

    It sends all up to a mark at once; from there on one small burst after the other, so that a
    span beyond the mark lasts for ten seconds, and waits at the span's end for a new mark.
    """

    def __init__(
        self, client: Mapping[str, str], registry_url: str, topic: str, flown: Sequence[Flight]
    ) -> None:
        """Creates the topic and registers the schema. Raises `KafkaException`."""
        servers = client["bootstrap.servers"]
        ensure_topic(servers, topic, PARTITIONS, client=client)
        self._encode = Encoder(*register_schema(registry_url, topic))
        self._producer = Producer({**client, "enable.idempotence": True, "linger.ms": 5})
        self._topic = topic
        self._flown = flown
        self._wake = threading.Condition()
        self._mark = self._end = self._sent = 0
        self._leave = False
        self._failures: list[KafkaError] = []
        self._thread = threading.Thread(target=self._run, name="producing")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._wake:
            self._leave = True
            self._wake.notify()
        self._thread.join()

    @property
    def sent(self) -> int:
        """How many flights Kafka has. Raises `KafkaException` if it did not take one."""
        if self._failures:
            raise KafkaException(self._failures[0])
        return self._sent

    def go(self, *, mark: int, end: int) -> None:
        """Send all up to `mark` at once, and at a pace what comes after it, before `end`."""
        with self._wake:
            self._mark, self._end = mark, end
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._leave or self._sent < self._end)
                if self._leave:
                    return
                mark, end, sent = self._mark, self._end, self._sent
            fast = sent < mark
            number = BURST if fast else max(1, (end - mark) // BURSTS_IN_A_SPAN)
            burst = self._flown[sent : min(sent + number, mark if fast else end)]
            self._send(burst)
            with self._wake:
                self._sent += len(burst)
                if not fast:
                    self._wake.wait_for(lambda: self._leave or self._sent < self._mark, PACE_S)

    def _send(self, burst: Sequence[Flight]) -> None:
        for flight in burst:
            self._producer.produce(
                self._topic,
                self._encode(flight.event),
                str(flight.event["origin"]).encode(),
                flight.partition,
                timestamp=flight.timestamp_ms,
                on_delivery=self._delivered,
            )
        self._producer.flush()

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failures.append(error)
