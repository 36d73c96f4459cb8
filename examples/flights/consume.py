"""Read feature vectors with a plain Confluent consumer and print them.

    python -m examples.flights.consume --bootstrap-servers 127.0.0.1:9092 \
        --registry-url http://127.0.0.1:8081/apis/ccompat/v7 origin_departures

Two things matter to a consumer: read committed records only, and let a later vector of the
same entity and as-of time replace an earlier one.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

POLL_S = 1.0


def read_vectors(
    bootstrap_servers: str,
    registry_url: str,
    topic: str,
    *,
    follow: bool = False,
    client: Mapping[str, str] | None = None,
) -> Iterator[tuple[object, dict[str, object]]]:
    """Keys and values of all committed records of `topic`, from its beginning.

    Ends at the end of every partition, or goes on for ever with `follow`. `client` holds
    further librdkafka settings. Raises `KafkaException` if the topic can't be read.
    """
    registry = SchemaRegistryClient({"url": registry_url, "timeout": 10})
    deserialize = AvroDeserializer(registry)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"flights-example-{uuid.uuid4()}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": not follow,
            **(client or {}),
        }
    )
    key_of = SerializationContext(topic, MessageField.KEY)
    value_of = SerializationContext(topic, MessageField.VALUE)
    try:
        metadata = consumer.list_topics(topic, timeout=10).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        open_partitions = set(metadata.partitions)
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in open_partitions])
        while open_partitions:
            for message in consumer.consume(1_000, POLL_S):
                if (error := message.error()) is None:
                    yield deserialize(message.key(), key_of), deserialize(message.value(), value_of)
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def main() -> None:
    """Command line of the consumer."""
    parser = argparse.ArgumentParser(description="Print the vectors of a feature set.")
    parser.add_argument("feature_set")
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--registry-url", required=True)
    parser.add_argument("--topic-prefix", default="")
    parser.add_argument("--follow", action="store_true", help="wait for further vectors")
    arguments = parser.parse_args()
    topic = f"{arguments.topic_prefix}features.{arguments.feature_set}"
    vectors = read_vectors(
        arguments.bootstrap_servers, arguments.registry_url, topic, follow=arguments.follow
    )
    try:
        for key, value in vectors:
            print(key, value["rewindow_kind"], value["as_of"], value)
    except KafkaException as error:
        sys.exit(f"{topic} can't be read: {error.args[0].str()}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
