"""A stream partition whose owner obeys decisions, over a log in memory: for tests of obedience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from aiokafka.errors import OffsetOutOfRangeError

from streams.control.records import Failed, Fenced, Ready
from streams.control.set_record import Held, LiveVersion, Pin, SetRecord, Toggle
from streams.datapath.batch import Marker
from streams.datapath.log_index import LogIndex
from streams.datapath.progress import Progress
from streams.definitions.model import Function
from streams.runtime import replay, verdicts, warming
from streams.runtime.context import Limits
from streams.runtime.crashpoints import CrashPoints
from streams.runtime.obedience import Obedience, acknowledged
from streams.runtime.recovery import Recovery
from streams.runtime.roster import roster
from streams.runtime.stats import Stats
from tests.small import feature, feature_set
from tests.unit.datapath.rig import FIELDS, Click, plans_of
from tests.unit.runtime.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from streams.control.records import Ack, RequestRecord
    from streams.datapath.batch import Batch
    from streams.datapath.records import Records
    from streams.datapath.step import Step
    from streams.definitions.model import FeatureSet

COUNT = feature("n")
SUM = feature("s", Function.SUM, "x")
TOP = feature("t", Function.MAX, "x")
LOW = feature("u", Function.MIN, "x")

V1, V2, V3 = "1.0.0", "1.1.0", "1.2.0"
ONE = feature_set(COUNT, name="a", version=V1)
TWO = feature_set(COUNT, SUM, name="a", version=V2)
"""Shares the count of `ONE`, and has a bundle of its own for the sum."""
THREE = feature_set(SUM, TOP, name="a", version=V3)
"""Shares the sum of `TWO`."""
B_ONE = feature_set(TOP, name="b", version=V1)
B_TWO = feature_set(TOP, LOW, name="b", version=V2)

LOG: list[Click | Marker] = [("ann", 3, 1), ("bob", 4, 2), ("ann", 12, 4)]


class CrashError(Exception):
    """Stands for the end of the process."""


@dataclass
class Decisions:
    """What the control topic says; a `roster.Decided`."""

    next_offset: int = 0
    sets: dict[str, SetRecord] = field(default_factory=dict)
    history: dict[tuple[str, int], Held] = field(default_factory=dict)
    asked: list[RequestRecord] = field(default_factory=list)

    def route(self, feature_set: str) -> SetRecord | None:
        return self.sets.get(feature_set)

    def held_at(self, feature_set: str, epoch: int) -> Held | None:
        return self.history.get((feature_set, epoch))

    def checkpoints_asked(self) -> Sequence[RequestRecord]:
        return self.asked

    def decide(
        self,
        *live: str,
        name: str = "a",
        serving: str = "",
        epoch: int = 0,
        corrects: str | None = None,
        toggles: tuple[Toggle, ...] = (),
        pins: tuple[str, ...] = (),
    ) -> None:
        """One more record about a set. A live version is `version`, `version!` if it is ready,
        or either with `/generation` after it."""
        versions = []
        for text in live:
            version, _, generation = text.partition("/")
            versions.append(
                LiveVersion(
                    version=version.removesuffix("!"),
                    generation=int(generation or 0),
                    ready=version.endswith("!"),
                )
            )
        serves = serving or versions[0].version
        self.next_offset += 1
        record = self.sets[name] = SetRecord(
            feature_set=name,
            serving=serves,
            epoch=epoch,
            corrects=corrects,
            live=tuple(versions),
            toggles=toggles,
            pinned=tuple(Pin(version=one, key_schema_id=1, value_schema_id=2) for one in pins),
        )
        self.history[name, epoch] = record.held


@dataclass
class Town(World):
    """A `World` whose sets of one name are versions, with the obedience of its owner.

    Nothing of the stream is read while `gate` is not set. `commits_left` is after how many
    commits the process ends.
    """

    decided: Decisions = field(default_factory=Decisions)
    acks: list[Ack] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    index: LogIndex = field(default_factory=LogIndex)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    obedience: Obedience | None = None
    commits_left: int | None = None
    warm: int = 0
    schemas = SimpleNamespace(get=None)

    def __post_init__(self) -> None:
        self.gate.set()
        self.log = list(self.log)
        self.stats: Any = Stats()
        self.stream = self._stream()

    def publish(self, *sets: FeatureSet) -> None:
        """More versions, as the book of streams takes them."""
        self.sets = (*self.sets, *sets)
        self.stream.sets.update(self._stream().sets)

    async def claim(self) -> Town:
        """Another claim; what was in memory is lost."""
        await self.stop(flush=False)
        if not self.committed:
            self.position = self.log_start
            self.progress = Progress(start=self.log_start)
        recovery = self.recovery = Recovery(
            cast("Any", self),
            self.stream,
            0,
            roster=roster(self.stream, self.progress, self.decided),
            position=self.position,
            progress=self.progress,
            fresh=not self.committed,
            read=self._read,
            run=self.run,
            crash=CrashPoints({}),
        )
        self.pipeline = await recovery.pipeline()
        self.committed = True
        self._commit(self.pipeline.resume())
        self.obedience = Obedience(
            cast("Any", self),
            0,
            stream=lambda: self.stream,
            decided=self.decided,
            pipeline=self.pipeline,
            replay=recovery.replay,
            index=self._read_index,
            position=lambda: self.position,
            busy=lambda: False,
            still=self._nothing_is_written,
            run=self.run,
            commit_steps=self._commit_steps,
            commit_acks=self._commit_acks,
            on_warm=self._on_warm,
            crash=CrashPoints({}),
        )
        await self.obey()
        return self

    async def _nothing_is_written(self) -> None:
        """Flushes are made at once here."""

    async def _read_index(self) -> LogIndex:
        return self.index

    async def stop(self, *, flush: bool = True) -> None:
        if self.obedience is not None:
            await self.obedience.close()
            self.obedience = None
        await super().stop(flush=flush)

    async def obey(self) -> None:
        assert self.obedience is not None
        assert self.pipeline is not None
        await self.obedience.obey()
        if self.pipeline.correcting:
            if self.pipeline.may_flush:
                self.pipeline.flush()
            await self._commit_steps(self.pipeline.corrections())

    async def settle(self) -> None:
        """Let warming come to its end, and obey as often as it asks for that."""
        seen = -1
        while seen != self.warm:
            seen = self.warm
            for _ in range(300):
                await asyncio.sleep(0)
            await self.obey()

    def following(self) -> set[tuple[str, str]]:
        """The versions that follow, those that serve apart."""
        assert self.pipeline is not None
        return {one.name for one in self.pipeline.followers}

    def serving(self) -> dict[str, str]:
        assert self.pipeline is not None
        return {one.outlet: one.view.version for one in self.pipeline.paths}

    def directories(self) -> int:
        """How many bundles are on disk."""
        assert self.recovery is not None
        home = self.recovery.replay.path("x").parent
        return len(list(home.iterdir()))

    def ready(self) -> list[tuple[str, int]]:
        """Version and generation of the acks of readiness, in order."""
        return [(one.version, one.generation) for one in self.acks if isinstance(one, Ready)]

    def failed(self) -> list[str]:
        """The reasons of failures, in order."""
        return [one.reason for one in self.acks if isinstance(one, Failed)]

    def fences(self) -> list[tuple[str, str, int, int]]:
        """Set, version, epoch and offset of fences, in order."""
        return [
            (one.feature_set, one.version, one.epoch, one.offset)
            for one in self.acks
            if isinstance(one, Fenced)
        ]

    # -- what an owner does for it --------------------------------------------------------------

    def _on_warm(self) -> None:
        self.warm += 1

    async def _commit_steps(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._one_commit()
            self._commit([step])
            self.acks += acknowledged(step.acks, self.stream, 0)

    async def _commit_acks(self, acks: Sequence[Ack]) -> None:
        assert self.pipeline is not None
        self._one_commit()
        self.progress = self.pipeline.progress
        self.acks += acks

    def _one_commit(self) -> None:
        if self.commits_left == 0:
            raise CrashError
        if self.commits_left is not None:
            self.commits_left -= 1

    # -- what a context has ---------------------------------------------------------------------

    def _stream(self) -> Any:
        sets: dict[str, dict[str, Any]] = {}
        for plan in plans_of(self.sets):
            versions = sets.setdefault(plan.view.feature_set, {})
            versions[plan.view.version] = SimpleNamespace(plan=plan, output=None)
        made = super()._stream()
        made.fields = FIELDS
        made.sets = sets
        made.first = lambda name: next(iter(sets[name]))
        made.version = lambda name, version: made.sets[name][version]
        return made

    async def read_log(
        self, context: Any, topic: str, partition: int, start: int, end: int
    ) -> AsyncIterator[Records]:
        if topic == "clicks":
            await self.gate.wait()
            if start < min(self.log_start, end):
                raise OffsetOutOfRangeError({})
        async for records in super().read_log(context, topic, partition, start, end):
            yield records
            await asyncio.sleep(0)


class ReadsWorld:
    """Stands for `BatchReader`: the world's records are decoded already."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, *_: Any, **__: Any) -> Any:
        async def read(*given: Any) -> Batch:
            return await self._world._read(*given)

        return SimpleNamespace(read=read)


async def quiet() -> None:
    """Let go on what can."""
    for _ in range(300):
        await asyncio.sleep(0)


def made(directory: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Town:
    """A town whose log is read by everything that reads one."""
    town = Town(directory, **given)
    monkeypatch.setattr(replay, "read_log", town.read_log)
    monkeypatch.setattr(verdicts, "read_log", town.read_log)
    monkeypatch.setattr(warming, "BatchReader", ReadsWorld(town))
    return town


def with_flushes(town: Town, rows: int) -> Town:
    """Flush within a replay as soon as there are so many rows."""
    town.limits = replace(town.limits, flush_rows=rows)
    return town
