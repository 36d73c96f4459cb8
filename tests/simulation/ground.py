"""What every simulation stands on: a clock, a broker, a registry, what was sent, and the trace."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from tests.simulation import catalog
from tests.simulation.broker import Broker
from tests.simulation.clients import Registry
from tests.simulation.loop import Scheduler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.catalog import Sent

EPOCH_MS = 1_700_000_000_000


class SimClock:
    """The scheduler's time as a `streams.clock.Clock`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def monotonic_s(self) -> float:
        return self._scheduler.now_s

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._scheduler.now_s * 1000)


class Ground:
    """One run's; all that is drawn in it comes from its seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.scheduler = Scheduler(self.rng)
        self.clock = SimClock(self.scheduler)
        self.broker = Broker(self.clock.monotonic_s, self.clock.now_ms)
        self.registry = Registry()
        self.problems: list[str] = []
        self.trace: list[str] = []
        self.sent: dict[tuple[int, int], Sent] = {}
        """Records of the source's topic, by partition and offset."""

    def note(self, text: str) -> None:
        """One line of the trace."""
        running = self.scheduler.running
        name = "-" if running is None else running.name
        self.trace.append(f"{self.scheduler.now_s:.3f} {name} {text}")

    def problem(self, text: str) -> None:
        """Something that must not be."""
        self.note(f"PROBLEM {text}")
        self.problems.append(text)

    def send(self, sent: Sequence[Sent], *, transaction: bool | None = None) -> None:
        """Append records to the source; in a transaction that is committed, or aborted."""
        schema_id = self.registry.subjects[catalog.SOURCE.schema][0]
        made = None
        if transaction is not None:
            epoch = self.broker.init("producer")
            made = self.broker.transaction("producer", epoch)
        for one in sent:
            at = (catalog.SOURCE.topic, one.partition)
            offset = self.broker.append(at, one.key, one.value(schema_id), transaction=made)
            if transaction is not False:
                self.sent[one.partition, offset] = one
        if transaction:
            self.broker.commit("producer", epoch)
        elif transaction is False:
            self.broker.init("producer")
