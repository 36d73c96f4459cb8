"""What happens in a run: events, publishing, requests, trouble; then calm, until all is done."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from faust.types import TP

from streams.control.codec import Kind, encode
from streams.control.records import Action, Request
from streams.control.requests import request_fields
from streams.control.state import ControlState
from streams.definitions.exclusions import Exclusion
from streams.errors import InvalidInputError
from streams.runtime.control.schemas import topic_of
from streams.runtime.crashpoints import ARCHIVE_POINTS, POINTS
from tests.simulation import catalog
from tests.simulation.check import progress_at
from tests.simulation.faults import CRASH, DECIDED, FAIL, FREEZE, Armed
from tests.simulation.once import decode_control
from tests.simulation.world import FEW_PAIRS

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.definitions.exclusions import Exclude
    from streams.definitions.model import FeatureSet
    from tests.simulation.world import World

LIMIT_S = 400.0
"""Virtual seconds after which a run counts as stuck."""

LOOK_S = 0.5

RARE = ("in_flush", "in_flush", "in_closing", "in_recovery", "in_take_over")
"""Points that few runs get to, for which something is armed more often."""


class Scenario:
    """Directs one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._names = world.settings.names
        self._asked = 0
        self._upcoming: list[Callable[[], None]] = []
        """Requests that are to come one after the other."""
        self._excludes: list[Exclude] = []
        self._state = ControlState()
        self._folded = 0

    def run(self) -> None:
        """To the end, or to where it is stuck."""
        world = self._world
        if not world.scheduler.run(world.main, self._direct(), limit_s=LIMIT_S):
            world.problem(f"stuck: {self._left()}")
        for process in world.scheduler.processes:
            for error in process.errors:
                world.problem(error)

    async def _direct(self) -> None:
        world, rng = self._world, self._rng
        waiting = [one for one in world.sets if one.version != "1.0.0"]
        at_once = [one for one in world.sets if one.version == "1.0.0"]
        if waiting and not rng.randrange(4):
            at_once.append(waiting.pop(0))
        world.publish(*at_once)
        world.assignment = {
            TP(topic, number): "one"
            for topic, count in world.topics.items()
            for number in range(count)
        }
        world.coordinator = "one"
        world.faults.amid_corrections = self._amid_corrections
        world.faults.amid_closing = self._amid_closing
        world.start("one")
        world.give("one")
        await asyncio.gather(self._produce(), self._operate(waiting), self._trouble())
        await self._settle()

    async def _produce(self) -> None:
        world, rng = self._world, self._rng
        for chunk in catalog.chunks(rng, world.partitions, rng.randint(3, 8)):
            await asyncio.sleep(rng.choice((0.0, 0.1, 0.6)))
            if not rng.randrange(12):
                world.send([*chunk[:1]], transaction=False)
            world.send(chunk, transaction=True if not rng.randrange(3) else None)

    async def _operate(self, waiting: list[FeatureSet]) -> None:
        rng = self._rng
        for _ in range(rng.randint(2, 4)):
            await asyncio.sleep(rng.choice((0.0, 0.1, 0.5, 1.0)))
            if waiting and rng.randrange(3):
                one = waiting.pop(0)
                self._world.publish(one)
                if rng.randrange(3):
                    self._ask(Action.ACTIVATE, one.version)
                continue
            self._any_request()
            while self._upcoming:
                self._upcoming.pop(0)()
                await asyncio.sleep(rng.choice((0.2, 1.0, 2.0, 4.0)))
        if waiting:
            self._world.publish(*waiting)

    # -- requests -----------------------------------------------------------------------------

    def _any_request(self) -> None:
        rng = self._rng
        version = rng.choice([one.version for one in self._world.sets if one.name == "a"])
        match rng.randrange(26):
            case 0:
                self._write(rng.choice((b"{", b"", b"\x00\x00\x00\x00\x63x", b'{"request_id": 3}')))
            case 1:
                self._ask(Action.RETIRE, version)
            case 2:
                self._ask(Action.ACTIVATE, version, dry_run=True)
            case 3:
                self._ask(rng.choice((Action.PIN, Action.PIN, Action.UNPIN)), version)
            case 4:
                self._ask(Action.ROLLBACK, version, if_serving=rng.choice(("1.0.0", "2.0.0")))
            case 5 | 6:
                self._ask(Action.ROLLBACK, None, repair=rng.choice((False, True)))
            case 9:
                self._ask(Action.ACTIVATE, version)
                self._ask(Action.CANCEL, None, cancels=f"r{self._asked}")
            case 7 | 8:  # two at once
                self._ask(Action.ACTIVATE, version)
                self._ask(Action.ROLLBACK, rng.choice((None, "1.0.0")))
            case 10 | 11 | 12 | 13:
                self._toggle(rng.choice((None, version)))
            case 14 if rng.randrange(2):
                self._ask(Action.SNAPSHOT, None)
            case 24 | 25:
                self._exclude_among_others(version)
            case 14 | 15:
                self._ask(rng.choice((Action.PIN, Action.PIN, Action.UNPIN)), version)
            case _:
                action = rng.choice((Action.ACTIVATE, Action.ROLLBACK))
                self._ask(action, version, repair=not rng.randrange(3))

    def _toggle(self, target: str | None) -> None:
        rng = self._rng
        enabled = not rng.randrange(5)
        self._ask(
            Action.TOGGLE,
            target,
            feature=rng.choice(("n", "n", "n", "total", "top")),
            enabled=enabled,
            fallback=None if enabled else rng.choice((None, "previous")),
        )

    def _exclude_among_others(self, version: str) -> None:
        """Leave events out of what may be pinned or switched off, and go on without them."""
        rng, coming = self._rng, self._upcoming
        activate = partial(self._ask, Action.ACTIVATE, version, repair=not rng.randrange(3))
        pin = partial(self._ask, Action.PIN, rng.choice(("1.0.0", version)))
        toggle = partial(self._toggle, None)
        exclude = partial(self._exclude, rng.choice((None, None, version)))
        stand_in = partial(
            self._ask, Action.TOGGLE, None, feature="n", enabled=False, fallback="previous"
        )
        before = rng.choice(
            (
                (),
                (),
                (),
                (pin,),
                (activate, pin),
                (toggle,),
                (activate, stand_in),
                (activate, stand_in),
            )
        )
        roll_back = partial(self._ask, Action.ROLLBACK, None, repair=not rng.randrange(3))
        ways = ((), (activate,), (roll_back,), (pin,), (toggle,), (exclude, roll_back))
        after = rng.choice((*[(exclude,)] * 3, *ways))
        coming += [*before, exclude, *after]

    def _exclude(self, target: str | None) -> None:
        """Leave events out, sometimes those of an earlier request."""
        rng, world = self._rng, self._world
        ends = [
            world.broker.end((catalog.SOURCE.topic, number)) for number in range(world.partitions)
        ]
        exclude = catalog.exclude(rng, ends)
        if self._excludes and not rng.randrange(4):
            exclude = rng.choice(self._excludes)
        self._excludes.append(exclude)
        if not rng.randrange(8):
            self._refuse_without(exclude)
        self._ask(Action.ROLLBACK, target, exclude=exclude, dry_run=not rng.randrange(10))
        match rng.randrange(10):
            case 0:
                self._ask(Action.CANCEL, None, cancels=f"r{self._asked}")
            case 1:
                self._ask(Action.ACTIVATE, rng.choice(("1.0.0", "2.0.0")))
            case _:
                pass

    def _refuse_without(self, exclude: Exclude) -> None:
        """The disk has no room for what this set is without these events."""
        route = self._fold().sets.get("a")
        before = () if route is None else route.in_force
        news = Exclusion(number=1 << 30, where=exclude.where, offsets=exclude.offsets)
        sets = tuple(one for one in self._world.sets if one.name == "a")
        with suppress(InvalidInputError):
            found = catalog.digests(sets, (*before, news))
            self._world.faults.refused_bundles |= frozenset().union(*found.values())

    def _ask(self, action: Action, target: str | None, **given: Any) -> None:
        rng, world = self._rng, self._world
        self._asked += 1
        number = self._asked if self._asked == 1 or rng.randrange(12) else self._asked - 1
        deadline_ms = None
        if not rng.randrange(3):
            deadline_ms = world.clock.now_ms() + rng.choice((-5, 20, 150, 500, 30_000))
        request = Request(
            request_id=f"r{number}",
            feature_set="a" if rng.randrange(12) else rng.choice(("b", "unknown")),
            action=action,
            target=target,
            deadline_ms=deadline_ms,
            reason="a reason",
            **given,
        )
        if rng.randrange(3):
            fields = request_fields(request)
            value = json.dumps({k: one for k, one in fields.items() if one is not None}).encode()
        else:
            subject = f"{topic_of(self._names, Kind.REQUEST)}-value"
            held = world.registry.subjects.get(subject)
            if held is None:
                return
            value = encode(request, held[0])
        for _ in range(1 if rng.randrange(5) else 2):  # sent again
            self._write(value)

    def _write(self, value: bytes) -> None:
        offset = self._world.broker.append((self._names.rollback_topic, 0), None, value)
        self._world.note(f"request {offset} {value!r}")

    # -- trouble ------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        rng = self._rng
        for _ in range(rng.choice((0, 1, 2, 2, 3))):
            self._one_trouble()
            await asyncio.sleep(rng.choice((0.0, 0.3, 1.0, 2.5)))

    def _one_trouble(self) -> None:
        rng, world, faults = self._rng, self._world, self._world.faults
        match rng.randrange(24):
            case 0 | 1 | 2 | 3 | 4 | 5:
                self._arm(CRASH)
            case 6 | 7:
                self._arm(FREEZE)
            case 8:
                self._arm(FAIL)
            case 9:
                faults.after_audit[rng.choice(DECIDED)] = self._strike
            case 10:
                self._strike()
            case 11 | 12:
                faults.commits_lost = [
                    *[""] * rng.randrange(5),
                    rng.choice(("request", "answer", "answer")),
                ]
            case 13:
                faults.fetches_failing = rng.randint(1, 3)
            case 14:
                faults.look_ups_failing = rng.randint(1, 3)
            case 15:
                faults.registry_away = True
                world.main.call_later(rng.choice((0.3, 2.0)), self._registry_back)
            case 16:
                world.batches_to_drop = 1
            case 17:
                self._refuse(rng.choice([one for one in world.sets if one.name == "a"]))
            case 18 | 19:
                world.background(world.rebalance())
            case 20:
                world.background(world.restart(rng.choice(list(world.members.values()))))
            case 21 | 22:
                faults.slow[rng.choice(list(world.members))] = rng.choice((0.3, 1.0, 3.0))
                faults.did("slow reader")
            case 23:
                world.main.call_later(rng.choice((0.5, 2.0)), world.damage_checkpoint)

    def _amid_corrections(self, partition: int) -> None:
        """Events of the time that is being corrected come at once, and maybe a crash."""
        rng, world = self._rng, self._world
        if not rng.randrange(3):
            return
        world.faults.did("amid corrections")
        events = catalog.again(rng, list(world.sent.values()), partition, world.partitions)
        world.main.call_later(rng.choice((0.0, 0.0, 0.02, 0.1)), partial(world.send, events))
        if not rng.randrange(2):
            point = rng.choice(("after_commit", "in_batch", "in_correcting", "in_correcting"))
            world.faults.points[point] = Armed(CRASH, rng.choice((1, 1, 2, 3)))

    def _amid_closing(self) -> None:
        """Another version is to take over before the record that closes is applied: it is late."""
        version = self._rng.choice([one.version for one in self._world.sets if one.name == "a"])
        self._world.batches_to_drop = 1
        self._ask(Action.ACTIVATE, version)

    def _registry_back(self) -> None:
        self._world.faults.registry_away = False

    def _arm(self, action: str) -> None:
        points: tuple[str, ...] = (*POINTS, *RARE)
        if self._world.limits.pairs_per_step in FEW_PAIRS:
            points = (*points, *["in_closing"] * 8)
        if self._world.settings.snapshots is not None:
            points = (*points, *ARCHIVE_POINTS, *["archive_file"] * 9)
        point = self._rng.choice(points)
        self._world.faults.points[point] = Armed(action, self._rng.choice((1, 1, 2, 3, 5)))

    def _strike(self) -> None:
        """Kill or freeze one of the workers, whatever it is doing."""
        world, rng = self._world, self._rng
        up = [one.life for one in world.members.values() if one.responds and one.life]
        if not up:
            return
        life = rng.choice(up)
        world.faults.did("struck")
        if rng.randrange(3):
            world.crash(life.process)
        else:
            world.freeze(life.process)

    def _refuse(self, target: FeatureSet) -> None:
        """The disk has no room for what only this version has, the first time that it is warmed."""
        world = self._world
        digests = catalog.digests(tuple(one for one in world.sets if one.name == "a"))
        mine = digests[target.version]
        others = {d for version, some in digests.items() if version != target.version for d in some}
        world.faults.refused_bundles |= mine - others

    # -- the end ------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """No more trouble; everybody is back, and everything is done."""
        world, rng = self._world, self._rng
        world.faults.calm()
        world.batches_to_drop = 0
        while world.mending:
            await asyncio.sleep(LOOK_S)
        world.faults.calm()
        world.send(catalog.last(list(world.sent.values()), world.partitions))
        for name, member in world.members.items():
            if not member.up and (member.lives or name == "one"):
                world.start(name)
                world.give(name)
        looks = 0
        while self._left():
            await asyncio.sleep(LOOK_S)
            looks += 1
            if not looks % 8 and looks < 200 and self._fold().in_flight:
                # A longer window than any before it is whole after a while.
                world.send(catalog.last(list(world.sent.values()), world.partitions))
        lives = [one.life for one in world.members.values() if one.up and one.life]
        rng.shuffle(lives)
        stopping = [one.process.create_task(one.stop()) for one in lives]
        while not all(one.done() for one in stopping):
            await asyncio.sleep(LOOK_S)
        for one in stopping:
            one.result()

    def _left(self) -> list[str]:
        """What is not done yet."""
        world, broker = self._world, self._world.broker
        state = self._fold()
        left = [f"request {one}" for one in (*state.in_flight.values(), *state.checkpointing)]
        if state.requests_offset < broker.end((self._names.rollback_topic, 0)):
            left.append(f"requests from {state.requests_offset} on")
        for number in range(world.partitions):
            at = (catalog.SOURCE.topic, number)
            position, progress = progress_at(world, number)
            if broker.read(at, position, 1)[0]:
                left.append(f"partition {number} from {position} on")
            for name, record in state.sets.items():
                if progress.epochs.get(name, 0) < record.epoch:
                    left.append(f"fence {record.epoch} of {name} in partition {number}")
        return left

    def _fold(self) -> ControlState:
        records, self._folded = self._world.broker.read(
            (self._names.control_topic, 0), self._folded, 10_000
        )
        for record in records:
            self._state.apply(decode_control(record.value or b""))
        return self._state
