"""Asks for switches with a plain Kafka client, and sees each partition's ack once committed."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from streams.clock import SystemClock
from streams.control.codec import decode_ack, decode_reply
from streams.control.machine import FINAL
from streams.control.records import Fenced, ReplyState
from streams.errors import DeadlinePassedError, RewindowError
from streams.runtime.control.acks import ACK_HEADER
from tests.bench.load import PARTITIONS

if TYPE_CHECKING:
    from tests.bench.switch.app import App

POLL_S = 0.05
SEND_S = 10.0
PATIENCE_S = 120.0
FINAL_STATES = frozenset(state.value for state in FINAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """One switch, by the monotonic clock: sent, last partition's ack read, `completed` read."""

    sent_s: float
    acked_s: float
    completed_s: float

    @property
    def acked_ms(self) -> float:
        """From the request's send to the last partition's ack."""
        return (self.acked_s - self.sent_s) * 1000


class Asking:
    """A client of one app, while the `with` block lasts."""

    def __init__(self, app: App) -> None:
        servers = {"bootstrap.servers": app.bench.kafka.addresses.bootstrap_servers}
        self._app = app
        self._clock = SystemClock()
        self._producer = Producer({**servers, "linger.ms": 0})
        self._consumer = Consumer(
            {
                **servers,
                "group.id": f"{app.name}-asking",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
            }
        )
        names = app.names
        self._acks, self._replies = names.acks_topic, names.replies_topic
        # Known offsets: from the end of now on nothing is missed.
        at = [TopicPartition(topic, 0) for topic in (self._acks, self._replies)]
        for one in at:
            one.offset = self._consumer.get_watermark_offsets(one, timeout=SEND_S)[1]
        self._consumer.assign(at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def activate(self, version: str) -> Switched:
        """Switch to a version, and see it through. Raises RewindowError if it is refused."""
        request_id = uuid.uuid4().hex
        request = {
            "request_id": request_id,
            "feature_set": self._app.feature_set,
            "action": "activate",
            "target": version,
        }
        acked: dict[int, dict[int, float]] = {}
        completed: tuple[int, float] | None = None
        sent_s = self._clock.monotonic_s()
        self._producer.produce(self._app.names.rollback_topic, json.dumps(request).encode())
        self._producer.flush(SEND_S)
        while self._clock.monotonic_s() - sent_s < PATIENCE_S:
            for message in self._consumer.consume(100, POLL_S):
                now_s = self._clock.monotonic_s()
                if message.topic() == self._acks:
                    self._take(message, acked, now_s)
                elif (epoch := _completed(message, request_id)) is not None:
                    completed = (epoch, now_s)
            # Two topics: an ack may be read after what the coordinator has made of it.
            if completed is not None and len(acked.get(completed[0], ())) == PARTITIONS:
                epoch, completed_s = completed
                acked_s = max(acked[epoch].values())
                return Switched(sent_s=sent_s, acked_s=acked_s, completed_s=completed_s)
        raise DeadlinePassedError(f"the switch to {version} took more than {PATIENCE_S:.0f} s")

    def _take(self, message: Message, acked: dict[int, dict[int, float]], now_s: float) -> None:
        headers = message.headers()
        # Commit metadata on this topic has no header.
        if not isinstance(headers, list) or ACK_HEADER not in dict(headers):
            return
        ack = decode_ack(_value(message))
        if isinstance(ack, Fenced):
            acked.setdefault(ack.epoch, {}).setdefault(ack.partition, now_s)


def _completed(message: Message, request_id: str) -> int | None:
    """The epoch of the request's switch if this is its last answer, which says it is completed.

    Raises RewindowError if it is not.
    """
    reply = decode_reply(_value(message))
    if reply.request_id != request_id or reply.state.value not in FINAL_STATES:
        return None
    if reply.state is not ReplyState.COMPLETED or reply.epoch is None:
        told = "; ".join(one.message for one in reply.reasons)
        raise RewindowError(f"the switch was {reply.state}: {told}")
    return reply.epoch


def _value(message: Message) -> bytes:
    error, value = message.error(), message.value()
    if error is not None or not isinstance(value, bytes):
        raise RewindowError(f"{message.topic()} can't be read: {error}")
    return value
