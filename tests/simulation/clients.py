"""What the product's clients of Kafka and the registry look like to it, over the fake broker.

Every call takes a moment, in which others go on; what a killed process asks for is not done.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError

from streams.datapath.records import Records, columns
from streams.definitions.store import Definitions, collect, unpack
from streams.errors import UnreachableError
from streams.runtime.offsets import Committed
from streams.runtime.producer import END_OF_METADATA
from streams.schema.registry import Registered
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streams.definitions.store import PublishedSet, PublishedSource
    from tests.simulation.broker import At, Broker
    from tests.simulation.faults import Faults

WAYS_S = (0.0, 0.0, 0.001, 0.004, 0.03)
"""How long a message may take."""

LONGEST_POLL_S = 20.0
SMALL_BATCH = 3

_UNPACKED: dict[tuple[bytes, int], PublishedSource | PublishedSet] = {}


def _faults() -> Faults:
    faults: Faults = Process.current().host.faults
    return faults


def _broker() -> Broker:
    broker: Broker = Process.current().host.broker
    return broker


async def way() -> None:
    """A message on its way."""
    process = Process.current()
    seconds = process.host.rng.choice(WAYS_S)
    if seconds:
        await asyncio.sleep(seconds)
    process.live()


class _Batch:
    def __init__(self, most: int) -> None:
        self.records: list[tuple[bytes | None, bytes | None, Any]] = []
        self._most = most

    def append(
        self, *, key: bytes | None, value: bytes | None, timestamp: int | None, headers: Any
    ) -> object | None:
        assert timestamp is None
        if len(self.records) >= self._most:
            return None
        self.records.append((key, value, tuple(headers)))
        return self

    def record_count(self) -> int:
        return len(self.records)


class Producer:
    """Stands for `AIOKafkaProducer`, as `PartitionProducer` uses it."""

    def __init__(self, *, transactional_id: str, **_: Any) -> None:
        self._id = transactional_id
        self._epoch = -1
        self._broken: KafkaError | None = None
        self._process = Process.current()
        self._sender = self.client = SimpleNamespace(close=self.stop)

    async def start(self) -> None:
        await way()
        self._epoch = _broker().init(self._id)
        self._process.host.note(f"fence {self._id} {self._epoch}")
        await way()

    async def stop(self) -> None:
        await asyncio.sleep(0)

    async def begin_transaction(self) -> None:
        if self._broken is not None:
            raise self._broken
        await asyncio.sleep(0)

    def create_batch(self) -> _Batch:
        return _Batch(SMALL_BATCH)

    async def send_batch(
        self, batch: _Batch, topic: str, *, partition: int
    ) -> asyncio.Future[object]:
        delivery: asyncio.Future[object] = self._process.create_future()
        await way()
        try:
            transaction = _broker().transaction(self._id, self._epoch)
        except KafkaError as error:
            self._broken = error
            delivery.set_exception(error)
            return delivery
        for key, value, headers in batch.records:
            _broker().append((topic, partition), key, value, headers, transaction=transaction)
        delivery.set_result(None)
        return delivery

    async def send_and_wait(
        self, topic: str, *, value: bytes, key: bytes, partition: int
    ) -> SimpleNamespace:
        await way()
        transaction = _broker().transaction(self._id, self._epoch)
        offset = _broker().append((topic, partition), key, value, transaction=transaction)
        return SimpleNamespace(offset=offset)

    async def send_offsets_to_transaction(self, offsets: Mapping[Any, Any], group: str) -> None:
        await way()
        transaction = _broker().transaction(self._id, self._epoch)
        for tp, (offset, metadata) in offsets.items():
            text = metadata.partition(END_OF_METADATA)[0]
            transaction.offsets.append((group, (tp.topic, tp.partition), offset, text))

    async def commit_transaction(self) -> None:
        await way()
        lost = _faults().lost_commit()
        if lost == "request":
            self._broken = RequestTimedOutError()
            raise self._broken
        try:
            _broker().commit(self._id, self._epoch)
        except KafkaError as error:
            self._broken = error
            raise
        made = _broker().committed[-1]
        where = ", ".join(f"{at[0]}/{at[1]}@{offset}" for _, at, offset, _ in made.offsets)
        self._process.host.note(f"commit {self._id} {self._epoch}: {where}")
        _faults().committed(made)
        if lost == "answer":
            self._broken = RequestTimedOutError()
            raise self._broken
        await way()


class Consumer:
    """Stands for aiokafka's consumers, without a group: what they read and where they stand."""

    def __init__(self, **config: Any) -> None:
        self._most = int(config.get("max_poll_records") or 500)
        self._positions: dict[At, int] = {}
        self._stable: dict[At, int] = {}
        self._empty: dict[At, int] = {}

    async def start(self) -> None:
        await way()

    async def stop(self) -> None:
        await asyncio.sleep(0)

    def assign(self, tps: Iterable[Any]) -> None:
        self._positions = dict.fromkeys(((tp.topic, tp.partition) for tp in tps), 0)

    def seek(self, tp: Any, offset: int) -> None:
        self._positions[tp.topic, tp.partition] = offset

    async def position(self, tp: Any) -> int:
        return self._positions[tp.topic, tp.partition]

    def last_stable_offset(self, tp: Any) -> int | None:
        return self._stable.get((tp.topic, tp.partition))

    async def getmany(self, tp: Any, *, timeout_ms: int) -> dict[Any, Records]:
        """Records of one partition. Who asks in vain again and again waits longer: that is the
        same to him, and less to do."""
        at = (tp.topic, tp.partition)
        delay_s = _faults().delay_s()
        if delay_s:
            await asyncio.sleep(delay_s)
        found = self._fetch(at)
        if not found:
            turns = self._empty[at] = self._empty.get(at, 0) + 1
            before = self._positions[at]
            await news(_broker(), [at], min(timeout_ms / 1000 * 2**turns, LONGEST_POLL_S))
            await way()
            if self._positions[at] == before:
                found = self._fetch(at)
        else:
            await way()
        if found:
            self._empty[at] = 0
        return {tp: found} if found else {}

    def _fetch(self, at: At) -> Records:
        Process.current().live()
        if _faults().fetch_fails():
            raise KafkaConnectionError("asked for")
        broker = _broker()
        found, self._positions[at] = broker.read(at, self._positions[at], self._most)
        self._stable[at] = broker.stable(at)
        return columns([found])


async def news(broker: Broker, ats: list[At], timeout_s: float) -> None:
    """Wait until something changes in one of these logs, or a time is over."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    broker.news(ats, future)

    def over() -> None:
        if not future.done():
            future.set_result(None)

    timer = loop.call_later(timeout_s, over)
    try:
        await future
    finally:
        timer.cancel()


class Offsets:
    """Stands for `streams.runtime.offsets.Offsets`."""

    def committed(
        self, group: str, partitions: Iterable[At], *, stable: bool = True
    ) -> dict[At, Committed]:
        self._reachable()
        broker, found = _broker(), {}
        for at in partitions:
            if stable and broker.pending(group, at):
                raise UnreachableError(f"the offset of {group} in {at} is about to change")
            known = broker.offsets.get((group, at))
            if known is not None:
                found[at] = Committed(offset=known[0], metadata=known[1])
        return found

    def starts(self, partitions: Iterable[At]) -> dict[At, int]:
        self._reachable()
        return dict.fromkeys(partitions, 0)

    def ends(self, partitions: Iterable[At]) -> dict[At, int]:
        self._reachable()
        return {at: _broker().end(at) for at in partitions}

    def _reachable(self) -> None:
        Process.current().live()
        if _faults().look_up_fails():
            raise UnreachableError("asked for")


@dataclass
class Registry:
    """Stands for the schema registry and its client."""

    schemas: list[dict[str, Any]] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """The schema's id, which counts from 1."""
        if schema not in self.schemas:
            self.schemas.append(schema)
        schema_id = self.schemas.index(schema) + 1
        held = self.subjects.setdefault(subject, [])
        if schema_id not in held:
            held.append(schema_id)
        return schema_id

    def compatibility(self, subject: str) -> str | None:
        self._reachable()
        return self.levels.get(subject)

    def set_compatibility(self, subject: str, level: str) -> None:
        self.levels[subject] = level

    def versions(self, subject: str) -> list[int]:
        self._reachable()
        return list(range(1, len(self.subjects.get(subject, ())) + 1))

    def schema(self, subject: str, version: int | str) -> Registered | None:
        self._reachable()
        held = self.subjects.get(subject, [])
        number = len(held) if version == "latest" else int(version)
        if not 0 < number <= len(held):
            return None
        schema_id = held[number - 1]
        return Registered(
            subject=subject,
            version=number,
            schema_id=schema_id,
            schema=self.schemas[schema_id - 1],
        )

    def check(self, *_: Any) -> list[str]:
        """Nothing that is pinned has another schema than it had before."""
        self._reachable()
        return []

    def schema_by_id(self, schema_id: int) -> dict[str, Any] | None:
        self._reachable()
        return self.schemas[schema_id - 1] if 0 < schema_id <= len(self.schemas) else None

    def _reachable(self) -> None:
        try:
            process = Process.current()
        except RuntimeError:  # before the run
            return
        process.live()
        if _faults().registry_away:
            raise UnreachableError("asked for")


def read_definitions(_settings: Any, *, at_least_offset: int = 0) -> Definitions:
    """Stands for `streams.definitions.store.read_definitions`."""
    Process.current().live()
    if _faults().look_up_fails():
        raise UnreachableError("asked for")
    at = (Process.current().host.settings.names.definitions_topic, 0)
    broker = _broker()
    if broker.stable(at) < at_least_offset:
        raise UnreachableError("the topic can't be read that far now")
    found = []
    for record in broker.all(at):
        key = (record.value or b"", record.offset)
        if key not in _UNPACKED:
            _UNPACKED[key] = unpack(*key)
        found.append(_UNPACKED[key])
    return collect(found, broker.stable(at))


class Admin:
    """Stands for `streams.kafka.Admin`."""

    def __init__(self, _settings: Any) -> None:
        """Nothing to connect to."""

    def partitions(self) -> dict[str, int]:
        """The topics that matter."""
        return dict(Process.current().host.topics)
