"""Checkpoints of a worker: one archive for all its partitions, and uploads in the background.

The data path only sets files aside. What the archive does then, or fails to do, is logged and
shown, and never ends the data path. Uploads of one partition go one after the other, in the
order in which they were asked for; so two of one bundle never run at the same time here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from streams.errors import RefusedError, RewindowError
from streams.names import staging_dir
from streams.settings import reveal
from streams.state.archive import open_archive
from streams.state.checkpoint import Aside, Checkpoints, Facts, discard
from streams.state.manifest import BundleId, Manifest, new_id
from streams.state.prune import prune
from streams.state.restore import newest_whole

if TYPE_CHECKING:
    from pathlib import Path

    from streams.clock import Clock
    from streams.runtime.crashpoints import CrashPoints
    from streams.runtime.stats import SnapshotStats
    from streams.settings import Settings

AT_ONCE = 2
RETRY_FOR_S = 20.0
"""How long an archive that does not answer is tried again before an upload is given up."""

_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}\Z")

log = logging.getLogger(__name__)

Partition = tuple[str, int]
"""Stream and partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of one occasion in one partition.

    `kept` are the checkpoints from before it that were pinned; `error` says why it could not be
    stored, and is empty if it was.
    """

    checkpoint: str
    kept: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What was set aside in one partition for one occasion.

    `notes` are by bundle, added to those of `facts`. `keeps_before`: the newest whole checkpoint
    from before it is pinned, too.
    """

    partition: Partition
    asides: Sequence[Aside]
    facts: Facts
    notes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    keeps_before: bool = False
    on_end: Callable[[Stored], None] = lambda _: None


class Snapshots:
    """The archive of a worker's app, and what is on its way there.

    `staging` is a directory of this worker's on the state's disk. Raises InvalidInputError for
    settings that can't be right; contacts nothing yet.
    """

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        *,
        clock: Clock,
        stats: SnapshotStats,
        crash: CrashPoints,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        wanted = settings.needed_snapshots()
        self.every_ms = wanted.every_ms
        self.staging = staging_dir(state_dir)
        self.checkpoints = checkpoints or opened_checkpoints(
            settings, clock, step=lambda step: crash.reach(f"archive_{step}")
        )
        self.stats = stats
        self._app = settings.app
        self._keep = wanted.keep
        self._clock = clock
        self._room = asyncio.Semaphore(AT_ONCE)
        self._last: dict[Partition, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._parting: str | None = None
        discard(self.staging)

    # -- occasions ------------------------------------------------------------------------------

    @property
    def slot(self) -> int:
        """The number of the period that it is now; all workers agree on it."""
        return self._clock.now_ms() // self.every_ms

    @property
    def slot_id(self) -> str:
        """The id of what is taken in this period, by any worker."""
        token = hashlib.sha256(self._app.encode()).hexdigest()[:8]
        return new_id(self.slot * self.every_ms, token)

    @property
    def parting_id(self) -> str:
        """The id of what is taken when this worker stops."""
        if self._parting is None:
            self._parting = self.checkpoints.new_id()
        return self._parting

    def bundle_id(self, partition: Partition, digest: str) -> BundleId:
        stream, number = partition
        return BundleId(app=self._app, stream=stream, partition=number, bundle=digest)

    # -- uploads --------------------------------------------------------------------------------

    def busy(self, partition: Partition) -> bool:
        """Whether something of a partition is on its way."""
        return partition in self._last

    def submit(self, upload: Upload) -> None:
        """Store what was set aside, in the background, after what was submitted before it."""
        before = self._last.get(upload.partition)
        task = asyncio.create_task(self._store(upload, before), name=f"upload {upload.partition}")
        self._last[upload.partition] = task
        self._tasks.add(task)
        self.stats.pending += 1
        task.add_done_callback(partial(self._ended, upload))

    async def finish(self, seconds: float) -> None:
        """Let uploads end, and give up those that take longer."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        late = set(self._tasks)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d checkpoints were not stored before the worker stopped", len(late))
            await asyncio.wait(late)
        discard(self.staging)

    def _ended(self, upload: Upload, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.stats.pending -= 1
        if self._last.get(upload.partition) is task:
            del self._last[upload.partition]

    async def _store(self, upload: Upload, before: asyncio.Task[None] | None) -> None:
        checkpoint = upload.facts.checkpoint
        assert checkpoint is not None
        if before is not None:
            await asyncio.wait([before])
        kept: tuple[str, ...] = ()
        error = ""
        async with self._room:
            try:
                if upload.keeps_before:
                    kept = await asyncio.to_thread(self._keep_newest, upload)
                for aside in await asyncio.to_thread(self._not_there, upload):
                    notes = {**upload.facts.notes, **upload.notes.get(aside.of.bundle, {})}
                    facts = replace(upload.facts, notes=notes)
                    await self.checkpoints.upload_in_background(aside, facts)
                await asyncio.to_thread(self._prune, upload.asides)
            except RewindowError as failure:
                error = str(failure)
                log.warning("checkpoint %s of %s/%d: %s", checkpoint, *upload.partition, failure)
            except Exception as failure:
                error = repr(failure)
                log.exception("checkpoint %s of %s/%d failed", checkpoint, *upload.partition)
            finally:
                for aside in upload.asides:
                    discard(aside.path)
        self.note(checkpoint, error)
        upload.on_end(Stored(checkpoint=checkpoint, kept=kept, error=error))

    def note(self, checkpoint: str, error: str = "") -> None:
        """Show what became of a checkpoint."""
        if error:
            self.stats.error = error
            return
        self.stats.error = ""
        self.stats.taken += 1
        self.stats.last_id = checkpoint
        self.stats.last_ms = self._clock.now_ms()

    def _not_there(self, upload: Upload) -> Sequence[Aside]:
        """What is still to be stored; blocking. The rest is kept as it is.

        After a crash the same is asked for again, and so it is for sets that share a bundle.
        """
        facts, todo = upload.facts, []
        assert facts.checkpoint is not None
        for aside in upload.asides:
            there = facts.pin is not None and isinstance(
                self.checkpoints.read(aside.of, facts.checkpoint), Manifest
            )
            if there and facts.pin is not None:
                self.checkpoints.keep(facts.checkpoint, facts.pin, facts.reason, only=aside.of)
            else:
                todo.append(aside)
        return todo

    def _keep_newest(self, upload: Upload) -> tuple[str, ...]:
        """Pin the newest whole checkpoint of each bundle; blocking."""
        assert upload.facts.pin is not None
        kept = set()
        for aside in upload.asides:
            found = newest_whole(self.checkpoints, aside.of).manifest
            if found is None:
                continue
            reason = f"before {upload.facts.reason}"
            try:
                self.checkpoints.keep(found.checkpoint, upload.facts.pin, reason, only=aside.of)
            except RefusedError as error:  # a prune was faster
                log.info("%s", error)
            else:
                kept.add(found.checkpoint)
        return tuple(sorted(kept))

    def _prune(self, asides: Sequence[Aside]) -> None:
        """Old checkpoints of these bundles go; blocking. The next one tries again."""
        try:
            for aside in asides:
                prune(self.checkpoints, keep=self._keep, only=aside.of)
        except RewindowError as error:
            log.warning("old checkpoints stay for now: %s", error)


def new_checkpoint(now_ms: int, request_id: str) -> str:
    """The id of the checkpoint that a request asks for."""
    return new_id(now_ms, hashlib.sha256(request_id.encode()).hexdigest()[:8])


def pin_name(request_id: str) -> str:
    """The name of the pin by which a request keeps its checkpoints: its id where that can be."""
    if _PIN.match(request_id):
        return request_id
    return hashlib.sha256(request_id.encode()).hexdigest()[:32]


def opened_checkpoints(
    settings: Settings,
    clock: Clock,
    *,
    retry_for_s: float = RETRY_FOR_S,
    step: Callable[[str], None] = lambda _: None,
) -> Checkpoints:
    """The app's checkpoints where the settings say. Contacts nothing yet.

    Raises InvalidInputError for settings that can't be right, or where there are to be none.
    """
    snapshots = settings.needed_snapshots()
    archive = open_archive(
        snapshots.url, reveal(snapshots.options), retry_for_s=retry_for_s, clock=clock
    )
    return Checkpoints(archive, settings.app, clock=clock, step=step)
