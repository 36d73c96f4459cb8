"""Keep the newest features of each entity, with Confluent's own client.

    python consume.py customer_orders            what is there, then the newest vector of each
    python consume.py customer_orders --follow   print each vector that is news, until Ctrl-C

What a consumer has to do: read committed records only, let a later record of the same entity
and as-of time replace an earlier one, and ignore an as-of time older than the one it has.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from streams.config import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

Vector = dict[str, Any]


def vectors(
    bootstrap_servers: str, registry_url: str, topic: str, *, follow: bool = False
) -> Iterator[tuple[str, Vector]]:
    """Keys and values of all committed vectors, up to the topic's end unless `follow`."""
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry_url, "timeout": 10}))
    key_of = SerializationContext(topic, MessageField.KEY)
    value_of = SerializationContext(topic, MessageField.VALUE)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "shop-example",  # asked for by the client; nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        metadata = consumer.list_topics(topic, timeout=10).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        unread = set(metadata.partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unread])
        while unread or follow:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if (error := message.error()) is None:
                yield deserialize(message.key(), key_of), deserialize(message.value(), value_of)
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
            else:
                raise KafkaException(error)
    finally:
        consumer.close()


class Newest:
    """The newest vector of each entity."""

    def __init__(self) -> None:
        self.by_entity: dict[str, Vector] = {}

    def take(self, entity: str, vector: Vector) -> bool:
        """Take a vector; False if it is older than what is known."""
        known = self.by_entity.get(entity)
        if known is not None and vector["as_of"] < known["as_of"]:
            return False
        self.by_entity[entity] = vector
        return True


def show(entity: str, vector: Vector) -> None:
    """Print a vector on one line."""
    own = ("as_of", "rewindow_kind", "rewindow_version")
    features = {name: value for name, value in vector.items() if name not in own}
    print(f"{vector['as_of']:%F %T}", vector["rewindow_kind"], entity, features)


def main() -> None:
    """Command line of the consumer."""
    parser = argparse.ArgumentParser(description="Print the newest vector of each entity.")
    parser.add_argument("feature_set", choices=["customer_orders", "product_sales"])
    parser.add_argument("--follow", action="store_true", help="wait for further vectors")
    arguments = parser.parse_args()

    # A consumer of yours has its own settings; this one uses what `rewindow` would use here.
    settings = load_settings()
    topic = settings.names.features_topic(arguments.feature_set)
    url = settings.registry_options()["url"]
    newest = Newest()
    try:
        for entity, vector in vectors(
            settings.bootstrap_servers, url, topic, follow=arguments.follow
        ):
            if newest.take(entity, vector) and arguments.follow:
                show(entity, vector)
    except KafkaException as error:
        sys.exit(f"{topic} can't be read: {error.args[0].str()}")
    except KeyboardInterrupt:
        return
    for entity, vector in sorted(newest.by_entity.items()):
        show(entity, vector)


if __name__ == "__main__":
    main()
