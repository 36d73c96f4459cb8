"""Blocking work in threads, which a cancelled task can't take back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.runtime.context import Context

T = TypeVar("T")


class Blocking:
    """Runs one piece of work after the other for one task, and can tell when it has ended."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._busy: asyncio.Future[Any] | None = None

    async def __call__(self, work: Callable[[], T]) -> T:
        """The result of `work`. It goes on to its end even where this is cancelled."""
        self._busy = asyncio.ensure_future(self._context.run(work))
        found: T = await asyncio.shield(self._busy)
        return found

    async def ended(self) -> None:
        """Wait until nothing runs; before that, what it works on must not be closed."""
        if self._busy is not None:
            await asyncio.wait([self._busy])
