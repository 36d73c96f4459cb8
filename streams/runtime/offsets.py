"""What Kafka knows of positions: committed offsets with their metadata, ends of logs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.clock import Clock, SystemClock
from streams.errors import RewindowError, UnreachableError
from streams.kafka import confluent_config, explain
from streams.runtime.producer import END_OF_METADATA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.settings import Settings

TIMEOUT_S = 6.0

RENEW_AFTER_S = 3.0
CLIENTS_KEPT = 8
"""So many are kept that who is dropped has been out of use for longer than a look-up takes."""

_NOT_YET = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # no stubs
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # no stubs


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A committed position and the text that was committed with it."""

    offset: int
    metadata: str


def metadata_text(metadata: str | None) -> str:
    """Metadata without the end that the producer gave it, see producer.py."""
    return (metadata or "").partition(END_OF_METADATA)[0]


class Offsets:
    """Blocking look-ups; a worker calls them from a thread."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._clients: deque[AdminClient] = deque(maxlen=CLIENTS_KEPT)
        self._readers: dict[tuple[str, bool], Consumer] = {}
        """By group, and whether offsets have to be stable."""
        self._lock = Lock()
        self._renew()

    def _renew(self) -> None:
        self._clients.append(AdminClient(confluent_config(self._settings)))
        self._renewed_s = self._clock.monotonic_s()

    def committed(
        self, group: str, partitions: Iterable[tuple[str, int]], *, stable: bool = True
    ) -> dict[tuple[str, int], Committed]:
        """Committed positions of a group; partitions without one are absent.

        With `stable`, a position that an open transaction is about to change is an
        `UnreachableError`: who has fenced its writers gets what nothing can follow. Without,
        it is the one before: for a look at partitions that others write.
        """
        wanted = [TopicPartition(topic, partition) for topic, partition in partitions]
        if not wanted:
            return {}
        try:
            found = self._reader(group, stable).committed(wanted, timeout=TIMEOUT_S)
        except KafkaException as error:
            raise self._explained(error, f"reading offsets of {group}") from None
        for tp in found:
            if tp.error is not None:  # never to be taken for "nothing committed"
                raise UnreachableError(
                    f"the offset of {group} in {tp.topic}/{tp.partition} can't be read now: "
                    f"{tp.error.str()}"
                )
        return {
            (tp.topic, tp.partition): Committed(
                offset=tp.offset, metadata=metadata_text(tp.metadata)
            )
            for tp in found
            if tp.offset >= 0
        }

    def _reader(self, group: str, stable: bool) -> Consumer:
        """A client that asks for a group's offsets and never joins it.

        Not the admin client: librdkafka 2.x dies of its own look-up (a segmentation fault) where
        the broker can't name the group's coordinator, as while it starts.
        """
        with self._lock:
            if (group, stable) not in self._readers:
                options = {
                    "group.id": group,
                    "enable.auto.commit": False,
                    # Asks for stable offsets.
                    "isolation.level": "read_committed" if stable else "read_uncommitted",
                }
                made = Consumer(confluent_config(self._settings, **options))
                self._readers[group, stable] = made
            return self._readers[group, stable]

    def starts(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """First offset that each partition still holds."""
        return self._list(dict.fromkeys(partitions, _EARLIEST))

    def ends(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """High watermark of each partition, open transactions included."""
        return self._list(dict.fromkeys(partitions, _LATEST))

    def at_time(
        self, partitions: Iterable[tuple[str, int]], timestamp_ms: int
    ) -> dict[tuple[str, int], int]:
        """First offset whose record is not older than a time; the end if there is none."""
        wanted = list(partitions)
        found = self._list(dict.fromkeys(wanted, OffsetSpec.for_timestamp(timestamp_ms)))
        missing = [one for one in wanted if found[one] < 0]
        return {**found, **self.ends(missing)} if missing else found

    def _list(self, specs: Mapping[tuple[str, int], OffsetSpec]) -> dict[tuple[str, int], int]:
        if not specs:
            return {}
        request = {TopicPartition(topic, p): spec for (topic, p), spec in specs.items()}
        try:
            futures = self._clients[-1].list_offsets(
                request,
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=TIMEOUT_S,
            )
            return {
                (tp.topic, tp.partition): future.result(TIMEOUT_S + 1).offset
                for tp, future in futures.items()
            }
        except KafkaException as error:
            raise self._explained(error, "reading ends of partitions") from None

    def _explained(self, error: KafkaException, doing: str) -> RewindowError:
        """Our error; what a broker says while it comes up counts as not reachable."""
        # What a client has learnt of brokers may be what is wrong: a later look is a new one's.
        # No variable holds a client, and so no traceback: a client that the garbage collector
        # finds may be ended in a thread of its own, which it does not survive.
        if self._clock.monotonic_s() - self._renewed_s > RENEW_AFTER_S:
            self._renew()
        cause = error.args[0] if error.args else None
        if isinstance(cause, KafkaError) and (cause.retriable() or cause.code() in _NOT_YET):
            return UnreachableError(f"{doing}: {cause.str()}")
        return explain(self._settings, error, doing)
