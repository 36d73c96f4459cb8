"""Coordinators that end at a point as a killed process does: at once, with nothing put right."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from streams.runtime.crashpoints import CrashPoints

if TYPE_CHECKING:
    from streams.runtime.control.coordination import Coordination

PATIENCE_S = 20.0


class Killed(BaseException):
    """The process ends here, as far as the coordinator can tell."""


class Deadly(CrashPoints):
    """Kills the coordinator when it gets to a point for the `count`-th time, and once only."""

    def __init__(self, name: str, count: int = 1) -> None:
        super().__init__({})
        self._name = name
        self._left = count

    def reach(self, name: str) -> None:
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                raise Killed(name)


async def killed(coordination: Coordination) -> None:
    """Wait until it was killed, as `Deadly` does it."""
    task = coordination._task
    assert task is not None
    await asyncio.wait({task}, timeout=PATIENCE_S)
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Killed)
