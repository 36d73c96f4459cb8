"""An app with one rekeyed stream, and instances of its rekeying stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from streams.clock import SystemClock
from streams.config import load_settings
from streams.datapath.batch import Marker
from streams.datapath.rekeyed import Original, original, read_marker
from streams.definitions.model import EventTime, Feature, FeatureSet, Function, Source, TimeUnit
from streams.definitions.plan import plan
from streams.definitions.store import PublishedSource
from streams.kafka import aiokafka_config
from streams.names import stream_name
from streams.runtime.context import Context
from streams.runtime.offsets import Offsets
from streams.runtime.rekey import RekeyStage
from streams.runtime.schemas import SchemaBook
from streams.runtime.stats import Stats
from streams.runtime.streams import Stream, Version
from streams.schema.registry import Registry
from streams.schema.types import field_types
from streams.settings import Settings
from streams.state.bundle import Resources
from streams.testing import Record
from tests.integration.kafka_tools import Incoming, KafkaTools, Outgoing

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "ride",
    "fields": [
        {"name": "at", "type": "long"},
        {"name": "driver", "type": ["null", "string"]},
        {"name": "note", "type": "string"},
    ],
}
EVERY_MS = 1_000
LATENESS_MS = 500


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the rekeyed stream, and where it lies there."""

    partition: int
    offset: int
    key: bytes
    origin: Original


class Rig:
    """Topics, schema and stages of one test."""

    def __init__(
        self,
        kafka: KafkaTools,
        prefix: str,
        directory: Path,
        *,
        source_partitions: int,
        partitions: int = 2,
        stream_config: dict[str, str] | None = None,
        **source: Any,
    ) -> None:
        self.kafka = kafka
        self.settings: Settings = load_settings(
            bootstrap_servers=kafka.addresses.bootstrap_servers,
            registry_url=kafka.addresses.registry_url,
            app=prefix,
            environ={"HOME": str(directory)},
        )
        self.directory = directory
        self.failures: list[BaseException] = []
        self.source = Source(
            name="rides",
            topic=f"{prefix}.rides",
            schema=f"{prefix}.rides-value",
            event_time=EventTime(field="at", unit=TimeUnit.MS),
            **source,
        )
        self.schema_id = kafka.register(self.source.schema, SCHEMA)
        names = self.settings.names
        stream_topic = names.stream_topic("rides", ("driver",))
        kafka.create_topic(self.source.topic, partitions=source_partitions)
        kafka.create_topic(
            stream_topic,
            partitions=partitions,
            message_timestamp_type="LogAppendTime",
            **(stream_config or {}),
        )
        kafka.create_topic(names.dlq_topic)
        fields = field_types(SCHEMA)
        feature = Feature(name="n", function=Function.COUNT, expression=None, window_ms=EVERY_MS)
        feature_set = FeatureSet(
            name="drivers",
            version="1.0.0",
            source="rides",
            entity=("driver",),
            every_ms=EVERY_MS,
            features=(feature,),
            allowed_lateness_ms=LATENESS_MS,
        )
        planned = plan(feature_set, self.source, fields)
        self.stream = Stream(
            name=stream_name("rides", ("driver",)),
            topic=stream_topic,
            partitions=partitions,
            source_partitions=source_partitions,
            published=PublishedSource(
                source=self.source, schema=SCHEMA, schema_id=self.schema_id, order=0
            ),
            fields=fields,
            entity=planned.view.entity,
            sets={"drivers": {"1.0.0": Version(plan=planned, output=cast("Any", None))}},
        )
        self.group = names.rekey_group(self.stream.name)

    # -- stages -------------------------------------------------------------------------------

    @asynccontextmanager
    async def stage(
        self, instance: str = "one", *, registry: Registry | None = None
    ) -> AsyncIterator[RekeyStage]:
        """A running stage, stopped cleanly at the end."""
        pool = ThreadPoolExecutor(4)
        clock = SystemClock()
        own = registry or Registry.from_settings(self.settings.registry_options())
        context = Context(
            settings=self.settings,
            names=self.settings.names,
            kafka_config=aiokafka_config(self.settings),
            offsets=Offsets(self.settings),
            schemas=SchemaBook(own, clock),
            clock=clock,
            stats=Stats(),
            pool=pool,
            resources=Resources(),
            state_dir=self.directory,
            instance=instance,
            definitions_offset=0,
        )
        stage = RekeyStage(context, self.stream, on_failure=self.failures.append)
        try:
            await stage.start()
            yield stage
        finally:
            await stage.stop()
            own.close()
            pool.shutdown()

    # -- what goes in ---------------------------------------------------------------------------

    def ride(
        self,
        partition: int,
        at: int,
        driver: str | None,
        *,
        note: str = "",
        key: bytes | None = None,
        timestamp_ms: int | None = None,
        headers: dict[str, bytes] | None = None,
    ) -> Outgoing:
        value = self.kafka.encode(self.schema_id, {"at": at, "driver": driver, "note": note})
        return Outgoing(
            value=value,
            key=key,
            partition=partition,
            timestamp_ms=timestamp_ms,
            headers=headers or {},
        )

    async def produce(self, *records: Outgoing) -> None:
        await asyncio.to_thread(self.kafka.produce, self.source.topic, records)

    # -- what comes out -------------------------------------------------------------------------

    async def until(self, enough: Callable[[Sequence[Incoming]], bool]) -> list[Incoming]:
        """The stream's records, once they are enough."""
        return await asyncio.to_thread(self.kafka.consume, self.stream.topic, enough)

    async def everything(self) -> list[Incoming]:
        return await asyncio.to_thread(self.kafka.consume_all, self.stream.topic)

    async def dead(self, count: int) -> list[Incoming]:
        topic = self.settings.names.dlq_topic
        return await asyncio.to_thread(self.kafka.consume, topic, lambda found: len(found) >= count)

    async def caught_up(self, total: int) -> list[Incoming]:
        """The stream's records, once `total` events are in it."""
        return await self.until(lambda found: len(events(found)) >= total)

    async def members(self) -> int:
        """Members of the stage's group, as the broker sees it."""
        admin = self.kafka.admin
        described = await asyncio.to_thread(
            lambda: admin.describe_consumer_groups([self.group])[self.group].result(30)
        )
        return len(described.members)


def events(records: Sequence[Incoming]) -> list[Event]:
    """The events among a stream's records."""
    return [
        Event(record.partition, record.offset, record.key, original(_record(record)))
        for record in records
        if record.key is not None
    ]


def markers(records: Sequence[Incoming], partition: int | None = None) -> list[Marker]:
    """The markers among a stream's records, of one of its partitions or of all."""
    return [
        read_marker(record.offset, record.value)
        for record in records
        if record.key is None and partition in (None, record.partition)
    ]


def without_offset(marker: Marker) -> Marker:
    return replace(marker, offset=-1)


def _record(incoming: Incoming) -> Record:
    return Record(
        offset=incoming.offset,
        timestamp=incoming.timestamp_ms,
        key=incoming.key,
        value=incoming.value,
        headers=list(incoming.headers.items()),
    )
