"""An operator with a plain Kafka client: requests as JSON, answers as they come."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

from examples.flights.demo.topics import EventReader
from streams.errors import RewindowError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from examples.flights.demo.site import Site

REFUSED = ("rejected", "failed")
POLL_S = 0.1
SEND_S = 15.0


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request, when each answer to it was read, and the last answer once it has come."""

    request_id: str
    sent_s: float
    answered_ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds from the send to each state, by state."""
    reply: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The version that serves from the cut on."""
        return str(self.reply["target"])

    @property
    def replaced(self) -> str:
        """The version that serves up to the cut."""
        return str(self.reply["plan"]["from_version"])

    @property
    def corrections(self) -> int | None:
        """How many were made; None if none were asked for."""
        return cast("int | None", self.reply["corrections"])

    @property
    def cut(self) -> dict[int, int]:
        """The fence of each partition."""
        return {int(partition): offset for partition, offset in self.reply["cut"].items()}


class Operator:
    """Asks, and reads the answers with `read_committed`. Both topics must exist."""

    def __init__(self, place: Site, feature_set: str) -> None:
        self._place = place
        self._feature_set = feature_set
        self._producer = Producer({**place.client, "linger.ms": 0})
        self._decode = EventReader(place.addresses.registry_url)
        self._replies = Consumer(
            {
                **place.client,
                "group.id": f"operator-{uuid.uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        topic = place.names.replies_topic
        self._replies.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.close()

    def ask(self, **wishes: object) -> Asked:
        """Send a request about the set: one JSON object on `<app>.rollback`."""
        asked = Asked(request_id=uuid.uuid4().hex, sent_s=time.monotonic())
        request = {
            "request_id": asked.request_id,
            "feature_set": self._feature_set,
            "requested_by": "scripts/demo",
            **wishes,
        }
        self._producer.produce(self._place.names.rollback_topic, json.dumps(request).encode())
        if self._producer.flush(SEND_S):
            raise RewindowError(f"the request was not sent within {SEND_S:.0f} s")
        return asked

    def answers(self, asked: Asked) -> Iterator[str | None]:
        """States as they are told, None while there is nothing new; ends when it is completed.

        Raises `RewindowError` with the reasons if the request is refused or fails.
        """
        while "completed" not in asked.answered_ms:
            message = self._replies.poll(POLL_S)
            if message is None:
                yield None
                continue
            if (error := message.error()) is not None:
                raise KafkaException(error)
            reply = self._decode(cast("bytes", message.value()))
            if reply["request_id"] != asked.request_id:
                continue
            state = str(reply["state"])
            asked.answered_ms[state] = round((time.monotonic() - asked.sent_s) * 1000, 1)
            asked.reply = reply
            if state in REFUSED:
                reasons = cast("list[dict[str, str]]", reply["reasons"])
                told = "; ".join(one["message"] for one in reasons)
                raise RewindowError(f"{reply['action']} was {state}: {told}")
            yield state
