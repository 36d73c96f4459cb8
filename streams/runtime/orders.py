"""What partition owners obey: what is published and what is decided, as far as both are known.

A decision counts from the moment on when the definitions that it speaks of are in the book.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from streams.definitions.store import read_definitions
from streams.errors import UnreachableError
from streams.runtime.control.acks import ack_records

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.control.codec import Kind
    from streams.control.records import Ack, Held, RequestRecord, SetRecord
    from streams.datapath.progress import Progress
    from streams.runtime.control.routes import Routes
    from streams.runtime.producer import Outgoing
    from streams.runtime.streams import Stream, StreamBook

PAUSE_S = 1.0

log = logging.getLogger(__name__)


class Obedient(Protocol):
    """An owner, as far as orders go."""

    async def obey(self) -> None: ...


class Orders:
    """For all owners of a worker. It is a `roster.Decided`."""

    def __init__(
        self,
        settings: Settings,
        book: StreamBook,
        routes: Routes,
        ids: Mapping[Kind, int],
        *,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`ids` are those of `register_schemas`; `on_failure` is told of what ends the worker."""
        self.next_offset = 0
        self._settings = settings
        self._book = book
        self._routes = routes
        self._ids = ids
        self._on_failure = on_failure
        self._sets: Mapping[str, SetRecord] = {}
        self._asked: Sequence[RequestRecord] = ()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._owners: Callable[[], Iterable[Obedient]] = tuple
        self._on_broken: Callable[[Obedient, Exception], None] | None = None

    def connect(
        self,
        owners: Callable[[], Iterable[Obedient]],
        on_broken: Callable[[Obedient, Exception], None],
    ) -> None:
        """`owners` are told of news; `on_broken` hears of one that could not obey."""
        self._owners = owners
        self._on_broken = on_broken

    # -- what is known --------------------------------------------------------------------------

    def stream(self, topic: str) -> Stream:
        """The stream as it is published by now."""
        return self._book.stream(topic)

    def route(self, feature_set: str) -> SetRecord | None:
        """What is decided about a set; None: nothing yet, its first version serves."""
        return self._sets.get(feature_set)

    def held_at(self, feature_set: str, epoch: int) -> Held | None:
        """What holds by an epoch; None if nothing was decided with that number."""
        return self._routes.held_at(feature_set, epoch)

    def checkpoints_asked(self) -> Sequence[RequestRecord]:
        """The requests under way that ask owners for a checkpoint."""
        return self._asked

    def acks(self, acks: Sequence[Ack]) -> list[Outgoing]:
        """Acks as records of the transaction in which they become true."""
        return ack_records(self._settings.names, self._ids, acks)

    async def reach(self, progress: Progress) -> None:
        """Wait until all that was known when `progress` was committed is known here.

        Raises as `Routes.reach` and `read_definitions`.
        """
        await self._routes.reach(progress.control_offset)
        await self._catch_up(progress.definitions_offset)

    # -- following ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Know what is decided by now, and follow. Raises as `read_definitions`."""
        await self._catch_up()
        self._task = asyncio.create_task(self._follow(), name="orders")

    async def stop(self) -> None:
        """Follow no more, and tell nobody."""
        tasks = [*self._telling] if self._task is None else [self._task, *self._telling]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def tell(self, owner: Obedient) -> None:
        """Let an owner look at what there is to do, at its next batch boundary."""
        task = asyncio.create_task(self._tell(owner))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, owner: Obedient) -> None:
        try:
            await owner.obey()
        except Exception as error:
            if self._on_broken is not None:
                self._on_broken(owner, error)

    async def _follow(self) -> None:
        told = self.next_offset
        while True:
            await self._routes.changed(told)
            try:
                await self._catch_up()
            except UnreachableError as error:
                log.warning("reading definitions again: %s", error)
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception as error:
                self._on_failure(error)
                return
            told = self.next_offset
            for owner in self._owners():
                self.tell(owner)

    async def _catch_up(self, definitions_offset: int = 0) -> None:
        async with self._turn:
            state = self._routes.state
            sets, offset = dict(state.sets), self._routes.next_offset
            asked = [one for one in state.under_way() if one.checkpoint is not None]
            needed = max((one.definitions_offset for one in sets.values()), default=0)
            needed = max(needed, definitions_offset)
            if needed > self._book.definitions_offset:
                read = partial(read_definitions, self._settings, at_least_offset=needed)
                self._book.take(await asyncio.to_thread(read))
            self._book.exclude({name: one.exclusions for name, one in sets.items()})
            self._sets, self._asked, self.next_offset = sets, asked, offset
