"""What is decided, for those who have to obey: the control topic as a state that is kept new."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.control.set_record import Held, SetRecord
from streams.control.state import ControlState
from streams.errors import RewindowError
from streams.runtime.control.reading import ControlReader
from streams.runtime.control.start import BRING_BACK, unreadable
from streams.runtime.control.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.control.codec import Kind
    from streams.datapath.records import Record
    from streams.runtime.context import Context

PAUSE_S = 1.0

log = logging.getLogger(__name__)


class Routes:
    """Follows the control topic from `start` to `stop`.

    `state` is what it says up to and without `next_offset`, the first offset that is not
    applied yet. `ids` are those of `register_schemas`. `on_failure` is told, once, of what an
    operator has to mend; nothing changes after that.
    """

    def __init__(
        self,
        context: Context,
        ids: Mapping[Kind, int],
        *,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.state = ControlState()
        self.next_offset = 0
        self._context = context
        self._topic = context.names.control_topic
        self._reader = ControlReader(context.schemas, ids)
        self._on_failure = on_failure
        self._tail = Tail(context, {self._topic: 0})
        self._task: asyncio.Task[None] | None = None
        self._held: dict[tuple[str, int], Held] = {}
        self._news = asyncio.Event()

    # -- what owners ask ------------------------------------------------------------------------

    def held_at(self, feature_set: str, epoch: int) -> Held | None:
        """What holds by an epoch; None if nothing was decided with that number."""
        return self._held.get((feature_set, epoch))

    async def reach(self, offset: int) -> None:
        """Wait until all below `offset` is applied.

        Raises `RewindowError` if the topic ends before it, and as `Offsets.ends` does.
        """
        if self.next_offset >= offset:
            return
        at = (self._topic, 0)
        end = (await asyncio.to_thread(self._context.offsets.ends, [at]))[at]
        if end < offset:
            raise RewindowError(
                f"topic {self._topic} ends at offset {end}, but decisions up to {offset} are in "
                f"force: it was deleted or made anew; {BRING_BACK}"
            )
        while self.next_offset < offset:
            await self.changed(self.next_offset)

    async def changed(self, seen: int) -> int:
        """Wait until `next_offset` is beyond `seen`; returns it."""
        while self.next_offset <= seen:
            await self._news.wait()
        return self.next_offset

    # -- following ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read all that is there, and follow from then on.

        Raises aiokafka's errors, and `RewindowError` for a record that can't be read.
        """
        await self._tail.start()
        await self._apply(await self._tail.rest(self._topic))
        self._task = asyncio.create_task(self._follow(), name="routes")

    async def stop(self) -> None:
        """Let go of the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._tail.stop()

    async def _follow(self) -> None:
        while True:
            try:
                await self._apply(await self._tail.more(self._topic))
            except OffsetOutOfRangeError:
                self._on_failure(
                    RewindowError(
                        f"topic {self._topic} no longer holds offset {self.next_offset}: it was "
                        f"deleted or made anew; {BRING_BACK}"
                    )
                )
                return
            except RewindowError as error:
                self._on_failure(error)
                return
            except KafkaError as error:
                log.warning("reading %s again after %r", self._topic, error)
                await asyncio.sleep(PAUSE_S)

    async def _apply(self, records: list[Record]) -> None:
        """A decision's records come together, and are seen together."""
        read = []
        for record in records:
            try:
                read.append((record.offset, await self._reader.control(record.value)))
            except ValueError as error:
                raise RewindowError(unreadable(self._topic, record.offset, error)) from error
        for offset, one in read:
            self.state.apply(one)
            if isinstance(one.body, SetRecord):
                self._held[one.body.feature_set, one.body.epoch] = one.body.held
            self.next_offset = offset + 1
        if read:
            news, self._news = self._news, asyncio.Event()
            news.set()
