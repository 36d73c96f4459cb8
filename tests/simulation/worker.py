"""One worker as `streams.runtime.worker` puts it together, without Faust: what its transport
does is done here, batch by batch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aiokafka.errors import KafkaError
from faust.types import TP

from streams.datapath.records import columns
from streams.definitions.topics import SourceTopic
from streams.runtime.context import Context
from streams.runtime.control.coordination import Coordination, Parts
from streams.runtime.control.routes import Routes
from streams.runtime.control.schemas import register_schemas
from streams.runtime.idleness import IdleWatcher
from streams.runtime.orders import Orders
from streams.runtime.ownership import Ownership
from streams.runtime.schemas import SchemaBook
from streams.runtime.snapshots import Snapshots
from streams.runtime.stats import Stats
from streams.runtime.streams import StreamBook
from streams.runtime.transport import Fetched
from streams.state.checkpoint import Checkpoints
from streams.state.directory import DirectoryArchive
from tests.simulation import catalog, clients
from tests.simulation.faults import SimCrashPoints

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from random import Random

    from streams.settings import Settings
    from tests.simulation.broker import Broker
    from tests.simulation.faults import Faults
    from tests.simulation.loop import Process
    from tests.simulation.store import Disk
    from tests.simulation.world import World

IDLE_POLL_S = 5.0
CHECKPOINT_WAIT_MS = 1_000
WATCH_EVERY_S = 1.0
UPLOADS_S = 15.0
ROOM_S = 0.05


@dataclass
class Host:
    """What the fakes of one process find: its world, and where its state is."""

    world: World
    state_dir: Path

    @property
    def disk(self) -> Disk:
        return self.world.disk

    @property
    def broker(self) -> Broker:
        return self.world.broker

    @property
    def faults(self) -> Faults:
        return self.world.faults

    @property
    def rng(self) -> Random:
        return self.world.rng

    @property
    def settings(self) -> Settings:
        return self.world.settings

    @property
    def topics(self) -> Mapping[str, int]:
        return self.world.topics

    def note(self, text: str) -> None:
        self.world.note(text)


class SimWorker:
    """One life of a worker, in a process of its own."""

    def __init__(self, world: World, process: Process) -> None:
        self.process = process
        self.name = process.name
        self.told_to_coordinate = False
        self.host: Host = process.host
        self.stats = Stats()
        self._world = world
        self._fetching = asyncio.Lock()
        self._rebalancing = asyncio.Lock()
        """A group's client rejoins when what it was told before is done."""
        self._positions: dict[TP, int] = {}
        self._assigned: set[TP] = set()
        self._started = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._coordination: Coordination | None = None
        self._parts: Parts | None = None
        self.ownership: Ownership | None = None
        self.snapshots: Snapshots | None = None

    def begin(self) -> None:
        """Start, in its own time."""
        self._tasks.append(self.process.create_task(self._run(), name="worker"))

    def fail(self, error: BaseException) -> None:
        """What an operator would have to mend, of which nothing is in the scenarios."""
        self._world.problem(f"worker {self.name} gave up: {error!r}")

    async def _run(self) -> None:
        try:
            await self._start()
        except Exception as error:
            self.fail(error)

    async def _start(self) -> None:
        world = self._world
        definitions = await self._patiently(partial(clients.read_definitions, world.settings))
        published = {one.source.topic for one in definitions.sources.values()}
        topics = {name: SourceTopic(partitions=world.topics[name]) for name in published}
        book = StreamBook(world.settings, definitions, topics)
        clock = world.clock
        schemas = SchemaBook(cast("Any", world.registry), clock)
        context = Context(
            settings=world.settings,
            names=world.settings.names,
            kafka_config={},
            offsets=cast("Any", clients.Offsets()),
            schemas=schemas,
            clock=clock,
            stats=self.stats,
            pool=cast("Any", None),
            resources=cast("Any", None),
            state_dir=self.host.state_dir,
            instance=self.name,
            definitions_offset=definitions.next_offset,
            limits=world.limits,
            snapshots=self._snapshots(),
        )
        registry = cast("Any", world.registry)
        ids = await self._patiently(lambda: register_schemas(context.names, registry))
        crash = SimCrashPoints(world.faults)
        self._routes = Routes(context, ids, on_failure=self.fail)
        self._orders = Orders(world.settings, book, self._routes, ids, on_failure=self.fail)
        self._parts = Parts(
            context=context,
            registry=registry,
            ids=ids,
            keep=world.keep,
            crash=crash,
            checkpoint_wait_ms=CHECKPOINT_WAIT_MS,
        )
        while True:
            try:
                await self._routes.start()
                await self._orders.start()
            except (KafkaError, OSError):
                await asyncio.sleep(0.5)
                continue
            break
        ownership = self.ownership = Ownership(
            context, self._orders, on_failure=self.fail, crash=crash
        )
        for stream in book.streams:
            ownership.add(stream)
        self._orders.connect(lambda: [one for _, one in ownership.all()], ownership.failed)
        ownership.connect(self._reclaim)
        self._tasks.append(asyncio.create_task(self._fetch(), name="fetch"))
        if self.snapshots is not None:
            self._tasks.append(asyncio.create_task(self._remind(), name="remind"))
        if world.watches_idleness:
            self._tasks.append(asyncio.create_task(self._watch(), name="watch"))
        self._started.set()

    def _snapshots(self) -> Snapshots | None:
        world = self._world
        if world.settings.snapshots is None:
            return None
        crash = SimCrashPoints(world.faults)
        self.snapshots = Snapshots(
            world.settings,
            self.host.state_dir,
            clock=world.clock,
            stats=self.stats.snapshots,
            crash=crash,
            checkpoints=Checkpoints(
                DirectoryArchive(world.archive, world.clock),
                world.settings.app,
                clock=world.clock,
                token=lambda: f"{world.rng.getrandbits(32):08x}",
                step=lambda step: crash.reach(f"archive_{step}"),
            ),
        )
        return self.snapshots

    async def _remind(self) -> None:
        """Checkpoints where nothing comes."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if self.ownership is not None:
                self.ownership.remind()

    async def _patiently(self, work: Any) -> Any:
        """What the command line would be started again for."""
        while True:
            try:
                return await asyncio.to_thread(work)
            except Exception as error:
                if "asked for" not in str(error):
                    raise
                await asyncio.sleep(0.5)

    async def stop(self) -> None:
        """A clean stop: batches first, then the rest."""
        await self._started.wait()
        await self.coordinate(on=False)
        assert self.ownership is not None
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await self.ownership.release_all()
        if self.snapshots is not None:
            await self.snapshots.finish(UPLOADS_S)
        await self._orders.stop()
        await self._routes.stop()

    # -- groups -------------------------------------------------------------------------------

    async def assign(self, tps: set[TP]) -> None:
        """The group gives these partitions to this worker, and no others."""
        await self._started.wait()
        async with self._rebalancing:
            self._assigned = set(tps)
            try:
                await self._claim(set(tps))
            except Exception as error:
                self.fail(error)

    async def _reclaim(self, tps: set[TP]) -> None:
        await self._claim(tps)

    async def _claim(self, tps: set[TP]) -> None:
        """As `Consumer.claim` of the transport."""
        assert self.ownership is not None
        async with self._fetching:
            held = self.ownership.held()
            await self.ownership.release((tps | held) - self._assigned)
            starts = dict(await self.ownership.claim(tps & self._assigned))
            lost = set(starts) - self._assigned
            await self.ownership.release(lost)
            for tp in lost:
                del starts[tp]
            self._positions.update(starts)

    async def revoke(self) -> None:
        """A rebalance begins: what is here is let go of."""
        await self._started.wait()
        assert self.ownership is not None
        async with self._rebalancing:
            self._assigned = set()
            await self.ownership.release(self.ownership.held())

    async def coordinate(self, *, on: bool) -> None:
        """The coordinators' group gives the rollback topic to this worker, or takes it."""
        await self._started.wait()
        coordination, self._coordination = self._coordination, None
        if coordination is not None:
            await coordination.stop()
        if on:
            assert self._parts is not None
            consumer = clients.Consumer()
            self._coordination = Coordination(self._parts, consumer, on_failure=self.fail)
            self._coordination.start()

    # -- idleness -----------------------------------------------------------------------------

    async def _watch(self) -> None:
        """The watcher of the source, as its service would go on."""
        assert self.ownership is not None
        assert self._parts is not None
        source, names = catalog.SOURCE, self._world.settings.names
        watcher = IdleWatcher(
            self._parts.context,
            source,
            partitions=self._world.partitions,
            group=names.worker_group,
            owners=partial(self.ownership.owners, source.topic),
            fetch_position=self._fetch_position,
            on_error=self.ownership.failed,
        )
        while True:
            await watcher.look()
            await asyncio.sleep(watcher.pause_s)

    async def _fetch_position(self, partition: int) -> int | None:
        """As that of the transport."""
        assert self.ownership is not None
        tp = TP(catalog.SOURCE.topic, partition)
        owner = self.ownership.owner(tp)
        async with self._fetching:
            if owner is None or tp not in self._assigned:
                return None
            fetched = self._positions.get(tp, owner.position)
            if fetched > owner.position:
                return None
            found, after = self._world.broker.read((tp.topic, partition), owner.position, 1)
            return owner.position if found else after

    # -- the transport ------------------------------------------------------------------------

    async def _fetch(self) -> None:
        """Batches of any size, as they come; some are lost on their way to their owner."""
        ownership, rng = self.ownership, self._world.rng
        assert ownership is not None
        broker = self._world.broker
        while True:
            waiting = False
            async with self._fetching:
                for tp in sorted(self._assigned):
                    claim = ownership.claim_of(tp)
                    if claim is None or tp not in self._positions:
                        continue
                    position, at = self._positions[tp], (tp.topic, tp.partition)
                    records, after = broker.read(at, position, rng.choice((2, 6, 12)))
                    if not records:
                        continue
                    if not ownership.has_room(tp):
                        waiting = True
                        continue
                    self._positions[tp] = after = records[-1].offset + 1
                    batch = Fetched(claim=claim, position=position, records=columns([records]))
                    if not self._world.drops_batch():
                        await ownership.take(tp, batch)
                    waiting = waiting or after < broker.stable(at)
            if waiting:
                await asyncio.sleep(ROOM_S)
            else:
                ats = [(tp.topic, tp.partition) for tp in sorted(self._assigned)]
                await clients.news(broker, ats, IDLE_POLL_S if ats else ROOM_S * 4)
