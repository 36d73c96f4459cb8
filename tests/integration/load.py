"""A seeded load for a worker: events in disorder, some of them late, and planted bad records.

One load is a pure function of its fields. Event time moves on by `STEP_MS` for each event,
over all partitions alike; `closing` are records so far ahead that all before them closes.
"""

from __future__ import annotations

import io
import random
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import fastavro

from tests.integration.kafka_tools import MAGIC, Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "purchase",
    "fields": [
        {"name": "customer", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": ["null", "double"], "default": None},
        {"name": "quantity", "type": "long"},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
    ],
}
FIELDS = ("customer", "amount", "quantity", "at")

START_MS = 1_699_999_200_000
STEP_MS = 8
AHEAD_MS = 3_600_000
"""The source's `max_ahead`; planted events are further ahead than that."""

UNKNOWN_SCHEMA_ID = 2_000_000_000
DISORDER_MS = 6_000
LATE_MS = (20_000, 400_000)
CLOSING_GAP_MS = 30 * 60_000

_PARSED = fastavro.parse_schema(SCHEMA)


def encode(schema_id: int, event: Mapping[str, object], schema: Any = _PARSED) -> bytes:
    """`event` as Avro in Confluent's wire format."""
    body = io.BytesIO()
    body.write(struct.pack(">bI", MAGIC, schema_id))
    fastavro.schemaless_writer(body, schema, event)
    return body.getvalue()


@dataclass(frozen=True, kw_only=True)
class Load:
    """`events` records over `entities` customers, each at home in one of `partitions`."""

    seed: int
    events: int
    schema_id: int
    partitions: int = 4
    entities: int = 3_000
    step_ms: int = STEP_MS

    @cached_property
    def end_ms(self) -> int:
        """Event time that the load reaches."""
        return START_MS + self.events * self.step_ms

    def records(self) -> Iterator[Outgoing]:
        """All records in order of production."""
        draw = random.Random(self.seed)
        for number in range(self.events):
            now_ms = START_MS + number * self.step_ms
            entity = int(self.entities * draw.random() ** 2)
            yield self._record(draw, now_ms, entity)

    def closing(self) -> Iterator[Outgoing]:
        """One record for each partition, after which all windows before it are closed."""
        at = self.end_ms + CLOSING_GAP_MS
        for partition in range(self.partitions):
            yield self.event(f"closer{partition}", partition, at, timestamp_ms=at)

    def event(
        self,
        customer: str | None,
        partition: int,
        at_ms: int | None,
        *,
        timestamp_ms: int,
        amount: float | None = 1.0,
        quantity: int = 1,
    ) -> Outgoing:
        """One event as a record."""
        event = {"customer": customer, "amount": amount, "quantity": quantity, "at": at_ms}
        return Outgoing(
            value=encode(self.schema_id, event),
            key=(customer or "").encode(),
            partition=partition,
            timestamp_ms=timestamp_ms,
        )

    def _record(self, draw: random.Random, now_ms: int, entity: int) -> Outgoing:
        partition = entity % self.partitions
        kind = draw.random()
        if kind < 0.002:
            return self._bad(draw, now_ms, partition)
        at_ms = now_ms - int(DISORDER_MS * draw.random() ** 3)
        if kind > 0.98:
            at_ms = now_ms - draw.randint(*LATE_MS)
        return self.event(
            f"c{entity}",
            partition,
            at_ms,
            timestamp_ms=now_ms,
            amount=None if draw.random() < 0.05 else round(draw.uniform(-50, 500), 2),
            quantity=draw.randint(0, 9),
        )

    def _bad(self, draw: random.Random, now_ms: int, partition: int) -> Outgoing:
        good = self.event("bad", partition, now_ms, timestamp_ms=now_ms)
        assert good.value is not None
        values: list[bytes | None] = [
            None,
            b"\x07" + good.value[1:],
            good.value[:7],
            struct.pack(">bI", MAGIC, UNKNOWN_SCHEMA_ID) + good.value[5:],
            self.event(None, partition, now_ms, timestamp_ms=now_ms).value,
            self.event("bad", partition, None, timestamp_ms=now_ms).value,
            self.event("bad", partition, now_ms + 2 * AHEAD_MS, timestamp_ms=now_ms).value,
        ]
        return Outgoing(
            value=draw.choice(values), key=good.key, partition=partition, timestamp_ms=now_ms
        )
