"""Produce orders with Confluent's own client, as an application would.

    python produce.py                  an hour of orders, up to now
    python produce.py --live           and one every tenth of a second, until Ctrl-C

The key is the customer in UTF-8, the value Avro in the Confluent wire format. Event times are
a little out of order, as real ones are. The topic is created if it isn't there.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from streams.config import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPIC = "orders"
PARTITIONS = 3
CUSTOMERS = [f"customer-{number:02}" for number in range(1, 21)]
PRICES = {"tea": 4.5, "cup": 12.0, "kettle": 49.0, "spoon": 2.5, "tray": 18.0}
COUPONS = [None, None, None, "welcome", "spring"]
OUT_OF_ORDER_MS = 60_000
HOUR_MS = 3_600_000
PAUSE_S = 0.1


def create_topic(bootstrap_servers: str) -> None:
    """Create the topic, unless it is there already."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 3})
    topic = NewTopic(TOPIC, num_partitions=PARTITIONS)
    try:
        admin.create_topics([topic])[TOPIC].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def order(number: int, now_ms: int, chance: random.Random) -> dict[str, Any]:
    """An order that was placed up to a minute before `now_ms`."""
    product = chance.choice(list(PRICES))
    quantity = chance.randint(1, 4)
    return {
        "order_id": f"{now_ms}-{number}",
        "customer": chance.choice(CUSTOMERS),
        "product": product,
        "quantity": quantity,
        "amount": quantity * PRICES[product],
        "coupon": chance.choice(COUPONS),
        "cancelled": chance.random() < 0.05,
        "ordered_at": now_ms - chance.randrange(OUT_OF_ORDER_MS),
    }


def orders(number: int, chance: random.Random, *, live: bool) -> Iterator[dict[str, Any]]:
    """`number` orders spread over the hour before now, and with `live` all that follow."""
    now_ms = time.time_ns() // 1_000_000
    for i in range(number):
        yield order(i, now_ms - HOUR_MS + i * HOUR_MS // number, chance)
    while live:
        time.sleep(PAUSE_S)
        number += 1
        yield order(number, time.time_ns() // 1_000_000, chance)


def main() -> None:
    """Command line of the producer."""
    parser = argparse.ArgumentParser(description="Produce orders.")
    parser.add_argument("--orders", type=int, default=3_000, help="how many for the past hour")
    parser.add_argument("--live", action="store_true", help="go on with orders of now")
    arguments = parser.parse_args()

    # A producer of yours has its own settings; this one uses what `rewindow` would use here.
    settings = load_settings()
    create_topic(settings.bootstrap_servers)
    registry = SchemaRegistryClient({"url": settings.registry_options()["url"], "timeout": 10})
    serialize = AvroSerializer(
        registry, conf={"auto.register.schemas": False, "use.latest.version": True}
    )
    context = SerializationContext(TOPIC, MessageField.VALUE)
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "enable.idempotence": True,
            "log_level": 3,  # a broker that has just started is worth no warning
        }
    )
    sent = 0
    try:
        for event in orders(arguments.orders, random.Random(7), live=arguments.live):
            producer.produce(
                TOPIC,
                key=event["customer"].encode(),
                value=serialize(event, context),
                timestamp=event["ordered_at"],
            )
            producer.poll(0)
            sent += 1
    except KeyboardInterrupt:
        pass
    producer.flush()
    print(f"{sent:,} orders are on topic {TOPIC}")


if __name__ == "__main__":
    main()
