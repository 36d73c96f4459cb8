"""Streams that are published while workers run, on real servers: nothing is started again."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from streams.config import load_settings
from streams.definitions.publish import publish
from streams.schema.registry import Registry
from tests.integration.kafka_tools import Outgoing
from tests.integration.worker_process import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.integration.kafka_tools import KafkaTools, Schema

SCHEMA: Schema = {
    "type": "record",
    "name": "sale",
    "fields": [
        {"name": "customer", "type": "string"},
        {"name": "shop", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
SOURCE = """\
kind: source
name: {source}
topic: {prefix}_{source}
schema: {prefix}_sales-value
event_time: at
key: [customer]
start: earliest
max_ahead: 1d
"""
COUNTS = """\
kind: feature_set
name: {prefix}_{name}
version: 1.0.0
source: {source}
entity: [{entity}]
every: 10s
features:
  n: {{count: "*", window: 10s}}
"""
PARTITIONS = 2
WINDOW_MS = 10_000
START_MS = 1_700_000_000_000
LAST = "nobody"
"""Who comes long after all others, so that everything closes."""

Sale = tuple[int, str, str, int]
"""Partition, customer, shop, time."""
Vector = tuple[str, int, int]
"""Entity, as-of time, count."""


def sales(seed: int, count: int, begin_ms: int) -> list[Sale]:
    """In order of time."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        customer = rng.randrange(20)
        shop = f"s{rng.randrange(7)}"
        found.append((customer % PARTITIONS, f"c{customer}", shop, begin_ms + number * 100))
    return found


def closing(at_ms: int) -> list[Sale]:
    return [(partition, LAST, LAST, at_ms) for partition in range(PARTITIONS)]


def wanted(events: Sequence[Sale], entity: int) -> Counter[Vector]:
    """The vectors that have to be there, by the independent way: count."""
    counts = Counter(
        (str(event[entity]), event[3] // WINDOW_MS * WINDOW_MS + WINDOW_MS)
        for event in events
        if event[1] != LAST
    )
    return Counter((who, as_of_ms, n) for (who, as_of_ms), n in counts.items())


class Market:
    """An app, its topics, and two workers."""

    def __init__(self, kafka: KafkaTools, directory: Path, prefix: str) -> None:
        self.kafka = kafka
        self.directory = directory
        self.prefix = prefix
        self.schema_id = kafka.register(f"{prefix}_sales-value", SCHEMA)
        self.settings = load_settings(
            bootstrap_servers=kafka.addresses.bootstrap_servers,
            registry_url=kafka.addresses.registry_url,
            app=prefix,
            environ={"HOME": str(directory)},
        )

    def worker(self, instance: str) -> WorkerProcess:
        spec = WorkerSpec(
            app=self.prefix,
            addresses=self.kafka.addresses,
            state_dir=self.directory / "state",
            instance=instance,
        )
        return WorkerProcess(spec, self.directory / "logs")

    def publish(self, *texts: str, **names: str) -> None:
        files = []
        for number, text in enumerate(texts):
            files.append(self.directory / f"definition{number}.yaml")
            files[-1].write_text(text.format(prefix=self.prefix, **names))
        with Registry.from_settings(self.settings.registry_options()) as registry:
            publish(self.settings, files, registry)

    def produce(self, source: str, events: Sequence[Sale]) -> None:
        self.kafka.produce(
            f"{self.prefix}_{source}",
            [
                Outgoing(
                    partition=partition,
                    key=customer.encode(),
                    value=self.kafka.encode(
                        self.schema_id, {"customer": customer, "shop": shop, "at": at_ms}
                    ),
                )
                for partition, customer, shop, at_ms in events
            ],
        )

    def vectors(self, name: str, entity: str) -> Counter[Vector]:
        """What has gone out with an event in it, each as often as it is there."""
        topic = self.settings.names.features_topic(f"{self.prefix}_{name}")
        if topic not in self.kafka.admin.list_topics(timeout=30).topics:
            return Counter()
        values = [self.kafka.decode(it.value) for it in self.kafka.consume_all(topic) if it.value]
        return Counter(
            (one[entity], round(one["as_of"].timestamp() * 1000), one["n"])
            for one in values
            if one["rewindow_kind"] == "final" and one[entity] != LAST
        )


@pytest.fixture
def market(kafka: KafkaTools, tmp_path: Path, prefix: str) -> Market:
    """An app on the shared stack."""
    return Market(kafka, tmp_path, prefix)


def test_new_sources_and_entities_are_read_by_workers_that_run(market: Market) -> None:
    events = sales(seed=1, count=2_000, begin_ms=START_MS)
    returns = sales(seed=2, count=800, begin_ms=START_MS)
    end_ms = START_MS + 600_000
    market.kafka.create_topic(f"{market.prefix}_sales", partitions=PARTITIONS)
    market.publish(SOURCE, COUNTS, source="sales", name="customers", entity="customer")
    market.produce("sales", events[:1_000])
    with ExitStack() as running:
        workers = [running.enter_context(market.worker(name)) for name in ("one", "two")]
        workers[0].until(lambda: market.vectors("customers", "customer"), "begun")

        # Its topic comes later than the source.
        market.publish(SOURCE, COUNTS, source="returns", name="returners", entity="customer")
        market.publish(COUNTS, source="sales", name="shops", entity="shop")
        market.produce("sales", events[1_000:1_500])
        market.kafka.create_topic(f"{market.prefix}_returns", partitions=PARTITIONS)
        market.produce("returns", returns[:400])
        market.produce("sales", [*events[1_500:], *closing(end_ms)])
        market.produce("returns", [*returns[400:], *closing(end_ms)])

        for name, entity, expected in (
            ("customers", "customer", wanted(events, 1)),
            ("shops", "shop", wanted(events, 2)),
            ("returners", "customer", wanted(returns, 1)),
        ):

            def there(name: str = name, entity: str = entity, n: int = expected.total()) -> bool:
                return market.vectors(name, entity).total() >= n

            workers[0].until(there, f"done with {name}")
            assert market.vectors(name, entity) == expected
        for worker in workers:
            assert worker.stop() == 0, worker.messages
