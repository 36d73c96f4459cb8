"""Ask for a rollback with a plain Kafka client, and wait for the answers.

    python roll_back.py customer_orders                  undo the latest activation
    python roll_back.py customer_orders --to 1.0.0       go to a version

A request is one JSON object on the topic `<app>.rollback`; `kcat -P` can send it as well. What
becomes of it is told on `<app>.replies`, a record for each step.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from streams.config import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

FINAL = ("rejected", "completed", "failed")


def answers(
    bootstrap_servers: str, registry_url: str, app: str, request: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Send the request; its replies, up to the one that ends it."""
    topic = f"{app}.replies"
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry_url, "timeout": 10}))
    value_of = SerializationContext(topic, MessageField.VALUE)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "shop-example",  # asked for by the client; nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    try:
        # From the end of now on: the answers come after the request.
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        consumer.assign([TopicPartition(topic, 0, end if end >= 0 else OFFSET_END)])
        producer = Producer({"bootstrap.servers": bootstrap_servers})
        producer.produce(f"{app}.rollback", json.dumps(request).encode())
        if producer.flush(10):
            raise SystemExit("the request could not be sent within 10 s")
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if (error := message.error()) is not None:
                raise KafkaException(error)
            reply = deserialize(message.value(), value_of)
            if reply["request_id"] != request["request_id"]:
                continue
            yield reply
            if reply["state"] in FINAL:
                return
    finally:
        consumer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take a version back.")
    parser.add_argument("feature_set")
    parser.add_argument("--to", help="version to go to")
    given = parser.parse_args()
    settings = load_settings()
    request = {
        "request_id": uuid.uuid4().hex,
        "feature_set": given.feature_set,
        "target": given.to,
        "reason": "shown in an example",
        "requested_by": "roll_back.py",
    }
    url = settings.registry_options()["url"]
    for reply in answers(settings.bootstrap_servers, url, settings.app, request):
        told = [reason["message"] for reason in reply["reasons"]]
        print(reply["state"], reply["target"] or "", reply["cut"] or "", *told)
    sys.exit(0 if reply["state"] == "completed" else 1)


if __name__ == "__main__":
    main()
