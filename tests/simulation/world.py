"""A world of workers, a broker and a registry, and what happens in it for one seed."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faust.types import TP

from streams.definitions.store import pack
from streams.runtime.context import Limits
from streams.settings import Settings, SnapshotSettings, TopicSettings
from tests.simulation import catalog
from tests.simulation.faults import Faults
from tests.simulation.ground import Ground
from tests.simulation.loop import Process
from tests.simulation.store import FILE, Disk
from tests.simulation.worker import Host, SimWorker

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from streams.definitions.model import FeatureSet
    from streams.definitions.store import PublishedSet, PublishedSource

FEW_PAIRS = (1, 4)
"""With so few to a transaction closings take many, at a cost of several other runs."""

SESSION_S = (0.2, 1.0, 3.0)
"""After such a time a group gives up on a member that is not heard of."""


@dataclass(slots=True)
class Home:
    """A machine's disk."""

    directory: Path


@dataclass
class Member:
    """A worker of a name, in all its lives."""

    name: str
    home: Home
    life: SimWorker | None = None
    lives: int = 0

    @property
    def up(self) -> bool:
        return self.life is not None and not self.life.process.dead

    @property
    def responds(self) -> bool:
        return self.up and self.life is not None and not self.life.process.frozen


class World(Ground):
    """Everything of one run. `directory` is an empty one of its own."""

    def __init__(self, seed: int, directory: Path) -> None:
        super().__init__(seed)
        rng = self.rng
        self.faults = Faults(self)
        self.disk = Disk()
        self.lives: list[SimWorker] = []
        snapshots = None
        self.archive = directory / "archive"
        if not rng.randrange(4):
            snapshots = SnapshotSettings(
                url=self.archive.as_uri(),
                every_ms=rng.choice((300, 1_500)),
                keep=rng.choice((1, 3)),
            )
        self.settings = Settings(
            app="app",
            kafka={},
            registry={},
            topics=TopicSettings(),
            state_dir=directory,
            snapshots=snapshots,
        )
        self.partitions = rng.choice((1, 1, 1, 1, 2))
        self.topics = {catalog.SOURCE.topic: self.partitions}
        self.watches_idleness = self.partitions > 1 and not rng.randrange(2)
        self.keep = rng.choice((0, 1, 2, 2))
        self.limits = Limits(
            records_per_fetch=rng.choice((2, 5, 40)),
            pairs_per_step=rng.choice((*FEW_PAIRS, *[400_000] * 8)),
            commit_every_s=rng.choice((0.0, 0.05, 0.25, 2.0)),
            flush_every_s=rng.choice((0.0, 0.5, 2.0, 2.0, 2.0)),
            flush_rows=rng.choice((5, 1_000, 1_000)),
        )
        self.corrections_per_step = rng.choice((1, 4, 50_000))
        self.metadata_bytes = rng.choice((80, 2048, 2048))
        self.sets: list[FeatureSet] = [*catalog.versions(rng, "a", rng.choice((2, 2, 2, 3)))]
        if not rng.randrange(5):
            self.sets += catalog.versions(rng, "b", 1)
        self.batches_to_drop = 0
        self.members: dict[str, Member] = {}
        self.assignment: dict[TP, str] = {}
        self.coordinator = ""
        self._directory = directory
        self._published: set[tuple[str, str]] = set()
        self._homes = 0
        self._mending: set[asyncio.Task[None]] = set()
        self.main = Process(self.scheduler, "main", Host(self, directory))
        for name in ("one", "two"):
            self.members[name] = Member(name, self._home())

    # -- what is seen -------------------------------------------------------------------------

    def digest(self) -> str:
        """What two runs of one seed have in common."""
        lines = [*self.trace, str(self.scheduler.steps)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def drops_batch(self) -> bool:
        """Whether a batch is lost on its way to its owner."""
        if self.batches_to_drop > 0:
            self.batches_to_drop -= 1
            self.faults.did("lost batch")
            return True
        return False

    # -- publishing ---------------------------------------------------------------------------

    def publish(self, *sets: FeatureSet) -> None:
        """Publish versions, in one transaction."""
        names = self.settings.names
        at = (names.definitions_topic, 0)
        found = [
            catalog.published_set(names, self.registry, one, 1 + self.sets.index(one), "app")
            for one in sets
        ]
        records: list[PublishedSource | PublishedSet] = [*found]
        if not self._published:
            records.insert(0, catalog.published_source(self.registry))
        epoch = self.broker.init(names.publish_transactional_id)
        transaction = self.broker.transaction(names.publish_transactional_id, epoch)
        for published in records:
            key, value = pack(published)
            self.broker.append(at, key, value, transaction=transaction)
        self.broker.commit(names.publish_transactional_id, epoch)
        self._published |= {(one.name, one.version) for one in sets}
        self.note(f"published {[(one.name, one.version) for one in sets]}")

    # -- workers ------------------------------------------------------------------------------

    def _home(self) -> Home:
        self._homes += 1
        directory = self._directory / f"home{self._homes}"
        directory.mkdir()
        return Home(directory)

    def start(self, name: str) -> SimWorker:
        """A new life of a worker."""
        member = self.members[name]
        assert not member.up
        member.lives += 1
        host = Host(self, member.home.directory)
        process = Process(self.scheduler, f"{name}{member.lives}", host)
        worker = member.life = SimWorker(self, process)
        self.lives.append(worker)
        self.note(f"start {process.name}")
        worker.begin()
        return worker

    def member_of(self, process: Process) -> Member | None:
        for member in self.members.values():
            if member.life is not None and member.life.process is process:
                return member
        return None

    def background(self, work: Coroutine[None, None, None]) -> None:
        task = self.main.create_task(work)
        self._mending.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            self._mending.discard(ended)
            if not ended.cancelled() and ended.exception() is not None:
                self.problem(f"the simulation itself failed: {ended.exception()!r}")

        task.add_done_callback(done)

    @property
    def mending(self) -> bool:
        """Whether somebody is still to be started, moved or woken up."""
        return bool(self._mending)

    def crash(self, process: Process) -> None:
        """Kill a process; sooner or later it is started again, or others take over."""
        member = self.member_of(process)
        if process.dead or member is None:
            return
        self.note(f"kill {process.name}")
        self.background(self._after_death(member))
        process.kill()

    async def _after_death(self, member: Member) -> None:
        await asyncio.sleep(self.rng.choice(SESSION_S))
        match self.rng.randrange(6):
            case 0:
                member.home = self._home()
                self.faults.did("disk lost")
            case 1:
                self._lose_bundle(member.home)
            case _:
                pass
        if self.rng.randrange(2):
            self.move_all(member.name)
            await asyncio.sleep(self.rng.choice(SESSION_S))
        if not member.up:
            self.start(member.name)
            self.give(member.name)

    async def restart(self, member: Member) -> None:
        """Stop a worker as an operator does; it comes back, or others take over."""
        life = member.life
        if life is None or not member.responds:
            return
        self.note(f"stop {life.name}")
        self.faults.did("clean stop")
        stopping = life.process.create_task(life.stop())
        while not stopping.done() and not life.process.dead:
            await asyncio.sleep(0.1)
        if not life.process.dead:
            stopping.result()
            life.process.dead = True
            await self._after_death(member)

    def _lose_bundle(self, home: Home) -> None:
        """One bundle of many is damaged, and was removed."""
        found = sorted(home.directory.glob(f"clicks/*/*/{FILE}"))
        if found:
            shutil.rmtree(self.rng.choice(found).parent)
            self.faults.did("bundle lost")

    def damage_checkpoint(self) -> None:
        """A file of a checkpoint is lost, or is not what it was."""
        found = sorted(one for one in self.archive.rglob("*") if one.is_file())
        if not found:
            return
        self.faults.did("checkpoint damaged")
        one = self.rng.choice(found)
        if self.rng.randrange(2):
            one.unlink()
        else:
            one.write_bytes(b"x" + one.read_bytes()[1:])

    def freeze(self, process: Process) -> None:
        """Stop a process, until it wakes up as a zombie or as if nothing had been."""
        member = self.member_of(process)
        if process.dead or process.frozen or member is None:
            return
        self.note(f"freeze {process.name}")
        process.frozen = True
        self.background(self._after_freeze(member, process))

    async def _after_freeze(self, member: Member, process: Process) -> None:
        await asyncio.sleep(self.rng.choice(SESSION_S))
        noticed = self.rng.randrange(4) > 0
        if noticed:
            self.move_all(member.name)
            await asyncio.sleep(self.rng.choice((0.5, 2.0, 6.0)))
        self.note(f"thaw {process.name}")
        process.frozen = False
        if noticed and not process.dead:
            self.faults.did("zombie")
            await asyncio.sleep(self.rng.choice((0.0, 0.5, 3.0)))
            self.give(member.name)

    def move_all(self, name: str) -> None:
        """The groups take everything from a worker and give it to the other one."""
        other = next(one for one in self.members if one != name)
        if not self.members[other].up:
            self.start(other)
        self.note(f"move all from {name} to {other}")
        for tp in self.assignment:
            self.assignment[tp] = other
        self.coordinator = other
        self.give(other)

    def give(self, name: str) -> None:
        """Tell a worker what its groups give to it."""
        worker = self.members[name].life
        if worker is None or worker.process.dead:
            return
        tps = {tp for tp, owner in self.assignment.items() if owner == name}
        worker.process.create_task(worker.assign(tps))
        coordinates = self.coordinator == name
        if worker.told_to_coordinate is not coordinates:
            worker.told_to_coordinate = coordinates
            worker.process.create_task(worker.coordinate(on=coordinates))

    async def rebalance(self) -> None:
        """Partitions go to other workers while all are well."""
        for name, member in self.members.items():
            if not member.up:
                self.start(name)
        for tp in self.assignment:
            self.assignment[tp] = self.rng.choice(sorted(self.members))
        self.coordinator = self.rng.choice(sorted(self.members))
        self.note(f"rebalance {sorted(self.assignment.values())} {self.coordinator}")
        self.faults.did("rebalance")
        lives = [one.life for one in self.members.values() if one.responds and one.life]
        revoking = [one.process.create_task(one.revoke()) for one in lives]
        for _ in range(20):
            if all(one.done() for one in revoking):
                break
            await asyncio.sleep(0.1)
        for name in self.members:
            self.give(name)
