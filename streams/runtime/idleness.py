"""Watches a source for idle partitions and for silence, and tells the owners here.

Other workers hold the other partitions: what they have committed, and the watermark in its
metadata, is all that is known of them. Every worker looks for itself and acts on its own
partitions only. A look that fails counts as a source that moves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mode import Service

from streams.datapath.progress import Progress
from streams.definitions.model import Source
from streams.errors import RewindowError
from streams.runtime.context import Context
from streams.runtime.offsets import Committed
from streams.runtime.producer import read_spilled
from streams.windowing.idleness import Idleness, Sight, Verdict

LOOKS_PER_PERIOD = 4
SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

log = logging.getLogger(__name__)


class Owner(Protocol):
    """A partition owned here.

    What `idle` and `silence` are told is told again at each look for as long as it holds; an
    owner does nothing where it knows already.
    """

    @property
    def partition(self) -> int:
        """Number of the source's partition."""
        ...

    @property
    def position(self) -> int:
        """Next offset that is applied and committed."""
        ...

    @property
    def watermark_ms(self) -> int | None:
        """The watermark so far, idleness included."""
        ...

    @property
    def caught_up(self) -> bool:
        """Whether no batch is in hand."""
        ...

    async def idle(self, watermark_ms: int) -> None:
        """Follow this watermark: nothing comes here."""
        ...

    async def silence(self, highest_ms: int) -> None:
        """The whole source is silent; `highest_ms` is its highest event time."""
        ...

    async def commit_position(self, offset: int) -> None:
        """Commit a position: from the one before up to `offset` there are no records."""
        ...


class IdleWatcher(Service):
    """Looks at a source's partitions for one consumer group.

    `owners` gives those owned here. `fetch_position` gives the offset up to which a partition
    has been fetched, transaction markers included, or None where that is not known; it must
    give None while fetched records are on their way to their owner. `watermark_of` reads a
    watermark out of commit metadata. `on_error` is told of an owner that failed; by default
    that is only logged.
    """

    abstract = False

    def __init__(
        self,
        context: Context,
        source: Source,
        *,
        partitions: int,
        group: str,
        owners: Callable[[], Sequence[Owner]],
        fetch_position: Callable[[int], Awaitable[int | None]],
        watermark_of: Callable[[str], int | None] | None = None,
        on_error: Callable[[Owner, Exception], None] | None = None,
    ) -> None:
        super().__init__()
        self._context = context
        self._source = source
        self._partitions = range(partitions)
        self._group = group
        self._owners = owners
        self._fetch_position = fetch_position
        self._watermark_of = watermark_of or _watermark_of
        self._on_error = on_error or _log_error
        close_after_ms = source.close_after_ms
        self._idleness = Idleness(
            idle_after_s=source.idle_after_ms / 1000,
            close_after_s=None if close_after_ms is None else close_after_ms / 1000,
        )
        self.pause_s = pause_s(source)

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.look()
            await self.sleep(self.pause_s)

    async def look(self) -> None:
        """Look once, and tell the owners what it means for them."""
        at = [(self._source.topic, partition) for partition in self._partitions]
        offsets = self._context.offsets
        ends: dict[tuple[str, int], int] = {}
        committed: dict[tuple[str, int], Committed] = {}
        try:
            # Ends first: who is beyond one has been to the end of what there was.
            ends = await self._context.run(lambda: offsets.ends(at))
            committed = await self._context.run(
                lambda: offsets.committed(self._group, at, stable=False)
            )
        except (RewindowError, TimeoutError) as error:
            # An open transaction is enough for that; it is looked at again soon.
            log.info("%s can't be watched for idleness: %s", self._source.topic, error)
        owned = {owner.partition: owner for owner in self._owners()}
        sights = {}
        for topic, partition in at:
            key = (topic, partition)
            owner = owned.get(partition)
            if owner is None:
                sights[partition] = self._seen_from_afar(ends.get(key), committed.get(key))
            else:
                sights[partition] = await self._seen_here(owner, ends.get(key))
        verdict = self._idleness.look(sights, self._context.clock.monotonic_s())
        await self._tell(verdict, owned, sights)

    def _seen_from_afar(self, end: int | None, committed: Committed | None) -> Sight:
        if committed is None:
            return Sight(position=None, end=end, watermark_ms=None)
        try:
            watermark_ms = self._watermark_of(committed.metadata)
        except RewindowError:
            # Its owner says so; for us it is a partition of which nothing is known.
            return Sight(position=None, end=end, watermark_ms=None)
        return Sight(position=committed.offset, end=end, watermark_ms=watermark_ms)

    async def _seen_here(self, owner: Owner, end: int | None) -> Sight:
        if not owner.caught_up:
            return Sight(position=None, end=end, watermark_ms=owner.watermark_ms)
        if end is not None and owner.position < end:
            await self._step_over_markers(owner, end)
        return Sight(position=owner.position, end=end, watermark_ms=owner.watermark_ms)

    async def _step_over_markers(self, owner: Owner, end: int) -> None:
        """Bring a position to the end where only transaction markers are left before it."""
        fetched = await self._fetch_position(owner.partition)
        if fetched is not None and fetched >= end and owner.caught_up:
            await self._guarded(owner, owner.commit_position(fetched))

    async def _tell(
        self, verdict: Verdict, owned: dict[int, Owner], sights: dict[int, Sight]
    ) -> None:
        for partition, owner in owned.items():
            if not owner.caught_up or owner.position != sights[partition].position:
                continue
            watermark_ms = verdict.idle.get(partition)
            known = owner.watermark_ms
            if watermark_ms is not None and (known is None or watermark_ms > known):
                await self._guarded(owner, owner.idle(watermark_ms))
            if verdict.silent_ms is not None:
                await self._guarded(owner, owner.silence(verdict.silent_ms))

    async def _guarded(self, owner: Owner, doing: Awaitable[None]) -> None:
        try:
            await doing
        except Exception as error:
            self._on_error(owner, error)


def pause_s(source: Source) -> float:
    """Seconds between two looks: several within the shortest time that matters."""
    periods = [source.idle_after_ms, source.close_after_ms or source.idle_after_ms]
    wanted = min(periods) / 1000 / LOOKS_PER_PERIOD
    return min(max(wanted, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)


def _watermark_of(metadata: str) -> int | None:
    spilled = read_spilled(metadata)
    if spilled is None:
        return Progress.decode(metadata).watermark_ms
    return int(spilled[1]) if spilled[1] else None


def _log_error(owner: Owner, error: Exception) -> None:
    log.warning("partition %d, while nothing came: %s", owner.partition, error)
