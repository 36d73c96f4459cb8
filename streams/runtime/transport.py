"""Faust's aiokafka driver, fed with batches: one message is all that a fetch brought for a
partition.

What differs from the driver it stands on:

- it reads `read_committed`, with the app's own connection settings;
- a message's value is a `Fetched`: the records, the claim and the position they belong to;
- only partitions with room are asked for, so a slow one holds nobody up;
- assignment is a claim (see ownership.py), which decides where to start;
- Faust commits nothing: offsets go with our transactions.

Faust may drop a message on its way to an agent, as it does around rebalances. The position
that a `Fetched` carries shows it, and the claim starts anew.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import aiokafka
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from faust.transport.conductor import Conductor as FaustConductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage

from streams.runtime.consumer import ColumnConsumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from streams.datapath.records import Records

FETCH_TIMEOUT_S = 0.2
"""How long a fetch may wait for data; a claim waits for a fetch under way."""

FETCH_AGAIN_S = 0.5

PAUSE_S = 0.02
"""How often to look for room when no partition has any."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Records of one partition, fetched under `claim`; `position` is the offset before them."""

    claim: int
    position: int
    records: Records


class Claims(Protocol):
    """What the transport needs of whoever owns the partitions."""

    def claim_of(self, tp: TP) -> int | None:
        """Number of the claim that holds the partition, None while there is none."""
        ...

    def has_room(self, tp: TP) -> bool:
        """Whether the partition takes another batch now."""
        ...

    async def claim(self, tps: set[TP]) -> Mapping[TP, int]:
        """Claim partitions; returns where each one goes on."""
        ...

    async def release(self, tps: set[TP]) -> None:
        """Let partitions go, those that are held."""
        ...

    def held(self) -> set[TP]:
        """Partitions that are claimed now."""
        ...

    def fetch_failed(self, tps: set[TP], error: Exception) -> None:
        """Partitions can't be read where they stand."""
        ...


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Runs the aiokafka consumer with the app's own settings."""

    def _create_worker_consumer(self, _transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = RoundRobinPartitionAssignor
        return ColumnConsumer(
            **kafka_config(self.app),
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_poll_records=conf.broker_max_poll_records,
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=100,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
        )

    async def leave_group(self) -> None:
        """Give the partitions up at once, as a static member would not.

        For a clean stop: another worker takes over without waiting for the session to end.
        """
        consumer = self._consumer
        if consumer is not None:
            consumer._coordinator._group_instance_id = None


class Consumer(driver.Consumer):
    """Delivers one message per fetched partition."""

    def _new_consumer_thread(self) -> ConsumerThread:
        self._fetching = asyncio.Lock()
        self._drainer: asyncio.Task[Any] | None = None
        self._positions: dict[TP, int] = {}
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _claims(self) -> Claims:
        claims: Claims = self.app.claims  # type: ignore[attr-defined]  # ours, see worker.App
        return claims

    async def _wait_next_records(
        self, timeout: float
    ) -> tuple[Mapping[TP, list[Fetched]] | None, set[TP] | None]:
        """As Faust's, which looks for partitions only once a second while it has none."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # as in Faust
        active = self._get_active_partitions()
        return await self._getmany(active, timeout), active

    async def _getmany(
        self, active_partitions: set[TP] | None, timeout: float
    ) -> Mapping[TP, list[Fetched]]:
        async with self._fetching:
            claims = {
                tp: claim
                for tp in active_partitions or ()
                if (claim := self._claims.claim_of(tp)) is not None and self._claims.has_room(tp)
            }
            records: Mapping[TP, Records] = {}
            if claims:
                records = await self._fetch(set(claims), min(timeout, FETCH_TIMEOUT_S))
            found = {}
            for tp, batch in records.items():
                if batch:
                    found[tp] = [self._fetched(tp, claims[tp], batch)]
        if not claims:
            await self.sleep(PAUSE_S)
        return found

    async def _fetch(self, tps: set[TP], timeout: float) -> Mapping[TP, Records]:
        """Records by partition; none where Kafka can't be asked now."""
        try:
            # Faust's word for records is wider than what a `ColumnConsumer` gives.
            found = cast("Mapping[TP, Records]", await self._thread.getmany(tps, timeout))
        except OffsetOutOfRangeError as error:
            self._claims.fetch_failed({TP(*tp) for tp in error.args[0]}, error)
        except KafkaError as error:
            log.warning("fetching again after %r", error)
            await self.sleep(FETCH_AGAIN_S)
        else:
            return found
        return {}

    def _fetched(self, tp: TP, claim: int, batch: Records) -> Fetched:
        position = self._positions[tp]
        self._positions[tp] = batch.offsets[-1] + 1
        return Fetched(claim=claim, position=position, records=batch)

    def _to_message(self, tp: TP, record: Fetched) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.records.offsets[-1],
            record.records.timestamps[-1] / 1000.0,
            0,
            None,
            None,
            cast("Any", record),
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def track_message(self, message: Any) -> None:
        """Nothing to keep: acks play no part in what is committed."""

    async def _commit(self, _offsets: Mapping[TP, int]) -> bool:
        return True

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """See Faust; remembers who drains the messages."""
        self._drainer = asyncio.current_task()
        async for found in super().getmany(timeout):
            yield found

    async def perform_seek(self) -> None:
        """Claim all assigned partitions and go to where they go on.

        Called on every assignment, before the flow resumes. Faust also calls it when it drops
        what was fetched because partitions are being revoked: claiming then would fence
        whoever gets them, and the assignment that follows claims anyway.
        """
        if asyncio.current_task() is not self._drainer:
            await self.claim(self.assignment())

    async def claim(self, tps: set[TP]) -> None:
        """Claim partitions anew, with no fetch under way."""
        async with self._fetching:
            await self._claims.release((tps | self._claims.held()) - self.assignment())
            starts = await self._claims.claim(tps & self.assignment())
            # They may have been taken from us meanwhile.
            lost = set(starts) - self.assignment()
            await self._claims.release(lost)
            starts = {tp: start for tp, start in starts.items() if tp not in lost}
            if starts:
                await self.seek_wait(starts)
            for tp, start in starts.items():
                self._positions[tp] = start
                before = start - 1 if start else None
                self._read_offset[tp] = before
                self._committed_offset[tp] = before

    async def fetch_position(self, tp: TP, applied: int) -> int | None:
        """Offset up to which a partition is fetched, trailing transaction markers included.

        None while records are on their way to an owner that has applied up to `applied`, or
        while the partition is not assigned.
        """
        async with self._fetching:
            if self._positions.get(tp, applied) > applied or tp not in self.assignment():
                return None
            return await self._thread.position(tp)

    async def leave_group(self) -> None:
        """See `ConsumerThread.leave_group`."""
        await cast("ConsumerThread", self._thread).leave_group()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Progress is watched by the owners themselves."""


class Producer(driver.Producer):
    """Faust's own producer, of which we send nothing; it connects with the app's settings."""

    def _settings_default(self) -> Mapping[str, Any]:
        return {**kafka_config(self.app), "client_id": self.client_id}

    def _settings_auth(self) -> Mapping[str, Any]:
        return {}


def kafka_config(app: AppT) -> Mapping[str, Any]:
    """Connection settings of the app, as aiokafka takes them."""
    config: Mapping[str, Any] = app.kafka_config  # type: ignore[attr-defined]  # see worker.App
    return config


class Conductor(FaustConductor):
    """Faust's, which waits long after a change of its topics for more of them."""

    _resubscribe_sleep_lock_seconds = 0.2


class Transport(driver.Transport):
    """Registered as `rewindow://`."""

    Conductor: ClassVar[type[Conductor]] = Conductor
    Consumer: ClassVar[type[Consumer]] = Consumer
    Producer: ClassVar[type[Producer]] = Producer
