"""What goes wrong in a run: armed by the scenario, met by the product on its way."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streams.control.codec import decode_audit
from streams.control.records import Fenced
from streams.runtime.crashpoints import CrashPoints, InjectedError
from tests.simulation.loop import Process
from tests.simulation.once import decode_ack

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.broker import Transaction
    from tests.simulation.world import World

CRASH = "crash"
FREEZE = "freeze"
FAIL = "fail"

WARMING: ContextVar[bool] = ContextVar("warming", default=False)
"""Whether what runs brings a version to the stream: a disk that fails it is no reason to stop."""

DECIDED = ("preparing", "switching")
"""Steps of the audit trail after which somebody may be killed: between prepare and switch, and
between switch and fence."""

OTHERS = (
    "amid corrections",
    "bundle lost",
    "checkpoint damaged",
    "clean stop",
    "disk lost",
    "disk refuses",
    "lost answer",
    "lost batch",
    "lost request",
    "rebalance",
    "restored",
    "restored by another name",
    "slow reader",
    "struck",
    "zombie",
)
"""What else goes wrong, as it is counted."""


@dataclass(slots=True)
class Armed:
    """What happens the `left`-th time that somebody gets to a point."""

    action: str
    left: int


@dataclass
class Faults:
    """The faults of one world. Flags and counters are the scenario's to set."""

    world: World
    points: dict[str, Armed] = field(default_factory=dict)
    after_audit: dict[str, Callable[[], None]] = field(default_factory=dict)
    amid_corrections: Callable[[int], None] | None = None
    """Called with a partition in which corrections have begun."""
    amid_closing: Callable[[], None] | None = None
    """Called where something goes wrong between two transactions of a closing."""
    commits_lost: list[str] = field(default_factory=list)
    """Of the next commits: "request", "answer", or "" for one that is not lost."""
    fetches_failing: int = 0
    look_ups_failing: int = 0
    registry_away: bool = False
    slow: dict[str, float] = field(default_factory=dict)
    """By name of a worker, after how many seconds its consumers bring what is there."""
    refused_bundles: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    """How often something was done at a point: `crash in_flush`."""

    def calm(self) -> None:
        """Nothing goes wrong from now on."""
        self.points.clear()
        self.after_audit.clear()
        self.amid_corrections = self.amid_closing = None
        self.commits_lost.clear()
        self.fetches_failing = self.look_ups_failing = 0
        self.registry_away = False
        self.slow.clear()
        self.refused_bundles.clear()

    def reach(self, point: str) -> None:
        """The process that runs is at a point."""
        process = Process.current()
        process.live()
        armed = self.points.get(point)
        if armed is None:
            return
        armed.left -= 1
        if armed.left > 0:
            return
        del self.points[point]
        self.did(f"{armed.action} {point}")
        if point == "in_closing" and self.amid_closing is not None:
            self.amid_closing()
        match armed.action:
            case "crash":
                self.world.crash(process)
            case "freeze":
                self.world.freeze(process)
            case "fail":
                raise InjectedError(f"asked for at {point}")

    def did(self, what: str) -> None:
        """Note that something went wrong."""
        self.seen[what] += 1
        self.world.note(what)

    def lost_commit(self) -> str:
        """What is lost of the commit that is on its way."""
        if not self.commits_lost:
            return ""
        lost = self.commits_lost.pop(0)
        if lost:
            self.did(f"lost {lost}")
        return lost

    def committed(self, made: Transaction) -> None:
        """A transaction is committed, and nobody knows it yet."""
        names = self.world.settings.names
        if self.amid_corrections is not None:
            for at, offset in made.records:
                begun = self._correcting(at, offset) if at[0] == names.acks_topic else None
                if begun is not None:
                    self.amid_corrections(begun)
        if not self.after_audit or made.transactional_id != names.coordinator_transactional_id:
            return
        for at, offset in made.records:
            if at[0] != names.audit_topic:
                continue
            record = self.world.broker.log(at).entries[offset].record
            assert record is not None
            event = decode_audit(record.value or b"").event.value
            then = self.after_audit.pop(event, None)
            if then is not None:
                self.did(f"after {event}")
                then()

    def _correcting(self, at: tuple[str, int], offset: int) -> int | None:
        """The partition of a fence that has corrections pending, if this is one."""
        record = self.world.broker.log(at).entries[offset].record
        assert record is not None
        try:
            ack = decode_ack(record.value or b"")
        except ValueError:  # what was committed, where that is too long for Kafka
            return None
        begun = isinstance(ack, Fenced) and ack.corrections is None
        return ack.partition if begun else None

    def delay_s(self) -> float:
        """How late the process that runs reads what has come."""
        if not self.slow:
            return 0.0
        member = self.world.member_of(Process.current())
        return 0.0 if member is None else self.slow.get(member.name, 0.0)

    def fetch_fails(self) -> bool:
        if self.fetches_failing > 0:
            self.fetches_failing -= 1
            return True
        return False

    def look_up_fails(self) -> bool:
        if self.look_ups_failing > 0:
            self.look_ups_failing -= 1
            return True
        return False

    def disk_fails(self, bundle: str) -> bool:
        if WARMING.get() and bundle in self.refused_bundles:
            self.refused_bundles.discard(bundle)
            self.did("disk refuses")
            return True
        return False


class SimCrashPoints(CrashPoints):
    """The product's named moments, in a simulation."""

    def __init__(self, faults: Faults) -> None:
        super().__init__({})
        self._faults = faults

    def reach(self, name: str) -> None:
        self._faults.reach(name)
