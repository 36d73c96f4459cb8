"""An app with versions of one set, coordinators, and a test in the part of partition owners."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.clock import SystemClock
from streams.config import load_settings
from streams.control.audit import verify
from streams.control.codec import decode_audit, decode_control, decode_reply
from streams.control.records import Fenced, Ready
from streams.control.set_record import SetRecord
from streams.control.state import fold
from streams.definitions.publish import publish
from streams.kafka import aiokafka_config
from streams.runtime.context import Context
from streams.runtime.control.acks import ack_records
from streams.runtime.control.coordination import Coordination, Parts
from streams.runtime.control.routes import Routes
from streams.runtime.control.schemas import register_schemas
from streams.runtime.control.service import CoordinatorService
from streams.runtime.offsets import Offsets
from streams.runtime.producer import PartitionProducer
from streams.runtime.schemas import SchemaBook
from streams.runtime.stats import Stats
from streams.schema.registry import Registry
from streams.settings import Settings
from streams.state.bundle import Resources

if TYPE_CHECKING:
    from pathlib import Path

    from streams.control.audit import Finding
    from streams.control.records import Ack, AuditRecord, ControlRecord, Reply
    from streams.control.state import ControlState
    from tests.integration.kafka_tools import KafkaTools

T = TypeVar("T")

PARTITIONS = 2
PATIENCE_S = 20.0
V1, V2, V3 = "1.0.0", "1.1.0", "2.0.0"
EVENTS: dict[str, Any] = {
    "type": "record",
    "name": "flight",
    "fields": [
        {"name": "origin", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "delay", "type": ["null", "int"], "default": None},
    ],
}


def context_of(
    settings: Settings, registry: Registry, directory: Path, instance: str, pool: ThreadPoolExecutor
) -> Context:
    """What a worker's parts share."""
    clock = SystemClock()
    return Context(
        settings=settings,
        names=settings.names,
        kafka_config=aiokafka_config(settings),
        offsets=Offsets(settings),
        schemas=SchemaBook(registry, clock),
        clock=clock,
        stats=Stats(),
        pool=pool,
        resources=Resources(),
        state_dir=directory,
        instance=instance,
        definitions_offset=0,
    )


class ControlRig:
    """Topics, definitions and coordinators of one test."""

    def __init__(self, kafka: KafkaTools, prefix: str, directory: Path) -> None:
        self.kafka = kafka
        self.directory = directory
        self.set_name = f"{prefix}_departures"
        self.topic = f"{prefix}_flights"
        self.settings: Settings = load_settings(
            bootstrap_servers=kafka.addresses.bootstrap_servers,
            registry_url=kafka.addresses.registry_url,
            app=prefix,
            environ={"HOME": str(directory)},
        )
        self.names = self.settings.names
        self.registry = Registry.from_settings(self.settings.registry_options())
        self.failures: list[BaseException] = []
        self.clock = SystemClock()
        kafka.create_topic(self.topic, partitions=PARTITIONS)
        kafka.register(f"{self.topic}-value", EVENTS)
        self.publish(V1)
        self.ids = register_schemas(self.names, self.registry)
        self._pool = ThreadPoolExecutor(2)
        self._owners: dict[int, PartitionProducer] = {}
        self._read: dict[str, list[bytes]] = {}
        config = aiokafka_config(self.settings)
        self._sender = AIOKafkaProducer(**config)
        self._reader = AIOKafkaConsumer(
            **config, isolation_level="read_committed", fetch_max_wait_ms=50
        )

    async def start(self) -> None:
        await self._sender.start()
        await self._reader.start()
        names = self.names
        read = (names.replies_topic, names.control_topic, names.audit_topic)
        self._reader.assign([TopicPartition(topic, 0) for topic in read])
        await self._reader.seek_to_beginning()

    async def close(self) -> None:
        await asyncio.gather(*(owner.stop() for owner in self._owners.values()))
        await self._reader.stop()
        await self._sender.stop()
        self.registry.close()
        self._pool.shutdown()

    # -- what is published ------------------------------------------------------------------------

    def publish(self, version: str, feature: str = "n: {count: '*', window: 1h}") -> None:
        """A version of the set, and its source."""
        files = {
            "source.yaml": {
                "kind": "source",
                "name": "flights",
                "topic": self.topic,
                "schema": f"{self.topic}-value",
                "event_time": "at",
                "key": "[origin]",
            },
            "set.yaml": {
                "kind": "feature_set",
                "name": self.set_name,
                "version": version,
                "source": "flights",
                "entity": "[origin]",
                "every": "10m",
                "features": f"\n  {feature}",
            },
        }
        paths = []
        for name, keys in files.items():
            path = self.directory / name
            path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
            paths.append(path)
        publish(self.settings, paths, self.registry)

    # -- coordinators -----------------------------------------------------------------------------

    def parts(self, instance: str = "one", **given: Any) -> Parts:
        registry = given.get("registry", self.registry)
        context = context_of(self.settings, registry, self.directory, instance, self._pool)
        return Parts(**{"context": context, "registry": registry, "ids": self.ids, **given})

    @asynccontextmanager
    async def service(self, instance: str = "one", **given: Any) -> AsyncIterator[None]:
        """A member of the coordinators' group."""
        made = CoordinatorService(self.parts(instance, **given), on_failure=self.failures.append)
        try:
            await made.start()
            yield
        finally:
            await made.stop()

    @asynccontextmanager
    async def alone(self, instance: str = "one", **given: Any) -> AsyncIterator[Coordination]:
        """A coordinator that has the rollback topic without asking a group."""
        parts = self.parts(instance, **given)
        consumer = AIOKafkaConsumer(
            **parts.context.kafka_config,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
        )
        await consumer.start()
        consumer.assign([TopicPartition(self.names.rollback_topic, 0)])
        made = Coordination(parts, consumer, on_failure=self.failures.append)
        made.start()
        try:
            yield made
        finally:
            await made.stop()
            await consumer.stop()

    # -- what users do ----------------------------------------------------------------------------

    async def ask(self, **fields: Any) -> str:
        """A request as plain JSON; its id."""
        request_id = fields.setdefault("request_id", uuid.uuid4().hex)
        fields.setdefault("feature_set", self.set_name)
        await self.send(json.dumps(fields).encode())
        return str(request_id)

    async def send(
        self,
        value: bytes | None,
        *,
        topic: str | None = None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """A record, of the rollback topic unless another one is named."""
        await self._sender.send_and_wait(
            topic or self.names.rollback_topic, value, key, partition=0, headers=list(headers)
        )

    # -- what partition owners do -----------------------------------------------------------------

    async def ack(self, *acks: Ack) -> None:
        """Each in a transaction of its partition's own, with an offset, as owners do it."""
        for ack in acks:
            owner = self._owners.get(ack.partition)
            if owner is None:
                owner = self._owners[ack.partition] = PartitionProducer(
                    aiokafka_config(self.settings),
                    self.names.transactional_id("flights", ack.partition),
                    self.names.worker_group,
                )
                await owner.start()
            await owner.commit(
                ack_records(self.names, self.ids, [ack]),
                (TopicPartition(self.topic, ack.partition), 0, ""),
            )

    @asynccontextmanager
    async def owners(self, cut: Mapping[int, int], *, lazy: bool = False) -> AsyncIterator[Routes]:
        """Owners that obey: they have live versions ready at once, and fence at `cut`.

        `lazy` ones get ready only while a request is under way.
        """
        routes = Routes(self.parts("owner").context, self.ids, on_failure=self.failures.append)
        await routes.start()
        obeying = asyncio.create_task(self._obey(routes, cut, lazy))
        try:
            yield routes
        finally:
            obeying.cancel()
            await asyncio.wait({obeying})
            await routes.stop()

    async def _obey(self, routes: Routes, cut: Mapping[int, int], lazy: bool) -> None:
        prepared: set[tuple[str, int]] = set()
        fenced = seen = 0
        while True:
            seen = await routes.changed(seen)
            route = routes.state.sets.get(self.set_name)
            waits = lazy and not routes.state.in_flight
            for live in () if route is None or waits else route.live:
                if (live.version, live.generation) not in prepared and not live.ready:
                    prepared.add((live.version, live.generation))
                    await self.ready(live.version)
            if route is not None and route.epoch > fenced:
                fenced = route.epoch
                await self.fence(fenced, at=cut)

    async def ready(self, version: str, *partitions: int) -> None:
        """Once the version is live, say that these partitions have it; without any, all."""
        route = await self.route(lambda found: found.live_version(version) is not None)
        live = route.live_version(version)
        assert live is not None
        await self.ack(
            *(
                Ready(
                    feature_set=self.set_name,
                    version=version,
                    generation=live.generation,
                    stream="flights",
                    partition=partition,
                    offset=0,
                )
                for partition in partitions or range(PARTITIONS)
            )
        )

    async def all_ready(self, version: str) -> None:
        """The version is ready everywhere, and the coordinator has said so."""
        await self.ready(version)
        await self.route(lambda found: bool((it := found.live_version(version)) and it.ready))

    async def fence(self, epoch: int, *, at: Mapping[int, int]) -> None:
        """Once there is that epoch, fence it at these offsets of the partitions."""
        route = await self.route(lambda found: found.epoch >= epoch)
        await self.ack(
            *(
                Fenced(
                    feature_set=self.set_name,
                    epoch=epoch,
                    version=route.serving,
                    stream="flights",
                    partition=partition,
                    offset=offset,
                )
                for partition, offset in at.items()
            )
        )

    # -- what is to be seen -----------------------------------------------------------------------

    async def _seen(
        self, topic: str, decode: Callable[[bytes], T], enough: Callable[[list[T]], object]
    ) -> list[T]:
        """What is committed on a topic from its beginning, once it is enough."""
        tp = TopicPartition(topic, 0)
        found = self._read.setdefault(topic, [])
        async with asyncio.timeout(PATIENCE_S):
            while not enough(decoded := [decode(value) for value in found]):
                come = await self._reader.getmany(tp, timeout_ms=100)
                found += [record.value or b"" for record in come.get(tp, ())]
        return decoded

    async def _all(self, topic: str, decode: Callable[[bytes], T]) -> list[T]:
        """All that is committed on a topic by now."""
        tp = TopicPartition(topic, 0)
        end = (await self._reader.end_offsets([tp]))[tp]
        found = self._read.setdefault(topic, [])
        async with asyncio.timeout(PATIENCE_S):
            while await self._reader.position(tp) < end:
                come = await self._reader.getmany(tp, timeout_ms=100)
                found += [record.value or b"" for record in come.get(tp, ())]
        return [decode(value) for value in found]

    async def replies(self, request_id: str | None, *, last: str, count: int = 1) -> list[Reply]:
        """The answers to a request, once so many of them have the state `last`."""

        def ours(found: list[Reply]) -> list[Reply]:
            return [reply for reply in found if reply.request_id == request_id]

        found = await self._seen(
            self.names.replies_topic,
            decode_reply,
            lambda found: sum(reply.state == last for reply in ours(found)) >= count,
        )
        return ours(found)

    async def states(self, request_id: str, *, last: str) -> list[str]:
        return [reply.state for reply in await self.replies(request_id, last=last)]

    async def route(self, holds: Callable[[SetRecord], bool]) -> SetRecord:
        """What is decided about the set, once that holds."""

        def current(found: list[ControlRecord]) -> SetRecord | None:
            return fold(found).sets.get(self.set_name)

        found = await self._seen(
            self.names.control_topic,
            decode_control,
            lambda found: (route := current(found)) is not None and holds(route),
        )
        route = current(found)
        assert route is not None
        return route

    async def control(self) -> list[ControlRecord]:
        return await self._all(self.names.control_topic, decode_control)

    async def state(self) -> ControlState:
        return fold(await self.control())

    async def audit(self) -> list[AuditRecord]:
        return await self._all(self.names.audit_topic, decode_audit)

    async def findings(self) -> list[Finding]:
        """What is wrong with the audit chain."""
        audit = await self.audit()
        return verify(audit, [record.stamp.audit for record in await self.control()])
