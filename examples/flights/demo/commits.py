"""What consumer groups commit, seen from outside: how far a worker is, and how fast it was."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SAMPLE_S = 0.05
REQUEST_S = 10.0

Place = tuple[str, str, int]
"""Group, topic, partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Committed offsets at a moment."""

    at_s: float
    offsets: Mapping[Place, int]


class Commits:
    """Watches what groups commit while the `with` block lasts, from outside of the worker."""

    def __init__(self, client: Mapping[str, str], groups: Sequence[str]) -> None:
        self._admin = AdminClient(dict(client))
        self._groups = groups
        self._samples: list[Sample] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def reached(self, wanted: Mapping[Place, int]) -> bool:
        """Whether each of the `wanted` offsets is committed."""
        return bool(self._samples) and _all_there(self._samples[-1], wanted)

    def seconds_until(self, wanted: Mapping[Place, int]) -> float | None:
        """From the first commit of anything to the one that made all `wanted` offsets.

        None if they were not reached.
        """
        for sample in self._samples:
            if _all_there(sample, wanted):
                return sample.at_s - self._samples[0].at_s
        return None

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            offsets: dict[Place, int] = {}
            for group in self._groups:
                offsets |= self._committed(group)
            if any(offset > 0 for offset in offsets.values()):
                self._samples.append(Sample(at_s=time.monotonic(), offsets=offsets))

    def _committed(self, group: str) -> dict[Place, int]:
        asked = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)], request_timeout=REQUEST_S
        )
        try:
            found = asked[group].result().topic_partitions or []
        except KafkaException:  # a group that is not there yet
            return {}
        return {(group, one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def _all_there(sample: Sample, wanted: Mapping[Place, int]) -> bool:
    return all(sample.offsets.get(place, 0) >= offset for place, offset in wanted.items())
