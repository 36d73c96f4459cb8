"""The coordinator at work, for as long as the rollback topic's partition is assigned here.

What goes wrong drops all that is in memory and leads to a new claim, from what Kafka has
committed:

1. Start the coordinator's transactional producer: this fences any other coordinator and ends
   what it had open.
2. Read where the topics begin and end, and the control topic to its end: nothing can follow it
   now. Refuse topics that do not belong together.
3. Read what is published, and the acks that matter.
4. Go on with what the one before began, and read requests from where it stopped.

Each decision is one transaction: control records, audit records, replies and the offset of the
rollback topic. One is made at a time. What a request needs from the registry is collected
before its turn, so that acks, definitions and deadlines don't wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from streams.control.codec import Kind
from streams.control.coordinator import Coordinator
from streams.control.draft import Decision
from streams.control.facts import CHECKPOINT_WAIT_MS, NewCheckpoint, Outside
from streams.control.records import Ack, Request
from streams.control.requests import RawRequest
from streams.control.routes import KEEP
from streams.datapath.records import Record
from streams.errors import RewindowError, UnreachableError
from streams.runtime.context import Context
from streams.runtime.control.acks import is_ack
from streams.runtime.control.needs import Replayed, Replays
from streams.runtime.control.outside import OutsideFacts
from streams.runtime.control.pins import PinTopics
from streams.runtime.control.published import Published, read_published, with_topics
from streams.runtime.control.reading import ControlReader
from streams.runtime.control.start import read_control, read_positions, refuse_gaps
from streams.runtime.control.tail import Tail
from streams.runtime.control.transaction import records_of
from streams.runtime.crashpoints import CrashPoints
from streams.runtime.membership import SESSION_TIMEOUT_S
from streams.runtime.producer import PartitionProducer
from streams.runtime.snapshots import new_checkpoint
from streams.schema.registry import Registry

FETCH_WAIT_MS = 200
LOOK_EVERY_S = 0.25
TOPICS_EVERY_S = 2.0
FINISH_S = 15.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a coordinator is made of. `ids` are those of `register_schemas`.

    `keep` versions before the serving one stay live; `replays` says what cold targets replay,
    by default what Kafka knows.
    """

    context: Context
    registry: Registry
    ids: Mapping[Kind, int]
    keep: int = KEEP
    replays: Replays | None = None
    crash: CrashPoints = field(default_factory=CrashPoints)
    checkpoint_wait_ms: int = CHECKPOINT_WAIT_MS

    @property
    def new_checkpoint(self) -> NewCheckpoint | None:
        """Ids of checkpoints; None where the workers keep none."""
        return None if self.context.snapshots is None else new_checkpoint


class Coordination:
    """Coordinates from `start` to `stop`, over any number of claims.

    `consumer` is a member of the coordinators' group with the rollback topic's partition
    assigned. `on_failure` is told, once, of what an operator has to mend; nothing is decided
    after that.
    """

    def __init__(
        self, parts: Parts, consumer: Any, *, on_failure: Callable[[BaseException], None]
    ) -> None:
        context = self._context = parts.context
        self.claims = 0
        self._parts = parts
        self._names = context.names
        self._requests = TopicPartition(context.names.rollback_topic, 0)
        self._consumer = consumer
        self._on_failure = on_failure
        self._reader = ControlReader(context.schemas, parts.ids)
        self._outside = OutsideFacts(
            context, parts.registry, parts.replays or Replayed(context=context)
        )
        self._pins = PinTopics(context, parts.registry)
        self._turn = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._read_s = 0.0
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._producer: PartitionProducer | None = None
        self._tail: Tail | None = None
        self._published: Published | None = None
        self._coordinator: Coordinator | None = None

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with a claim, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name="coordinator")

    async def stop(self) -> None:
        """Finish the decision in hand, and let go."""
        self._stopping.set()
        if self._task is not None:
            try:
                async with asyncio.timeout(FINISH_S), self._turn:
                    self._task.cancel()
            except TimeoutError:
                self._task.cancel()
            await asyncio.wait({self._task})
        await self._let_go()

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            claimed = False
            try:
                await self._claim()
                claimed = True
                await self._work()
            except Exception as error:
                cause = _first(error)
                await self._let_go()
                if isinstance(cause, RewindowError) and not isinstance(cause, UnreachableError):
                    self._on_failure(cause)
                    return
                if isinstance(cause, ProducerFenced):
                    # Somebody else coordinates. If the partition is still ours after a
                    # session's time, they are gone or are a zombie.
                    log.warning("fenced: another worker coordinates")
                    await self._pause(SESSION_TIMEOUT_S)
                    continue
                expected = isinstance(cause, KafkaError | UnreachableError | OSError)
                log.log(
                    logging.WARNING if expected else logging.ERROR,
                    "the coordinator claims anew: %r",
                    cause,
                    exc_info=None if expected else cause,
                )
                pause_s = FIRST_PAUSE_S if claimed else min(2 * pause_s, LONGEST_PAUSE_S)
                await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _let_go(self) -> None:
        self._coordinator = None
        for one in (self._producer, self._tail):
            if one is None:
                continue
            try:
                await asyncio.wait_for(one.stop(), FINISH_S)
            except (KafkaError, OSError, TimeoutError) as error:
                log.debug("the coordinator's client stopped with %r", error)
        self._producer = self._tail = None

    # -- claim --------------------------------------------------------------------------------

    async def _claim(self) -> None:
        context, names = self._context, self._names
        self.claims += 1
        producer = self._producer = PartitionProducer(
            context.kafka_config,
            names.coordinator_transactional_id,
            names.coordinator_group,
            on_sent=lambda: self._parts.crash.reach("in_decision"),
        )
        await producer.start()  # 1
        self._parts.crash.reach("in_take_over")
        found = await asyncio.to_thread(read_positions, context.offsets, names)
        state = await read_control(context, self._reader, found.control_end)
        refuse_gaps(names, state, found)  # 2
        published = await self._published_now()
        tail = self._tail = Tail(
            context,
            {
                names.acks_topic: state.acks_offset,
                names.definitions_topic: published.definitions.next_offset,
            },
        )
        await tail.start()
        coordinator = Coordinator(
            state,
            published.catalog,
            keep=self._parts.keep,
            new_checkpoint=self._parts.new_checkpoint,
            checkpoint_wait_ms=self._parts.checkpoint_wait_ms,
        )
        acks = await self._acks(await tail.rest(names.acks_topic))
        coordinator.on_acks(acks, context.clock.now_ms())  # 3; decided upon in `resume`
        self._coordinator = coordinator
        await self._decide(lambda one, now_ms: one.resume(now_ms))
        position = max(state.requests_offset, found.rollback[0])
        self._consumer.seek(self._requests, position)  # 4
        log.info("coordinating %s from request %d on", context.settings.app, position)

    # -- work ---------------------------------------------------------------------------------

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for task in (self._take_requests, self._take_acks, self._follow_definitions):
                tasks.create_task(_for_ever(task))
            tasks.create_task(_for_ever(self._look))

    async def _take_requests(self) -> None:
        found = await self._consumer.getmany(self._requests, timeout_ms=FETCH_WAIT_MS)
        for record in found.get(self._requests, ()):
            await self._answer(await self._reader.request(self._requests.topic, record))

    async def _answer(self, raw: RawRequest) -> None:
        content = raw.content
        deadline_ms = content.deadline_ms if isinstance(content, Request) else None
        if isinstance(content, Request) and not self._knows(content):
            await self._read_published()  # it may have been published a moment ago
        while True:
            coordinator = self._at_work()
            target, published = coordinator.target(raw), self._published
            outside = Outside()
            if target is not None and published is not None:
                outside = await self._outside.collect(target, published, deadline_ms)
                if coordinator.would_pin(raw, outside, self._context.clock.now_ms()):
                    outside = await self._pins.make(target, published, deadline_ms)
            async with self._turn:
                now_ms = self._context.clock.now_ms()
                if coordinator.target(raw) != target or coordinator.would_pin(raw, outside, now_ms):
                    continue  # what was collected is about something else
                await self._write(coordinator, coordinator.on_request(raw, outside, now_ms))
                return

    def _knows(self, request: Request) -> bool:
        """Whether what the request names is published, as far as was read."""
        if self._published is None:
            return False
        definitions, name = self._published.definitions, request.feature_set
        if request.target is None:
            return name in definitions.sets
        return definitions.version(name, request.target) is not None

    async def _take_acks(self) -> None:
        assert self._tail is not None
        acks = await self._acks(await self._tail.more(self._names.acks_topic))
        if acks:
            await self._decide(lambda one, now_ms: one.on_acks(acks, now_ms))

    async def _follow_definitions(self) -> None:
        assert self._tail is not None
        if await self._tail.more(self._names.definitions_topic):
            await self._read_published()

    async def _look(self) -> None:
        """What only time brings: deadlines, and topics that did not exist yet."""
        await asyncio.sleep(LOOK_EVERY_S)
        await self._decide(lambda one, now_ms: one.on_time(now_ms))
        complete = self._published is None or self._published.complete
        now_s = self._context.clock.monotonic_s()
        if not complete and now_s - self._read_s >= TOPICS_EVERY_S:
            await self._read_published()

    async def _read_published(self) -> None:
        published = await self._published_now()
        await self._decide(lambda one, now_ms: one.on_published(published.catalog, now_ms))

    async def _published_now(self) -> Published:
        async with self._reading:
            settings = self._context.settings
            published = await asyncio.to_thread(read_published, settings)
            if not published.complete:
                try:
                    published = await asyncio.to_thread(with_topics, settings, published)
                except RewindowError as error:
                    log.warning("streams that are published wait: %s", error)
            self._published, self._read_s = published, self._context.clock.monotonic_s()
            return published

    async def _acks(self, records: list[Record]) -> list[tuple[int, Ack]]:
        acks = []
        for record in records:
            if not is_ack(record.headers):
                continue
            try:
                acks.append((record.offset, await self._reader.ack(record.value)))
            except ValueError as error:
                where = f"{self._names.acks_topic} offset {record.offset}"
                log.warning("%s is left out: %s", where, error)
        return acks

    # -- decisions ----------------------------------------------------------------------------

    def _at_work(self) -> Coordinator:
        assert self._coordinator is not None
        return self._coordinator

    async def _decide(self, ask: Callable[[Coordinator, int], Decision | None]) -> None:
        async with self._turn:
            coordinator = self._at_work()
            await self._write(coordinator, ask(coordinator, self._context.clock.now_ms()))

    async def _write(self, coordinator: Coordinator, decision: Decision | None) -> None:
        """One transaction; the caller has the turn."""
        if decision is None:
            return
        if self._producer is None:
            raise ProducerFenced
        self._parts.crash.reach("before_decision")
        offset = (self._requests, decision.requests_offset, str(decision.stamp.acks_offset))
        await self._producer.commit(records_of(decision, self._names, self._parts.ids), offset)
        self._parts.crash.reach("after_decision")
        coordinator.commit(decision)


async def _for_ever(work: Callable[[], Any]) -> None:
    while True:
        await work()


def _first(error: BaseException) -> BaseException:
    """The first of those that ended together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
