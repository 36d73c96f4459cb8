"""A stream partition whose worker takes checkpoints, on a clock that tests set."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from streams.runtime.crashpoints import CrashPoints
from streams.runtime.snapshots import Snapshots
from streams.runtime.stats import SnapshotStats
from streams.runtime.taking import Taking
from streams.settings import SnapshotSettings
from streams.state.archive import open_archive
from streams.state.checkpoint import Checkpoints
from streams.state.manifest import Manifest
from tests.checkpoint_world import Clock
from tests.unit.runtime.world import World

if TYPE_CHECKING:
    from streams.runtime.flushing import Then
    from streams.state.objects import Archive

PERIOD_MS = 60_000
PARTITION = ("clicks", 0)


class Rig:
    """A `World`, and the checkpoints of its worker in a directory beside its state."""

    def __init__(self, world: World, base: Path, *, keep: int = 9) -> None:
        self.world = world
        self.base = base
        self.clock = Clock()
        self.stats = SnapshotStats()
        self.archive: Archive = open_archive((base / "archive").as_uri(), clock=self.clock)
        self.snapshots = self.start(keep=keep)

    def start(self, *, keep: int = 9) -> Snapshots:
        """What a worker makes when it starts."""
        wanted = SnapshotSettings(url="file:///not/used", every_ms=PERIOD_MS, keep=keep)
        settings = SimpleNamespace(app="app", needed_snapshots=lambda: wanted)
        self.snapshots = self.world.snapshots = Snapshots(
            cast("Any", settings),
            self.world.state_dir,
            clock=self.clock,
            stats=self.stats,
            crash=CrashPoints({}),
            checkpoints=Checkpoints(self.archive, "app", clock=self.clock),
        )
        return self.snapshots

    def taking(self) -> Taking:
        """What an owner makes for its claim."""
        world = self.world
        assert world.recovery is not None
        assert world.pipeline is not None
        return Taking(
            self.snapshots,
            PARTITION,
            flush=self._flush,
            pipeline=world.pipeline,
            stores=world.recovery.replay.stores,
            schema_ids=lambda: (7, 3),
            instance="one",
        )

    async def take(self) -> list[Manifest]:
        """A checkpoint of all bundles as they are, stored; a period passes."""
        taking = self.taking()
        self.clock.ms += PERIOD_MS
        await taking.look()
        await self.snapshots.finish(60)
        return self.manifests()

    def manifests(self) -> list[Manifest]:
        """All that can be read, oldest first."""
        found = [one for one in self.snapshots.checkpoints.all() if isinstance(one, Manifest)]
        return sorted(found, key=lambda one: one.checkpoint)

    def files(self, manifest: Manifest) -> list[Path]:
        """The SST files of a checkpoint in the archive."""
        return [self.base / "archive" / file.key for file in manifest.files if file.immutable]

    async def lose_the_disk(self) -> None:
        """The worker ends, and its state with it."""
        await self.world.stop(flush=False)
        shutil.rmtree(self.world.state_dir / "clicks")

    async def _flush(self, then: Then) -> None:
        assert self.world.pipeline is not None
        self.world.pipeline.flush()
        if (use := then()) is not None:
            await use
