"""Many processes in one thread, with time of their own: an event loop for each, stepped by one
scheduler that draws who is next from a seeded generator.

Time stands still while anybody can go on, and jumps to the next timer when nobody can. So a run
depends on its seed alone, takes no longer than what is computed, and may be stopped anywhere: a
process that is dead or frozen is not stepped any more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context
    from random import Random

THREAD_S = (0.0, 0.0, 0.0, 0.001, 0.02)
"""How long work in a thread may take."""


AT_ONCE = (1, 2, 3, 4, 5)
"""How many steps a process may take before another one has its turn."""


class KilledError(SystemExit):
    """The process is gone. Nothing that waits for ordinary errors catches it."""


class SimTask(asyncio.Task[Any]):
    """A task that sets keep at the same place in every run."""

    numbers = itertools.count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(SimTask.numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class Process:
    """One process, which is an event loop as far as asyncio needs one, and whether it lives.

    `host` is what the fakes in it are asked for.
    """

    def __init__(self, scheduler: Scheduler, name: str, host: Any) -> None:
        self.name = name
        self.host = host
        self.dead = False
        self.frozen = False
        self.errors: list[str] = []
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self._scheduler = scheduler
        scheduler.processes.append(self)

    @property
    def able(self) -> bool:
        return not self.dead and not self.frozen

    @staticmethod
    def current() -> Process:
        """The process that runs now."""
        found: Any = asyncio.get_running_loop()
        assert isinstance(found, Process)
        return found

    def kill(self) -> None:
        """It does nothing any more; raises in it if it is the one that runs."""
        self.dead = True
        if self._scheduler.running is self:
            raise KilledError

    def live(self) -> None:
        """Raise if this is what is left of a process that was killed."""
        if self.dead:
            raise KilledError

    def step(self) -> None:
        """Run what is next."""
        handle = self.ready.popleft()
        if handle.cancelled():
            return
        asyncio._set_running_loop(cast("Any", self))
        try:
            handle._run()
        except KilledError:
            assert self.dead
        finally:
            asyncio._set_running_loop(None)

    def clear(self) -> None:
        """End what is left here, or the garbage collector does so in the middle of another run."""
        self.dead = True
        for task in self.tasks:
            if not task.done():
                coro = task.get_coro()
                for _ in range(20):
                    try:
                        coro.close()
                    except BaseException:
                        continue
                    break
        self.tasks.clear()
        self.ready.clear()

    # -- what asyncio wants of a loop -----------------------------------------------------------

    def time(self) -> float:
        return self._scheduler.now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, cast("Any", self), context)
        if not self.dead:
            self.ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, cast("Any", self), context)
        self._scheduler.at(when, self, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast("Any", self))

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        task = SimTask(coro, loop=self, name=name or "task", context=context)
        self.tasks.append(task)
        return task

    def run_in_executor(
        self, _executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As in a thread: it runs to its end, whatever becomes of who asked for it."""
        found = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except KilledError:
                raise
            except StopIteration as error:
                raise AssertionError("a generator ended in a thread") from error
            except BaseException as error:
                if not found.cancelled():
                    found.set_exception(error)
            else:
                if not found.cancelled():
                    found.set_result(result)

        delay_s = self._scheduler.rng.choice(THREAD_S)
        if delay_s:
            self.call_later(delay_s, work)
        else:
            self.call_soon(work)
        return found

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, KilledError):
            self.errors.append(f"{self.name}: {context.get('message')}: {error!r}")


class Scheduler:
    """Steps all processes, one handle at a time."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.now_s = 0.0
        self.steps = 0
        self.processes: list[Process] = []
        self.running: Process | None = None
        self._timers: list[tuple[float, int, Process, asyncio.Handle]] = []
        self._numbers = itertools.count()

    def at(self, when_s: float, process: Process, handle: asyncio.Handle) -> None:
        """Let a process do something at a time."""
        if not process.dead:
            heappush(self._timers, (when_s, next(self._numbers), process, handle))

    def run(self, main: Process, coro: Coroutine[Any, Any, None], *, limit_s: float) -> bool:
        """Run until `coro` in `main` is done; False if it is not by `limit_s`.

        Raises what it raises.
        """
        task = main.create_task(coro)
        while not task.done():
            able = [one for one in self.processes if one.ready and not (one.dead or one.frozen)]
            if able:
                # A process that runs goes on for a moment, as threads do.
                running = self.running = able[0] if len(able) == 1 else self.rng.choice(able)
                for _ in range(self.rng.choice(AT_ONCE)):
                    if not running.ready or running.dead or running.frozen:
                        break
                    self.steps += 1
                    running.step()
                self.running = None
            elif not self._advance(limit_s):
                return False
        task.result()
        return True

    def _advance(self, limit_s: float) -> bool:
        """To the next timer, and all that are due then."""
        timers = self._timers
        while timers and (timers[0][3].cancelled() or timers[0][2].dead):
            heappop(timers)
        if not timers or timers[0][0] > limit_s:
            return False
        self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            _, _, process, handle = heappop(timers)
            if not process.dead and not handle.cancelled():
                process.ready.append(handle)
        return True
