"""The rekeying stage in a simulation of its own: workers that share the partitions of a source.

The stage, its cursors, producers and idle watcher are real; the group, which decides who has what,
is the scenario's. What was committed in the end is judged by check_rekeying.py.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from aiokafka import TopicPartition

from streams.definitions.plan import plan
from streams.definitions.store import PublishedSource
from streams.names import stream_name
from streams.runtime.context import Context, Limits
from streams.runtime.rekey import RekeyStage
from streams.runtime.schemas import SchemaBook
from streams.runtime.stats import Stats
from streams.runtime.streams import Stream, Version
from streams.schema.types import field_types
from streams.settings import Settings, TopicSettings
from tests.simulation import catalog, clients
from tests.simulation.faults import Faults
from tests.simulation.ground import Ground
from tests.simulation.loop import Process
from tests.simulation.world import SESSION_S
from tests.small import feature, feature_set, source

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from tests.simulation.catalog import Sent
    from tests.simulation.clients import Registry

NAMES = ("one", "two")
CALM_S = 300.0
LIMIT_S = 3_000.0
NEVER_MS = 10**9
WAITS_S = (0.0, 0.001, 0.01, 0.05, 0.3, 1.0, 3.0)


class Consumer(clients.Consumer):
    """A stage's consumer. As in aiokafka a fetch is taken, and the position moved, in one go."""

    async def getmany(self, tp: Any, *, timeout_ms: int) -> dict[Any, Any]:
        at = (tp.topic, tp.partition)
        if self._positions[at] >= Process.current().host.broker.stable(at):
            await clients.news(Process.current().host.broker, [at], timeout_ms / 1000)
        await clients.way()
        found = self._fetch(at)
        return {tp: found} if found else {}


class Worker:
    """One life of a worker, of which there is the stage alone."""

    def __init__(self, world: RekeyWorld, name: str, number: int) -> None:
        self.name = name
        self.process = Process(world.scheduler, f"{name}{number}", world)
        self.assigned: set[TopicPartition] = set()
        self._world = world
        self._assigning = asyncio.Lock()
        self._stage: RekeyStage | None = None
        self.process.create_task(self._run())

    async def _run(self) -> None:
        world = self._world
        context = Context(
            settings=world.settings,
            names=world.settings.names,
            kafka_config={},
            offsets=cast("Any", clients.Offsets()),
            schemas=SchemaBook(cast("Any", world.registry), world.clock),
            clock=world.clock,
            stats=Stats(),
            pool=cast("Any", None),
            resources=cast("Any", None),
            state_dir=world.settings.state_dir,
            instance=self.name,
            definitions_offset=0,
            limits=Limits(records_per_fetch=world.records_per_fetch),
        )
        self._stage = stage = RekeyStage(context, world.stream, on_failure=self._failed)
        stage._consumer = cast("Any", Consumer(max_poll_records=world.records_per_fetch))
        await self.assign(self.assigned)
        while True:
            await stage._watcher.look()
            await asyncio.sleep(stage._watcher.pause_s)

    def _failed(self, error: BaseException) -> None:
        self._world.problem(f"{self.process.name} gave up: {error!r}")

    async def assign(self, tps: set[TopicPartition]) -> None:
        """The group gives these partitions to this worker, and no others."""
        self.assigned = tps
        async with self._assigning:
            if self._stage is not None:
                await self._stage.release({TopicPartition(*at) for at in self._world.sources})
                self._stage.take(set(self.assigned))


class RekeyWorld(Ground):
    """Everything of one run, which a process of it finds as its host."""

    def __init__(self, seed: int, directory: Path) -> None:
        super().__init__(seed)
        rng = self.rng
        self.faults = Faults(cast("Any", self))  # of what it can do, some is for other worlds
        self.settings = Settings(
            app="app", kafka={}, registry={}, topics=TopicSettings(), state_dir=directory
        )
        self.records_per_fetch = rng.choice((1, 2, 5, 40))
        self.idles = bool(rng.randrange(2))
        """Whether a partition without events follows others, beyond its own events."""
        self.stream = _stream(self.settings, self.registry, rng, idles=self.idles)
        self.sources = [
            (catalog.SOURCE.topic, number) for number in range(self.stream.source_partitions)
        ]
        self.group = self.settings.names.rekey_group(self.stream.name)
        self.workers: dict[str, Worker] = {}
        self._lives = 0
        self._main = Process(self.scheduler, "main", self)

    # -- what happens -------------------------------------------------------------------------

    def run(self) -> None:
        """One run; what must not be in `problems`."""
        try:
            if not self.scheduler.run(self._main, self._scenario(), limit_s=LIMIT_S):
                self.problem("nobody goes on")
            self.problems += [e for one in self.scheduler.processes for e in one.errors]
        finally:
            for one in self.scheduler.processes:
                one.clear()

    async def _scenario(self) -> None:
        rng = self.rng
        await self._rebalance()
        now = 0
        for _ in range(rng.randint(4, 12)):
            now += rng.choice((0, 5, 40))
            events = self._events(now, rng.randint(1, 5))
            self.send(events, transaction=rng.choice((None, None, True, False)))
            await self._trouble()
            await asyncio.sleep(rng.choice(WAITS_S))
        self.faults.calm()
        for worker in self.workers.values():
            worker.process.frozen = False
        await self._rebalance()
        self.send(self._events(now + catalog.FAR_MS, 2 * len(self.sources)))
        deadline_s = self.scheduler.now_s + CALM_S
        while not self.read and self.scheduler.now_s < deadline_s:
            await asyncio.sleep(1.0)
        if not self.read:
            self.problem(f"stands still: {self.broker.offsets}")

    @property
    def read(self) -> bool:
        """Whether all partitions of the source are read to their ends, markers included."""
        known = (self.broker.offsets.get((self.group, at)) for at in self.sources)
        ends = [self.broker.end(at) for at in self.sources]
        return [0 if one is None else one[0] for one in known] == ends

    def _events(self, now: int, count: int) -> list[Sent]:
        """Events of about a time; those of an entity are in any partition."""
        found = (catalog.event(self.rng, 1, now + number) for number in range(count))
        return [replace(one, partition=self.rng.randrange(len(self.sources))) for one in found]

    async def _trouble(self) -> None:
        rng, faults = self.rng, self.faults
        worker = self.workers[rng.choice(NAMES)]
        match rng.randrange(10):
            case 0 | 1:
                kinds = ("", "", "request", "answer")
                faults.commits_lost = [rng.choice(kinds) for _ in range(rng.randint(1, 6))]
            case 2:
                await self._kill(worker)
            case 3:
                await self._freeze(worker)
            case 4:
                await self._rebalance()
            case 5:
                faults.fetches_failing = rng.randint(1, 4)
            case 6:
                faults.look_ups_failing = rng.randint(1, 6)
            case 7:
                faults.registry_away = not faults.registry_away
            case _:
                pass

    async def _kill(self, worker: Worker) -> None:
        self.note(f"kill {worker.process.name}")
        worker.process.kill()
        await asyncio.sleep(self.rng.choice(SESSION_S))
        await self._rebalance()

    async def _freeze(self, worker: Worker) -> None:
        """It stops, loses its partitions, and wakes up not knowing it, for a while."""
        self.note(f"freeze {worker.process.name}")
        worker.process.frozen = True
        await asyncio.sleep(self.rng.choice(SESSION_S))
        others = [one for one in NAMES if one != worker.name]
        if self.rng.randrange(3):
            await self._rebalance(others)
            await asyncio.sleep(self.rng.choice(WAITS_S))
        self.note(f"thaw {worker.process.name}")
        worker.process.frozen = False
        await asyncio.sleep(self.rng.choice(WAITS_S))
        await self._rebalance()

    async def _rebalance(self, names: list[str] | tuple[str, ...] = NAMES) -> None:
        """Partitions go to any of these workers; who is dead is started anew."""
        for name in names:
            if name not in self.workers or self.workers[name].process.dead:
                self._lives += 1
                self.workers[name] = Worker(self, name, self._lives)
        given: dict[str, set[TopicPartition]] = defaultdict(set)
        for at in self.sources:
            given[self.rng.choice(names)].add(TopicPartition(*at))
        self.note(f"rebalance {[(name, sorted(tps)) for name, tps in sorted(given.items())]}")
        for name in names:
            worker = self.workers[name]
            worker.process.create_task(worker.assign(given[name]))


def _stream(settings: Settings, registry: Registry, rng: Random, *, idles: bool) -> Stream:
    own = source(
        key=(),
        max_ahead_ms=catalog.MAX_AHEAD_MS,
        idle_after_ms=1_200 if idles else NEVER_MS,
        close_after_ms=rng.choice((None, 2_000)),
    )
    schema_id = registry.register(own.schema, catalog.SCHEMA)
    published = PublishedSource(source=own, schema=catalog.SCHEMA, schema_id=schema_id, order=0)
    fields = field_types(catalog.SCHEMA)
    planned = plan(feature_set(feature(), allowed_lateness_ms=7), own, fields)
    entity = planned.view.entity
    return Stream(
        name=stream_name(own.name, tuple(entity)),
        topic=settings.names.stream_topic(own.name, tuple(entity)),
        partitions=rng.choice((1, 2, 3)),
        source_partitions=rng.choice((1, 2, 2, 3)),
        published=published,
        fields=fields,
        entity=entity,
        sets={"clicks_by_who": {"1.0.0": Version(plan=planned, output=cast("Any", None))}},
    )
