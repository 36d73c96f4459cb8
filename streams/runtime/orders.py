"""What partition owners obey: what is published and what is decided, as far as both are known.

A decision counts from the moment on when the definitions that it speaks of are in the book.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

from streams.definitions.store import read_definitions
from streams.errors import RewindowError, UnreachableError
from streams.runtime.control.acks import ack_records
from streams.runtime.streams import missing
from streams.runtime.topics import prepare_topics

if TYPE_CHECKING:
    from streams.control.codec import Kind
    from streams.control.records import Ack, RequestRecord
    from streams.control.set_record import Held, SetRecord
    from streams.datapath.progress import Progress
    from streams.runtime.control.routes import Routes
    from streams.runtime.producer import Outgoing
    from streams.runtime.streams import Stream, StreamBook
    from streams.settings import Settings

PAUSE_S = 1.0
TOPICS_EVERY_S = 5.0
"""How often to look for a topic that does not exist yet."""

OnStreams = Callable[[Sequence["Stream"]], Awaitable[None]]

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
        self._warned: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._grown = asyncio.Event()
        """Streams may have been added."""
        self._telling: set[asyncio.Task[None]] = set()
        self._owners: Callable[[], Iterable[Obedient]] = tuple
        self._on_broken: Callable[[Obedient, Exception], None] | None = None
        self._on_streams: OnStreams | None = None

    def connect(
        self,
        owners: Callable[[], Iterable[Obedient]],
        on_broken: Callable[[Obedient, Exception], None],
        on_streams: OnStreams | None = None,
    ) -> None:
        """`owners` are told of news; `on_broken` hears of one that could not obey; `on_streams`
        gets all streams each time when some may have been added."""
        self._owners = owners
        self._on_broken = on_broken
        self._on_streams = on_streams
        self._grown.set()

    # -- what is known --------------------------------------------------------------------------

    def stream(self, topic: str) -> Stream:
        """The stream as it is published by now."""
        return self._book.stream(topic)

    @property
    def definitions_offset(self) -> int:
        """All definitions below it are known here."""
        return self._book.definitions_offset

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
        self._tasks = [
            asyncio.create_task(self._follow(), name="orders"),
            asyncio.create_task(self._add_streams(), name="new streams"),
        ]

    async def stop(self) -> None:
        """Follow no more, and tell nobody."""
        tasks = [*self._tasks, *self._telling]
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
            await self._news(told)
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

    async def _add_streams(self) -> None:
        """Beside all else: a group is joined first, which others must not wait for."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            try:
                if self._on_streams is not None:
                    await self._on_streams(self._book.streams)
            except UnreachableError as error:
                log.warning("adding streams again: %s", error)
                self._grown.set()
                await asyncio.sleep(PAUSE_S)
            except Exception as error:
                self._on_failure(error)
                return

    async def _news(self, told: int) -> None:
        """Wait for a decision, and no longer than a while where a topic may appear."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TOPICS_EVERY_S if self._book.waiting else None):
                await self._routes.changed(told)

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
            if self._book.waiting:
                await self._look_for_topics()
            self._book.exclude({name: one.exclusions for name, one in sets.items()})
            self._sets, self._asked, self.next_offset = sets, asked, offset
            self._grown.set()

    async def _look_for_topics(self) -> None:
        """What new streams wait for. Others go on, whatever becomes of that."""
        prepare = partial(prepare_topics, self._settings, self._book.definitions)
        try:
            self._book.found(await asyncio.to_thread(prepare))
        except RewindowError as error:
            self._warn(f"new streams wait: {error}")
            return
        for stream, source in self._book.waiting.items():
            self._warn(f"stream {stream} waits: {missing(source)}")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message)
