"""A stream partition whose set leaves events out: for tests of what its bundles begin with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from streams.control.set_record import LiveVersion, SetRecord
from streams.definitions.exclusions import Exclusion, OffsetRange
from streams.names import variant
from tests.unit.datapath.rig import plans_of
from tests.unit.runtime.town import Town

if TYPE_CHECKING:
    from streams.state.bundle import Bundle

V1 = "1.0.0"
PATIENCE_S = 60


@dataclass
class Cleaned(Town):
    """A town of one set, which may leave out the events of `exclusions`, in that order."""

    exclusions: tuple[Exclusion, ...] = ()

    def _stream(self) -> Any:
        made = super()._stream()
        for plan in plans_of(self.sets, self.exclusions):
            versions = made.sets.setdefault(plan.view.feature_set, {})
            versions[plan.view.name] = SimpleNamespace(plan=plan, output=None)
        return made

    def leave_out(
        self,
        count: int,
        *,
        force: int = 0,
        epoch: int = 0,
        ready: bool = False,
        checkpoint: str | None = None,
    ) -> None:
        """Decide that 1.0.0 is prepared without the events of the first `count` exclusions, from
        this checkpoint; that it serves so is in `force` up to that many of them."""
        numbers = [0, *(one.number for one in self.exclusions)]
        self.decided.next_offset += 1
        live = LiveVersion(version=V1, generation=1, ready=True, excluding=numbers[force])
        news = LiveVersion(
            version=V1,
            generation=9,
            ready=ready,
            excluding=numbers[count],
            checkpoint=checkpoint,
        )
        record = self.decided.sets["a"] = SetRecord(
            feature_set="a",
            serving=V1,
            epoch=epoch,
            live=(live,) if news.excluding == live.excluding else (live, news),
            exclusions=self.exclusions[:count],
            excluding=numbers[force],
            corrects=variant(V1, numbers[force - 1]) if force else None,
        )
        self.decided.history["a", epoch] = record.held

    async def warmed(self) -> None:
        """What is prepared follows the stream."""
        async with asyncio.timeout(PATIENCE_S):
            await self.obey()
            while not all(("a", it.name) in self.here for it in self.decided.sets["a"].live):
                await asyncio.sleep(0.001)
                await self.obey()

    @property
    def here(self) -> set[tuple[str, str]]:
        """The versions that follow, and the one that serves."""
        assert self.pipeline is not None
        return self.following() | {one.live.name for one in self.pipeline.paths}

    def store(self, count: int) -> Bundle:
        """The only bundle of 1.0.0 where the first `count` exclusions are left out."""
        assert self.recovery is not None
        number = [0, *(one.number for one in self.exclusions)][count]
        (bundle,) = self.stream.version("a", variant(V1, number)).plan.bundles
        return self.recovery.replay.stores[bundle.digest]

    def rows(self, count: int, *, from_ms: int | None = None) -> list[tuple[Any, ...]]:
        """What that bundle holds, brought to disk, without the names of columns."""
        assert self.pipeline is not None
        self.pipeline.flush()
        store = self.store(count)
        assert store.meta is not None
        assert store.meta.next_offset == self.position
        start = from_ms if from_ms is not None else -(1 << 62)
        return store.scan(start, 1 << 62).rows()


def exclusion(number: int, where: str | None = None, *ranges: tuple[int, int, int]) -> Exclusion:
    """Numbered; ranges are partition, first offset, and the one after the last."""
    offsets = tuple(OffsetRange(partition=p, start=start, end=end) for p, start, end in ranges)
    return Exclusion(number=number, where=where, offsets=offsets)
