"""An operator at work while workers are killed: activates versions and takes them back."""

from __future__ import annotations

import json
import random
import threading
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer

from streams.clock import SystemClock
from tests.integration.kafka_tools import Outgoing
from tests.integration.pipeline_check import Cut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.integration.kafka_tools import KafkaTools

FINAL = ("rejected", "completed", "failed")
PATIENCE_S = 90.0
ROLLBACKS = 0.5


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request, and the states that were told of it; each final one should come once."""

    request: Mapping[str, Any]
    states: list[str] = field(default_factory=list)
    cut: Cut | None = None

    @property
    def over(self) -> bool:
        return any(state in FINAL for state in self.states)


class Operating(threading.Thread):
    """Sends requests for one set, each when the one before is over, until all are.

    And not before it is `due`, by its number from 0: a version is to serve for a while.
    """

    def __init__(
        self,
        kafka: KafkaTools,
        *,
        requests_topic: str,
        replies_topic: str,
        feature_set: str,
        versions: Sequence[str],
        requests: int,
        due: Callable[[int], bool],
        seed: int,
    ) -> None:
        super().__init__(name="operating", daemon=True)
        self.asked: dict[str, Asked] = {}
        self.error: BaseException | None = None
        self._kafka = kafka
        self._requests_topic = requests_topic
        self._feature_set = feature_set
        self._versions = versions
        self._requests = requests
        self._due = due
        self._draw = random.Random(seed)
        self._clock = SystemClock()
        self._replies = Consumer(
            {
                "bootstrap.servers": kafka.addresses.bootstrap_servers,
                "group.id": f"chaos-{uuid.uuid4().hex}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self._replies.subscribe([replies_topic])

    @property
    def cuts(self) -> list[Cut]:
        """The switches, in the order in which they were decided."""
        return [one.cut for one in self.asked.values() if one.cut is not None]

    @property
    def accepted(self) -> int:
        return sum("accepted" in one.states for one in self.asked.values())

    def run(self) -> None:
        try:
            for number in range(self._requests):
                self._until(partial(self._due, number), f"at request {number}")
                self._ask()
        except BaseException as error:
            self.error = error
        finally:
            self._replies.close()

    def _ask(self) -> None:
        request = {
            "request_id": uuid.UUID(int=self._draw.getrandbits(128)).hex,
            "feature_set": self._feature_set,
            "requested_by": "chaos",
            "reason": "to see what happens",
            **self._change(),
        }
        asked = self.asked[request["request_id"]] = Asked(request=request)
        value = Outgoing(value=json.dumps(request).encode(), partition=0)
        # Every third one twice: a client that was not sure.
        self._kafka.produce(self._requests_topic, [value] * (2 if len(self.asked) % 3 == 0 else 1))
        self._until(lambda: asked.over, f"over: {asked}")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = self._clock.monotonic_s() + PATIENCE_S
        while not condition():
            if self._clock.monotonic_s() > deadline_s:
                raise AssertionError(f"not {what} after {PATIENCE_S} s")
            self._listen()

    def _change(self) -> dict[str, Any]:
        serving = self._serving
        if self._draw.random() < ROLLBACKS and serving != self._versions[0]:
            others = [one for one in self._versions if one != serving]
            return {"action": "rollback", "target": self._draw.choice([None, *others])}
        others = [one for one in self._versions if one != serving]
        return {"action": "activate", "target": self._draw.choice(others)}

    @property
    def _serving(self) -> str:
        cuts = self.cuts
        return cuts[-1].version if cuts else self._versions[0]

    def _listen(self) -> None:
        message = self._replies.poll(0.2)
        if message is None or message.error() is not None:
            return
        value = message.value()
        assert isinstance(value, bytes)
        reply = self._kafka.decode(value)
        asked = self.asked.get(reply["request_id"])
        if asked is None:
            return
        asked.states.append(reply["state"])
        if reply["state"] == "completed" and asked.cut is None:
            offsets = {int(partition): offset for partition, offset in reply["cut"].items()}
            asked.cut = Cut(feature_set=self._feature_set, version=reply["target"], offsets=offsets)
