"""A worker, a producer and an operator at work at once, and changes of version among them."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from examples.flights.demo.commits import Commits
from examples.flights.demo.worker import Worker, command
from streams.errors import DeadlinePassedError, RewindowError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from examples.flights.data import Flight
    from examples.flights.demo.report import Screen
    from examples.flights.demo.rollback.asking import Asked, Operator
    from examples.flights.demo.rollback.producing import Producing
    from examples.flights.demo.site import Site

POLL_S = 0.05
DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A change under load: begun when the worker has done the share `mark` of all flights, and
    over before more than the share `end` is sent."""

    name: str
    title: str
    mark: float
    end: float
    publish: Path | None
    wishes: Mapping[str, object]


class Stage:
    """Everything runs while the `with` block lasts."""

    def __init__(
        self,
        screen: Screen,
        place: Site,
        flown: Sequence[Flight],
        producing: Producing,
        operator: Operator,
    ) -> None:
        self._screen = screen
        self._place = place
        self._flown = flown
        self._producing = producing
        self._operator = operator
        self._commits = Commits(place.client, [place.names.worker_group])
        self._worker = Worker(place.config)
        self._running = ExitStack()

    def __enter__(self) -> Self:
        for one in (self._worker, self._commits, self._producing):
            self._running.enter_context(one)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def play(self, act: Act) -> Asked:
        """Let the worker come to the mark, then change the version while flights come.

        Raises `RewindowError` if the request does not come to its end.
        """
        mark, end = (round(share * len(self._flown)) for share in (act.mark, act.end))
        self._work_up_to(mark, end, f"to_{act.name}", f"The first {act.mark:.0%} of the flights")
        with self._screen.phase(act.name, act.title):
            if act.publish is not None:
                publish(self._place, act.publish)
            asked = self._operator.ask(**act.wishes)
            deadline_s = time.monotonic() + DEADLINE_S
            for _ in self._operator.answers(asked):
                self._check(deadline_s, act.title)
        return asked

    def finish(self) -> None:
        """Produce and work on the rest, and stop the worker in good order."""
        number = len(self._flown)
        self._work_up_to(number, number, "rest", "The rest of the flights")
        with self._screen.phase("stop", "The worker stops"):
            self._worker.stop()

    def _work_up_to(self, mark: int, end: int, name: str, title: str) -> None:
        ends = Counter(flight.partition for flight in self._flown[:mark])
        topic, group = self._place.flights_topic, self._place.names.worker_group
        wanted = {(group, topic, partition): at for partition, at in ends.items()}
        self._producing.go(mark=mark, end=end)
        deadline_s = time.monotonic() + DEADLINE_S
        with self._screen.phase(name, title, total=mark) as so_far:
            while self._producing.sent < mark or not self._commits.reached(wanted):
                self._check(deadline_s, title)
                so_far(self._producing.sent)
                time.sleep(POLL_S)

    def _check(self, deadline_s: float, title: str) -> None:
        """Raises `RewindowError` if the worker has ended, or it takes too long."""
        self._worker.check()
        if time.monotonic() > deadline_s:
            raise DeadlinePassedError(f"not done within {DEADLINE_S:.0f} s: {title}")


def publish(place: Site, *files: Path) -> None:
    """As a user does. Raises `RewindowError` with what the command says."""
    done = subprocess.run(
        command("publish", "--json", "--config", str(place.config), *map(str, files)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RewindowError(f"publishing failed:\n{done.stderr.strip()}")
