"""When one partition's owner takes checkpoints, and of what.

Files are set aside right after a flush was taken in, and before the next one is: hard links, so
that takes milliseconds, beside batches. All else happens in the background, too (see snapshots.py).

1. In each period once: after the next flush, or where nothing comes, at the next look.
2. As decided: at the fence of a switch, or when somebody asks for one. These are kept.
3. On a clean stop.

What is flushed is written beside the batches (see flushing.py); so a checkpoint is of the offset
at which its flush began.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from streams.errors import RewindowError
from streams.runtime.snapshots import Stored, Upload
from streams.state.checkpoint import Facts
from streams.state.overview import VERSIONS_NOTE

if TYPE_CHECKING:
    from streams.datapath.pipeline import Pipeline
    from streams.runtime.flushing import Then, Use
    from streams.runtime.snapshots import Partition, Snapshots
    from streams.state.bundle import Bundle
    from streams.state.checkpoint import Aside

PERIODIC = "periodic"
STOPPED = "clean stop"

log = logging.getLogger(__name__)


class Taking:
    """Takes checkpoints for as long as one claim; every method needs the owner's turn.

    `flush` begins to bring all of the pipeline's bundles to disk as they are at the committed
    position, and makes use of them when they are there (see flushing.py); `stores` are the open
    ones by digest, `schema_ids` what the records were written with that were read here.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        partition: Partition,
        *,
        flush: Callable[[Then], Awaitable[None]],
        pipeline: Pipeline,
        stores: Mapping[str, Bundle],
        schema_ids: Callable[[], Collection[int]],
        instance: str,
    ) -> None:
        self._snapshots = snapshots
        self._partition = partition
        self._flush = flush
        self._pipeline = pipeline
        self._stores = stores
        self._schema_ids = schema_ids
        self._instance = instance
        self._slot = snapshots.slot
        self._taken_at: int | None = None

    @property
    def due(self) -> bool:
        """Whether a period has begun in which there is something new to take."""
        return (
            self._snapshots.slot != self._slot
            and self._pipeline.position != self._taken_at
            and not self._snapshots.busy(self._partition)
        )

    async def flush(self) -> None:
        """Begin a flush, and take what is due when it is made."""
        await self._flush(partial(self._flushed, self._pipeline.position))

    def _flushed(self, position: int) -> Use | None:
        if not self.due:
            return None
        self._slot, checkpoint = self._snapshots.slot, self._snapshots.slot_id
        return self._take(Facts(reason=PERIODIC, checkpoint=checkpoint), position)

    async def look(self) -> None:
        """Nothing comes: take what is due all the same."""
        if self.due:
            await self.flush()

    async def parting(self) -> None:
        """The worker stops: begin a flush, and take what is new when it is made."""
        await self._flush(partial(self._parted, self._pipeline.position))

    def _parted(self, position: int) -> Use | None:
        if position == self._taken_at:
            return None
        return self._take(Facts(reason=STOPPED, checkpoint=self._snapshots.parting_id), position)

    async def asked(
        self,
        facts: Facts,
        digests: Collection[str],
        *,
        keeps_before: bool,
        on_end: Callable[[Stored], None],
    ) -> None:
        """Take some bundles as they are now, at the committed position."""
        await self._flush(
            partial(
                self._take,
                facts,
                self._pipeline.position,
                digests=digests,
                keeps_before=keeps_before,
                on_end=on_end,
            )
        )

    def _users(self, digest: str) -> str:
        """The versions that read a bundle, with blanks between."""
        views = (*(path.live for path in self._pipeline.paths), *self._pipeline.followers)
        return " ".join(
            sorted(
                f"{view.view.feature_set}@{view.view.version}"
                for view in views
                if any(state.bundle.digest == digest for state in view.bundles)
            )
        )

    def _take(
        self,
        facts: Facts,
        position: int,
        *,
        digests: Collection[str] | None = None,
        keeps_before: bool = False,
        on_end: Callable[[Stored], None] = lambda _: None,
    ) -> Use:
        """Take what is on disk, which was flushed at `position`; what has joined since may
        have nothing there yet."""
        flushed = [one.bundle.digest for one in self._pipeline.bundles if one.stored_at is not None]
        found = {
            digest: self._stores[digest]
            for digest in flushed
            if digests is None or digest in digests
        }
        if digests is None:
            self._taken_at = position

        def ended(stored: Stored) -> None:
            if stored.error and digests is None and self._taken_at == position:
                self._taken_at = None
            on_end(stored)

        upload = Upload(
            partition=self._partition,
            asides=(),
            facts=replace(
                facts,
                schema_ids=tuple(sorted(self._schema_ids())),
                notes={"instance": self._instance, **facts.notes},
            ),
            notes={digest: {VERSIONS_NOTE: self._users(digest)} for digest in found},
            keeps_before=keeps_before,
            on_end=ended,
        )
        return self._submit(upload, found)

    async def _submit(self, upload: Upload, stores: Mapping[str, Bundle]) -> None:
        """Set the files of these bundles, by digest, aside to be uploaded."""
        checkpoint = upload.facts.checkpoint
        assert checkpoint is not None
        set_aside, of = self._snapshots.checkpoints.set_aside, self._snapshots.bundle_id

        def all_aside() -> list[Aside]:
            staging = self._snapshots.staging
            return [
                set_aside(store, of(self._partition, digest), staging)
                for digest, store in stores.items()
            ]

        try:
            asides = await asyncio.to_thread(all_aside)
        except RewindowError as error:
            # The data path needs no checkpoint; what keeps it from one may well end it later.
            log.warning("checkpoint %s of %s/%d: %s", checkpoint, *self._partition, error)
            self._snapshots.note(checkpoint, str(error))
            upload.on_end(Stored(checkpoint=checkpoint, error=str(error)))
        else:
            self._snapshots.submit(replace(upload, asides=asides))
